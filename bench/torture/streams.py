"""The streams: numbers with all that numbers do in other people's data, and classes made of them.

Unless a stream says otherwise three inputs are standard normal, and the label is a weighted sum of
them with some noise: `_plain`. As classes, the question is whether the number is above `cut`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[np.generic]]  # float64 with NaN where missing, or text

WEIGHTS = np.array([2.0, -1.0, 0.5])
NOISE = 0.3


class Torture(NamedTuple):
    """Hold a stream of n rows.

    Attributes:
        columns: of each input its n values.
        label: f64[n].
        still: whether late rows are drawn as early ones are.
        cut: what tells the two classes apart; None is the median.
    """

    columns: Columns
    label: Floats
    still: bool = True
    cut: float | None = None

    def classes(self) -> NDArray[np.str_]:
        """Return the label as one of two classes."""
        cut = np.median(self.label) if self.cut is None else self.cut
        return np.where(self.label > cut, "over", "under")


def _inputs(n: int, rng: Generator) -> Floats:
    return rng.normal(size=(n, len(WEIGHTS)))


def _named(values: Floats) -> Columns:
    return {f"x{at}": values[:, at] for at in range(values.shape[1])}


def _plain(n: int, rng: Generator) -> tuple[Floats, Floats]:
    inputs = _inputs(n, rng)
    return inputs, inputs @ WEIGHTS + NOISE * rng.normal(size=n)


def constant(n: int, rng: Generator) -> Torture:
    """One label for ever."""
    return Torture(_named(_inputs(n, rng)), np.full(n, 5.0))


def spikes(n: int, rng: Generator) -> Torture:
    """One label in a thousand is 1e9."""
    inputs, label = _plain(n, rng)
    return Torture(_named(inputs), np.where(rng.random(n) < 1e-3, 1e9, label))


def cauchy(n: int, rng: Generator) -> Torture:
    """Noise without a mean."""
    inputs, label = _plain(n, rng)
    return Torture(_named(inputs), label + rng.standard_cauchy(n))


def pareto(n: int, rng: Generator) -> Torture:
    """A tail so heavy that its mean is infinite."""
    inputs, label = _plain(n, rng)
    return Torture(_named(inputs), label + rng.pareto(0.8, n))


def tiny(n: int, rng: Generator) -> Torture:
    """All numbers around 1e-12."""
    inputs, label = _plain(n, rng)
    return Torture(_named(1e-12 * inputs), 1e-12 * label)


def huge(n: int, rng: Generator) -> Torture:
    """All numbers around 1e30."""
    inputs, label = _plain(n, rng)
    return Torture(_named(1e30 * inputs), 1e30 * label)


def mixed_scales(n: int, rng: Generator) -> Torture:
    """Each input of a scale of its own, from 1e-12 to 1e30."""
    inputs, label = _plain(n, rng)
    return Torture(_named(inputs * [1e-12, 1.0, 1e30]), label)


def offset(n: int, rng: Generator) -> Torture:
    """All numbers beside 1e9, as prices in cents, times and coordinates are."""
    inputs, label = _plain(n, rng)
    return Torture(_named(inputs + 1e9), label + 1e9)


def growth(n: int, rng: Generator) -> Torture:
    """A label that grows from 1 to 1e12 by the same share at each row."""
    inputs, label = _plain(n, rng)
    grown = np.exp(np.linspace(0.0, np.log(1e12), n))
    return Torture(_named(inputs), grown * (1.0 + 0.01 * label), still=False)


def walk(n: int, rng: Generator) -> Torture:
    """A random walk, which its inputs know nothing of."""
    return Torture(_named(_inputs(n, rng)), np.cumsum(rng.normal(size=n)), still=False)


def steps(n: int, rng: Generator) -> Torture:
    """A level that jumps far every few hundred rows and keeps still between."""
    level = np.repeat(rng.normal(0.0, 1000.0, n // 300 + 1), 300)[:n]
    return Torture(_named(_inputs(n, rng)), level + 0.1 * rng.normal(size=n))


def mostly_zeros(n: int, rng: Generator) -> Torture:
    """Two in three are 0, the others have a tail of thousands."""
    label = np.where(rng.random(n) < 0.64, 0.0, rng.lognormal(4.0, 2.0, n))
    return Torture(_named(_inputs(n, rng)), label, cut=0.0)


def zeros_then_live(n: int, rng: Generator) -> Torture:
    """Nothing happens in the first half: inputs and labels are 0."""
    inputs, label = _plain(n, rng)
    live = np.arange(n) >= n // 2
    return Torture(_named(inputs * live[:, None]), label * live, still=False, cut=0.0)


def one_then_two(n: int, rng: Generator) -> Torture:
    """Only one label in the first half, then two that depend on the inputs."""
    inputs, label = _plain(n, rng)
    late = np.where(np.arange(n) >= n // 2, label > 0.0, 0.0)
    return Torture(_named(inputs), late, still=False, cut=0.5)


def rare(n: int, rng: Generator) -> Torture:
    """One label in 2,000 is another one."""
    return Torture(_named(_inputs(n, rng)), (rng.random(n) < 5e-4).astype(float), cut=0.5)


def noise(n: int, rng: Generator) -> Torture:
    """Labels that nothing tells of."""
    return Torture(_named(_inputs(n, rng)), rng.normal(size=n))


def few_values(n: int, rng: Generator) -> Torture:
    """Labels of eight values, that nothing tells of."""
    values = np.array([-10.0, -9.0, -3.0, -1.0, 1.0, 2.0, 3.0, 10.0])
    drawn = rng.choice(values, n, p=[0.05, 0.01, 0.01, 0.03, 0.6, 0.2, 0.08, 0.02])
    return Torture(_named(_inputs(n, rng)), drawn, cut=1.0)


def swaps(n: int, rng: Generator) -> Torture:
    """What the inputs mean turns round every 5,000 rows."""
    inputs, label = _plain(n, rng)
    sign = np.where(np.arange(n) // 5000 % 2, -1.0, 1.0)
    return Torture(_named(inputs), sign * label)


def cycles(n: int, rng: Generator) -> Torture:
    """A day of 24 rows, again and again, which no input tells of."""
    label = 10.0 * np.sin(np.arange(n) * 2.0 * np.pi / 24.0) + rng.normal(size=n)
    return Torture(_named(_inputs(n, rng)), label)


def collinear(n: int, rng: Generator) -> Torture:
    """Inputs that are constant, or others over again."""
    inputs, label = _plain(n, rng)
    first = inputs[:, 0]
    more = np.column_stack([inputs, np.full(n, 7.0), 2.0 * first, first + 1e-9, np.zeros(n)])
    return Torture(_named(more), label)


def missing(n: int, rng: Generator) -> Torture:
    """99 of 100 values are missing."""
    inputs, label = _plain(n, rng)
    return Torture(_named(np.where(rng.random(inputs.shape) < 0.99, np.nan, inputs)), label)


def many_categories(n: int, rng: Generator) -> Torture:
    """One column of 100,000 categories, each with a value of its own."""
    value = rng.normal(size=100_000)
    which = np.minimum(rng.zipf(1.3, n) - 1, len(value) - 1)
    label = value[which] + NOISE * rng.normal(size=n)
    return Torture({"c": np.char.add("c", which.astype(str))}, label)


def wide(n: int, rng: Generator) -> Torture:
    """200 inputs, of which three matter."""
    inputs, label = _plain(n, rng)
    return Torture(_named(np.column_stack([inputs, rng.normal(size=(n, 197))])), label)


def come_and_go(n: int, rng: Generator) -> Torture:
    """Each input is there for 1,000 rows, and is gone for the next 1,000."""
    inputs, label = _plain(n, rng)
    there = (np.arange(n)[:, None] // 1000 + np.arange(inputs.shape[1])) % 2 == 0
    return Torture(_named(np.where(there, inputs, np.nan)), label)


def wild_inputs(n: int, rng: Generator) -> Torture:
    """An input of 64-bit ids and one with a Cauchy distribution, beside one that matters."""
    inputs, label = _plain(n, rng)
    ids = rng.integers(1 << 60, 1 << 63, n).astype(np.float64)
    columns = np.column_stack([inputs[:, 0], ids, rng.standard_cauchy(n)])
    return Torture(_named(columns), WEIGHTS[0] * inputs[:, 0] + NOISE * label)


STREAMS: dict[str, Callable[[int, Generator], Torture]] = {
    make.__name__.replace("_", "-"): make
    for make in (
        constant,
        spikes,
        cauchy,
        pareto,
        tiny,
        huge,
        mixed_scales,
        offset,
        growth,
        walk,
        steps,
        mostly_zeros,
        zeros_then_live,
        one_then_two,
        rare,
        noise,
        few_values,
        swaps,
        cycles,
        collinear,
        missing,
        many_categories,
        wide,
        come_and_go,
        wild_inputs,
    )
}


def draw(name: str, rows: int, seed: int = 1) -> Torture:
    """Draw a stream; the same seed gives the same one.

    Raises:
        KeyError: there is none of that name.
    """
    return STREAMS[name](rows, np.random.default_rng(seed))

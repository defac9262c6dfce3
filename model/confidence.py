"""How far one of two learners is ahead of the other: bounds that hold at every moment at once.

A fixed-size test is wrong as soon as somebody looks twice. A confidence sequence is an interval
for each moment such that, with the confidence named, all of them hold: look as often as you like,
and stop when you have seen enough. What is bounded is the mean so far of the gains' expectations,
each given all that came before it: gains may depend on each other, and drift, as those of two
learners on one stream do (Choe & Ramdas 2024, "Comparing sequential forecasters", Operations
Research 72).

All is a function of a few sums, so it is the same in whatever pieces gains come, outside a compiled
loop and inside one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp

CONFIDENCE = 0.95
LEAST = 100  # gains of equal size that weigh as much, before `asymptotic` says anything

_ALPHA = 1 - CONFIDENCE
_TIGHTEST = 500.0  # the sum of squares around which `bounded` is tightest
_TIGHTEST_EVENTS = 1000.0  # the gains around which `asymptotic` is
# what a mixture's scale is divided by to be tightest there (Howard et al. 2021, section 3.5)
_TUNING = 2 * math.log(1 / _ALPHA) + math.log(1 + 2 * math.log(1 / _ALPHA))
_STEPS = 8


class Gains(NamedTuple):
    """Hold what is known of the gains so far: numbers, or arrays of one shape."""

    events: Any = 0
    total: Any = 0.0
    squares: Any = 0.0  # not centred
    cubes: Any = 0.0  # of their sizes


def add(gains: Gains, values: Any) -> Gains:
    """Take gains in, an array of any length of NumPy's or JAX's."""
    return Gains(
        gains.events + values.size,
        gains.total + values.sum(),
        gains.squares + (values**2).sum(),
        gains.cubes + (abs(values) ** 3).sum(),
    )


@jax.jit
def bounded(gains: Gains) -> tuple[Array, Array]:
    """Return the lowest and the highest mean that gains in [-1, 1] allow, f32, within [-1, 1].

    Nothing is assumed but the bounds. For a gain x and each rate r in [0, 1), the product over all
    events of exp(r (x - E x) + (log(1 - r) + r) x^2) is a supermartingale (inequality (4.11) of
    Fan, Grama & Liu 2015, "Exponential inequalities for martingales with applications", Electronic
    Journal of Probability 20, takes x >= -1 and no more). So is a mixture over rates, which by
    Ville's inequality ever exceeds 2 / alpha with a probability of alpha / 2 at most. So for -x.
    That is the empirical-Bernstein sequence of Howard, Ramdas, McAuliffe & Sekhon (2021),
    "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49,
    theorem 4, around the guess that x is 0, with the gamma-exponential mixture of their
    proposition 9: here a sum over a grid of rates, which is a mixture of its own right.

    Of two classifiers the gain is 1 where the other alone errs, -1 where this one alone does: then
    `squares` counts the events on which they disagree, as in McNemar's test.
    """
    events, total, squares, _ = (jnp.asarray(each, jnp.float32) for each in gains)
    width = _crossing(squares)
    return jnp.maximum((total - width) / events, -1.0), jnp.minimum((total + width) / events, 1.0)


@jax.jit
def asymptotic(gains: Gains) -> tuple[Array, Array]:
    """Return the lowest and the highest mean that gains without a bound allow, f32.

    The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024),
    "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics
    52, section 2. It is to a confidence sequence what the normal interval is to an exact one: right
    in the limit of a late first look, if a bit more than two moments of the gains are finite and
    their mean variance neither vanishes nor wanders off. Squares that are not centred take drift of
    the mean for variance, which errs to the safe side.

    A few gains that outweigh all others are no limit yet. So it is from minus to plus infinity
    until squares^3 / cubes^2 is LEAST: that is the number of gains where they are of equal size,
    and 0.4 of it where they are normal. Were they independent, their sum would then be within 0.06
    of a normal distribution, by the bound of Berry and Esseen.
    """
    events, total, squares, cubes = (jnp.asarray(each, jnp.float32) for each in gains)
    early = _TIGHTEST_EVENTS / _TUNING
    known = jnp.maximum(events, 1.0)
    rarity = 0.5 * jnp.log1p(known / early) - math.log(_ALPHA)
    width = jnp.sqrt(2.0 * squares * (1.0 + early / known) * rarity)
    enough = squares / cubes * jnp.sqrt(squares) >= math.sqrt(LEAST)
    width = jnp.where(enough, width, jnp.inf)
    return (total - width) / known, (total + width) / known


def _crossing(squares: Array) -> Array:
    """Find the sum at which the mixture reaches 2 / alpha, by Newton's method from above.

    The logarithm of the mixture is convex and grows, so each step stays on the far side of the
    crossing: to stop early costs width, never confidence.
    """
    rates, heights = jnp.asarray(_RATES), _HEIGHTS + _COSTS * squares[..., None]
    total: Array = (heights / rates).min(-1)  # where one rate alone gets there

    def closer(_: Any, total: Array) -> Array:
        terms = total[..., None] * rates - heights
        stepped: Array = logsumexp(terms, axis=-1) / (jax.nn.softmax(terms) * rates).sum(-1)
        return total - stepped

    found: Array = jax.lax.fori_loop(0, _STEPS, closer, total)
    return found


def _log_weights(rates: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the logarithms of the mixture's weights, which add up to 1.

    1 - r has a gamma distribution of that shape and rate, cut off at 1.
    """
    shape = _TIGHTEST / _TUNING
    density = (shape - 1) * np.log1p(-rates) + shape * rates
    weights = density + np.log(rates)  # rates that lie evenly on a scale of logarithms
    return np.asarray(weights - np.logaddexp.reduce(weights))


_rates = np.geomspace(1e-5, 0.98, 96)
_RATES = _rates.astype(np.float32)
_COSTS = (-np.log1p(-_rates) - _rates).astype(np.float32)  # of a square
_HEIGHTS = (math.log(2 / _ALPHA) - _log_weights(_rates)).astype(np.float32)

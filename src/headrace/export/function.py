"""The whole predictor as one function of JAX: from an event's numbers to what is said of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import jaxpr_as_fun

from headrace.export.signature import ENTITY, LABEL, TIME, inputs
from headrace.model import aggregates, frame, waiting
from headrace.model.batch import Batch
from headrace.model.frame import Frame
from headrace.model.xla import once
from headrace.stream.rows.calendar import TABLES, places
from headrace.stream.rows.numbers import LARGEST
from headrace.stream.rows.units import conversion
from headrace.stream.task import Task
from headrace.stream.task.features import Aggregate, Number

Core = Callable[[Batch], Array]
"""Maps a batch of B rows, in the frame that there is, to what is published, f32[B, P]."""


class Predictor:
    """Say of events, as arrays, what would be published if each came next.

    A call maps the `inputs` of a task, in their order, to its `outputs`. It has to be traced by JAX
    in 64 bits, for a rows' axis of any size or of a symbol's.

    Args:
        core: what knows the state; it is of 32 bits.
        held: what the state counts numbers by.
        classes: how many there are.
        real: the type of numbers; in float32, those far from 0 lose what tells them apart.

    Raises:
        NotImplementedError: there is no class, or the state counts numbers in float64.
    """

    def __init__(
        self, task: Task, core: Core, held: Frame, classes: int, real: str = "float64"
    ) -> None:
        self._task, self._core, self._held, self._classes = task, core, held, classes
        self._real: Any = np.dtype(real)
        if task.spec.classes and not classes:
            raise NotImplementedError("it knows no class yet")
        if real != "float64" and not held.is_plain:
            raise NotImplementedError("its numbers are counted from an origin, in 64 bits")
        self._given = inputs(task)

    def shapes(self, rows: Any) -> list[jax.ShapeDtypeStruct]:
        """Return what the inputs are for so many rows, a number or a symbol."""
        kinds = [self._real if each.dtype == "float64" else each.dtype for each in self._given]
        return [
            jax.ShapeDtypeStruct((rows, *each.shape), kind)  # type: ignore[no-untyped-call]
            for each, kind in zip(self._given, kinds, strict=True)
        ]

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        """Return the outputs."""
        spec, held = self._task.spec, self._held
        rows = {each.name: array for each, array in zip(self._given, arrays, strict=True)}
        published = self._core(self._batch(rows))
        published = jnp.where(jnp.isfinite(published), published, jnp.float32(jnp.nan))
        if not spec.classes:
            said = published.astype(self._real)
            if not held.is_plain:
                said = once(said * held.unit[-1]) + held.origin[-1]  # rounded as numpy does
            return said[:, 0], said[:, 1], said[:, 2]
        chances = published[:, : self._classes]
        chosen = published[:, -1] if spec.decides else jnp.argmax(chances, 1)
        some = chances.max(1) > 0.0
        return jnp.where(some, chosen.astype(jnp.int64), -1), chances

    def _batch(self, rows: dict[str, Array]) -> Batch:
        """Do what normaliser and trainer do to an event."""
        spec = self._task.spec
        count = next(iter(rows.values())).shape[0]
        numbers = self._numeric(rows, count)
        label = rows.get(LABEL, jnp.full(count, jnp.nan, self._real))
        if spec.classes:
            numeric, label = self._internal(numbers), label.astype(jnp.float32)
        else:
            both = self._internal(jnp.concatenate([numbers, label[:, None]], 1))
            numeric, label = both[:, :-1], both[:, -1]
        ids = [
            rows[each.name].reshape(count, int(np.prod(each.shape, dtype=int)))
            for each in self._given
            if each.dtype == "uint32" and each.name != ENTITY
        ]
        parts = aggregates.clock_parts(spec, rows[TIME]) if TIME in rows else []
        clock = jnp.stack(parts, 1).astype(jnp.int32) if parts else jnp.zeros((count, 0), jnp.int32)
        image = next((rows[each.name] for each in self._given if each.dtype == "uint8"), None)
        return Batch(
            numeric=numeric,
            ids=jnp.concatenate([jnp.zeros((count, 0), jnp.uint32), *ids], 1),
            entity=rows.get(ENTITY, jnp.zeros((count, 2), jnp.uint32)),
            label=label,
            image=jnp.zeros((count, *spec.image), jnp.uint8) if image is None else image,
            weight=jnp.ones((count, int(spec.weighted)), jnp.float32),
            time=clock,
            line=jnp.zeros((count, 2 if spec.waiting else 0), jnp.int32),
            loaded=jnp.zeros((count, waiting.words(spec)), jnp.uint32),
            unloaded=jnp.zeros((count, int(spec.loads)), jnp.int32),
        )

    def _numeric(self, rows: dict[str, Array], count: Any) -> Array:
        """Return the numeric columns [n, N]: converted, and NaN where they count as missing."""
        task, found = self._task, list[Array]()
        numbers: dict[str, Number] = task.of_kind(Number)
        given = [rows[each.name] for each in self._given]
        if numbers:
            found.append(self._converted(numbers, jnp.stack(given[: len(numbers)], 1)))
        found += given[len(numbers) :][: len(task.encoded)]
        if TIME in rows:
            for cycle, place in places(task.calendar, rows[TIME]).items():
                found.append(jnp.asarray(TABLES[cycle])[place].astype(self._real))
        names = [*numbers]
        for each in task.of_kind(Aggregate).values():
            at = names.index(each.of) if each.of in numbers else None
            none = jnp.full((count, 1), jnp.nan, self._real)
            found.append(none if at is None else found[0][:, at : at + 1])
        return jnp.concatenate([jnp.zeros((count, 0), self._real), *found], 1)

    def _converted(self, numbers: dict[str, Number], values: Array) -> Array:
        """Do to columns [n, N] what `Normalizer` does to them."""
        every = numbers.values()

        def constants(of: Any) -> Any:
            return np.array([math.nan if each is None else each for each in of], self._real)

        largest = min(LARGEST, float(np.finfo(self._real).max))
        values = jnp.where(jnp.abs(values) > self._real.type(largest), jnp.nan, values)
        codes = ([code for code in each.missing if not isinstance(code, str)] for each in every)
        for missing in zip_longest(*codes):
            values = jnp.where(values == constants(missing), jnp.nan, values)
        if any(each.to for each in every):
            factors, offsets = zip(*(conversion(*each) for each in numbers.items()), strict=True)
            values = values * constants(factors) + constants(offsets)
        for ends, beyond in (
            ([each.min for each in every], jnp.less),
            ([each.max for each in every], jnp.greater),
        ):
            if any(end is not None for end in ends):
                values = jnp.where(beyond(values, constants(ends)), jnp.nan, values)
        return values

    def _internal(self, values: Array) -> Array:
        """Do what `Frame.to_internal` does."""
        held = self._held
        apart = values if held.is_plain else (values - held.origin) / held.unit
        far = self._real.type(frame.FARTHEST)
        return jnp.clip(apart, -far, far).astype(jnp.float32)


def in_32_bits(function: Callable[..., Array], *given: Any) -> Array:
    """Apply a function to arrays, or trees of them, in 32 bits whatever is around."""
    leaves, shape = jax.tree.flatten(given)
    shapes = [
        jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)  # type: ignore[no-untyped-call]
        for leaf in leaves
    ]
    with jax.enable_x64(False):
        closed = jax.make_jaxpr(lambda *held: function(*jax.tree.unflatten(shape, held)))(*shapes)
    (found,) = jaxpr_as_fun(closed)(*leaves)
    array: Array = found
    return array

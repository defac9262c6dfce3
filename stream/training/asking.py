"""What would be predicted of rows if they came next, while nothing changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from headrace.model import aggregates, counter, frame
from headrace.model.batch import Batch, empty_batch
from headrace.model.frame import Frame
from headrace.model.learner import KEPT, Learner
from headrace.model.spec import Spec
from headrace.model.state import State, named
from headrace.stream.events import Prediction
from headrace.stream.rows.classes import Classes
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task
from headrace.stream.training.background import Background, background_of
from headrace.stream.training.learned import Learned, answers

LINES = 256  # rows that the compiled program takes at once


class Frozen(NamedTuple):
    """Hold what a learner would say by: its functions, and what it knows at a moment."""

    task: Task
    learner: Learner
    state: State
    frame: Frame
    classes: Classes
    background: Background | None = None  # if the task lets predictions be explained


def ask(held: Frozen, rows: Rows) -> Learned:
    """Return what would be predicted of each of any rows if it came next.

    Rows know nothing of each other, and nothing changes. The bits are those that the learner would
    publish of the row, if it came without a label of its own. One thing is not foreseen: that late
    labels which are implied (`labels.on_expiry`) would be learned before it.
    """
    spec, count = held.learner.spec, len(rows.id)
    if spec.open_classes:  # of which a horizon's earlier rows may name new ones
        rows = rows._replace(label=held.classes.indices(rows.label, rows.new_class))
    values = framed(spec, rows)
    published = np.empty((count, spec.published), np.float32 if spec.classes else np.float64)
    step, plain = np.empty(count, np.int64), [*range(count)]
    if held.frame.looks_next:
        for at in range(count):
            row = values[at : at + 1]
            if (after := moved(held, row)) is not held:
                plain.remove(at)
                published[[at]], step[[at]] = _said(after, _at(rows, [at]), row)
    for first in range(0, len(plain), LINES):
        places = plain[first : first + LINES]
        lot = rows if len(places) == count else _at(rows, places)
        published[places], step[places] = _said(held, lot, values[places])
    return Learned(rows, published, answers(spec, published), step, [], held.classes)


def moved(held: Frozen, row: NDArray[np.float64]) -> Frozen:
    """Return what a row float64[1, C] is predicted by: in another frame, if it is what moves it."""
    if not held.frame.looks_next:
        return held
    after, spec = held.frame.copy(), held.learner.spec
    [(_, _, change)] = after.stretches(row)
    if not change:
        return held
    return held._replace(state=frame.rebase(spec, held.state, change, after), frame=after)


def _said(
    held: Frozen, rows: Rows, values: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return what is published of up to LINES rows, in words, and the steps that they are told."""
    spec, count = held.learner.spec, len(values)
    batch = batch_of(spec, LINES, held.frame, rows, values, 0, count)
    said, step = held.learner.ask(held.state, batch, np.int32(count))
    published = in_words(spec, np.asarray(said)[:count], held.frame)
    return published, counter.value(np.asarray(step)[:count])


def _at(rows: Rows, places: Sequence[int]) -> Rows:
    """Return the columns that the core reads at some places; the others stay as they are."""
    names = ("numeric", "ids", "entity", "label", "image", "time_ms", "weight")
    return rows._replace(**{name: getattr(rows, name)[[*places]] for name in names})


def framed(spec: Spec, rows: Rows) -> NDArray[np.float64]:
    """Return all that a frame is for, float64[n, C]."""
    return rows.numeric if spec.classes else np.column_stack([rows.numeric, rows.label])


def batch_of(
    spec: Spec,
    capacity: int,
    counted: Frame,
    rows: Rows,
    values: NDArray[np.float64],
    first: int,
    end: int,
) -> Batch:
    """Put some of the rows into a batch, in the frame that there is."""
    count, batch = end - first, empty_batch(spec, capacity)
    numbers = counted.to_internal(values[first:end])
    batch.numeric[:count] = numbers[:, : spec.numeric]
    batch.ids[:count] = rows.ids[first:end]
    batch.entity[:count] = rows.entity[first:end]
    batch.label[:count] = rows.label[first:end] if spec.classes else numbers[:, -1]
    batch.image[:count] = rows.image[first:end]
    batch.time[:count] = aggregates.clock(spec, rows.time_ms[first:end])
    batch.weight[:count] = rows.weight[first:end]
    return batch


def in_words(spec: Spec, published: NDArray[np.float32], counted: Frame) -> NDArray[Any]:
    """Return published numbers in the unit of the labels; NaN = nothing said."""
    published = np.where(np.isfinite(published), published, np.float32(np.nan))
    return published if spec.classes else counted.to_external(published)


def predictions(spec: Spec, learned: Learned, held_out: Sequence[bool]) -> list[Prediction]:
    """Put predictions into the words of the task: class names, or a value with an interval.

    Args:
        held_out: of each row, see `labels.holdout`.
    """
    rows, chances = learned.rows, spec.classes
    lines = learned.published[:, : chances or 3].astype(np.float64).tolist()
    steps, times = learned.step.tolist(), rows.time_ms.tolist()
    common = (rows.id, steps, times, rows.partition, rows.offset, held_out)
    if chances:
        names = [*learned.classes]
        said = [names[int(at)] if at == at else None for at in learned.answer.tolist()]
        found = [
            Prediction(i, name, s, t, p, o, line, None, h)
            for name, line, i, s, t, p, o, h in zip(said, lines, *common, strict=True)
        ]
    else:
        found = [
            Prediction(
                i, _known(value), s, t, p, o, None, None if math.isnan(low) else [low, high], h
            )
            for (value, low, high), i, s, t, p, o, h in zip(lines, *common, strict=True)
        ]
    for at, why in learned.explanations.items():
        found[at] = replace(found[at], explanation=why)
    return found


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def thaw(task: Task, learner: Learner, tensors: Mapping[str, NDArray[Any]]) -> Frozen:
    """Return what a learner would say by, of arrays as `Snapshot.tensors` gives them.

    Args:
        tensors: of the names and shapes of the state; rows that wait for labels may be missing.
    """
    leaves, tree = _layout(learner)
    arrays = [
        tensors[name] if name in tensors else np.zeros(leaf.shape, leaf.dtype)
        for name, leaf in leaves
    ]
    state = jax.device_put(jax.tree.unflatten(tree, arrays))
    counted, classes = Frame(task.spec, tensors["frame"]), Classes(task, tensors["came"])
    background = background_of(task)
    if background is not None:
        background.restore(tensors)
    return Frozen(task, learner, state, counted, classes, background)


@lru_cache(KEPT)
def _layout(learner: Learner) -> tuple[list[tuple[str, Any]], Any]:
    """Return name and shape of each array of a state, and how they are put together."""
    shape = jax.eval_shape(learner.init)
    return named(shape), jax.tree.structure(shape)

"""What an exported predictor takes and gives: arrays with a name each, a line for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.model import aggregates
from headrace.stream.rows.classes import Classes
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task
from headrace.stream.task.features import Category, Encoded, Image, Number, Text

TIME, ENTITY, LABEL = "event.time_ms", "event.entity", "event.label"
RESERVED = (TIME, ENTITY, LABEL, "prediction", "probabilities", "low", "high")


class TensorSpec(NamedTuple):
    """Say what an input or output is: an array [n, *shape]."""

    name: str
    dtype: str  # as numpy names it
    shape: tuple[int, ...]
    meaning: str


def inputs(task: Task) -> list[TensorSpec]:
    """Return the inputs of a task's predictor, in their order: the numbers, what is encoded, ...

    Each has a name of its own: that of a feature is followed by _ where it is taken or RESERVED.
    """
    found = list[TensorSpec]()
    names = {*RESERVED}
    for each in _of_features(task):
        name = each.name
        while name in names:
            name += "_"
        names.add(name)
        found.append(each._replace(name=name))
    return found + _of_events(task)


def _of_features(task: Task) -> list[TensorSpec]:
    spec, found = task.spec, list[TensorSpec]()
    for name, number in task.of_kind(Number).items():
        unit = f", in {number.unit}" if number.unit else ""
        found.append(
            TensorSpec(name, "float64", (), f"the number as events have it{unit}; NaN: none")
        )
    for name, each in task.encoded.items():
        meaning = f"what the encoder {each.encoder} makes of the field"
        alone = isinstance(each, Encoded)  # a text has its hashes, too
        name = name if alone else f"{name}, encoded"
        found.append(TensorSpec(name, "float64", (each.numbers,), meaning))
    for name in task.single:
        found.append(TensorSpec(name, "uint32", (), "the category's hash; 0: none"))
    for names in task.cross:
        found.append(
            TensorSpec(" x ".join(names), "uint32", (), "the hash of the combination; 0: none")
        )
    for name, category in task.of_kind(Category).items():
        if category.tokens:
            meaning = "hashes of its values and n-grams; 0: none"
            found.append(TensorSpec(name, "uint32", (category.tokens,), meaning))
    texts: dict[str, Text] = task.of_kind(Text)
    for name, text in texts.items():
        meaning = "hashes of its words and n-grams; 0: none"
        found.append(TensorSpec(name, "uint32", (text.max_tokens,), meaning))
    for name, most in zip(texts, spec.words, strict=False):
        found.append(
            TensorSpec(f"{name}, words", "uint32", (most,), "hashes of its words in order")
        )
    images: dict[str, Image] = task.of_kind(Image)
    for name, image in images.items():
        if image.encoder:
            continue
        found.append(TensorSpec(name, "uint8", image.shape, "its pixels: rows, columns, channels"))
    return found


def _of_events(task: Task) -> list[TensorSpec]:
    spec, found = task.spec, list[TensorSpec]()
    if task.calendar or aggregates.clock_parts(spec, np.zeros(0, np.int64)):
        found.append(
            TensorSpec(TIME, "int64", (), "the time of the event, milliseconds since 1970")
        )
    if spec.entities:
        found.append(
            TensorSpec(ENTITY, "uint32", (2,), "the hash of the entity, its lower half first")
        )
    if spec.horizon:
        what = "its class, counted from 0" if spec.classes else "the number"
        meaning = f"the label that the event brings, of an earlier one: {what}; NaN: none"
        found.append(TensorSpec(LABEL, "float64", (), meaning))
    return found


def outputs(task: Task, classes: Sequence[str]) -> list[TensorSpec]:
    """Return the outputs of a task's predictor, in their order."""
    if task.spec.classes:
        place = "the class that is predicted, counted from 0; -1: none is known yet"
        chances = "the probability of each class"
        return [
            TensorSpec("prediction", "int64", (), place),
            TensorSpec("probabilities", "float32", (len(classes),), chances),
        ]
    ends = f"holds the number with a probability of {task.model.coverage:g}; NaN: not known yet"
    return [
        TensorSpec(
            "prediction", "float64", (), "the number that is predicted; NaN: none is known yet"
        ),
        TensorSpec("low", "float64", (), f"the lower end of what {ends}"),
        TensorSpec("high", "float64", (), f"the upper end of what {ends}"),
    ]


def arrays(
    task: Task, rows: Rows, numbers: NDArray[np.float64], classes: Classes
) -> dict[str, NDArray[Any]]:
    """Return the inputs for rows.

    Args:
        numbers: those of each row's event as they came, f64[n, N].
        classes: those that there are.
    """
    spec = task.spec
    taken = iter(numbers.T)
    ids, at = rows.ids, 0
    column = numbers.shape[1]
    found: dict[str, NDArray[Any]] = {}
    hashed = spec.single_ids  # ids that stand alone come first
    for each in inputs(task):
        width = int(np.prod(each.shape, dtype=int))
        if each.name == TIME:
            array: NDArray[Any] = rows.time_ms
        elif each.name == ENTITY:
            array = rows.entity
        elif each.name == LABEL:
            array = classes.indices(rows.label, rows.new_class)
        elif each.dtype == "uint8":
            array = rows.image
        elif each.dtype == "uint32":
            array = ids[:, at] if at < hashed else ids[:, at : at + width]
            at += width
        elif each.shape:
            array = rows.numeric[:, column : column + width]
            column += width
        else:
            array = next(taken)
        found[each.name] = np.ascontiguousarray(array, each.dtype)
    return found

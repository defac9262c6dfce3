"""What the values of a target can be predicted as; of those that cannot, what to do instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from headrace.stream.errors import UsageError
from headrace.stream.evaluation import guess
from headrace.stream.formats.misfits import shortened
from headrace.stream.formats.scalars import scalar_text
from headrace.stream.task.field_path import pointer, to_pointer, value_at
from headrace.stream.task.target import MOST_CLASSES as ROOM

MOST_CLASSES = 50  # unless --max-classes says more
SEEN = 10  # times as many different labels are looked at, at most
MOST = 0.9  # share of the labels that make them what they are called

_NUMBER = r"[-+]?(\d+([.,]\d*)*|\.\d+)([eE][-+]?\d+)?"
_AMOUNT = re.compile(rf"[^\d\w.+-]{{0,3}}\s*{_NUMBER}\s*([^\W\d]{{1,8}}|[^\d\w]{{1,3}})?")


def check_single(
    target: str, rows: Iterable[Mapping[str, Any]], numbered: int, noun: str = "row"
) -> None:
    """Make sure that a field holds no list and no object.

    Args:
        numbered: so many of the rows are the first ones of a file, without a gap.
        noun: what they are.

    Raises:
        UsageError: it does; names the row, if its number is known, and what is in it.
    """
    for number, row in enumerate(rows, 1):
        place = f"{noun} {number:,}" if number <= numbered else f"one {noun}"
        value = value_at(row, pointer(target))
        if isinstance(value, list):
            raise UsageError(
                f"{target}: a list, expected a single value; {place} has "
                f"{shortened(value)}: give what is to be read a field of its own"
            )
        if isinstance(value, dict):
            inner = to_pointer((*pointer(target), next(iter(value), "...")))
            raise UsageError(
                f"{target}: an object, expected a single value; {place} has "
                f"{shortened(value)}: name a field in it, such as {inner}"
            )


def check_any(target: str, labels: Sequence[Any]) -> None:
    """Make sure that there are labels.

    Raises:
        UsageError: there are none.
    """
    if not labels:
        raise UsageError(f"{target}: no value in any row that was read; name another --target")


def not_numbers(target: str, labels: Sequence[Any]) -> UsageError:
    """Return what to tell of labels that should be numbers, and are not."""
    what, instead = _described([label for label in labels if not _is_number(label)])
    if "--max-classes" in instead:
        instead = "if each is a class, leave --kind regress out"
    return UsageError(f"{target}: {what}, expected numbers for --kind regress; {instead}")


def class_names(target: str, labels: Sequence[Any], most: int | None) -> list[str]:
    """Return the classes that labels name, sorted.

    Args:
        labels: each different one at least once; there is one at least.
        most: what --max-classes says, if it does.

    Raises:
        UsageError: there are too few or too many.
    """
    names = list(dict.fromkeys(map(scalar_text, labels)))
    room = most or MOST_CLASSES
    if 2 <= len(names) <= room:
        return sorted(names)
    if len(names) == 1:
        number = "if it is a number, say --kind regress; " if _is_number(labels[0]) else ""
        raise UsageError(
            f"{target}: {names[0]!r} alone, expected 2 to {room} classes; {number}if the file is "
            "sorted by it, sort it by time"
        )
    cut = len(names) > SEEN * room
    count = f"{len(names):,}{' or more' if cut else ''}"
    what, instead = _described(labels, cut=cut)
    raise UsageError(
        f"{target}: {count} different labels, {what}, expected 2 to {room} classes; {instead}"
    )


def alike(target: str, names: Sequence[str]) -> list[str]:
    """Return a line if classes differ from each other in case and spaces alone."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(" ".join(name.casefold().split()), []).append(name)
    told = [" and ".join(map(repr, each)) for each in kinds.values() if len(each) > 1]
    if not told:
        return []
    return [f"{target}: {'; '.join(told[:5])}: classes that differ in case and spaces alone"]


def _described(labels: Sequence[Any], *, cut: bool = False) -> tuple[str, str]:
    """Say what labels are, and what to do with a target of such; `cut`: there may be more."""
    count = len(set(map(scalar_text, labels)))
    example = f"such as {shortened(labels[0])}"
    room = f", up to {ROOM:,}" if cut else f" {count}"
    classes = f"if each is a class, say --max-classes{room}" if count <= ROOM else ""
    if all(_is_number(label) for label in labels):
        if all(float(label).is_integer() for label in labels):
            predict = "to predict the number, say --kind regress"
            return f"whole numbers {example}", f"{predict}{f'; {classes}' if classes else ''}"
        return f"numbers {example}", "to predict the number, say --kind regress"
    texts = [label for label in labels if isinstance(label, str)]
    found = guess.feature(labels)
    if found.form.get("kind") == "number":
        written = "durations" if "duration" in found.form else "numbers"
        return f"{written} written as text {example}", "to predict them, say --kind regress"
    if _mostly(texts, labels, lambda text: guess.any_time(text) is not None):
        return f"dates {example}", (
            "a date is no target: name a number that follows from it, such as the hours until "
            "then; the time of events is named by --time"
        )
    if _mostly(texts, labels, lambda text: bool(_AMOUNT.fullmatch(text.strip()))):
        return f"amounts written as text {example}", (
            "to predict the amount write all in one unit, or plain numbers, and say --kind regress"
        )
    if texts and sum(len(text.split()) for text in texts) >= 3 * len(texts):
        return f"free texts {example}", (
            "a text is no target, but it can be a feature; name a column of classes or of numbers"
        )
    if not texts:
        return f"truth values {example}", classes
    if not classes:
        return f"texts {example}", f"there is room for {ROOM:,} classes: name a coarser column"
    return f"texts {example}", classes


def _mostly(texts: Sequence[str], labels: Sequence[Any], is_such: Callable[[str], bool]) -> bool:
    return sum(map(is_such, texts)) >= MOST * len(labels)


def _is_number(label: Any) -> bool:
    return isinstance(label, int | float) and not isinstance(label, bool)

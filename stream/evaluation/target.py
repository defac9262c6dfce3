"""Guess what the target of a task is: classes, or a number and how it is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from headrace.stream.errors import UsageError
from headrace.stream.evaluation import guess
from headrace.stream.formats.scalars import scalar_text

MOST_CLASSES = 50
MOST_WHOLE = 20  # different whole numbers that are taken for classes
Kind = Literal["classify", "regress"]


def target_table(
    target: str,
    values: Sequence[Any],
    labels: Sequence[Any] | None,
    kind: Kind | None,
    decimal: str | None,
) -> tuple[dict[str, Any], list[str]]:
    """Return the table of a target, and lines about how it is read.

    Args:
        values: of the sample.
        labels: distinct ones of more rows, if they are known.

    Raises:
        UsageError: the values cannot be predicted.
    """
    known = [value for value in values if value is not None]
    distinct = known if labels is None else [value for value in labels if value is not None]
    if not known and not distinct:
        raise UsageError(f"{target}: empty in all {len(values):,} rows sampled; expected labels")
    found = guess.feature(known or distinct, decimal)
    numbers = found.form if found.form.get("kind") == "number" else {}
    kind = kind or ("classify" if _is_class(distinct, numbers) else "regress")
    table: dict[str, Any] = {"field": target, "kind": kind}
    if kind == "classify":
        return table | {"classes": _class_names(target, distinct, found)}, []
    if not numbers and any(isinstance(value, str | bool) for value in known):
        example = next(value for value in known if isinstance(value, str | bool))
        why = f" ({found.told})" if found.told else ""
        raise UsageError(
            f"{target}: {scalar_text(example)[:40]!r} is no number, expected numbers{why}; "
            "is it --kind classify?"
        )
    keys = {key: value for key, value in numbers.items() if key != "kind"}
    return table | keys, [f"{target}: {found.told}"] if numbers and found.told else []


def _is_class(labels: Sequence[Any], numbers: dict[str, Any]) -> bool:
    """Take text for classes, and numbers when they are few whole ones."""
    if any(isinstance(label, bool) for label in labels):
        return True
    texts = [label for label in labels if isinstance(label, str)]
    if texts:
        few = len(set(map(scalar_text, labels))) <= MOST_WHOLE
        plain = all(text.strip().lstrip("+-").isdigit() for text in texts)
        return not numbers or (few and plain and "unit" not in numbers)
    distinct = set(labels)
    return len(distinct) <= MOST_WHOLE and all(
        isinstance(v, int) or v.is_integer() for v in distinct
    )


def _class_names(target: str, labels: Sequence[Any], found: guess.Guess) -> list[str]:
    names = list(dict.fromkeys(map(scalar_text, labels)))
    if 2 <= len(names) <= MOST_CLASSES:
        return sorted(names)
    if len(names) == 1:
        raise UsageError(
            f"{target}: {names[0]!r} alone, expected 2 to {MOST_CLASSES} classes; what is always "
            "the same cannot be learned: name another target, or a file with other labels"
        )
    what = f"{len(names):,} different labels"
    if found.form.get("kind") == "text":
        advice = "these are texts, which cannot be predicted: name a column of classes or numbers"
    elif found.form.get("kind") == "number":
        advice = "is it --kind regress?"
    elif found.told.startswith("dates"):
        advice = f"{found.told}, which cannot be predicted: name a column of classes or numbers"
    elif found.told:
        advice = f"{found.told}: name a column of classes or numbers"
    else:
        advice = (
            "group them into fewer, or write the task file with target.max_classes = "
            f"{len(names)} and without classes"
        )
    raise UsageError(f"{target}: {what}, expected 2 to {MOST_CLASSES} classes; {advice}")

"""Guess what the target of a task is: classes, or a number and how it is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.stream.errors import UsageError
from headrace.stream.evaluation import guess
from headrace.stream.evaluation.labels import check_any, class_names, not_numbers
from headrace.stream.evaluation.options import Kind
from headrace.stream.formats.scalars import scalar_text

MOST_WHOLE = 20  # different whole numbers that are taken for classes


def target_table(
    target: str,
    values: Sequence[Any],
    labels: Sequence[Any] | None,
    kind: Kind | None,
    decimal: str | None,
    max_classes: int | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Return the table of a target, and lines about how it is read.

    Args:
        values: of the sample.
        labels: distinct ones of more rows, if they are known.
        max_classes: most classes, if somebody said so.

    Raises:
        UsageError: the values cannot be predicted.
    """
    known = [value for value in values if value is not None]
    distinct = known if labels is None else [value for value in labels if value is not None]
    check_any(target, distinct)
    if max_classes and kind == "regress":
        raise UsageError(f"--max-classes {max_classes}: numbers have no classes; leave it out")
    found = guess.feature(known or distinct, decimal)
    numbers = found.form if found.form.get("kind") == "number" else {}
    kind = kind or ("classify" if max_classes or _is_class(distinct, numbers) else "regress")
    table: dict[str, Any] = {"field": target, "kind": kind}
    if kind == "classify":
        most = {"max_classes": max_classes} if max_classes else {}
        return table | {"classes": class_names(target, distinct, max_classes)} | most, []
    if not numbers and any(isinstance(value, str | bool) for value in known):
        raise not_numbers(target, known)
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

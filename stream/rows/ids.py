"""Ids of events: texts, or whole numbers of 64 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.stream.task.schema import LONGEST_ID


def whole(ids: Sequence[Any]) -> list[Any]:
    """Return ids with whole numbers as integers, however they were written."""
    if float not in set(map(type, ids)):
        return list(ids)
    return [int(i) if isinstance(i, float) and i.is_integer() else i for i in ids]


def no_ids(values: Sequence[Any]) -> list[int]:
    """Return the places of values that are no ids."""
    kinds = set(map(type, values))
    if kinds == {int} and _is_id(min(values)) and _is_id(max(values)):
        return []
    if kinds == {str} and _is_id(min(values, key=len)) and _is_id(max(values, key=len)):
        return []
    return [at for at, value in enumerate(values) if not _is_id(value)]


def _is_id(value: str | float) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= LONGEST_ID
    return isinstance(value, int) and -(2**63) <= value < 2**63

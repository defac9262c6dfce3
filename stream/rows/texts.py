"""Texts of events that are numbers or truth values, as the task file says they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.stream.events import Reject
from headrace.stream.formats.quantities import Read, duration_s, nothing, number_reader, truth
from headrace.stream.formats.scalars import scalar_text
from headrace.stream.task.quantity import Quantity


class Texts:
    """Read the texts among the values of a feature or of the target.

    Args:
        name: of the feature, for refusals.
    """

    def __init__(self, name: str, how: Quantity) -> None:
        self._name = name
        self._is_read = how.reads_texts
        self._missing = frozenset(code.strip() for code in how.missing if isinstance(code, str))
        self._read: Read = nothing
        example = "a number"
        if how.duration:
            self._read, example = duration_s, "a duration such as 1:30:00 or PT1H30M"
        elif how.decimal:
            self._read = number_reader(how.decimal, how.thousands, how.unit)
            group = f"1{how.thousands}234" if how.thousands else "1234"
            example = f"a number such as {group}{how.decimal}5"
            example += f", with or without {how.unit}" if how.unit else ""
        codes = ", ".join(map(repr, sorted(self._missing)[:5]))
        self._expected = example + (f", or {codes} for none" if codes else "")

    def read(self, values: Sequence[Any], bad: dict[int, Reject]) -> Sequence[Any]:
        """Return the values with texts as numbers, None for none; refuse what cannot be read."""
        if not self._is_read or str not in set(map(type, values)):
            return values
        found, read, missing = list(values), self._read, self._missing
        for at, value in enumerate(values):
            if type(value) is str:
                number = found[at] = None if value.strip() in missing else read(value)
                if number is None and value.strip() not in missing:
                    said = f"{self._name}: {value[:40]!r}: expected {self._expected}"
                    bad[at] = Reject("number", said)
        return found


def truths(values: Sequence[Any]) -> list[Any]:
    """Return values with those that are a truth value as such; others stay."""
    found = ((value, None if value is None else truth(scalar_text(value))) for value in values)
    return [value if said is None else said for value, said in found]

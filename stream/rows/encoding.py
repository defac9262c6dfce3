"""What encoders from elsewhere make of a field: columns of numbers, or the reason to refuse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.model.encoders import Encoder
from headrace.model.registry import told
from headrace.stream.events import Reject
from headrace.stream.rows.numbers import LARGEST


def encode(
    name: str, encoder: Encoder, width: int, values: Sequence[Any], bad: dict[int, Reject]
) -> NDArray[np.float64]:
    """Return the numbers of all values, float64[n, width], in as few calls as can be.

    None is not asked about: all of it is missing. Nor is what is `bad` already. A lot that the
    encoder raises at is halved, until those are found alone that it raises at alone: these become
    bad, and the others are what they would be without them.

    Args:
        name: of the feature.
    """
    found = np.full((len(values), width), np.nan)
    lots = [[at for at, value in enumerate(values) if value is not None and at not in bad]]
    while lots:
        lot = lots.pop()
        try:
            if lot:
                found[lot] = _numbers(encoder(_own([values[at] for at in lot])), len(lot), width)
        except Exception as error:  # whatever a stranger's function does
            if len(lot) > 1:
                lots += [lot[: len(lot) // 2], lot[len(lot) // 2 :]]
            else:
                detail = f"{str(values[lot[0]])[:40]!r} cannot be encoded: {told(error)}"
                bad[lot[0]] = Reject("schema", f"{name}: {detail}")
    return found


def _own(values: list[Any]) -> Any:
    """Return values that a stranger's function may change, and nobody else sees it."""
    if set(map(type, values)) & {list, dict}:
        return json.loads(json.dumps(values))
    return values


def _numbers(given: Any, count: int, width: int) -> NDArray[np.float64]:
    """Take what an encoder gave for numbers; one beyond LARGEST is missing, as of a number's field.

    Each is converted by itself: to a type that numpy finds for all of them, a whole number of any
    size would depend on its company.

    Raises:
        ValueError, TypeError, OverflowError: it is none, or of another shape than expected.
    """
    numbers = np.asarray(given, np.float64)
    if numbers.shape != (count, width):
        raise ValueError(f"the encoder gave {[*numbers.shape]}, expected {[count, width]} numbers")
    return np.where(np.abs(numbers) <= LARGEST, numbers, np.nan) + 0.0  # -0 is 0

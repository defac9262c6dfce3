"""Units of numbers, as linear functions."""

from __future__ import annotations

from typing import Any

from headrace.stream.errors import TaskError
from headrace.stream.task.features import Number


def conversion(name: str, number: Number) -> tuple[float, float]:
    """Return factor and offset from a number's unit to the one it is learned in.

    Raises:
        TaskError: a unit is unknown, or the two do not measure the same thing.
    """
    if number.unit is None or number.to is None:
        return 1.0, 0.0
    import pint  # slow to import, and few tasks convert

    try:
        units: Any = pint.UnitRegistry(autoconvert_offset_to_baseunit=True)
        zero = units.Quantity(0.0, number.unit).to(number.to).magnitude
        one = units.Quantity(1.0, number.unit).to(number.to).magnitude
    except Exception as error:  # pint evaluates a unit, and raises what Python does
        raise TaskError(
            f"features.{name}.unit = {number.unit!r} to {number.to!r}: {error}"
        ) from error
    return float(one - zero), float(zero)

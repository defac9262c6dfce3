"""One text for each JSON scalar, however it is written and whatever came before it.

`1`, `1.0` and `1e0` are the same number, and so are `0`, `-0` and `-0.0`; `true` is no number; a
string is a string, whatever it spells. An integer is exact at any size; what is written with a
fraction or an exponent is read as a float64. Python compares and hashes 1, 1.0 and True alike: so
nothing may be cached, or looked up, by a scalar itself.
"""

from __future__ import annotations

Scalar = str | int | float | bool


def number_text(value: float) -> str:
    """Write a number (no boolean): whole ones without fraction, others shortest to read back."""
    if isinstance(value, int):
        return str(value)
    return str(int(value)) if value.is_integer() else repr(value)


def scalar_text(value: Scalar) -> str:
    """Write a scalar, as JSON would but for quotes; `"1"` and `1` then read the same."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return number_text(value)

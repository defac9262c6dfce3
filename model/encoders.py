"""What makes numbers of a field's values, whatever they are: functions from elsewhere, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from headrace.model.registry import Registry

__all__ = ["ENCODERS", "Encoder", "register"]

Encoder: TypeAlias = Callable[[Sequence[Any]], Any]
"""Maps the values of n >= 1 events to numbers [n, width], NaN or None = missing.

A value is what JSON gives: a text, a number, a boolean, a list, a dictionary; never None. They come
from strangers: raise whatever you like about one, and its event is refused. The numbers of an event
are to be a function of its value alone, to the bit: events are asked about in lots of any size, and
again, one by one, in another process.
"""

ENCODERS: Registry[Encoder] = Registry("encoder", Callable, "a function of a list of values", {})

register = ENCODERS.register

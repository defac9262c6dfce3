"""Where something is, as three numbers: the direction from the middle of the Earth.

Gade (2010), "A non-singular horizontal position representation", Journal of Navigation 63: places
on either side of the date line, or of a pole, are as near as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def encode(values: Sequence[Any]) -> list[tuple[float, float, float]]:
    """Map {"latitude": ..., "longitude": ...}, in degrees, to x, y and z.

    What is no such object raises, and its event is refused. Each value is taken by itself: numpy's
    cosines may round otherwise inside a long array than at its end, and an event has to come to the
    same bits in whatever company it is encoded.
    """
    return [_direction(value["latitude"], value["longitude"]) for value in values]


def _direction(latitude: float, longitude: float) -> tuple[float, float, float]:
    if not -90 <= latitude <= 90:
        raise ValueError(f"a latitude of {latitude}, expected -90 to 90")
    north, east = math.radians(latitude), math.radians(longitude)
    return math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)

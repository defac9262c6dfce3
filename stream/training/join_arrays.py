"""What a label join knows, as arrays of a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.stream.training import clock, newest_rows, turns
from headrace.stream.training.delays import Delays
from headrace.stream.training.waiting import shapes


def arrays(copied: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a copy by their names in a snapshot."""
    pack, told = msgspec.msgpack.encode, copied["turns"]
    found = {f"waiting_{name}": copied[name] for name, _ in shapes(0)} | {
        "waiting_ids": np.frombuffer(pack(copied["ids"]), np.uint8),
        "held_labels": np.frombuffer(pack(copied["held"]), np.uint8),
        "event_times": copied["times"],
        "label_delays": copied["delays"],
    }
    if newest := copied["newest"]:
        found |= newest.arrays()
    return found | (turns.arrays(told) if told else {})


def shapes_of(
    slots: int, horizon: int, *, outside: bool = False
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of each of `arrays`, by name; (-1,) is any length.

    Args:
        slots: of rows that may wait.
        horizon: of the task.
        outside: whether some of them wait outside of the learner's slots: their rows, too.
    """
    rows = newest_rows.shapes(slots) | {"left_rows": ("uint8", (-1,))} if outside else {}
    found = {f"waiting_{name}": each for name, each in shapes(slots)}
    return found | {
        "waiting_ids": ("uint8", (-1,)),
        "held_labels": ("uint8", (-1,)),
        "event_times": ("int64", (clock.NEWEST + 1,)),
        "label_delays": ("int64", Delays().counts.shape),
        **(dict(turns.shapes(slots)) if horizon else {}),
        **rows,
    }

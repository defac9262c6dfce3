"""A learner as bytes: a line of JSON that says what it is, and the arrays of its state."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.stream.errors import RecoveryError, UsageError
from headrace.stream.ledger import fingerprint
from headrace.stream.storage import tensors
from headrace.stream.task import Task, validate
from headrace.stream.training.trainer import Tensors, digest, shapes_of

FORMAT = 1


class Saved(msgspec.Struct, forbid_unknown_fields=True):
    """Hold the first line."""

    headrace: int  # FORMAT
    task: dict[str, Any]
    code: str  # fingerprint
    state: str  # sha256
    learned: int  # labels
    events: int
    number: str | None  # the field of the ids that events lack


def pack(task: Task, state: Tensors, learned: int, events: int, number: str | None) -> bytes:
    """Put a learner into bytes."""
    told = task.model_dump(mode="json", exclude_unset=True)
    code = fingerprint.of_code()
    about = Saved(FORMAT, told, code, digest(state), learned, events, number)
    return msgspec.json.encode(about) + b"\n" + bytes(tensors.pack(state))


def unpack(data: bytes, origin: str) -> tuple[Task, dict[str, NDArray[np.generic]], Saved]:
    """Give what `pack` was given; `origin` names the bytes in errors.

    Raises:
        UsageError: they are no saved learner.
        RecoveryError: they are broken, or were saved by other code than this.
    """
    first, _, packed = data.partition(b"\n")
    try:
        about = msgspec.json.decode(first, type=Saved)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{origin}: no saved learner: {error}") from error
    task = validate(about.task, origin)
    if about.headrace != FORMAT or about.code != fingerprint.of_code():
        raise RecoveryError(f"{origin}: saved by other code than this: learn it again")
    try:
        state = tensors.unpack(packed, shapes_of(task))
    except ValueError as error:
        raise RecoveryError(f"{origin}: broken: {error}") from error
    if digest(state) != about.state:
        raise RecoveryError(f"{origin}: broken: its state is not the one that was saved")
    return task, state, about

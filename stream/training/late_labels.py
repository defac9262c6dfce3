"""How the labels of a task are joined to its events, and how events are drawn for samples."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.model.late_scores import HELD_OUT
from headrace.stream.events import DeadLetter
from headrace.stream.formats.scalars import scalar_text
from headrace.stream.rows.classes import ClassIndex
from headrace.stream.rows.hashing import Hasher, hash_key
from headrace.stream.rows.late import Truth
from headrace.stream.task import Task
from headrace.stream.training.joined import Joined
from headrace.stream.training.label_join import LEFT_OUT, LabelJoin
from headrace.stream.training.newest_rows import NewestRows
from headrace.stream.training.turns import Turns


def join_of(task: Task) -> LabelJoin | None:
    """Return what joins a task's labels; None if they come with their events."""
    source, told = task.input.topic, task.labels
    if told is None:
        return LabelJoin(task.spec.waiting, (source, source)) if task.spec.waiting else None
    implied: tuple[float, str | None] | None = None
    if told.on_expiry is not None and task.spec.classes:
        (index,) = ClassIndex(task.target.classes).find_all([told.on_expiry])
        implied = index, scalar_text(told.on_expiry)
    elif told.on_expiry is not None:
        implied = float(told.on_expiry), None
    horizon, entities, most = task.target.horizon, max(task.spec.entities, 1), told.max_pending
    again = told.policy != "ignore"
    newest = NewestRows(task.spec.waiting, most, again=again) if task.spec.loads else None
    return LabelJoin(
        most,
        (source, told.topic),
        ttl_hours=told.ttl_hours,
        policy=told.policy,
        implied=implied,
        turns=Turns(horizon, most, entities) if horizon else None,
        newest=newest,
    )


def account(joined: Joined | None, unread: Sequence[DeadLetter]) -> Truth:
    """Return what became of the labels of a micro-batch: those that are none count, too."""
    found = Truth(labels=len(unread), refused=len(unread))
    if joined:
        found.add(joined.truth)
    return found


class Draws:
    """Draw events by their ids: those left out of a sample of negatives, and those held out."""

    def __init__(self, task: Task) -> None:
        told = task.labels
        self._learned = told.sample_negatives if told else None
        self._held_out = told.holdout if told else 0.0
        self._place = Hasher(hash_key(task)).place if self._learned or self._held_out else None

    def marks(self, ids: Sequence[str | int]) -> Sequence[int]:
        """Return LEFT_OUT and HELD_OUT, added up, of each event."""
        if self._place is None:
            return bytes(len(ids))
        found = [HELD_OUT * held_out for held_out in self.held_out(ids)]
        if (share := self._learned) is not None:
            left = (self._place("negative", id) >= share for id in ids)
            found = [mark + LEFT_OUT * out for mark, out in zip(found, left, strict=True)]
        return found

    def held_out(self, ids: Sequence[str | int]) -> list[bool]:
        """Return whether each event is held out."""
        place, share = self._place, self._held_out
        if place is None or not share:
            return [False] * len(ids)
        return [place("held out", id) < share for id in ids]

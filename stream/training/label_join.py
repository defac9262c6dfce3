"""Labels that come by themselves find the rows that they belong to: by id, in one order.

What comes of it depends on the order of events and labels alone, not on where that was cut.
Every label is accounted for, and every row: see `Truth`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy as shallow
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.model.late_scores import AGAIN, HELD_OUT, LABEL, UNASKED
from headrace.stream.events import DeadLetter, Reject, dead_letter
from headrace.stream.rows.classes import Classes
from headrace.stream.rows.late import LateLabel, Placed, Truth, interleaved, unlabelled
from headrace.stream.rows.rows import Rows
from headrace.stream.task.labels import Policy
from headrace.stream.training.clock import EventClock
from headrace.stream.training.delays import Delays
from headrace.stream.training.joined import Joined, Left, Moves
from headrace.stream.training.newest_rows import LOADED, NewestRows
from headrace.stream.training.recent import RecentIds
from headrace.stream.training.turns import GONE, NOBODY, Turns
from headrace.stream.training.waiting import (
    EXPIRED,
    LABELLED,
    PENDING,
    Place,
    WaitingRows,
)

KEPT = 10_000  # labels that came before their event; ids of those that expired
ITS_EVENT_EXPIRED = "its event expired before"
NOT_THERE = "the prediction that it answers expired before, or made room for others"
HAS_ANOTHER = "it has another label already; labels.policy says what is done then"
LEFT_OUT = 1  # a mark of a row: where its label is the implied one, it is not learned
_TOLD = 4  # another: its label came, and answers no row
MISSED = frozenset({"expired_id", "unknown_id"})  # codes of labels whose row is not there
_HOUR_MS = 3_600_000
_Held = tuple[list[tuple[LateLabel, str]], list[str | int]]


class LabelJoin:
    """Join labels to rows.

    Args:
        slots: how many rows may wait at a time.
        ttl_hours: of event time, after which a row expires; None: when there is no more room.
        policy: what another label for the same row does: as `labels.policy`.
        implied: label and new class of rows that expire; None: they have none.
        turns: say which row an event's label answers; None: its own.
        newest: say which rows are in the learner's slots; None: all, in as many.
        topics: of the events, and of the labels.
    """

    def __init__(
        self,
        slots: int,
        topics: tuple[str, str],
        *,
        ttl_hours: float | None = None,
        policy: Policy = "ignore",
        implied: tuple[float, str | None] | None = None,
        turns: Turns | None = None,
        newest: NewestRows | None = None,
    ) -> None:
        self._rows, self._topics, self._newest = WaitingRows(slots), topics, newest
        self._ttl_ms = None if ttl_hours is None else int(ttl_hours * _HOUR_MS)
        self._policy, self._implied, self._turns = policy, implied, turns
        self._held: dict[str | int, tuple[LateLabel, str]] = {}
        self._gone = RecentIds(KEPT)  # of rows that expired
        self._clock = EventClock()
        self.delays = Delays()

    @property
    def pending(self) -> int:
        """Return how many rows wait for their label."""
        return self._rows.pending

    def copy(self, asked: Sequence[str | int]) -> LabelJoin:
        """Return one that goes on by itself, to which events of these ids are new."""
        found = shallow(self)
        found._rows, found._turns = self._rows.copy(asked), self._turns and self._turns.copy()
        found._newest = self._newest and self._newest.copy()
        found._held, found._clock = self._held.copy(), self._clock.copy()
        found._gone = RecentIds(KEPT, self._gone.as_list())
        found.delays = Delays(self.delays.counts)
        return found

    def join(
        self,
        rows: Rows,
        labels: Sequence[Placed],
        classes: Classes,
        marks: Sequence[int] | None = None,
    ) -> Joined:
        """Make lines of rows and labels.

        Args:
            rows: that were admitted; a label within one is learned right behind it.
            labels: in the order of their places.
            classes: take up those that labels name.
            marks: of the rows, LEFT_OUT and HELD_OUT added up; None: none has any.
        """
        work, put = _Work(self, rows, classes, marks or bytes(len(rows.id))), 0
        for before, label in labels:
            for at in range(put, before):
                work.put(at)
            put = max(put, before)
            work.take(label, self._topics[1])
        for at in range(put, len(rows.id)):
            work.put(at)
        return work.joined()

    def copied(self) -> dict[str, Any]:
        """Copy what is known, to be made arrays by `join_arrays.arrays`."""
        return self._rows.copied() | {
            "held": ([*self._held.values()], self._gone.as_list()),
            "times": self._clock.as_array(),
            "delays": self.delays.counts.copy(),
            "turns": self._turns.copied() if self._turns else None,
            "newest": self._newest and self._newest.copy(),
        }

    def outside(self) -> NDArray[np.int64]:
        """Return the numbers of the rows that must be found outside of the learner's slots."""
        return self._newest.outside(self._rows.statuses) if self._newest else np.zeros(0, np.int64)

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the arrays of a copy."""
        self._rows.restore(tensors)
        held, gone = msgspec.msgpack.decode(tensors["held_labels"].tobytes(), type=_Held)
        self._held = {each.id: (each, topic) for each, topic in held}
        self._gone = RecentIds(KEPT, gone)
        self._clock = EventClock(tensors["event_times"])
        self.delays = Delays(tensors["label_delays"])
        if self._turns:
            self._turns.restore(tensors)
        if self._newest:
            self._newest.restore(tensors)


@dataclass
class _Work:
    """Go through one micro-batch."""

    join: LabelJoin
    rows: Rows
    classes: Classes
    marks: Sequence[int]
    truth: Truth = field(default_factory=Truth)
    letters: list[DeadLetter] = field(default_factory=list)
    expired: list[Left] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)  # of all lines
    labels: list[tuple[int, LateLabel]] = field(default_factory=list)  # that become lines
    kinds: list[int] = field(default_factory=list)  # of these
    unasked: list[tuple[int, int]] = field(default_factory=list)  # which of these, and its entity
    leaving: list[tuple[int, int]] = field(default_factory=list)
    loads: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._times = self.rows.time_ms.tolist()
        self._labels = self.rows.label.tolist()
        if self.join._turns:
            whole = np.ascontiguousarray(self.rows.entity).view(np.uint64)
            self._entities: list[int] = whole.ravel().tolist()
        self._put = 0
        self._delays = list[int]()

    def put(self, at: int) -> None:
        """Take in an event."""
        join, rows, waiting = self.join, self.rows, self.join._rows
        id, time_ms = rows.id[at], self._times[at]
        now_ms = time_ms if join._ttl_ms is None else join._clock.now(time_ms)
        same = waiting.find(id)
        if same is not None or join._ttl_ms is not None or not waiting.has_room:
            self._make_room(same, now_ms)
        place = rows.partition[at], rows.offset[at], time_ms
        known: list[tuple[LateLabel, str]] = []
        if join._held and (held := join._held.pop(id, None)) is not None:
            self.truth.held -= 1
            known.append(held)
        if (label := self._labels[at]) == label:
            own = LateLabel(id, rows.key[at], *place, label, rows.new_class[at])
            known.append((own, join._topics[0]))
            self.truth.labels += 1
        marks, turns = self.marks[at], join._turns
        if turns:
            entity = self._entities[at]
            asked = turns.next(entity)
            for each in known:  # before this event is predicted
                if asked == NOBODY:
                    marks = self._note(marks, entity, place, *each)
                else:
                    self._answer(asked, place, *each)
        slot = waiting.put(id, place, now_ms, marks)
        held_in = slot
        if join._newest:
            held_in, left = join._newest.put(slot, waiting.status)
            if left is not None:
                self.leaving.append((len(self.slots), left))
        self.slots.append(held_in)
        self._put += 1
        if turns:
            turns.put(entity, slot)
        else:
            for each in known:
                self._answer(slot, place, *each)

    def _make_room(self, same: int | None, now_ms: int) -> None:
        """Let rows go: one of the same id, those whose time is over, and the oldest if need be."""
        waiting, ttl_ms = self.join._rows, self.join._ttl_ms
        if same is not None and waiting.status(same) == PENDING:
            self._expire(same)  # its id names the next one now
        before_ms = None if ttl_ms is None else now_ms - ttl_ms
        while (slot := waiting.oldest(before_ms)) is not None:
            self._expire(slot)

    def take(self, label: LateLabel, topic: str) -> None:
        """Take in a label."""
        self.truth.labels += 1
        waiting, turns = self.join._rows, self.join._turns
        if (slot := waiting.find(label.id)) is None:
            self._hold(label, topic)
            return
        place = waiting.place(slot)
        if turns and (asked := turns.answered(slot)) == NOBODY:
            marks = waiting.marks(slot)
            waiting.mark(slot, self._note(marks, turns.entity(slot), place, label, topic))
        else:
            self._answer(asked if turns else slot, place, label, topic)

    def _note(self, marks: int, entity: int, event: Place, label: LateLabel, topic: str) -> int:
        """Take in a label that answers no row; return the marks of its event then."""
        if marks & _TOLD:
            self.truth.repeated += 1
        elif (value := self.classes.value(label.label, label.new_class)) is None:
            self._refuse_class(label, topic)
            return marks
        else:
            self.truth.unasked += 1
            self.unasked.append((len(self.labels), entity))
            self._add(0, LABEL | UNASKED, event, label, value, label.weight)
        return marks | _TOLD

    def _answer(self, slot: int, event: Place, label: LateLabel, topic: str) -> None:
        """Answer the row in a slot by the label of an event that stands there."""
        join, waiting = self.join, self.join._rows
        if slot == GONE or (status := waiting.status(slot)) == EXPIRED:
            told = NOT_THERE if join._turns else ITS_EVENT_EXPIRED
            self._refuse(label, topic, "expired_id", told)
            return
        if status == LABELLED and waiting.label_of(slot) == self.classes.known(
            label.label, label.new_class
        ):
            self.truth.repeated += 1
        elif status == LABELLED and join._policy == "ignore":
            self._refuse(label, topic, "corrected", HAS_ANOTHER)
        elif (value := self.classes.value(label.label, label.new_class)) is None:
            self._refuse_class(label, topic)
        elif status == LABELLED:
            if join._policy == "rescore":
                label = label._replace(weight=0.0)
            self._learn(slot, event, label, value, AGAIN)
            self.truth.count_correction(join._policy)
        else:
            self._learn(slot, event, label, value)
            self.truth.scored += 1
            self._delays.append(label.time_ms - event[2])

    def _learn(
        self, slot: int, event: Place, label: LateLabel, value: float, again: int = 0
    ) -> None:
        waiting = self.join._rows
        waiting.label(slot, value)
        weight, implied, marks = label.weight, self.join._implied, waiting.marks(slot)
        if marks & LEFT_OUT and implied and value == implied[0]:
            weight = 0.0
        if newest := self.join._newest:
            slot, number = newest.find(slot)
            if slot == LOADED:
                self.loads.append((len(self.slots), number))
        self._add(slot, LABEL | marks & HELD_OUT | again, event, label, value, weight)

    def _add(
        self, slot: int, kind: int, event: Place, label: LateLabel, value: float, weight: float
    ) -> None:
        # A plain tuple, of the fields of LateLabel: it takes a tenth of the time.
        line: Any = (label.id, None, event[0], event[1], label.time_ms, value, None, weight)
        self.kinds.append(kind)
        self.labels.append((self._put, line))
        self.slots.append(slot)

    def _expire(self, slot: int) -> None:
        waiting, implied = self.join._rows, self.join._implied
        place = waiting.place(slot)
        value = None
        if implied is not None:
            label = LateLabel(waiting.id_of(slot), None, *place, *implied)
            value = self.classes.value(*implied)
        if value is not None:
            self._learn(slot, place, label, value)
            self.truth.scored += 1
            self.truth.implied += 1
        else:
            waiting.expire(slot)
            self.join._gone.repeated([waiting.id_of(slot)])
            self.truth.expired += 1
        self.expired.append(Left(waiting.id_of(slot), *place, value))

    def _hold(self, label: LateLabel, topic: str) -> None:
        """Keep a label until its event comes, if that is still to come."""
        held = self.join._held
        known, _ = held.get(label.id, (label, topic))
        if label.id in self.join._gone:
            self._refuse(label, topic, "expired_id", ITS_EVENT_EXPIRED)
        elif label.id not in held:
            held[label.id] = label, topic
            self.truth.held += 1
            if len(held) > KEPT:
                self.truth.held -= 1
                told = f"no event of this id came, within {KEPT:,} more such labels"
                self._refuse(*held.pop(next(iter(held))), "unknown_id", told)
        elif (known.label, known.new_class) == (label.label, label.new_class):
            self.truth.repeated += 1
        elif self.join._policy == "ignore":
            self._refuse(label, topic, "corrected", HAS_ANOTHER)
        else:
            held[label.id] = label, topic
            self.truth.count_correction(self.join._policy)

    def _refuse_class(self, label: LateLabel, topic: str) -> None:
        self._refuse(label, topic, "label", self.classes.no_room(label.new_class))

    def _refuse(self, label: LateLabel, topic: str, code: str, told: str) -> None:
        self.truth.refused += 1
        reject = Reject(code, f"id {label.id!r}: {told}" if code != "label" else told)
        coordinates = label.partition, label.offset
        self.letters.append(dead_letter(reject, topic, *coordinates, label.key, None))

    def joined(self) -> Joined:
        self.join.delays.add(self._delays)
        lines, is_label = interleaved(unlabelled(self.rows), self.labels)
        line = np.column_stack([is_label, np.array(self.slots, int)]).astype(np.int32)
        line[is_label, 0] = self.kinds
        if self.unasked:
            which, entities = zip(*self.unasked, strict=True)
            places = np.flatnonzero(is_label)[[*which]]
            lines.entity[places] = np.array(entities, np.uint64).view(np.uint32).reshape(-1, 2)
        events = np.flatnonzero(~is_label).tolist()
        told = self.rows, self.truth, self.letters, self.expired
        return Joined(lines, line, events, *told, Moves(self.leaving, self.loads))

"""Rows in, predictions out: the learner and its state, wherever the rows come from.

The service and the offline evaluation share this class, so both learn the same from the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.model import counter, frame
from headrace.model.batch import Batch
from headrace.model.frame import Frame
from headrace.model.spec import Spec
from headrace.model.state import named
from headrace.stream.errors import UsageError
from headrace.stream.events import DeadLetter, Prediction, Reject, dead_letter
from headrace.stream.rows.classes import NEW_CLASS, Classes
from headrace.stream.rows.late import Placed
from headrace.stream.rows.rows import Rows, take
from headrace.stream.task import Task
from headrace.stream.training import scores
from headrace.stream.training.asking import Frozen, ask, batch_of, framed, in_words, predictions
from headrace.stream.training.drift_records import Told, drift_records
from headrace.stream.training.explaining import Explaining, pieces
from headrace.stream.training.joined import Joined
from headrace.stream.training.label_join import LabelJoin
from headrace.stream.training.late_labels import Draws, join_of
from headrace.stream.training.learned import Foreseen, Learned, Part, Pending, answers
from headrace.stream.training.plugins import first_state, learner_of
from headrace.stream.training.programs import keep_programs
from headrace.stream.training.recent import RecentIds
from headrace.stream.training.row_files import RowFiles
from headrace.stream.training.snapshot import Snapshot, Tensors

LATE_LINES = 4096
"""Lines that a program with late labels has room for, whatever the size of micro-batches: of some
numbers XLA makes one that rounds otherwise."""


class Trainer:
    """Hold one task's learner: `submit` a micro-batch, `collect` its predictions.

    XLA works on a submitted batch while Python does something else, such as publishing the batch
    before. Everything is compiled when the constructor returns.

    Args:
        task: what is learned.
        capacity: how many rows a micro-batch may have; with late labels as many as may be.
        directory: where rows may be kept that wait for their label; None: with temporary files.
    """

    def __init__(self, task: Task, capacity: int, directory: str | None = None) -> None:
        self._task, self.directory = task, directory
        self._capacity = LATE_LINES if task.spec.waiting else capacity
        keep_programs()
        self._learner = learner_of(task)
        self._state = first_state(self._learner, task, self._capacity)
        jax.block_until_ready(self._learner.copy(self._state))  # type: ignore[no-untyped-call]
        self._columns = [*task.columns, "prediction"]
        self._recent = RecentIds(task.input.recent_ids)
        self._classes = Classes(task)
        self._frame = Frame(task.spec)
        self.join: LabelJoin | None = join_of(task)
        self._files = RowFiles(self.spec, directory) if self.spec.loads else None
        self._draws, share = Draws(task), task.model.explain
        self._explaining = None if share is None else Explaining(task, share, self._state)
        self.learned = 0

    @property
    def task(self) -> Task:
        """Return what is learned."""
        return self._task

    @property
    def spec(self) -> Spec:
        """Return the sizes and settings of what is learned."""
        return self._learner.spec

    @property
    def capacity(self) -> int:
        """Return how many rows go through a program at once."""
        return self._capacity

    @property
    def state_bytes(self) -> int:
        """Return how many bytes the state's arrays take."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._state))

    @property
    def classes(self) -> Classes:
        """Name the classes that there are, by their index."""
        return self._classes

    def admit(self, rows: Rows, topic: str) -> tuple[Rows, list[DeadLetter]]:
        """Take out rows whose id was seen a short while ago; give classes that came their index."""
        seen = f"came before, within {self._recent.size} events"
        refused = {
            at: Reject("duplicate_id", f"id {rows.id[at]!r} {seen}")
            for at in self._recent.repeated(rows.id)
        }
        if not self.join:  # which takes up classes in the order of rows and labels
            rows = self._take_up(rows, refused)
        if not refused:
            return rows, []
        letters = _letters(rows, refused, topic)
        return take(rows, [at for at in range(len(rows.id)) if at not in refused]), letters

    def _take_up(self, rows: Rows, refused: dict[int, Reject]) -> Rows:
        """Return each label that names a class its index; refuse it where there is no room."""
        if not self._learner.spec.open_classes or not (rows.label == NEW_CLASS).any():
            return rows
        label = rows.label.copy()
        for at in np.flatnonzero(label == NEW_CLASS).tolist():
            if at in refused:
                continue
            index = self._classes.value(NEW_CLASS, name := rows.new_class[at])
            if index is None:
                refused[at] = Reject("label", self._classes.no_room(name))
            else:
                label[at] = index
        return rows._replace(label=label)

    def submit(
        self, rows: Rows, labels: Sequence[Placed] = (), ids: Sequence[str | int] | None = None
    ) -> Pending:
        """Start predicting and learning up to `capacity` rows; does not wait.

        Args:
            labels: that came by themselves, as many as may be.
            ids: of the events, by which samples are drawn; None: those of the rows.
        """
        if not self.join:
            return self._submit(rows, None)
        marks = self._draws.marks(rows.id if ids is None else ids)
        joined = self.join.join(rows, labels, self._classes, marks)
        return self._submit(joined.rows, joined)

    def _submit(self, rows: Rows, joined: Joined | None) -> Pending:
        spec, values, parts = self._learner.spec, framed(self._learner.spec, rows), []
        most, why = self._capacity, self._explaining
        cuts = why.chosen(joined.events if joined else range(len(values))) if why else []
        if spec.loads:  # see NewestRows
            most = min(most, spec.waiting // 2)
        for first, end, change in self._frame.stretches(values):
            if change:
                self._state = frame.rebase(spec, self._state, change, self._frame)
                if self._files:
                    self._files.rebase(change.before, self._frame.copy())
                if why:
                    why.rebase(change.before, self._frame)
            for at, stop in pieces(first, end, most, cuts):
                explained = why.explain(self._state, self._frame, rows, at, stop) if why else None
                batch = batch_of(spec, self._capacity, self._frame, rows, values, at, stop)
                count = stop - at
                if joined:
                    batch.line[:count] = joined.line[at : at + count]
                left: Sequence[int] = ()
                if joined and self._files:
                    left = self._files.exchange(joined.part(at, count), batch)
                self._state, outcome = self._learner.run(self._state, batch, np.int32(count))
                part = Part(count, outcome, self._frame.copy(), left, explained)
                if self._files:
                    self._files.add(part)
                parts.append(part)
        self.learned += len(rows.id) - int(np.isnan(rows.label).sum())
        return Pending(rows, parts, joined)

    def batch(self, rows: Rows) -> Batch:
        """Return up to `capacity` rows as the core takes them, in the frame that there is."""
        values = framed(self.spec, rows)
        return batch_of(self.spec, self._capacity, self._frame, rows, values, 0, len(values))

    def ask(self, rows: Rows) -> Learned:
        """Return what would be predicted of each of any rows if it came next; see `asking.ask`."""
        return ask(self._held, rows)

    def foresee(self, rows: Rows) -> Foreseen | Reject:
        """Predict and learn rows as if they came next; nothing changes, until it is accepted.

        Where labels come by themselves, it cannot be accepted.

        Returns:
            why it would be refused, if one names a class that there is no room for.
        """
        kept = self._state, self._frame, self._classes, self.learned, self.join, self._files
        explaining, self._files = self._explaining, self._files and self._files.fork()
        self._explaining = explaining and explaining.copy()
        self._state, self._frame = self._learner.copy(self._state), self._frame.copy()
        self._classes = self._classes.copy()
        try:
            refused: dict[int, Reject] = {}
            if self.join:  # labels may be learned before: of events that expire, with a horizon
                self.join = self.join.copy(rows.id)
                found = self.collect(self.submit(rows))
                return Foreseen(found, None, self._frame, self._classes, self.learned, None)
            rows = self._take_up(rows, refused)
            if refused:
                return next(iter(refused.values()))
            found = self.collect(self.submit(rows))
            return Foreseen(
                found, self._state, self._frame, self._classes, self.learned, self._explaining
            )
        finally:
            self._state, self._frame, self._classes, self.learned, self.join, self._files = kept
            self._explaining = explaining

    def accept(self, foreseen: Foreseen) -> Learned:
        """Take over what was foreseen, as if the rows were submitted now; once."""
        found, self._state, self._frame, self._classes, self.learned, self._explaining = foreseen
        return found

    @property
    def looks_next(self) -> bool:
        """Return whether the next row decides, with its label, in which frame it is predicted."""
        return not self._learner.spec.classes and self._frame.looks_next

    def collect(self, pending: Pending) -> Learned:
        """Wait for a submitted batch and give what came of it."""
        rows, parts, joined = pending
        if self._files:
            for part in parts:
                self._files.flush(part)
            if self._files.begun and self.join:
                self._files.compact(self.join.outside())
        published = np.concatenate([self._published(part) for part in parts])
        halves, raised, rungs, lost, moved = (
            np.concatenate([np.asarray(getattr(part.outcome, name))[: part.rows] for part in parts])
            for name in ("step", "alarms", "rungs", "lost", "moved")
        )
        step = counter.value(halves)
        told = Told(raised, rungs, lost, moved)
        records = drift_records(self._learner.spec, self._columns, self._classes, rows, step, told)
        if joined:  # labels are no rows
            published, step, rows = published[joined.events], step[joined.events], joined.told
            if self._classes.is_open:
                rows = rows._replace(label=self._classes.indices(rows.label, rows.new_class))
        answer = answers(self._learner.spec, published)
        learned = Learned(rows, published, answer, step, records, self._classes)
        return self._explaining.explained(pending, learned) if self._explaining else learned

    @property
    def explaining(self) -> Explaining | None:
        """Return what explains predictions, if the task lets them be explained."""
        return self._explaining

    def explain(self, rows: Rows) -> Learned:
        """Return what `ask` does, and why, where anything can be compared with.

        Raises:
            UsageError: the task does not let predictions be explained.
        """
        if not self._explaining:
            raise UsageError(f"{self.task.name}: model.explain is not set, expected 0 or more")
        learned = self.ask(rows)
        why = self._explaining.explainer.explain(self._held, rows, learned)
        return replace(learned, explanations=why)

    def _published(self, part: Part) -> NDArray[Any]:
        return in_words(self.spec, np.asarray(part.outcome.published)[: part.rows], part.frame)

    def predictions(self, learned: Learned) -> list[Prediction]:
        """Put predictions into the words of the task: class names, or a value with an interval."""
        return predictions(self.spec, learned, self._draws.held_out(learned.rows.id))

    def in_words(self, label: float) -> str | float:
        """Return a label as the stream has it."""
        return self._classes[int(label)] if self._learner.spec.classes else label

    @property
    def _held(self) -> Frozen:
        background = self._explaining.background if self._explaining else None
        return Frozen(
            self._task, self._learner, self._state, self._frame, self._classes, background
        )

    def frozen(self) -> Frozen:
        """Copy what would be said by, after the last submitted row."""
        state, held = self._learner.copy(self._state), self._held
        background = None if held.background is None else held.background.copy()
        counted, classes = held.frame.copy(), held.classes.copy()
        return held._replace(state=state, frame=counted, classes=classes, background=background)

    def snapshot(self) -> Snapshot:
        """Copy the state as it will be after the last submitted row; does not wait."""
        came, held = self._classes.as_array(), self._frame.as_array()
        copied = self._learner.copy(self._state)  # the loop updates the original in place
        joined = self.join.copied() if self.join else None
        rows = self._files.copied() if self._files else None
        why = self._explaining.arrays() if self._explaining else None
        return Snapshot(copied, self._recent.as_list(), came, held, self.learned, joined, rows, why)

    def restore(self, tensors: Tensors, learned: int) -> None:
        """Take a state over: tensors of the names and shapes of `shapes`."""
        names, tree = named(self._state), jax.tree.structure(self._state)
        # Copies: the loop updates its state in place, and the tensors are the caller's.
        arrays = [np.array(tensors[name]) for name, _ in names]
        self._state = jax.device_put(jax.tree.unflatten(tree, arrays))
        ids = msgspec.msgpack.decode(tensors["recent"].tobytes(), type=list[str | int])
        self._recent = RecentIds(self._task.input.recent_ids, ids)
        self._classes = Classes(self._task, tensors["came"])
        self._frame = Frame(self._task.spec, tensors["frame"])
        if self._explaining:
            self._explaining.restore(tensors)
        if self.join:
            self.join.restore(tensors)
        if self.join and self._files:
            self._files.restore(tensors["left_rows"], self.join.outside())
        self.learned = learned

    def sketch(self) -> Callable[[], dict[str, Any]]:
        """Copy what scores and members' weights are as of the last submitted row; does not wait.

        Returns:
            what waits for them, and gives that part of `report`.
        """
        copied = self._learner.copy(scores.measured(self._state))
        told, why = partial(scores.scores, self.spec, copied, self._unit), self._importance()
        return lambda: told() | why()

    def report(self) -> dict[str, Any]:
        """Return the metrics, their baselines and the members' weights as of the last row."""
        found = scores.standing(self.spec, self._state, self._unit, self._classes)
        return found | self._importance()()

    def _importance(self) -> Callable[[], dict[str, Any]]:
        """Return what tells the importance of inputs as of the last submitted row."""
        if not self._explaining:
            return dict
        why, unit = self._explaining, self._unit
        return partial(why.explainer.report, why.importance, unit)

    @property
    def _unit(self) -> float:
        return 1.0 if self.spec.classes else float(self._frame.unit[-1])


def _letters(rows: Rows, refused: dict[int, Reject], topic: str) -> list[DeadLetter]:
    return [
        dead_letter(refused[at], topic, rows.partition[at], rows.offset[at], rows.key[at], None)
        for at in sorted(refused)
    ]

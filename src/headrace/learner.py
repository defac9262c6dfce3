"""A learner without Kafka: the one of the service, for events and tables in this process."""

from __future__ import annotations

from collections import deque
from itertools import islice
from pathlib import Path
from threading import RLock
from typing import Any, Unpack

import pyarrow as pa
from numpy.typing import NDArray

from headrace import saved
from headrace.batches import Working, in_batches
from headrace.export import Card, export
from headrace.export.signature import arrays
from headrace.late_labels import LateLabels, TellsMore
from headrace.predictions import Prediction, first_of, table_of
from headrace.reading import Event, Reader, refuse, unlabelled, with_value
from headrace.stream.errors import EventError, UsageError
from headrace.stream.events import DeadLetter, DriftRecord
from headrace.stream.process.signals import interrupted_later
from headrace.stream.process.turns import in_turn
from headrace.stream.rows import outside
from headrace.stream.rows.refusals import Refusal, Refusals
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task
from headrace.stream.task.field_path import pointer
from headrace.stream.training import keras_models
from headrace.stream.training.learned import Foreseen
from headrace.stream.training.trainer import Trainer
from headrace.tables import encoded, rows_of

CAPACITY = 4096  # rows of a micro-batch, which change no result
NEWEST = 10_000  # drift records that are kept


class Learner:
    """Predict, be scored and learn, event by event, exactly as `headrace learn` does.

    Events are what would stand in Kafka, as dictionaries. They go through the same normaliser and
    the same compiled loop as a service's, so predictions are the same to the bit as those of
    `headrace evaluate` and of a service for the same events in the same order. Compiling takes
    some seconds, once for each kind of task and machine. Threads may share one: their calls come
    one after the other.

    Args:
        task: a task, or the path or URL of its file.
        network: a Keras model that takes the place of `model.network`, as it is now; what is
            learned is not put into it. `save` keeps it, too.

    Raises:
        TaskError: the task file is wrong, or the model does not fit.
        UsageError: a calendar or aggregates go by the time of events, and the task maps none.
    """

    def __init__(self, task: Task | str | Path, *, network: Any = None) -> None:
        self.task = task if isinstance(task, Task) else Task.load(task)
        if network is not None:
            self.task = self.task.with_network(keras_models.given(network))
        if timed := outside.needs_time(self.task):
            raise UsageError(f"{timed} needs the time of an event: name its field by input.time")
        self.turn = RLock()  # the compiled loop updates the state in place
        self._spec = self.task.spec
        self._trainer = Trainer(self.task, CAPACITY)
        self._reader, self._late = Reader(self.task), LateLabels(self.task)
        self._asked: tuple[int, bytes, Rows, Foreseen] | None = None  # the newest prediction
        self._refusals = Refusals(self.task)
        self._origin: dict[str, str] = {}  # for a model card
        self._drift: deque[DriftRecord] = deque(maxlen=NEWEST)
        self.events = 0
        """How many events were taken, those that were refused too."""

    @in_turn
    def predict_one(self, event: Event) -> Prediction:
        """Predict an event as if it came next; nothing is learned or remembered.

        Its own label, if it is there, is not looked at; with a horizon, what stands in its field is
        the label of an earlier event, which is known before this one is predicted. An id may have
        come before: what was learned may be asked about.

        Raises:
            EventError: the event would be refused, whatever its id.
        """
        raw, self._asked = encoded(event), None
        with interrupted_later():
            return self._foreseen(raw)

    def _foreseen(self, raw: bytes) -> Prediction:
        rows, refused = self._reader.read([raw], self.events)
        refuse(refused)
        known, foreseen = len(self._trainer.classes), None
        if not (self._trainer.looks_next or self._trainer.join):
            foreseen = self._trainer.foresee(rows)
        if isinstance(foreseen, Foreseen):
            self._asked = self.events, raw, rows, foreseen
        else:  # its label would be looked at
            foreseen = self._trainer.foresee(unlabelled(self.task, rows))
        if not isinstance(foreseen, Foreseen):
            raise EventError(*foreseen)
        if self.task.target.horizon:
            known = len(foreseen.classes)
        return first_of(self._trainer, foreseen.found, known)

    @in_turn
    def learn_one(self, event: Event, label: float | str | bool | None = None) -> Prediction:
        """Predict an event, score that, and learn its label.

        Args:
            label: put into the event's target field; without one, what stands there counts.

        Returns:
            what was predicted before the label was seen.

        Raises:
            EventError: the event is refused, and nothing learned.
        """
        if label is not None:
            within = ("data",) if self.task.input.format == "cloudevents" else ()
            event = with_value(event, (*within, *pointer(self.task.target.field)), label)
        raw = encoded(event)
        with interrupted_later():
            return self._learned(raw)

    def _learned(self, raw: bytes) -> Prediction:
        (asked, self._asked), refused = (self._asked, None), list[DeadLetter]()
        foreseen = asked[3] if asked and asked[:2] == (self.events, raw) else None
        if asked and foreseen:
            rows = asked[2]
        else:
            rows, refused = self._reader.read([raw], self.events)
        known = len(self._trainer.classes)
        rows, repeated = self._trainer.admit(rows, "")
        self.events += 1
        refuse([*refused, *repeated])
        self._reader.decide()
        if foreseen:
            learned = self._trainer.accept(foreseen)
        else:
            learned = self._trainer.collect(self._late.submit(self._trainer, rows))
        self._drift += learned.drift
        # A class that this label names was not known yet, unless the label is an earlier event's.
        if self.task.target.horizon:
            known = len(self._trainer.classes)
        return first_of(self._trainer, learned, known)

    @in_turn
    def learn_label(
        self, id: str | int, label: float | str | bool, **told: Unpack[TellsMore]
    ) -> str:
        """Score what was predicted for an event that was taken before, and learn its label.

        For tasks with [labels]: `learn_one` of an event without one predicts it, and remembers it.

        Args:
            told: time, weight, propensity and source of the label, where [labels] names fields
                for these.

        Returns:
            `scored`; `rescored`, `relearned` or `repeated` for an event that has a label; `unasked`
            if it answers none, as with a horizon; `held` until an event with this id comes.

        Raises:
            EventError: the label is refused, as that of an event that expired.
            UsageError: the task has no [labels].
        """
        self._asked = None
        with interrupted_later():
            outcome, drift = self._late.learn(self._trainer, id, label, told)
            self._drift += drift
            return outcome

    @in_turn
    def explain(self, event: Event) -> Prediction:
        """Return what `predict_one` does, with its `explanation`, as a service would publish it.

        Raises:
            EventError: the event would be refused, whatever its id.
            UsageError: the task does not set `model.explain`.
        """
        rows, refused = self._reader.read([encoded(event)], self.events)
        refuse(refused)
        with interrupted_later():
            learned = self._trainer.explain(unlabelled(self.task, rows))
            return first_of(self._trainer, learned, len(self._trainer.classes))

    @in_turn
    def predict(self, table: Any) -> pa.Table:
        """Predict each row of a table as if it came next; nothing is learned or remembered.

        Rows know nothing of each other. A row is what `predict_one` says (with [labels] of an event
        without label), in a fiftieth of its time; no repeated id is refused.

        Args:
            table: as of `predict_then_learn`. A row's own label in it is not looked at.

        Returns:
            a line for each row, as of `predict_then_learn`.
        """
        raws, found, first, self._asked = rows_of(table, CAPACITY), [], 0, None
        while batch := list(islice(raws, CAPACITY)):
            rows, refused = self._reader.read(batch, self.events + first)
            learned = self._trainer.ask(unlabelled(self.task, rows)) if rows.id else None
            found.append(table_of(self._trainer, self.events + first, len(batch), refused, learned))
            first += len(batch)
        return pa.concat_tables(found) if found else table_of(self._trainer, 0, 0, [], None)

    @in_turn
    def predict_then_learn(self, table: Any) -> pa.Table:
        """Predict, score and learn each row of a table before the next one is predicted.

        Args:
            table: an Arrow table, a data frame of pandas or Polars, a structured array of numpy, a
                dictionary of columns, or events as dictionaries, in the order of the stream.

        Returns:
            a line for each row, whatever became of it: `prediction`; `probabilities`, in the order
            of `classes`, or `low` and `high`; `rejected`, the code of a row that was refused.

        Raises:
            UsageError, EventError: it is no table; JSON cannot hold a row. These, Ctrl-C, and what
                an iterator of the caller's raises come when all rows before are learned: `said` of
                the exception holds the lines of these, and a note in it says how many.
        """
        empty = table_of(self._trainer, 0, 0, [], None)
        return in_batches(rows_of(table, CAPACITY), CAPACITY, self._submit, self._collect, empty)

    def _submit(self, batch: list[bytes]) -> Working:
        rows, refused = self._reader.read(batch, self.events)
        rows, repeated = self._trainer.admit(rows, "")
        if rows.id:
            self._reader.decide()
        pending = self._late.submit(self._trainer, rows) if rows.id else None
        first, self.events = self.events, self.events + len(batch)
        letters = [*refused, *repeated]
        self._refusals.add(letters)
        return Working(first, len(batch), letters, pending)

    def _collect(self, work: Working) -> pa.Table:
        learned = self._trainer.collect(work.pending) if work.pending else None
        self._drift += learned.drift if learned else []
        return table_of(self._trainer, work.first, work.rows, work.letters, learned)

    @property
    def classes(self) -> list[str]:
        """Name the classes in the order of probabilities; empty for numbers."""
        return [*self._trainer.classes]

    @property
    @in_turn
    def metrics(self) -> dict[str, Any]:
        """Return what a service publishes to `<task>.metrics`: scores, baselines, members' weights.

        `all` is of all events, `window` of the newest (fading), `baselines` the same of no-change,
        majority or mean and median; `further` holds metrics from other packages, by their names;
        `labels` accounts for late ones since this object was made, beside scores of their own.
        """
        return self._trainer.report() | self._late.report(self._trainer)

    @property
    @in_turn
    def drift(self) -> list[DriftRecord]:
        """Return the newest alarms and what was done, as on `<task>.drift`; a copy has none."""
        return [*self._drift]

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Say why `predict_then_learn` refused rows: for each code the first; of this object."""
        return self._refusals.all

    @property
    def state_bytes(self) -> int:
        """Return how many bytes its state takes, which do not grow with the events."""
        return self._trainer.state_bytes

    def save(self, path: str | Path) -> None:
        """Write its task and all that decides what it says, so not `drift`, to one file.

        Raises:
            UsageError: the file cannot be written.
        """
        saved.write(Path(path), self._packed())

    @in_turn
    def export(self, path: str | Path, to: str = "onnx", *, licence: str = "") -> Card:
        """Write what it would say next to a file for other runtimes, a model card beside it.

        Args:
            to: `onnx`, `stablehlo` or `tf` (folders), `tflite`; `torch`, `keras`: one network.

        Raises:
            UsageError: the file cannot be written, the format cannot express this learner, or what
                writes it is not installed.
        """
        origin = self._origin | {"events": f"{self.events:,}"}
        return export(self._trainer, Path(path), to, origin, licence)

    @in_turn
    def arrays(self, table: Any) -> dict[str, NDArray[Any]]:
        """Return what a predictor of `export` takes for the rows of a table: an array by its name.

        Raises:
            EventError: a row would be refused.
        """
        raws = list(rows_of(table, CAPACITY))
        rows, numbers, refused = self._reader.read_numbers(raws, self.events)
        refuse(refused)
        return arrays(self.task, rows, numbers, self._trainer.classes)

    @classmethod
    def load(cls, path: str | Path, *, key: bytes | None = None) -> Learner:
        """Go on from what `save` wrote, or from a service's checkpoint.

        What comes is the same to the bit as without the pause, or as the service would have said
        next. The service is not disturbed, and learns nothing of what is learned here.

        Args:
            path: a file of `save`; or a service's directory (`headrace learn --state DIR`, or
                `headrace state --to DIR`; a URL, too), of which the newest checkpoint is taken; or
                one of the files of a checkpoint.
            key: what the file of `--state-key` holds, if checkpoints are sealed.

        Raises:
            UsageError: the file cannot be read, or is no saved learner; there is no checkpoint,
                or those of several tasks.
            RecoveryError: it is broken, or was saved by other code than this.
        """
        if (data := saved.read(str(path))) is None:
            return cls._from_checkpoint(str(path), key)
        return cls._unpacked(data, str(path))

    @classmethod
    def _from_checkpoint(cls, place: str, key: bytes | None) -> Learner:
        task, state, manifest = saved.open_checkpoint(place, key and key.strip())
        learner = cls(task)
        learner._trainer.restore(state, manifest.learned)
        counts = manifest.position.counts
        learner.events = counts.events + counts.rejected + counts.repeated
        learner._reader = Reader(task, number="")  # a service numbers no events
        learner._origin = manifest.as_words()
        return learner

    def __reduce__(self) -> tuple[Any, ...]:
        """Let copies be made, and programs pass it on, as what `save` writes."""
        return Learner._unpacked, (self._packed(), "a copy of a learner")

    @in_turn
    def _packed(self) -> bytes:
        state = self._trainer.snapshot()
        told = state.tensors(), state.learned, self.events, self._reader.number
        return saved.pack(self.task, *told)

    @classmethod
    def _unpacked(cls, data: bytes, origin: str) -> Learner:
        task, state, about = saved.unpack(data, origin)
        learner = cls(task)
        learner._trainer.restore(state, about.learned)
        learner.events, learner._reader = about.events, Reader(task, about.number)
        return learner

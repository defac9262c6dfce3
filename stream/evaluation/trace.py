"""Every prediction of an evaluation in a Parquet file: one line for each row that was read."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.stream.errors import UsageError
from headrace.stream.evaluation.compare import Errors
from headrace.stream.evaluation.plot import check_place
from headrace.stream.events import DeadLetter, Prediction
from headrace.stream.process.scratch import removed_after
from headrace.stream.task import Task
from headrace.stream.training.learned import Learned

_GROUP_ROWS = 65_536


def schema(task: Task) -> Any:
    """Return the columns of a task's trace.

    `prediction` and what belongs to it is what was said before `label`, the row's own, was seen;
    `probabilities` are in the order of the classes, which stand in the file's metadata as JSON.
    `scored` says whether the label scored a prediction, and `answers` whose: the offset of that
    row, which is an earlier one if the task has a horizon, and else the row itself. `time` is null
    where the task maps none. A refused row has its `offset` and in `rejected` the code, no more.
    """
    classes = task.spec.classes
    value = pa.string() if classes else pa.float64()
    said = {"probabilities": pa.list_(pa.float32())} if classes else dict.fromkeys(_ENDS, value)
    return pa.schema(
        {
            "offset": pa.int64(),
            "id": pa.string(),
            "time": pa.timestamp("ms", "UTC"),
            "prediction": value,
            **said,
            "label": value,
            "scored": pa.bool_(),
            "answers": pa.int64(),
            "rejected": pa.string(),
        },
        {"task": task.name, "horizon": str(task.target.horizon)},
    )


_ENDS = ("low", "high")


def check_trace(path: Path) -> None:
    """Make sure that a trace can be written to a file, before it is learned.

    Raises:
        UsageError: the name does not end with .parquet, or the file cannot be written.
    """
    if path.suffix.lower() != ".parquet":
        raise UsageError(f"--trace {path}: expected a name that ends with .parquet")
    check_place("--trace", path)


class Trace:
    """Take what came of the rows, in their order, and write it group by group."""

    def __init__(self, task: Task, path: Path, writer: Any) -> None:
        self._path, self._writer, self._schema = path, writer, schema(task)
        self._timed = task.input.time is not None
        self.classes: Iterable[str] = task.target.classes  # known so far, in their order
        self._errors = Errors(task)
        self._waiting: list[Any] = []
        self._rows = 0
        self.discarded = False

    def discard(self) -> None:
        """Let no file appear."""
        self.discarded = True

    def add(
        self,
        offsets: Sequence[int],
        letters: Iterable[DeadLetter],
        learned: Learned | None,
        predictions: Sequence[Prediction],
    ) -> None:
        """Take consecutive rows, each of which was refused or learned."""
        columns: dict[str, list[Any]] = {name: [None] * len(offsets) for name in self._schema.names}
        columns |= {"offset": list(offsets), "scored": [False] * len(offsets)}
        for letter in letters:
            columns["rejected"][letter.offset - offsets[0]] = letter.code
        if learned:
            self._tell(columns, offsets[0], learned, predictions)
        self._waiting.append(pa.Table.from_pydict(columns, self._schema))
        self._rows += len(offsets)
        if self._rows >= _GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was taken."""
        waiting, self._waiting, self._rows = self._waiting, [], 0
        if waiting:
            with _one_line(self._path):
                self._writer.write_table(pa.concat_tables(waiting))

    def _tell(
        self,
        columns: dict[str, list[Any]],
        first: int,
        learned: Learned,
        predictions: Sequence[Prediction],
    ) -> None:
        """Put into its line what was said about each row that was learned."""
        self.classes = learned.classes
        places = [offset - first for offset in learned.rows.offset]
        labels = learned.rows.label.tolist()
        for at, said, label in zip(places, predictions, labels, strict=True):
            columns["id"][at], columns["prediction"][at] = str(said.id), said.prediction
            if self._timed:
                columns["time"][at] = said.time_ms
            if said.probabilities is not None:
                columns["probabilities"][at] = said.probabilities
            elif said.interval is not None:
                columns["low"][at], columns["high"][at] = said.interval
            if label == label:
                columns["label"][at] = learned.classes[int(label)] if learned.classes else label
        scored = self._errors.of(learned)
        for line, answered in zip(scored.line.tolist(), scored.answered.tolist(), strict=True):
            at = places[line]
            columns["scored"][at], columns["answers"][at] = True, answered


@contextmanager
def tracing(task: Task, path: Path | None) -> Iterator[Trace | None]:
    """Yield a trace to add to, if there is to be one; its file appears whole, at the end, or never.

    Raises:
        UsageError: it cannot be written.
    """
    if path is None:
        yield None
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with ExitStack() as stack:
        stack.enter_context(removed_after(temporary))
        with _one_line(path):
            file = stack.enter_context(temporary.open("xb"))
            writer = pq.ParquetWriter(file, schema(task), compression="zstd")
        stack.callback(_abandon, writer)
        trace = Trace(task, path, writer)
        yield trace
        if trace.discarded:
            return
        trace.flush()
        writer.add_key_value_metadata({"classes": json.dumps([*trace.classes])})
        with _one_line(path):
            writer.close()
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)


def _abandon(writer: Any) -> None:
    """Let a writer go; what it would still write is of no use unless it has been closed before."""
    with suppress(OSError):
        writer.close()


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"--trace {path}: cannot be written: {error.strerror or error}") from error

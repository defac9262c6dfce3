"""Events of a topic or its archive for PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from headrace.datasets import ArchivedEvents, Field, Offsets, RowReader, TopicEvents
from headrace.stream.events import DeadLetter
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.task import Task

try:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError as error:
    raise ImportError(f"headrace.torch needs PyTorch (`pip install torch`): {error}") from error

MOST_WORKERS = 1024  # that each have a place of their own to count in
Row = dict[str, torch.Tensor]


class _Dataset(IterableDataset):
    """Yield a dictionary of tensors for each event: the row that the service's normaliser makes.

    Every pass yields the same rows. Without workers they come in the order of the stream: those of
    a partition by offset, partitions merged by Kafka's timestamps. With `num_workers=n` a
    `DataLoader` has each worker read its own share of adjacent offsets, every row once, and takes
    batches from the workers in turn.
    """

    def __init__(
        self,
        task: Task | str | Path,
        events: Callable[[str], TopicEvents | ArchivedEvents],
        start: Mapping[int, int] | None,
        stop: Mapping[int, int] | None,
        follow: bool = False,
    ) -> None:
        self._reader = RowReader(task, events, start=start, stop=stop, follow=follow)
        self._rejected = torch.zeros(1 + MOST_WORKERS, dtype=torch.int64).share_memory_()

    def __iter__(self) -> Iterator[Row]:
        worker = get_worker_info()
        share = (worker.id, worker.num_workers) if worker else (0, 1)
        rejected = self._rejected[1 + worker.id % MOST_WORKERS if worker else 0]

        def count(letters: list[DeadLetter]) -> None:
            rejected.add_(len(letters))

        for batch in self._reader.batches(*share, on_rejected=count):
            columns = [torch.from_numpy(column).unbind() for column in batch.values()]
            for row in zip(*columns, strict=True):
                yield dict(zip(batch, row, strict=True))

    @property
    def fields(self) -> dict[str, Field]:
        """Return what a row holds: numpy's type and the shape, by name."""
        return self._reader.fields

    @property
    def start(self) -> Offsets:
        """Return the first offset of each partition."""
        return self._reader.start

    @property
    def stop(self) -> Offsets:
        """Return the offset after the last one of each partition: where a next one may start."""
        return self._reader.stop

    @property
    def rejected(self) -> int:
        """Return how many events were left out as the normaliser refuses them: by all workers, in
        all passes."""
        return int(self._rejected.sum())


class TopicDataset(_Dataset):
    """Yield the rows of a task's events in Kafka; see `docs/frameworks.md` for what a row holds.

    Events of aborted transactions, and those that the normaliser refuses, have no row.

    Args:
        task: a task, or the path of its file.
        kafka: a connection, or `host:port[,host:port]` of any of its brokers.
        start: the first offset, by partition; default: the first there is.
        stop: the offset after the last one, by partition; default: the end as it is now.
        follow: go on after `stop` with what comes, for ever; a worker then has whole partitions.

    Raises:
        TaskError: the task file is wrong.
        UsageError: an offset is not there, or the task names no classes.
        TopicError, BrokerError: there is no such topic; the broker does not answer.
    """

    def __init__(
        self,
        task: Task | str | Path,
        kafka: KafkaConnection | str,
        *,
        start: Mapping[int, int] | None = None,
        stop: Mapping[int, int] | None = None,
        follow: bool = False,
    ) -> None:
        connection = KafkaConnection(kafka) if isinstance(kafka, str) else kafka
        super().__init__(task, partial(TopicEvents, connection), start, stop, follow)


class ArchiveDataset(_Dataset):
    """Yield the rows of a task's events in an archive, as `TopicDataset` does of those in Kafka.

    Args:
        task: a task, or the path of its file.
        place: where `headrace archive` wrote: a directory, or a URL that fsspec knows.
        start, stop: as of `TopicDataset`.

    Raises:
        TaskError: the task file is wrong.
        UsageError: an offset is not there, or the task names no classes.
        HistoryError: there is no archive of the topic, or it is damaged.
    """

    def __init__(
        self,
        task: Task | str | Path,
        place: str | Path,
        *,
        start: Mapping[int, int] | None = None,
        stop: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(task, partial(ArchivedEvents, str(place)), start, stop)

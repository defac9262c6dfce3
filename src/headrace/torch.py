"""PyTorch: events of a topic or its archive as datasets, networks of a learner as modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file

from headrace import weights
from headrace.datasets import (
    ArchivedEvents,
    Field,
    Offsets,
    Point,
    RowReader,
    TopicEvents,
    regrouped,
)
from headrace.learner import Learner
from headrace.model.spec import Activation
from headrace.stream.errors import UsageError
from headrace.stream.events import DeadLetter
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.task import Task
from headrace.weights import Shape

try:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError as error:
    raise ImportError(f"headrace.torch needs PyTorch (`pip install torch`): {error}") from error

MOST_WORKERS = 1024  # that each have a place of their own to count in
Row = dict[str, torch.Tensor]


class _Dataset(IterableDataset):
    """Yield a dictionary of tensors for each event: the row that the service's normaliser makes.

    With a `batch_size` it is one for so many events, the first axis being theirs; of the last ones
    there may be fewer. A `DataLoader` is then given `batch_size=None`, and spared what it does for
    each row.

    Every pass yields the same rows. Without workers they come in the order of the stream: those of
    a partition by offset, partitions merged by Kafka's timestamps. With `num_workers=n` a
    `DataLoader` has each worker read its own share of adjacent offsets, every row once, and takes
    batches from the workers in turn.
    """

    def __init__(
        self,
        task: Task | str | Path,
        events: Callable[[str], TopicEvents | ArchivedEvents],
        start: Point | None,
        stop: Point | None,
        batch_size: int | None,
        follow: bool = False,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size = {batch_size}: expected 1 or more, or None")
        self._batch_size = batch_size
        self._reader = RowReader(task, events, start=start, stop=stop, follow=follow)
        self._rejected = torch.zeros(1 + MOST_WORKERS, dtype=torch.int64).share_memory_()

    def __iter__(self) -> Iterator[Row]:
        worker = get_worker_info()
        share = (worker.id, worker.num_workers) if worker else (0, 1)
        rejected = self._rejected[1 + worker.id % MOST_WORKERS if worker else 0]

        def count(letters: list[DeadLetter]) -> None:
            rejected.add_(len(letters))

        blocks = self._reader.batches(*share, on_rejected=count)
        if self._batch_size is not None:
            for block in regrouped(blocks, self._batch_size):
                yield {name: torch.from_numpy(column) for name, column in block.items()}
            return
        for block in blocks:
            columns = [torch.from_numpy(column).unbind() for column in block.values()]
            for row in zip(*columns, strict=True):
                yield dict(zip(block, row, strict=True))

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
        start: where to begin: the first offset, by partition, or a time (RFC 3339; UTC unless it
            says otherwise): each partition's first record with that timestamp of Kafka's or a
            later one; default: the first there is.
        stop: where to end: the offset after the last one, by partition, or a time: before what
            would begin there; default: the end as it is now.
        batch_size: events that a dictionary holds, for a `DataLoader` with `batch_size=None`;
            default: one, whose tensors lack the axis of events.
        follow: go on after `stop` with what comes, for ever; a worker then has whole partitions.

    Raises:
        TaskError: the task file is wrong.
        UsageError: an offset is not there, a time or a batch size is none, or the task names no
            classes.
        TopicError, BrokerError: there is no such topic; the broker does not answer.
    """

    def __init__(
        self,
        task: Task | str | Path,
        kafka: KafkaConnection | str,
        *,
        start: Point | None = None,
        stop: Point | None = None,
        batch_size: int | None = None,
        follow: bool = False,
    ) -> None:
        connection = KafkaConnection(kafka) if isinstance(kafka, str) else kafka
        super().__init__(task, partial(TopicEvents, connection), start, stop, batch_size, follow)


class ArchiveDataset(_Dataset):
    """Yield the rows of a task's events in an archive, as `TopicDataset` does of those in Kafka.

    Args:
        task: a task, or the path of its file.
        place: where `headrace archive` wrote: a directory, or a URL that fsspec knows.
        start, stop, batch_size: as of `TopicDataset`.

    Raises:
        TaskError: the task file is wrong.
        UsageError: an offset is not there, a time or a batch size is none, or the task names no
            classes.
        HistoryError: there is no archive of the topic, or it is damaged.
    """

    def __init__(
        self,
        task: Task | str | Path,
        place: str | Path,
        *,
        start: Point | None = None,
        stop: Point | None = None,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(task, partial(ArchivedEvents, str(place)), start, stop, batch_size)


class Network(torch.nn.Module):
    """Be one network of a learner's pool: dense layers, and a last one that sees the inputs, too.

    Args:
        shape: as of `headrace.weights.shape_of`.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        widths = (shape.inputs, *shape.hidden)
        self.hidden = torch.nn.ModuleList(torch.nn.Linear(*pair) for pair in pairwise(widths))
        seen = sum(shape.hidden[-1:]) + shape.inputs - shape.direct
        self.output = torch.nn.Linear(seen, shape.outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map inputs f32[n, I] to outputs f32[n, O]: logits, or deviations of numbers.

        What categories and words say by themselves, `examples(...).added`, is to be added.
        """
        deep = inputs
        for layer in self.hidden:
            deep = _ACTIVATIONS[self.shape.activation](layer(deep))
        direct = inputs[:, self.shape.direct :]
        found: torch.Tensor = self.output(torch.cat([deep, direct], 1) if self.hidden else direct)
        return found


_ACTIVATIONS: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": partial(torch.nn.functional.gelu, approximate="tanh"),
}


def module_of(learner: Learner, network: int | str = 0) -> Network:
    """Return a network of a learner's pool as a module, with a copy of its weights.

    Args:
        network: its place in the pool, or its name there, as in `learner.metrics["members"]`.

    Raises:
        UsageError: there is no such network, or it is neither `linear` nor `mlp`.
    """
    module = Network(weights.shape_of(learner))
    found = weights.read(learner, network)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in found.items()})
    return module


def load_into(learner: Learner, source: Network | str | Path, network: int | str = 0) -> None:
    """Give a network of a learner's pool other weights, and let it learn on from there.

    Its optimizer begins anew, and so does the mean of its weights; all else stays. Saved
    (`Learner.save`), the learner is one that a service can begin with (`learn --start-from`).

    Args:
        source: a module, or a file of its `state_dict` as safetensors.
        network: as of `module_of`.

    Raises:
        UsageError: the file cannot be read; the weights are of another shape, or not finite; there
            is no such network. Nothing has changed.
    """
    if isinstance(source, str | Path):
        try:
            found = load_file(source)
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{source}: cannot be read as safetensors: {error}") from error
    else:
        state = source.state_dict()
        found = {name: each.detach().cpu().float().numpy() for name, each in state.items()}
    weights.write(learner, network, found)


def examples(learner: Learner, table: Any, network: int | str = 0) -> tuple[torch.Tensor, ...]:
    """Return inputs f32[n, I], added f32[n, O] and goals f32[n] of rows, as if each came next.

    The loss of a network is of its outputs and what is `added`, against the goals: of classes their
    places, of numbers what it should put out; NaN = unknown. Inputs are standardised, and lags are
    taken, by what the learner knows now: nothing is learned, and rows know nothing of each other.

    Args:
        table: as of `Learner.predict_then_learn`, with labels.
        network: as of `module_of`.

    Raises:
        UsageError, EventError: it is no table, or there is no such network; a row is refused.
    """
    return tuple(map(torch.from_numpy, weights.examples(learner, table, network)))

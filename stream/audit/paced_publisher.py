"""Where a replay puts its predictions: a topic of its own, as fast as their events came."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.stream.errors import UsageError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import TopicSpec, topic_specs
from headrace.stream.kafka.topics import describe, ensure
from headrace.stream.task import STAGES, Task
from headrace.stream.training.learned import Learned
from headrace.stream.training.trainer import Trainer

NAP_S = 0.1
LAG_S = 1.0  # what a stall delayed for longer is not caught up


class PacedPublisher:
    """Give predictions away when their time has come.

    Args:
        topic: None waits as if there were one.
        speed: so much faster than event time; None never waits.
        stop: ends the waiting; what is not due then is not published.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        topic: str | None,
        speed: float | None,
        stop: Callable[[], bool],
    ) -> None:
        self._topic, self._speed, self._stop = topic or "", speed, stop
        self._sink = kafka.sink() if topic else None
        self._encode = msgspec.json.Encoder().encode
        self._latest_ms: int | None = None
        self._origin_ms = 0.0  # the event time that belongs to 0 of the clock
        self.published = 0

    def put(self, trainer: Trainer, learned: Learned) -> None:
        """Publish predictions in their order, as far apart as their events were."""
        rows = learned.rows
        values = list(map(self._encode, trainer.predictions(learned))) if self._sink else []
        for first, last in self._due(rows.time_ms):
            if self._sink:
                keys, partitions = rows.key[first:last], rows.partition[first:last]
                self._sink.send(self._topic, values[first:last], keys=keys, partitions=partitions)
                self.published += last - first

    def flush(self) -> None:
        """Wait until all is acknowledged."""
        if self._sink:
            self._sink.flush()

    def _due(self, times_ms: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Yield which rows may go now, waiting for them; one older than others goes with them."""
        at, count = 0, len(times_ms)
        if self._speed is None:
            yield at, count
            return
        if self._latest_ms is None:
            self._latest_ms = int(times_ms[0])
            self._origin_ms = self._latest_ms - self._clock_ms()
        times = np.maximum(np.maximum.accumulate(times_ms), self._latest_ms)
        self._latest_ms = int(times[-1])
        while at < count and not self._stop():
            now_ms = self._origin_ms + self._clock_ms()
            self._origin_ms -= max(now_ms - times[at] - 1000 * LAG_S * self._speed, 0.0)
            upto = int(np.searchsorted(times, now_ms, side="right"))
            if upto > at:
                yield at, upto
                at = upto
            else:
                time.sleep(min((times[at] - now_ms) / self._speed / 1000, NAP_S))

    def _clock_ms(self) -> float:
        return time.monotonic() * 1000 * (self._speed or 1.0)


def check_name(task: Task, topic: str) -> None:
    """Refuse a topic that a learner reads or writes.

    Raises:
        UsageError: it is one.
    """
    stage = topic.rpartition(".")[2]
    if topic in {spec.name for spec in topic_specs(task)} or stage in STAGES:
        raise UsageError(
            f"--to-topic {topic}: a topic of a live task; a replay writes to one of its own, such "
            f"as {task.name}.replayed"
        )


def make_empty(task: Task, kafka: KafkaConnection, topic: str) -> None:
    """Make a topic if it is not there, with as many partitions as the raw one.

    Raises:
        UsageError: it holds records.
    """
    (raw,) = describe(kafka, [task.input.topic])
    ensure(kafka, [TopicSpec(topic, raw.partitions)])
    (found,) = describe(kafka, [topic])
    if held := sum(found.end) - sum(found.begin):
        raise UsageError(f"--to-topic {topic}: it holds {held:,} records already; name a new one")

"""The topics of a task as its page reads them, in memory: records that tests choose."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.serve.viewing import Viewing
from headrace.stream.task import Task
from tests.support.memory_kafka import MemoryKafka

BEGIN_MS = 1_764_590_400_000  # 1 December 2025, 12:00 UTC


class Topics:
    """Write what a learner would: each record with Kafka's time `BEGIN_MS` and so many seconds."""

    def __init__(self, task: Task, partitions: int = 1) -> None:
        self.task, self.kafka = task, MemoryKafka(block=lambda: 1_000)
        self.kafka.make(topic_specs(task), partitions)

    def write(self, stage: str, value: Any, second: float = 0.0, partition: int = 0) -> int:
        """Write a record, JSON unless it is bytes, to an output; return its offset."""
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        topic = self.task.input.topic if stage == "input" else self.task.output(stage)
        of = self.kafka.topics[topic][partition]
        return of.append(raw, time_ms=BEGIN_MS + int(1000 * second))

    def event(self, value: Any, second: float = 0.0, partition: int = 0) -> int:
        """Write an event."""
        return self.write("input", value, second, partition)

    def metrics(self, second: float, score: float = 0.9, **more: Any) -> dict[str, Any]:
        """Write a record of metrics; return it."""
        scores = {"accuracy": score, "macro_f1": score - 0.01, "log_loss": 1 - score}
        found = {
            "time_ms": BEGIN_MS + int(1000 * second),
            "all": {**scores, "accuracy": score - 0.05},
            "window": scores,
            "baselines": {
                name: {"all": {"accuracy": level}, "window": {"accuracy": level}}
                for name, level in (("no_change", 0.7), ("majority", 0.55))
            },
            "members": {"row, rate 0.001": 0.75, "last label": 0.25},
            "events": int(200 * second),
            "learned": int(199 * second),
            "rejected": 3,
            "repeated": 0,
            "lag": 4,
            "events_per_second": 200.5,
            "checkpoint_age_s": 2.5,
        } | more
        self.write("metrics", found, second)
        return found

    def prediction(self, offset: int, second: float = 0.0, **more: Any) -> dict[str, Any]:
        """Write the prediction of the event at an offset; return it."""
        found = {
            "id": f"e-{offset}",
            "prediction": "yes",
            "step": 100 + offset,
            "time_ms": BEGIN_MS,
            "partition": 0,
            "offset": offset,
            "probabilities": [0.25, 0.75],
        } | more
        self.write("predictions", found, second)
        return found

    def alarm(self, second: float, **more: Any) -> dict[str, Any]:
        """Write an alarm; return it."""
        found = {
            "kind": "alarm",
            "detector": "adwin",
            "id": "e-1",
            "step": 100,
            "time_ms": BEGIN_MS,
            "partition": 0,
            "offset": 1,
            "before": 0.125,
            "after": 0.375,
            "statistic": 0.25,
            "threshold": 0.2,
            "window": 640.0,
            "moved": [{"column": "x", "psi": 1.5, "ks": 0.5}],
        } | more
        self.write("drift", found, second)
        return found

    def step(self, second: float, action: str = "boost", **more: Any) -> dict[str, Any]:
        """Write what was done; return it."""
        found = {"kind": "step", "action": action, "id": "e-1", "step": 101, "time_ms": BEGIN_MS}
        self.write("drift", found | more, second)
        return found | more

    def letter(self, code: str, second: float = 0.0, raw: bytes = b"{}", **more: Any) -> None:
        """Write a dead letter."""
        found = {
            "code": code,
            "detail": f"why it is {code}",
            "topic": self.task.input.topic,
            "partition": 0,
            "offset": 7,
            "key": None,
            "raw": base64.b64encode(raw).decode(),
        }
        self.write("dead-letter", found | more, second)

    def viewing(self, archive: str | None = None) -> Viewing:
        """Return what follows them."""
        return Viewing(self.task, self.kafka, archive)


def wait(until: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait until something is so, and return it."""
    give_up_s = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < give_up_s, "it does not come"
        time.sleep(0.02)
    return found

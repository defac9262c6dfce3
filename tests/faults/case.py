"""A task whose learners are about to have a hard time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from headrace.stream.events import Records
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.rows.label_reader import LabelReader
from headrace.stream.rows.late import LateLabel, Placed
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task
from headrace.stream.training.trainer import Trainer
from tests.faults.forge import Forge, Forged
from tests.faults.labels import Label
from tests.faults.oracle import Oracle, Verdict, newest_state
from tests.faults.traffic import Feeder, Witness

CAPACITY = 1024


@dataclass
class Case:
    """Hold a task with topics of its own, and start learners of it."""

    task: Task
    path: Path
    kafka: KafkaConnection
    home: Path
    forge: Forge
    config: Path | None = None  # how learners log in

    @property
    def acks(self) -> Path:
        """Return where the producers' acknowledgements are kept."""
        return self.home / "acks"

    @property
    def labels(self) -> str | None:
        """Return the topic of late labels, None if they come within their events."""
        return self.task.labels.topic if self.task.labels else None

    def feeder(self, rate: float = 200) -> Feeder:
        """Send events until it is closed, so many a second, and their labels as the task asks."""
        return Feeder(self.kafka, self.task.input.topic, self.acks, rate=rate, late=self.labels)

    def judge(self, witness: Witness | None = None, *, fused: bool = True) -> Verdict:
        """Check all invariants of what a feeder sent; see `Oracle.judge`."""
        oracle = Oracle(self.kafka, self.task.name, self.task.input.topic, labels=self.labels)
        acks = self.acks if self.acks.exists() else None
        return oracle.judge(acks, witness, fused=fused)

    def state(self, name: str = "state") -> Path:
        """Return where a learner keeps its checkpoints."""
        return self.home / name

    def learn(
        self,
        *options: str,
        state: str = "state",
        kafka: KafkaConnection | None = None,
        checkpoint_events: int = 500,
        settings: dict[str, Any] | None = None,
        **more: Any,
    ) -> Forged:
        """Start a learner that writes checkpoints often; see `Forge.start`."""
        return self.forge.start(
            "learn",
            str(self.path),
            *(
                ("--kafka-config", str(self.config))
                if self.config
                else ("-b", (kafka or self.kafka).servers)
            ),
            *("--state", str(self.state(state))),
            "--json",
            *options,
            settings={
                "headrace.stream.service.checkpointer.EVERY_EVENTS": checkpoint_events,
                "headrace.stream.service.checkpointer.EVERY_S": 1.0,
            }
            | (settings or {}),
            **more,
        )

    def relay(self, lives: Iterable[dict[str, Any]]) -> Iterator[Forged]:
        """Start learners, one after the other; the next one compiles while one lives."""
        ahead: Forged | None = None
        for life in lives:
            following = self.learn("--micro-batch", str(life.pop("size")), held=True, **life)
            if ahead:
                yield ahead.go()
            ahead = following
        if ahead:
            yield ahead.go()

    def drain(self, *options: str, state: str = "state", **more: Any) -> dict[str, Any]:
        """Learn what is left, undisturbed, and give the learner's last word."""
        done = self.learn("--drain", *options, state=state, **more)
        assert done.wait(120) == 0, done.errors
        return done.lines[-1]

    def same_state_from_zero(self, *options: str) -> str:
        """Check I3: one that has nothing but ledger and events comes to the same state."""
        _, faulty = newest_state(self.state(), self.task.name)
        self.drain(*options, state="from-zero")
        _, fresh = newest_state(self.state("from-zero"), self.task.name)
        assert fresh == faulty, "I3: rebuilt from zero, the state is another"
        return fresh

    def undisturbed(self, verdict: Verdict) -> None:
        """Check I10: the same is said where neither poison nor a fault ever was."""
        trainer, normalizer = Trainer(self.task, CAPACITY), Normalizer(self.task)
        said: list[Any] = []
        labels = deque(verdict.labels)
        for first in range(0, len(verdict.raw), CAPACITY):
            values: list[bytes | None] = [*verdict.raw[first : first + CAPACITY]]
            zeros = [0] * len(values)
            rows, refused = normalizer.normalize(
                Records("x", values, [None] * len(values), zeros, zeros, [])
            )
            assert not refused
            late: list[Placed] = []
            while labels and labels[0][0] <= first + len(values):
                at, label = labels.popleft()
                late.append((at - first, self._read(label)))
            said += trainer.predictions(trainer.collect(trainer.submit(rows, late)))
        assert not labels
        for line, wanted in zip(verdict.lines, map(msgspec.to_builtins, said), strict=True):
            place = {"partition": line["partition"], "offset": line["offset"]}
            assert line == wanted | place, "I10: without the poison, another thing is said"

    def _read(self, label: Label) -> LateLabel:
        places = [label.partition], [label.offset], [label.time_ms]
        records = Records(self.labels or "", [label.value], [None], *places)
        ((read,), _, _) = LabelReader(self.task).read(records)
        return read

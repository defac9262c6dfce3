"""A week of event time in an hour: 10^8 events through one learner, killed once on the way."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from bench.workload import save_task, task_path
from headrace.stream.audit.verify import verify
from headrace.stream.events import Prediction
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.process.child import Child
from headrace.stream.task import Task

EVENTS = int(os.environ.get("HEADRACE_SOAK", 100_000_000))
STEPS = 20
START_S, WEEK_S = 1_732_190_000, 7 * 86_400
BLOCK = 50_000
BEHIND = 400_000  # events that may wait
PACED, RATE = 3_000, 1_000  # sent one by one after each step, and timed
AGE_S = 20.0  # of a checkpoint, at most: due after 10 s
GROWTH_MB = 40.0
ENTITIES = 50_000


class Feed:
    """Send events that never repeat an id, their times a week apart from first to last."""

    def __init__(self, kafka: KafkaConnection, topic: str) -> None:
        rng = np.random.default_rng(7)
        self._topic, self._sink, self.sent = topic, kafka.sink(), 0
        points = rng.normal(size=(BLOCK, 2)).round(4)
        self._templates = [
            b'{"id":"e%%d","ts":%%.3f,"who":"u%d","x":%g,"y":%g,"colour":"c%d","label":%d}'
            % (who, x, y, colour, x + y > 0)
            for (x, y), who, colour in zip(
                points.tolist(),
                rng.integers(ENTITIES, size=BLOCK).tolist(),
                rng.integers(1_000, size=BLOCK).tolist(),
                strict=True,
            )
        ]

    def send(self, count: int) -> None:
        """Send so many, together."""
        first, step_s = self.sent, WEEK_S / EVENTS
        self._sink.send(
            self._topic,
            [
                self._templates[n % BLOCK] % (n, START_S + n * step_s)
                for n in range(first, first + count)
            ],
        )
        self.sent += count

    def flush(self) -> None:
        """Wait until all is acknowledged."""
        self._sink.flush()


@pytest.fixture
def task(kafka: KafkaConnection, tmp_path: Path) -> Task:
    name = f"soak-{uuid.uuid4().hex[:8]}"
    made = save_task(
        tmp_path,
        name,
        "[lags]",
        f"entities = {ENTITIES}",
        "[features]",
        'x = { kind = "number" }',
        'y = { kind = "number" }',
        'colour = { kind = "category" }',
        entity="who",
    )
    ensure(kafka, topic_specs(made))
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:  # segments that may be deleted
        admin.alter_configs(
            [
                ConfigResource(
                    ConfigResourceType.TOPIC, topic, configs={"segment.bytes": "67108864"}
                )
                for topic in (made.input.topic, made.output("predictions"))
            ]
        )
    return made


class Soak:
    """Hold a learner, what it is fed, and what is seen of it."""

    def __init__(self, task: Task, path: Path, kafka: KafkaConnection) -> None:
        self._task, self._path, self._kafka = task, path, kafka
        self.feed = Feed(kafka, task.input.topic)
        self.resident_mb: list[float] = []
        self.p99_ms: list[float] = []
        self.oldest_s = 0.0  # of checkpoints, while there was work
        self._ended = [(time.monotonic(), 0)]  # steps, and what was sent by then
        self.start()

    def start(self) -> None:
        """Start the service, as a user would."""
        self.learner = Child("headrace learn")
        command = ("learn", str(self._path), "--from", "events", "--json")
        self.learner.begin(*command, "--bootstrap", self._kafka.servers)
        self._wait(lambda: self.learner.ready)

    def kill(self) -> None:
        """Kill -9."""
        self.learner.close()

    def stop(self) -> None:
        """Let it end in order."""
        self.learner.stop()
        assert self.learner.wait(time.monotonic() + 30)
        assert self.learner.trouble is None

    def step(self, events: int) -> None:
        """Send so many as fast as they are learned, then some one by one; delete what is old."""
        for start in range(0, events, BLOCK):
            self.feed.send(min(BLOCK, events - start))
            self._look()
            self._wait(lambda: self._waiting < BEHIND)
        self.feed.flush()
        self._wait(lambda: self._waiting == 0)
        self.p99_ms.append(self._paced())
        self._wait(lambda: self._waiting == 0)
        self.resident_mb.append(psutil.Process(self.learner.pid).memory_info().rss / (1 << 20))
        self._delete()

    @property
    def _waiting(self) -> int:
        return self.feed.sent - int(self.learner.said.get("events", 0))

    def _wait(self, done: Callable[[], bool], timeout_s: float = 120.0) -> None:
        give_up_s = time.monotonic() + timeout_s
        while not done():
            assert self.learner.trouble is None
            assert time.monotonic() < give_up_s, self.learner.said
            self._look()
            time.sleep(0.05)

    def _look(self) -> None:
        self.oldest_s = max(self.oldest_s, self.learner.said.get("checkpoint_age_s") or 0.0)

    def _paced(self) -> float:
        """Send events one by one, and give the 99th percentile of the wait in milliseconds."""
        topic, first = self._task.output("predictions"), self.feed.sent
        with closing(self._kafka.source(topic)) as source:
            ends = source.ends()
        offset_of = msgspec.json.Decoder(Prediction).decode
        sent_s, waited_s = list[float](), list[float]()
        begun_s = time.monotonic()
        with closing(self._kafka.source(topic, offsets=ends, prompt=True)) as reader:
            while len(waited_s) < PACED:
                if len(sent_s) < PACED and time.monotonic() >= begun_s + len(sent_s) / RATE:
                    sent_s.append(time.monotonic())
                    self.feed.send(1)
                records = reader.poll(BLOCK, 0.0005)
                now_s = time.monotonic()
                for value in records.values if records else ():
                    waited_s.append(now_s - sent_s[offset_of(value or b"").offset - first])
                assert now_s < begun_s + 120
        return 1_000 * float(np.percentile(waited_s, 99))

    def _delete(self) -> None:
        """Let retention take what was learned before the last checkpoints."""
        now_s = time.monotonic()
        self._ended.append((now_s, self.feed.sent))
        old = max(sent for ended_s, sent in self._ended if ended_s < now_s - 2 * AGE_S or not sent)
        with closing(self._kafka.source(self._task.output("predictions"))) as source:
            ends = source.ends()
        with KafkaAdminClient(bootstrap_servers=self._kafka.servers) as admin:
            admin.delete_records(
                {
                    TopicPartition(self._task.input.topic, 0): old,
                    TopicPartition(self._task.output("predictions"), 0): ends[0],
                }
            )


@pytest.mark.long
@pytest.mark.timeout(3 * 3_600)
def test_a_week_leaves_memory_latency_and_checkpoints_as_they_were(
    kafka: KafkaConnection, task: Task, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    """As many as HEADRACE_SOAK says, or 10^8; the learner is killed and started again half-way."""
    soak, half = Soak(task, task_path(tmp_path, task.name), kafka), STEPS // 2
    try:
        for step in range(STEPS):
            if step == half:
                soak.kill()
                soak.start()
            soak.step(EVENTS // STEPS - PACED)
        soak.stop()
    finally:
        soak.kill()
    said, sent = soak.learner.said, soak.feed.sent
    tell(
        f"soak: {sent:,} events, {said['duplicates']} duplicates; MiB by step "
        f"{[round(mb) for mb in soak.resident_mb]}, p99 ms {[round(ms) for ms in soak.p99_ms]}, "
        f"oldest checkpoint {soak.oldest_s:.0f} s"
    )
    assert (said["events"], said["rejected"], said["repeated"]) == (sent, 0, 0)
    for life in (soak.resident_mb[:half], soak.resident_mb[half:]):
        assert max(life[1:]) < life[1] + GROWTH_MB
    assert np.median(soak.p99_ms[half:]) < 2 * np.median(soak.p99_ms[:half])
    assert soak.oldest_s < AGE_S
    audit = verify(task, kafka)
    assert audit.findings == []

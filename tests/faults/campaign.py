"""Schedules drawn from a seed: what a stream, its topic, its broker and its learners go through.

A schedule has one of three kinds, for not all faults go together: with `rivals` learners take over
from each other, each with a state of its own, so that all history has to stay; with `retention`
what was learned and kept in a checkpoint is deleted; with `again` the raw topic, or that of late
labels, is deleted and made again, and the learner told to go on with the new one.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.faults.case import Case
from tests.faults.forge import Forged
from tests.faults.labels import SPOILED, Topic, topic_of
from tests.faults.nodes import Node
from tests.faults.oracle import Oracle, Verdict
from tests.faults.reading import Raw, by_offset, read
from tests.support.events import POISON, good

KINDS = ("rivals", "retention", "again")
SCALARS: tuple[Any, ...] = (1, 1.0, True, 0, -0.0, False, "1", "true", 2.5, 10**30, "é", "", None)
SIZES = (16, 64, 200)  # few, since each is compiled once
MOST_PARTITIONS = 5
READY_S = 90.0


class Campaign:
    """Go through one schedule, and have it judged."""

    def __init__(self, case: Case, node: Node, seed: int) -> None:
        self._case, self._node, self._chance = case, node, random.Random(seed)
        self.kind = KINDS[seed % len(KINDS)]
        self.story: list[str] = [f"seed {seed}, {self.kind}"]
        self._numbers = itertools.count()
        self._codes: dict[bytes | None, str] = {}  # with which events have to be refused
        self._raws: list[Raw] = [{}]
        self._labels: list[Topic] = [{}]
        self._due: list[tuple[Any, str]] = []  # labels that are still to be sent, with their ids
        self._told: list[tuple[Any, str, int]] = []  # those that were, with their partitions
        topics = [case.task.input.topic, *([case.labels] if case.labels else [])]
        self._partitions = dict.fromkeys(topics, case.task.topics.partitions)
        self._state = 0
        self._learner: Forged | None = None

    def run(self, steps: int) -> Verdict:
        """Do so many things, let the rest be learned, and judge.

        Raises:
            AssertionError: an invariant does not hold, or a learner ended otherwise than it may.
        """
        do: dict[str, tuple[int, Callable[[], None]]] = {
            "feed": (6, self._feed),
            "start": (4, self._start),
            "kill": (3, self._kill),
            "end": (2, self._end),
            "stand still": (1, self._stand_still),
            "wait": (1, lambda: time.sleep(self._chance.uniform(0.2, 1.5))),
            "grow": (1, self._grow),
            "freeze Kafka": (1, self._freeze),
            "kill Kafka": (1 if self._chance.random() < 0.2 else 0, self._kill_kafka),
            "rival": (2 * (self.kind == "rivals"), self._rival),
            "forget": (2 * (self.kind == "retention"), self._forget),
            "make again": (2 * (self.kind == "again"), self._make_again),
        }
        weights = [weight for weight, _ in do.values()]
        for name in self._chance.choices(list(do), weights, k=steps):
            self.story.append(name)
            do[name][1]()
            self._look()
        self._feed()
        self._end()
        self._drain()
        return self._judge()

    def _feed(self) -> None:
        """Send a burst of events, one in six of them odd; each is acknowledged, and remembered."""
        from kafka import KafkaProducer

        with KafkaProducer(
            bootstrap_servers=self._case.kafka.servers,
            max_request_size=1 << 20,
            request_timeout_ms=10_000,
            delivery_timeout_ms=120_000,
        ) as producer:
            sent = []
            topic, labels = self._case.task.input.topic, self._case.labels
            for _ in range(self._chance.randint(20, 150)):
                key, value = self._event()
                if labels and value not in self._codes:
                    value = self._later(value)
                place = self._chance.randrange(self._partitions[topic])
                sent.append(producer.send(topic, value, key=key, partition=place))
                if labels and self._due:
                    value, place = self._label()
                    sent.append(producer.send(labels, value, key=b"", partition=place))
            for future in sent:
                future.get(150)

    def _later(self, value: bytes | None) -> bytes | None:
        """Take the label out of an event, to send it later, or never; a few bring theirs."""
        event = json.loads(value or b"")
        if self._chance.random() < 0.1:
            return value
        self._due.append((event["id"], event.pop("label")))
        return json.dumps(event).encode()

    def _label(self) -> tuple[bytes | None, int]:
        """Make a label, one in six of them odd, and say where it goes."""
        chance, odd = self._chance, self._chance.randrange(24)
        place = chance.randrange(self._partitions[self._case.labels or ""])
        if odd == 0:
            return chance.choice([*SPOILED]), place
        if odd < 3 and self._told:  # again, or another one: behind the first, where that was
            id, label, place = chance.choice(self._told)
            label = chance.choice(["no", "yes"]) if odd == 1 else label
        else:
            id, label = self._due.pop(chance.randrange(len(self._due)))
            if odd == 3:
                return json.dumps({"id": f"nobody-{id}", "label": label}).encode(), place
            self._told.append((id, label, place))
        return json.dumps({"id": id, "label": label}).encode(), place

    def _event(self) -> tuple[bytes | None, bytes | None]:
        number, chance = next(self._numbers), self._chance
        odd = chance.randrange(40)
        if odd == 0:
            value, code = chance.choice(list(POISON.values()))
            return b"k", self._refused(value, code)
        if odd == 1:
            size = chance.choice([5_000, 70_000, 900_000])
            return b"k", self._refused(b'{"n":%d,"x":"%s"}' % (number, b"x" * size), "too_large")
        if odd == 2:
            value = good(number, text="its key is too long")  # no other event is like it
            return b"K" * chance.choice([70_000, 900_000]), self._refused(value, "too_large")
        if odd == 3:
            return None, good(max(number - chance.randrange(1, 30), 0))
        changes: dict[str, object] = {}
        if odd < 12:
            changes["color"] = chance.choice(SCALARS)
        if odd % 3 == 0:
            changes["entity"] = chance.choice([7, 7.0, "7", 1e3, 1000, True])
        if odd == 20:
            changes["text"] = None
        return chance.choice([b"k", b"", None]), good(number, **changes)

    def _refused(self, value: bytes | None, code: str) -> bytes | None:
        self._codes[value] = code
        return value

    def _start(self) -> None:
        """Start a learner if there is none."""
        if self._learner is None:
            self._learner = self._learn()

    def _learn(self, *options: str, ready: bool | None = None) -> Forged:
        size = str(self._chance.choice(SIZES))
        learner = self._case.learn(
            *options,
            *("--micro-batch", size),
            state=f"state-{self._state}",
            checkpoint_events=self._chance.choice([50, 300]),
        )
        if self._chance.random() < 0.6 if ready is None else ready:
            assert learner.wait_ready(READY_S), self._ended(learner)
        return learner

    def _kill(self) -> None:
        if self._learner:
            time.sleep(self._chance.uniform(0, 0.6))
            self._learner.kill()
            self._learner = None

    def _end(self) -> None:
        """End the learner in order."""
        if self._learner:
            self._learner.send(signal.SIGTERM)
            code = self._learner.wait(30)
            early = code == -signal.SIGTERM and not self._learner.errors  # no handler stood yet
            assert early or code in (0, 130, *self._blameless()), self._ended(self._learner)
            self._learner = None

    def _stand_still(self) -> None:
        if self._learner:
            self._learner.send(signal.SIGSTOP)
            time.sleep(self._chance.uniform(0.2, 2))
            self._learner.send(signal.SIGCONT)

    def _look(self) -> None:
        """A learner ends by itself only where Kafka was away, or another took over."""
        if self._learner and self._learner.dead.is_set():
            assert self._learner.code in self._blameless(), self._ended(self._learner)
            self._learner = None

    def _blameless(self) -> tuple[int, ...]:
        return (3, 5) if {"kill Kafka", "freeze Kafka"} & set(self.story) else ()

    def _rival(self) -> None:
        """Have another learner take over, that knows nothing."""
        first = self._learner
        if first and not first.wait_ready(READY_S):
            return
        self._state += 1
        self._learner = self._learn(ready=True)
        if first:
            self._feed()  # one that has nothing to write does not notice
            code = first.wait(60)
            assert code in (6, *self._blameless()), self._ended(first)

    def _grow(self) -> None:
        """Add a partition to one of the topics that are read."""
        from kafka.errors import KafkaError

        topic = self._chance.choice([*self._partitions])
        if self._partitions[topic] < MOST_PARTITIONS:
            self._partitions[topic] += 1
            with self._admin() as admin:
                give_up_s = time.monotonic() + 60
                while True:
                    try:
                        admin.create_partitions({topic: self._partitions[topic]})
                        break
                    except KafkaError:  # a broker that was frozen is fenced for a moment
                        assert time.monotonic() < give_up_s
                        time.sleep(0.5)
                count = self._partitions[topic]
                while len(admin.describe_topics([topic])[0]["partitions"]) < count:
                    time.sleep(0.1)  # a producer of now would not know of it

    def _forget(self) -> None:
        """Delete what the newest checkpoint has behind it, as retention would."""
        from kafka import TopicPartition

        self._remember()
        kept = self._kept()
        positions = {self._case.task.input.topic: kept.get("positions", {})}
        if self._case.labels:
            positions[self._case.labels] = kept.get("labels", {})
        gone = {
            TopicPartition(topic, int(p)): at
            for topic, each in positions.items()
            for p, at in each.items()
            if at
        }
        if gone:
            with self._admin() as admin:
                admin.delete_records(gone)

    def _kept(self) -> dict[str, Any]:
        """Return the manifest of the newest checkpoint that the ledger announced, or {}."""
        ledger = read(self._case.kafka, self._case.task.output("ledger"))[0]
        records = [json.loads(each.value or b"{}") for each in ledger]
        announced = {record.get("saved", {}).get("seq") for record in records}
        folder = self._case.state(f"state-{self._state}") / self._case.task.name
        manifests = []
        for path in folder.glob("*/*.json"):
            with suppress(FileNotFoundError):  # the oldest are removed meanwhile
                manifests.append(json.loads(path.read_bytes())["manifest"])
        found = [each for each in manifests if each["seq"] in announced]
        newest: dict[str, Any] = max(found, key=lambda each: each["seq"], default={})
        return newest

    def _make_again(self) -> None:
        """Delete a topic and make it again: after an end in order, which leaves all kept."""
        self._start()
        assert self._learner
        self._learner.wait_ready(READY_S)
        self._end()
        self._drain()
        self._remember()
        topic = self._chance.choice([*self._partitions])
        with self._admin() as admin:
            admin.delete_topics([topic])
            give_up_s = time.monotonic() + 60
            while True:
                try:
                    admin.create_topics({topic: {"num_partitions": self._partitions[topic]}})
                    break
                except Exception:
                    assert time.monotonic() < give_up_s, "the topic cannot be made again"
                    time.sleep(0.1)
        if topic == self._case.labels:
            self._labels.append({})
            self._told.clear()  # a new topic has its own order
        else:
            self._raws.append({})
        self._feed()
        refused = self._learn(ready=False)
        assert refused.wait(READY_S) == 7, self._ended(refused)
        self._learner = self._learn("--accept-new-topic", ready=True)

    def _drain(self) -> None:
        """Learn what is left, undisturbed."""
        for _ in range(3):
            done = self._case.learn(
                *("--drain", "--micro-batch", "64"), state=f"state-{self._state}"
            )
            if done.wait(120) not in self._blameless():
                break
        assert done.code == 0, self._ended(done)

    def _freeze(self) -> None:
        os.kill(self._node.pid, signal.SIGSTOP)
        time.sleep(self._chance.uniform(0.5, 4))
        os.kill(self._node.pid, signal.SIGCONT)

    def _kill_kafka(self) -> None:
        self._node.kill()
        self._node.start()
        self._node.wait_started()

    @contextmanager
    def _admin(self) -> Iterator[Any]:
        from kafka import KafkaAdminClient

        with KafkaAdminClient(bootstrap_servers=self._case.kafka.servers) as admin:
            yield admin

    def _remember(self) -> None:
        """Keep what stands in the topics: some of it will be gone when it is judged."""
        for partition, values in by_offset(
            read(self._case.kafka, self._case.task.input.topic)
        ).items():
            self._raws[-1].setdefault(partition, {}).update(values)
        if self._case.labels:
            for partition, labels in topic_of(self._case.kafka, self._case.labels).items():
                self._labels[-1].setdefault(partition, {}).update(labels)

    def _judge(self) -> Verdict:
        self._remember()
        case = self._case
        task, codes = case.task, self._codes.get
        late = (case.labels, self._labels) if case.labels else ()
        return Oracle(case.kafka, task.name, task.input.topic, self._raws, codes, *late).judge()

    def _ended(self, learner: Forged) -> str:
        return f"{self.story}: ended with {learner.code}: {learner.errors[-3000:]}"

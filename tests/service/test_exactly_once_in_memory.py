"""Exactly once, on a Kafka in memory: any schedule of crashes, freezes and duplicates, as data.

Service, ledger, checkpoints and recovery are the real ones, and so is the learner. The real
broker's tests kill at chosen places; here a process may end at every step, in any order.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from headrace.stream.audit.verify import verify
from headrace.stream.errors import FencedError, HeadraceError
from headrace.stream.events import Records
from headrace.stream.formats import new_fields
from headrace.stream.formats.new_fields import NewFields
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.process.failpoint import failpoint
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.service import checkpointer, learn, progress, service
from headrace.stream.service.label_history import LabelHistory
from headrace.stream.service.replayer import LedgerReplayer
from headrace.stream.service.row_source import FeatureSource
from headrace.stream.service.start import Origin, Safety
from headrace.stream.task import Task, parse
from headrace.stream.training import label_join
from headrace.stream.training.label_join import LabelJoin
from headrace.stream.training.snapshot import SavedState
from headrace.stream.training.trainer import Trainer
from tests.support.events import good
from tests.support.memory_kafka import MemoryKafka, MemoryTransactions

TEXT = """
name = "t"
[input]
topic = "t.events"
time = "time"
entity = "entity"
[features]
x = { kind = "number" }
[target]
field = "label"
kind = "classify"
classes = ["no", "yes"]
[model]
hidden = [2]
neighbours = 10
explain = 0.1
[drift]
ladder = []
"""
TASK = parse(TEXT, "t")
LABELS = """
[labels]
topic = "t.labels"
max_pending = 9
in_memory = 3
policy = "relearn"
"""
LATE = parse(TEXT + LABELS, "t")
RAW, ROWS = TASK.input.topic, TASK.output("features")
MICRO_BATCH = 8
NEW_FROM = 15  # from this event on some have a field that the task does not know
PLACES = 2  # where learners keep their checkpoints
pack = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True)
class Life:
    """Say how one learner lives, and what happens before."""

    events: int  # sent before; one in eight is refused
    origin: Origin = "events"
    end: int = 0  # the step at which it is struck; 0: it comes to the end of the topic
    how: str = (
        "crash"  # or "freeze": another learner lives meanwhile, from its beginning to its end
    )
    place: int = 0
    seed: int = 0  # of how much each poll finds, and of what the normaliser doubles and loses


LIVES = st.builds(
    Life,
    events=st.integers(0, 25),
    origin=st.sampled_from(["events", "features"]),
    end=st.integers(0, 60),
    how=st.sampled_from(["crash", "crash", "freeze"]),
    place=st.integers(0, PLACES - 1),
    seed=st.integers(0, 1 << 16),
)


class CrashError(BaseException):
    """End a learner as a power cut does: nothing of ours catches it."""


class Inline:
    """Be a thread that does its work at once, so that every run of a schedule is the same."""

    def __init__(self, target: Callable[..., object], args: Any, daemon: bool) -> None:
        self._work: Callable[[], object] = lambda: target(*args)

    def start(self) -> None:
        self._work()

    def join(self, timeout: float | None = None) -> None:
        pass

    def is_alive(self) -> bool:
        return False


class World:
    """Hold a Kafka, places for checkpoints, and the learners that live there."""

    def __init__(self, folder: Path, partitions: int, start: SavedState | None, task: Task) -> None:
        self.task = task
        self.kafka = MemoryKafka(reached=self.step)
        self.kafka.make(topic_specs(task), partitions)
        self.folder, self.start = folder, start
        self.sent = 0
        self.fenced = 0
        self._steps: list[tuple[int, Life]] = []  # of each learner that lives: left, and how
        self._normalised = dict.fromkeys(range(partitions), 0)

    def live(self, life: Life) -> Any:
        """Let a learner live; return its progress if it came to the end."""
        rng = random.Random(life.seed)
        self._send(life.events)
        self._normalise(rng)
        self.kafka.block = lambda: rng.randint(1, 12)
        self._steps.append((life.end, life))
        try:
            return self._learn(life.origin, life.place)
        except CrashError:
            return None
        except FencedError:
            self.fenced += 1
            return None
        finally:
            self._steps.pop()

    def step(self, name: str) -> None:
        """Count a step of the learner that lives; strike it when it is time."""
        left, life = self._steps[-1] if self._steps else (0, Life(0))
        if not left:
            return
        self._steps[-1] = left - 1, life
        if left > 1:
            return
        if life.how == "crash":
            self._steps[-1] = 1, life  # whatever it does on its way out ends at once, too
            raise CrashError(name)
        block = self.kafka.block
        self.live(Life(3, life.origin, place=1 - life.place, seed=life.seed + 1))
        self.kafka.block = block

    def _learn(self, origin: Origin, place: int) -> Any:
        return learn.learn(
            self.task,
            self.kafka,
            origin=origin,
            safety=Safety(str(self.folder / str(place)), start=self.start),
            micro_batch=MICRO_BATCH,
            drain=True,
        )

    def _send(self, events: int) -> None:
        for number in range(self.sent, self.sent + events):
            at = number * number % len(self.kafka.topics[RAW])
            new: dict[str, object] = {"new": 1} if number > NEW_FROM and number % 3 == 0 else {}
            if self.task.labels:
                new["label"] = None if number % 13 else "yes"  # some bring theirs, too
            value = b"poison" if number % 8 == 5 else good(number, **new)
            time_ms = 10 * number + 10
            self.kafka.topics[RAW][at].append(value, skip=number % 11 == 3, time_ms=time_ms)
            for label in self._labels(number) if self.task.labels else ():
                of = self.kafka.topics["t.labels"]
                of[number % len(of)].append(label, skip=number % 7 == 3, time_ms=time_ms + 5)
        self.sent += events

    @staticmethod
    def _labels(number: int) -> Iterator[bytes]:
        """Yield the labels that come behind an event, of earlier ones and all sorts of others."""
        if number % 5 != 1:
            yield told(number - 3, number % 2)
        if number % 7 == 2:
            yield told(number - 3, number % 2)  # again, or too soon
        if number % 9 == 4:
            yield told(number - 7, number % 4 == 0)  # perhaps another one than before
        if number % 10 == 6:
            yield b"poison"
        if number % 11 == 7:
            yield told(-number, 1)  # of an event that never comes
        if number % 6 == 3:
            yield told(number + 2, 1)  # before its event

    def _normalise(self, rng: random.Random) -> None:
        """Write rows as the normaliser does, at least once; lose some, as it never should."""
        for at, partition in self.kafka.topics[RAW].items():
            start = max(0, self._normalised[at] - rng.choice((0, 0, 3)))
            offsets, values = partition.offsets[start:], partition.values[start:]
            self._normalised[at] = start + len(offsets)
            count = len(offsets)
            records = Records(RAW, [*values], [b""] * count, [at] * count, offsets, [1] * count)
            times = [partition.times_ms[offset] for offset in offsets]
            records = records._replace(timestamps_ms=times)
            for row in Normalizer(self.task).features(records)[0]:
                if rng.random() < 0.9:
                    self.kafka.topics[ROWS][at].append(pack(row))

    def visible(self, stage: str) -> dict[int, list[bytes]]:
        """Return the committed values of an output, by partition."""
        return {
            at: [
                value
                for offset, value in zip(each.offsets, each.values, strict=True)
                if offset not in each.hidden
            ]
            for at, each in self.kafka.topics[self.task.output(stage)].items()
        }


def told(number: int, label: int) -> bytes:
    """Make the label of an event."""
    return msgspec.json.encode({"id": f"e-{number}", "label": ("no", "yes")[label]})


@cache
def learned_before() -> SavedState:
    """Learn a few events without Kafka."""
    trainer = Trainer(TASK, MICRO_BATCH)
    values: list[bytes | None] = [good(number) for number in range(1_000, 1_000 + MICRO_BATCH)]
    count = len(values)
    records = Records(RAW, values, [b""] * count, [0] * count, [*range(count)], [1] * count)
    trainer.collect(trainer.submit(trainer.admit(Normalizer(TASK).normalize(records)[0], "")[0]))
    return SavedState(trainer.snapshot().tensors(), trainer.learned)


@contextmanager
def world(partitions: int, start: SavedState | None = None, task: Task = TASK) -> Iterator[World]:
    """Make a world whose steps are those of the product, too, and in which nothing waits."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        made = World(Path(folder), partitions, start, task)
        for module in [m for n, m in sys.modules.items() if n.startswith("headrace.stream.")]:
            if vars(module).get("failpoint") is failpoint:
                patch.setattr(module, "failpoint", made.step)
        patch.setattr(checkpointer, "Thread", Inline)
        patch.setattr(checkpointer, "EVERY_EVENTS", 12)
        patch.setattr(progress, "METRICS_EVERY_S", 0.0)
        patch.setattr(new_fields, "USUAL_EVENTS", 10)
        patch.setattr(label_join, "KEPT", 4)
        for module in (learn, service):
            patch.setattr(module, "tune_memory", lambda: None)
        yield made


def check(made: World, done: Any, lives: list[Life]) -> None:
    """Make sure that every event was answered once, and that all of it is proved."""
    for at, raw in made.kafka.topics[RAW].items():
        good_ones = [o for o, v in zip(raw.offsets, raw.values, strict=True) if v != b"poison"]
        said = [msgspec.json.decode(each) for each in made.visible("predictions")[at]]
        assert [each["offset"] for each in said] == good_ones
    letters = [msgspec.json.decode(v) for vs in made.visible("dead-letter").values() for v in vs]
    found = sorted((each["partition"], each["offset"]) for each in letters if each["topic"] == RAW)
    poison = sorted(
        (at, offset)
        for at, raw in made.kafka.topics[RAW].items()
        for offset, value in zip(raw.offsets, raw.values, strict=True)
        if value == b"poison"
    )
    assert set(found) <= set(poison)  # the normaliser writes those of rows that it made
    if all(life.origin == "events" for life in lives):
        assert found == poison
        if len(made.kafka.topics[RAW]) == 1:
            new = sum(b'"new"' in value for value in made.kafka.topics[RAW][0].values)
            assert done.new_fields == ({"new": new} if new else {})
    assert len(set(found)) == len(found)
    assert (done.events, done.rejected) == (made.sent - len(poison), len(poison))
    if made.task.labels:
        account_for(made, done, [each for each in letters if each["topic"] != RAW])
    audit = verify(made.task, made.kafka, deep=True, start=made.start)
    assert audit.findings == []
    assert audit.metrics == sum(map(len, made.visible("metrics").values())) > 0


def account_for(made: World, done: Any, letters: list[dict[str, Any]]) -> None:
    """Make sure that every label, and every event that waits for one, is accounted for."""
    of, truth = made.kafka.topics["t.labels"], done.labels
    sent = [v for each in of.values() for v in each.values]
    own = sum(b'"label": "yes"' in v for p in made.kafka.topics[RAW].values() for v in p.values)
    assert truth["labels"] == len(sent) + own
    assert truth["labels"] == sum(
        truth[name] for name in ("scored", "relearned", "repeated", "refused", "held")
    )
    assert done.events == truth["scored"] + truth["expired"] + truth["pending"]
    assert len(letters) == truth["refused"]
    assert sum(each["code"] == "json" for each in letters) == sent.count(b"poison")
    expired = [msgspec.json.decode(v) for vs in made.visible("expired").values() for v in vs]
    assert len(expired) == len({each["id"] for each in expired}) == truth["expired"]


def try_out(
    lives: list[Life], partitions: int, start: SavedState | None = None, task: Task = TASK
) -> None:
    """Live these lives, then to the end; compare with one life that nothing disturbs."""
    with world(partitions, start, task) as made:
        ended = [made.live(life) is not None for life in lives]
        event(f"{sum(ended)} of {len(lives)} came to their end, {made.fenced} were fenced")
        done = made.live(Life(5))
        check(made, done, lives)
        if partitions > 1:
            return  # in which order partitions are read is not told beforehand
        if task.labels and any(life.origin == "features" for life in lives):
            return  # nor how far the normaliser is when a label comes that waits for no other event
        said = made.visible("predictions")
        truth = done.labels and {k: v for k, v in done.labels.items() if k != "lag"}
    with world(partitions, start, task) as undisturbed:
        done = undisturbed.live(Life(made.sent))
        assert undisturbed.visible("predictions") == said
        assert truth == (done.labels and {k: v for k, v in done.labels.items() if k != "lag"})


schedules = given(st.lists(LIVES, min_size=1, max_size=6), st.integers(1, 2))
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(unhurried, max_examples=80)
@schedules
def test_any_schedule_answers_every_event_once(lives: list[Life], partitions: int) -> None:
    try_out(lives, partitions)


@settings(unhurried, max_examples=20)
@schedules
def test_so_does_any_that_begins_with_a_saved_learner(lives: list[Life], partitions: int) -> None:
    try_out(lives, partitions, learned_before())


@settings(unhurried, max_examples=80)
@schedules
def test_so_does_any_whose_labels_come_late(lives: list[Life], partitions: int) -> None:
    try_out(lives, partitions, task=LATE)


@pytest.mark.long
@pytest.mark.timeout(1200)
@settings(unhurried, max_examples=1_000)
@schedules
def test_thousands_of_schedules_with_late_labels(lives: list[Life], partitions: int) -> None:
    try_out(lives, partitions, task=LATE)


@pytest.mark.long
@pytest.mark.timeout(1200)
@settings(unhurried, max_examples=3_000)
@schedules
def test_thousands_of_schedules_answer_every_event_once(lives: list[Life], partitions: int) -> None:
    try_out(lives, partitions)


def send_beside(self: MemoryTransactions, topic: str, values: Any, **more: Any) -> None:
    """Send predictions beside the transaction, as most pipelines do."""
    send(self, topic, values, **more)
    if topic == TASK.output("predictions"):
        open_ones = self._kafka.transaction[self._id]
        for _, at, offset in [each for each in open_ones if each[0] == topic]:
            self._kafka.topics[topic][at].hidden.pop(offset)
        self._kafka.transaction[self._id] = [each for each in open_ones if each[0] != topic]


send = MemoryTransactions.send
BREAKAGES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "outputs beside the transaction": lambda patch: patch.setattr(
        MemoryTransactions, "send", send_beside
    ),
    "nobody is fenced": lambda patch: patch.setattr(
        MemoryTransactions, "_check", lambda self: None
    ),
    "what came after the checkpoint is not learned again": lambda patch: patch.setattr(
        LedgerReplayer, "add", lambda self, record: None
    ),
    "a checkpoint's state is not taken over": lambda patch: patch.setattr(
        Trainer, "restore", lambda self, tensors, learned: None
    ),
    "new fields are forgotten": lambda patch: patch.setattr(NewFields, "state", lambda self: {}),
    "what waits for a label is forgotten": lambda patch: patch.setattr(
        LabelJoin, "restore", lambda self, tensors: None
    ),
    "history has no late labels": lambda patch: patch.setattr(
        LabelHistory, "between", lambda self, rows, records: (rows, [], [])
    ),
    "repeated rows are learned again": lambda patch: patch.setattr(
        FeatureSource, "_looked_up_to", lambda self, partition, offset: offset
    ),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_the_property_fails_when_something_is_broken(breakage: str) -> None:
    rng = random.Random(1)
    origins: list[list[Origin]] = [["events"], ["events", "features"]]
    for number in range(60):
        lives = [
            Life(
                rng.randrange(26),
                rng.choice(origins[number % 2]),
                rng.randrange(60),
                rng.choice(["crash", "crash", "freeze"]),
                rng.randrange(PLACES),
                rng.randrange(1 << 16),
            )
            for _ in range(4)
        ]
        task = LATE if "label" in breakage else TASK
        with pytest.MonkeyPatch.context() as patch, world(1, task=task) as made:
            BREAKAGES[breakage](patch)
            try:
                for life in lives:
                    made.live(life)
                check(made, made.live(Life(5)), lives)
            except (AssertionError, HeadraceError):
                return
    pytest.fail(f"{breakage}: 60 schedules, and none tells")

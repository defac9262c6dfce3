"""A service's state in a program: what it says next is what the service says next."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.stream.audit.replay import state
from headrace.stream.audit.replay_range import parse_position
from headrace.stream.errors import RecoveryError, UsageError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.service.learn import learn
from headrace.stream.service.start import Safety
from headrace.stream.task import parse
from tests.support.events import TASK, good
from tests.support.learners import life
from tests.support.topics import read, send


class Served:
    """Hold a service that learned twice, and its state after the first time."""

    def __init__(self, kafka: KafkaConnection, home: Path) -> None:
        name = f"explore-{uuid.uuid4().hex[:8]}"
        text = TASK.replace('"poisoned"', f'"{name}"').replace("events.poisoned", f"events.{name}")
        self.task, self.kafka = parse(text, name), kafka
        ensure(kafka, topic_specs(self.task))
        self.events = [good(at - (at == 150)) for at in range(300)]  # 149 comes twice
        self.events[30] = b'{"id": 5'
        self.first, self.then = home / "first", home / "then"
        for part in (self.events[:200], self.events[200:]):
            send(kafka, self.task.input.topic, [*part])
            life(self.task, kafka, str(home / "state"))
            if not self.first.exists():
                shutil.copytree(home / "state", self.first)
        self.last = home / "state"
        self.ledger = read(kafka, self.task.output("ledger"))

    def said(self) -> list[tuple[str, list[float]]]:
        """Return class and probabilities of each event that was not refused, in their order."""
        found = read(self.kafka, self.task.output("predictions"))
        return [(each["prediction"], each["probabilities"]) for each in found]


@pytest.fixture(scope="module")
def served(kafka: KafkaConnection, tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(kafka, tmp_path_factory.mktemp("served"))


def heard(learner: headrace.Learner, events: list[bytes]) -> list[tuple[str, list[float]]]:
    found = learner.predict_then_learn([json.loads(event) for event in events]).to_pylist()
    return [(each["prediction"], each["probabilities"]) for each in found]


def test_a_checkpoint_goes_on_as_the_service_did(served: Served) -> None:
    said = served.said()
    assert len(said) == 298
    learner = headrace.Learner.load(served.first)
    assert learner.task == served.task
    assert learner.events == 200
    bare = {k: v for k, v in json.loads(served.events[200]).items() if k != "label"}
    asked = learner.predict_one(bare)
    assert (asked.label, [*asked.probabilities.values()]) == said[198]
    assert heard(learner, served.events[200:]) == said[198:]
    last = headrace.Learner.load(served.last)
    assert learner.metrics == last.metrics
    assert learner.events == last.events == 300
    with pytest.raises(headrace.EventError, match="id"):  # as the service would
        learner.predict_one({k: v for k, v in bare.items() if k != "id"})


def test_any_place_and_moment_of_it_opens(served: Served, tmp_path: Path) -> None:
    for path in sorted(served.first.rglob("*")):
        if path.is_dir() or path.suffix in (".json", ".safetensors"):
            assert headrace.Learner.load(path).task == served.task
    record = next(each for each in served.ledger if each.get("used") and each["seq"] > 1)
    moment = parse_position(f"#{record['seq']}")
    state(served.task, served.kafka, moment, str(tmp_path / "then"))
    learner = headrace.Learner.load(tmp_path / "then")
    taken = record["consumed"][-1][2]
    assert learner.events == taken < 200
    events, said = [*served.events[taken:]], served.said()
    skipped = sum(at < taken for at in (30, 150))
    events = [event for at, event in enumerate(events, taken) if at not in (30, 150)]
    assert heard(learner, events) == said[taken - skipped :]
    learner.save(tmp_path / "now.hr")
    assert headrace.Learner.load(tmp_path / "now.hr").metrics == learner.metrics


def test_what_cannot_be_opened_says_why(served: Served, tmp_path: Path) -> None:
    def copied(name: str, change: Any) -> Path:
        place = tmp_path / name
        shutil.copytree(served.first, place)
        for path in place.rglob("*"):
            change(path)
        return place

    def spoil(path: Path) -> None:
        if path.suffix == ".safetensors":
            path.write_bytes(path.read_bytes()[:-1] + b"?")

    def forge(path: Path) -> None:
        if path.suffix == ".json":
            path.write_bytes(path.read_bytes().replace(b'"max_bytes":4096', b'"max_bytes":9096'))

    for place, kind, words in (
        (copied("spoilt", spoil), RecoveryError, "sha256"),
        (copied("forged", forge), RecoveryError, "was changed"),
        (tmp_path / "none" / "000000000007.json", UsageError, "no checkpoint"),
        (tmp_path / "nothing.json", UsageError, "cannot be read"),
    ):
        with pytest.raises(kind, match=words):
            headrace.Learner.load(place)
    (tmp_path / "empty").mkdir(mode=0o700)
    with pytest.raises(UsageError, match="no checkpoint"):
        headrace.Learner.load(tmp_path / "empty")
    two = copied("two", lambda path: None)
    (name,) = (path.name for path in two.iterdir() if path.is_dir())
    shutil.copytree(two / name, two / "other")
    with pytest.raises(UsageError, match=rf"checkpoints of {name}, other"):
        headrace.Learner.load(two)


def test_a_sealed_checkpoint_opens_with_its_key_alone(served: Served, tmp_path: Path) -> None:
    key = b"a key of thirty-two random bytes"
    safety = Safety(str(tmp_path / "state"), key=key)
    learn(served.task, served.kafka, origin="events", safety=safety, drain=True)
    send(served.kafka, served.task.input.topic, [good(999)])
    learn(served.task, served.kafka, origin="events", safety=safety, drain=True)
    assert headrace.Learner.load(tmp_path / "state", key=key + b"\n").events == 301
    for wrong in (None, b"another key of as many bytes"):
        with pytest.raises(RecoveryError, match="key"):
            headrace.Learner.load(tmp_path / "state", key=wrong)

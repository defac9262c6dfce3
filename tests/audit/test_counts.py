"""What an audit has to find in metrics, alarms and keys: each is forged in a sound run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

from headrace import Service
from headrace.stream.audit.verify import verify
from headrace.stream.events import DriftAlarm, LadderStep
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.service import progress
from headrace.stream.task import parse
from tests.support.events import TASK, good
from tests.support.memory_kafka import MemoryKafka, MemorySource, Partition

ALARM = DriftAlarm("adwin", "id", 1, 1, 0, 3, 0.1, 0.9, 5.0, 1.0, 30.0)
STEP = LadderStep("boost", "id", 1, 1, 0, 3)


class Lived:
    """Hold a service's topics after two sessions of 60 events each, and two of another run."""

    def __init__(self, state: Path) -> None:
        self.task, self.kafka = parse(TASK, "t"), MemoryKafka()
        self.kafka.make(topic_specs(self.task), partitions=2)
        self.sent = 0
        for anew in (False, False, True, False):
            self.send(60)
            self.learn(state, from_scratch=anew)

    def send(self, events: int) -> None:
        for number in range(self.sent, self.sent + events):
            value = b"poison" if number % 9 == 5 else good(number)
            key = b"k%d" % number if number % 3 else None
            self.kafka.topics[self.task.input.topic][number % 2].append(value, key=key)
        self.sent += events

    def learn(self, state: Path, **options: Any) -> None:
        Service(self.task, self.kafka, state=state, micro_batch=8, **options).run(drain=True)

    def of(self, stage: str) -> Any:
        """Return the first partition of an output."""
        return self.kafka.topics[self.task.output(stage)][0]

    def metrics(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(value) for value in self.of("metrics").values]

    def findings(self, **options: Any) -> str:
        return "\n".join(verify(self.task, self.kafka, **options).findings)


@pytest.fixture
def lived(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lived]:
    monkeypatch.setattr(progress, "METRICS_EVERY_S", 0.0)
    with TemporaryDirectory() as state:
        made = Lived(Path(state))
        audit = verify(made.task, made.kafka, deep=True)
        assert audit.findings == []
        assert audit.metrics == len(made.metrics()) > 20
        yield made


@pytest.mark.parametrize("name", ["events", "rejected", "repeated", "duplicates", "healed"])
@pytest.mark.parametrize("more", [1, -1])
def test_a_count_that_was_changed(lived: Lived, name: str, more: int) -> None:
    for at in (2, 12):
        told = lived.metrics()[at]
        if told[name] + more < 0:
            continue
        whole = lived.of("metrics").values[at]
        lived.of("metrics").values[at] = msgspec.json.encode(told | {name: told[name] + more})
        place = f"{lived.task.output('metrics')}/0/{lived.of('metrics').offsets[at]}"
        assert f"{place}: it counts" in lived.findings()
        lived.of("metrics").values[at] = whole


def test_a_record_that_was_taken_from_another_moment(lived: Lived) -> None:
    """Later, earlier, of another run, of a record that there is not."""
    metrics, values = lived.metrics(), lived.of("metrics").values
    lived.of("metrics").append(values[3])
    assert f"speaks of record {metrics[3]['record']} after {metrics[-1]['record']}" in (
        lived.findings()
    )
    values.pop()
    lived.of("metrics").offsets.pop()
    for record, words in ((10**6, "which the ledger has not"), (None, "")):
        values[3] = msgspec.json.encode(metrics[3] | {"record": record})
        assert words in lived.findings()
        assert bool(lived.findings()) == bool(words)
    values[3] = b"none"
    assert "is no record of metrics" in lived.findings()


def test_metrics_that_count_less_than_those_before(lived: Lived) -> None:
    """Within a session: whoever starts again may count anew what was not written."""
    tip = msgspec.json.decode(lived.of("ledger").values[-1])["seq"]
    last = lived.metrics()[-1] | {"record": tip}
    more = last | {"events": last["events"] + 5}  # as of a learner that was struck, and wrote less
    lived.of("metrics").append(msgspec.json.encode(more))
    assert lived.findings() == ""
    lived.of("metrics").append(msgspec.json.encode(last))
    assert "it counts" in lived.findings()


def test_metrics_that_retention_took_or_an_earlier_version_wrote_are_no_fault(lived: Lived) -> None:
    metrics = lived.of("metrics")
    bare = [{"events": 3, "lag": 0}, {key: lived.metrics()[1][key] for key in ("record", "events")}]
    metrics.values[:2] = map(msgspec.json.encode, bare)
    assert lived.findings() == ""
    metrics.begin = metrics.offsets[5]
    del metrics.offsets[:5], metrics.values[:5]
    assert lived.findings() == ""


def test_an_alarm_that_no_record_counts(lived: Lived) -> None:
    drift = lived.of("drift")
    drift.append(msgspec.json.encode(STEP))
    assert lived.findings() == ""
    drift.append(msgspec.json.encode(ALARM))
    assert (
        lived.findings() == f"{lived.task.output('drift')}: 1 alarms that the ledger does not know"
    )
    drift.append(b"none")
    assert "is no record of drift" in lived.findings()


def test_an_alarm_that_is_gone() -> None:
    """Of a stream that turns; what retention took is not missed."""
    task, kafka = parse(TASK + '[drift]\ndetectors = ["ddm"]', "t"), MemoryKafka()
    kafka.make(topic_specs(task), partitions=1)
    for number in range(600):
        label = "yes" if (number % 2 == 0) == (number < 300) else "no"
        kafka.topics[task.input.topic][0].append(good(number, x=float(number % 2), label=label))
    with TemporaryDirectory() as state:
        Service(task, kafka, state=state).run(drain=True)
    drift = kafka.topics[task.output("drift")][0]
    at = next(n for n, value in enumerate(drift.values) if b'"detector"' in value)
    assert verify(task, kafka).findings == []
    gone = drift.offsets.pop(at), drift.values.pop(at)
    assert "alarms are gone" in "\n".join(verify(task, kafka).findings)
    drift.begin = gone[0] + 1
    del drift.offsets[:at], drift.values[:at]
    assert verify(task, kafka).findings == []


def test_a_key_that_is_not_its_events(lived: Lived) -> None:
    predictions = lived.of("predictions")
    last = predictions.offsets[-1]
    key = predictions.keys[last]
    predictions.keys[last] = b"other"
    assert lived.findings() == ""  # which from the ledger alone is not known
    assert "the keys of its predictions are not its events'" in lived.findings(deep=True)
    predictions.keys[last] = key
    predictions.keys[predictions.offsets[0]] = b"other"  # of a run that is not learned again
    assert lived.findings(deep=True) == ""


def test_a_partition_that_metrics_get_meanwhile_is_no_end(
    lived: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, messages = lived.task.output("metrics"), MemorySource.messages

    def growing(source: MemorySource, most: int, timeout_s: float) -> Any:
        if source.topic == metrics and 1 not in source.partitions:
            added = lived.kafka.topics[metrics].setdefault(1, Partition())
            added.append(b"{}")
            source.partitions.insert(0, 1)
            source.begins[1] = source.position[1] = 0
        return messages(source, most, timeout_s)

    monkeypatch.setattr(MemorySource, "messages", growing)
    try:
        assert lived.findings() == ""
    finally:
        del lived.kafka.topics[metrics][1]

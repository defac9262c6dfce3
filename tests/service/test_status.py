"""Whether a service needs a person: found in its metrics, and seen on a real Kafka."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from headrace.cli.commands import app
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.service import status
from headrace.stream.service.status import find
from headrace.stream.task import Task, parse
from tests.support.events import TASK, good
from tests.support.learners import drained
from tests.support.topics import send

NOW_MS = 1_790_000_000_000
EVERY_S = 10.0


def window(records: int = 13, **changes: Any) -> list[dict[str, Any]]:
    """Return metrics of two minutes; a change is a function of the number of a record."""
    found = []
    for at in range(records):
        record: dict[str, Any] = {
            "time_ms": NOW_MS - int(1000 * EVERY_S * (records - 1 - at)),
            "events": 1000 * at,
            "rejected": 0,
            "repeated": 0,
            "lag": 5,
            "offsets": {"0": 600 * at, "1": 400 * at},
            "checkpoint_age_s": 4.0,
        }
        found.append(record | {name: value(at) for name, value in changes.items()})
    return found


def troubles(
    records: list[dict[str, Any]],
    waiting: dict[int, int] | None = None,
    *,
    stopped: bool = False,
    label_ms: int | None = None,
) -> dict[str, str]:
    found = find(
        records,
        waiting or {0: 0, 1: 0},
        stopped=stopped,
        now_ms=NOW_MS,
        label_ms=label_ms,
        most_refused=0.05,
    )
    assert len({each.code for each in found}) == len(found)
    return {each.code: each.told for each in found}


def labelled(delay_ms: int, pending: int = 30) -> Any:
    return lambda at: {"pending": pending, "delay": {"p99_ms": delay_ms}, "labels": 5}


@pytest.mark.parametrize(
    "records",
    [
        window(),
        window(1),
        window(lag=lambda at: 70 * at),  # which is worked off within seconds
        window(lag=lambda at: 90_000 - at),
        window(rejected=lambda at: 50 * at),
        window(1, rejected=lambda at: 99),
        window(checkpoint_age_s=lambda at: None),
        window(labels=labelled(1000)),
    ],
)
def test_a_service_that_does_its_work_needs_nobody(records: list[dict[str, Any]]) -> None:
    assert not troubles(records, label_ms=NOW_MS - 500_000)


@pytest.mark.parametrize(
    ("records", "waiting", "code", "told"),
    [
        (window(lag=lambda at: 1000 * at), None, "lag", "12,000 events wait, 6,000 more than 60 s"),
        (
            window(offsets=lambda at: {"0": 500 * at, "1": 70}),
            {0: 3, 1: 40},
            "partition",
            "partition 1: 40 offsets wait, and none was taken for 60 s",
        ),
        (window(checkpoint_age_s=lambda at: 400.0 + at), None, "checkpoint", "is 7 min old"),
        (window(40, checkpoint_age_s=lambda at: None), None, "checkpoint", "is 6 min old"),
        (
            window(rejected=lambda at: 40 * at, repeated=lambda at: 20 * at),
            None,
            "refused",
            "720 of the last 12,720 events were refused (6%)",
        ),
        (window(labels=labelled(1000)), None, "labels", "for 17 min, and 30 events wait for"),
    ],
)
def test_what_a_person_has_to_see_to_is_told(
    records: list[dict[str, Any]], waiting: dict[int, int] | None, code: str, told: str
) -> None:
    found = troubles(records, waiting, label_ms=NOW_MS - 1_000_000)
    assert [*found] == [code]
    assert told in found[code]


def test_labels_that_always_take_long_are_waited_for() -> None:
    for records in (window(labels=labelled(400_000)), window(labels=labelled(1000, pending=0))):
        assert not troubles(records, label_ms=NOW_MS - 1_000_000)
    assert not troubles(window(labels=labelled(1000)), label_ms=None)


def test_events_that_do_not_come_miss_no_labels() -> None:
    quiet = window(labels=labelled(1000))
    assert "labels" in troubles(quiet, label_ms=NOW_MS - 1_000_000)
    for record in quiet:
        record["time_ms"] -= 900_000
    assert not troubles(quiet, label_ms=NOW_MS - 1_000_000)


def test_a_service_that_gives_no_sign_is_told_of_as_that_alone() -> None:
    found = troubles(window(lag=lambda at: 1000 * at), {0: 800}, stopped=True)
    assert [*found] == ["stopped"] and found["stopped"].startswith("800 offsets wait")


@pytest.fixture
def task(kafka: KafkaConnection, tmp_path: Path) -> tuple[Task, Path]:
    name = f"status-{uuid.uuid4().hex[:8]}"
    path = tmp_path / "task.toml"
    path.write_text(TASK.replace("poisoned", name))
    made = parse(path.read_text(), str(path))
    ensure(kafka, topic_specs(made))
    return made, path


def test_a_life_is_seen_from_outside(
    kafka: KafkaConnection, task: tuple[Task, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, path = task

    def said(code: int, *options: str) -> dict[str, Any]:
        command = ["status", str(path), "--bootstrap", kafka.servers, "--json", *options]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == code, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        assert found["ok"] == (code == 0)
        return found

    assert [each["code"] for each in said(1)["troubles"]] == ["never"]
    send(kafka, made.input.topic, [good(number) for number in range(40)])
    drained(made, kafka)
    found = said(0)
    assert found["metrics"]["events"] == 40 and found["waiting"] == {"0": 0}
    send(kafka, made.input.topic, [b"{", *(good(number) for number in range(40, 80))])
    assert said(0)["waiting"] == {"0": 41}  # it may be that one starts at this moment
    monkeypatch.setattr(status, "SILENT_S", 0.0)
    told = said(1)["troubles"]
    assert [each["code"] for each in told] == ["stopped"] and "41 offsets wait" in told[0]["told"]
    drained(made, kafka)
    found = said(0)
    assert found["refused"] == {"json": 1} and not any(found["waiting"].values())
    for stage in ("dead-letter", "drift", "metrics"):  # what others write there is none of ours
        send(kafka, made.output(stage), [b"[]", b'{"a": 1}', None])
    drained(made, kafka, from_scratch=True)
    assert said(0)["metrics"]["events"] == 80
    # Nothing waits where offsets hold no record: those of markers, or of an aborted transaction.
    producer = Producer(kafka.confluent() | {"transactional.id": made.name})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(made.input.topic, good(99))
    producer.flush()
    producer.abort_transaction()
    assert said(0)["waiting"]["0"] > 0
    done = CliRunner().invoke(app, ["status", str(path), "--bootstrap", kafka.servers])
    assert done.exit_code == 0 and f"{made.name}: ok" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    done = CliRunner().invoke(
        app, ["status", str(path), "--bootstrap", kafka.servers, "--refused", "0"]
    )
    assert done.exit_code == 0 and "json 2" in done.stdout  # of fewer than 100 events

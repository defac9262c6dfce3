from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from headrace.stream.audit import paced_publisher
from headrace.stream.audit.replay_range import LedgerPosition, ReplayRange, parse_position
from headrace.stream.errors import AuditError, UsageError
from headrace.stream.evaluation.compare import Errors
from headrace.stream.events import Records
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.ledger.ledger import Consumed, Entry, Record, SessionStart, seal
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import Rows
from headrace.stream.task import parse
from headrace.stream.training.learned import Learned
from headrace.stream.training.trainer import Trainer


def test_a_record_that_was_changed_is_told() -> None:
    first = seal(
        Record(
            seq=0,
            run="ab",
            epoch=0,
            time_ms=1,
            session_start=SessionStart("t", "c", "v", {}, {0: 0}),
        ),
        "",
    )
    second = seal(
        Record(seq=1, run="ab", epoch=0, time_ms=2, consumed=(Consumed(0, 0, 5, 5),), predicted=5),
        first.chain,
    )
    span = ReplayRange(Entry(0, first), None, None)
    span.add(Entry(0, first))
    span.add(Entry(2, second))
    assert span.offsets == 5
    forged = msgspec.structs.replace(second, predicted=4)
    span = ReplayRange(Entry(0, first), None, None)
    span.add(Entry(0, first))
    with pytest.raises(AuditError, match="record 1 of the ledger is not sealed"):
        span.add(Entry(2, forged))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("#812", LedgerPosition("record", 812)),
        ("1234", LedgerPosition("event", 1234)),
        ("2:1234", LedgerPosition("event", 1234, 2)),
        ("2024-05-01T12:00:00Z", LedgerPosition("time", 1714564800000)),
        ("2024-05-01T14:00:00+02:00", LedgerPosition("time", 1714564800000)),
        ("2024-05-01T12:00:00.250", LedgerPosition("time", 1714564800250)),
    ],
)
def test_a_moment_is_a_record_an_event_or_a_time(text: str, moment: LedgerPosition) -> None:
    assert parse_position(text) == moment


@pytest.mark.parametrize("text", ["", "#", "#x", "-3", "yesterday", "1:2:3", "٣"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a time such as"):
        parse_position(text)


@pytest.mark.parametrize(
    ("kind", "classes"), [("classify", 'classes = ["0", "1"]'), ("classify", ""), ("regress", "")]
)
@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_errors_are_those_that_the_model_is_scored_by(
    kind: str, classes: str, horizon: int
) -> None:
    """Entities come and go: the model remembers four of seven; the first events have no label."""
    task = parse(
        f'name = "t"\n[input]\ntopic = "e"\nentity = "e"\n[target]\nfield = "y"\nkind = "{kind}"\n'
        f'{classes}\nhorizon = {horizon}\n[features]\nx = {{ kind = "number" }}\n'
        "[lags]\nentities = 2\n",
        "t",
    )
    rng = np.random.default_rng(3)
    raw: list[bytes | None] = [
        json.dumps(
            {"id": n, "e": int(rng.integers(7 if n % 40 < 10 else 2)), "x": n % 5}
            | ({} if n % 11 == 0 or n < 40 else {"y": int(rng.integers(2))})
        ).encode()
        for n in range(600)
    ]
    records = Records("e", raw, [None] * 600, [0] * 600, list(range(600)), [0] * 600)
    rows, refused = Normalizer(task).normalize(records)
    assert not refused
    trainer, errors = Trainer(task, 600), Errors(task)
    rows, repeated = trainer.admit(rows, "e")
    assert not repeated
    learned = trainer.collect(trainer.submit(rows))
    cuts = [0, 1, 50, 333, 600]
    found = []
    for first, last in itertools.pairwise(cuts):
        part = Rows._make(column[first:last] for column in rows)
        found.append(
            errors.of(
                Learned(
                    part,
                    learned.published[first:last],
                    learned.answer[first:last],
                    learned.step[first:last],
                    [],
                    learned.classes,
                )
            )
        )
    values = np.concatenate([scored.error for scored in found])
    report = trainer.report()["all"]
    assert len(values) == report["events"] > 200
    said = 1 - report["accuracy"] if kind == "classify" else report["mae"]
    assert values.mean() == pytest.approx(said, rel=1e-5)
    entities = dict(zip(rows.offset, map(tuple, rows.entity.tolist()), strict=True))
    for scored in found:
        for place, answered in zip(scored.place.tolist(), scored.answered.tolist(), strict=True):
            between = [entities[at] for at in range(answered, place)]
            assert between.count(entities[place]) == horizon


def test_predictions_go_as_far_apart_as_their_events(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    clock = SimpleNamespace(monotonic=lambda: now_s, sleep=sleep)
    monkeypatch.setattr(paced_publisher, "time", clock)
    pace = paced_publisher.PacedPublisher(KafkaConnection(""), None, 10.0, lambda: False)
    gone: list[tuple[int, float]] = []
    for times in ([5000, 5000, 4000, 15_000], [15_000, 25_000]):
        for first, last in pace._due(np.array(times)):
            gone += [(n, round(now_s - 100, 6)) for n in range(first, last)]
    assert gone == [(0, 0), (1, 0), (2, 0), (3, 1), (0, 1), (1, 2)]
    now_s += 60  # a stall: what came late is not hurried after for longer than a second
    (late,) = pace._due(np.array([26_000]))
    assert late == (0, 1)
    started = now_s
    list(pace._due(np.array([66_000])))
    assert 2.9 < now_s - started < 3.1

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from poison import TASK

from stream import compare, outlet
from stream.compare import Errors, Sequential
from stream.errors import AuditError, UsageError
from stream.events import Records
from stream.ledger import Consumed, Entry, Opening, Record, seal
from stream.moment import Moment, Span, parse_moment
from stream.normalize import Normalizer
from stream.task import parse
from stream.trainer import Learned, Trainer


def test_a_record_that_was_changed_is_told() -> None:
    first = seal(
        Record(seq=0, run="ab", epoch=0, time_ms=1, opening=Opening("t", "c", "v", {}, {0: 0})), ""
    )
    second = seal(
        Record(seq=1, run="ab", epoch=0, time_ms=2, consumed=(Consumed(0, 0, 5, 5),), used=5),
        first.chain,
    )
    span = Span(Entry(0, first), None, None)
    span.add(Entry(0, first))
    span.add(Entry(2, second))
    assert span.offsets == 5
    forged = msgspec.structs.replace(second, used=4)
    span = Span(Entry(0, first), None, None)
    span.add(Entry(0, first))
    with pytest.raises(AuditError, match="record 1 of the ledger is not sealed"):
        span.add(Entry(2, forged))


@pytest.mark.parametrize("suffix", ["png", "svg", "html"])
def test_a_plot_shows_both_and_the_baselines(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"curve.{suffix}"
    report = {"window": {"accuracy": 0.5}, "baselines": {"no_change": {"window": {}}}}
    points = [compare.Point(n, report, report) for n in range(5)]
    compare.check_plot(path)
    compare.draw(parse(TASK, "t"), points, path)
    data = path.read_bytes()
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!doctype html>"}
    assert data.startswith(starts[suffix])
    if suffix == "html":
        assert b"<!-- no change -->" in data
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.html"):
        compare.check_plot(tmp_path / "curve.gif")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("#812", Moment("record", 812)),
        ("1234", Moment("event", 1234)),
        ("2:1234", Moment("event", 1234, 2)),
        ("2024-05-01T12:00:00Z", Moment("time", 1714564800000)),
        ("2024-05-01T14:00:00+02:00", Moment("time", 1714564800000)),
        ("2024-05-01T12:00:00.250", Moment("time", 1714564800250)),
    ],
)
def test_a_moment_is_a_record_an_event_or_a_time(text: str, moment: Moment) -> None:
    assert parse_moment(text) == moment


@pytest.mark.parametrize("text", ["", "#", "#x", "-3", "yesterday", "1:2:3", "٣"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a time such as"):
        parse_moment(text)


def test_the_interval_holds_at_all_times_and_narrows() -> None:
    rng = np.random.default_rng(7)
    missed, streams, steps = 0, 300, 1500
    for _ in range(streams):
        worse = rng.uniform(0, 0.4) + 0.2 * np.sin(np.arange(steps) / rng.uniform(50, 500))
        better, even = np.clip(worse, 0, 1) / 2, 0.5
        chances = np.stack([better, np.full(steps, even / 2), np.full(steps, 0)], 1)
        chances[:, 2] = 1 - chances.sum(1)
        drawn = rng.random(steps)[:, None] < chances.cumsum(1)
        values = np.where(drawn[:, 0], 1.0, np.where(drawn[:, 1], -1.0, 0.0))
        means = (chances[:, 0] - chances[:, 1]).cumsum() / np.arange(1, steps + 1)
        sequence, out = Sequential(), False
        for at in range(0, steps, 5):
            sequence.add(values[at : at + 5])
            low, high = sequence.interval()
            out |= not low <= means[at + 4] <= high
        missed += out
    assert missed / streams <= 0.05
    shown = Sequential()
    shown.add(np.where(rng.random(4000) < 0.05, 1.0, 0.0))
    assert shown.verdict() == "better"
    low, high = shown.interval()
    assert high - low < 0.06


def test_the_interval_does_not_depend_on_how_values_are_cut() -> None:
    values = np.random.default_rng(1).integers(-1, 2, 500).astype(np.float64)
    whole, parts = Sequential(), Sequential()
    whole.add(values)
    for part in np.split(values, [1, 1, 17, 300]):
        parts.add(part)
    assert parts.interval() == pytest.approx(whole.interval())


@pytest.mark.parametrize("kind", ["classify", "regress"])
@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_errors_are_those_that_the_model_is_scored_by(kind: str, horizon: int) -> None:
    """Entities come and go: the model remembers four of seven."""
    classes = 'classes = ["0", "1"]' if kind == "classify" else ""
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
            | ({} if n % 11 == 0 else {"y": int(rng.integers(2))})
        ).encode()
        for n in range(600)
    ]
    records = Records("e", raw, [None] * 600, [0] * 600, list(range(600)), [0] * 600)
    rows, refused = Normalizer(task).normalize(records)
    assert not refused
    trainer, errors = Trainer(task, 600), Errors(task)
    learned = trainer.collect(trainer.submit(rows))
    cuts = [0, 1, 50, 333, 600]
    found = []
    for first, last in itertools.pairwise(cuts):
        part = type(rows)(*(column[first:last] for column in rows))
        found.append(
            errors.of(Learned(part, learned.published[first:last], learned.step[first:last], []))
        )
    values = np.concatenate([error for _, error in found])
    report = trainer.report()["all"]
    assert len(values) == report["events"] > 200
    said = 1 - report["accuracy"] if kind == "classify" else report["mae"]
    assert values.mean() == pytest.approx(said, rel=1e-5)


def test_predictions_go_as_far_apart_as_their_events(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    clock = SimpleNamespace(monotonic=lambda: now_s, sleep=sleep)
    monkeypatch.setattr(outlet, "time", clock)
    pace = outlet.Outlet("", None, 10.0, lambda: False)
    gone: list[tuple[int, float]] = []
    for times in ([5000, 5000, 4000, 15_000], [15_000, 25_000]):
        for first, last in pace._due(np.array(times)):
            gone += [(n, round(now_s - 100, 6)) for n in range(first, last)]
    assert gone == [(0, 0), (1, 0), (2, 0), (3, 1), (0, 1), (1, 2)]
    now_s += 60  # a stall: what came late is not hurried after for longer than a second
    (first,) = pace._due(np.array([26_000]))
    assert first == (0, 1)
    started = now_s
    list(pace._due(np.array([66_000])))
    assert 2.9 < now_s - started < 3.1

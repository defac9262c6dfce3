"""`evaluate --label-delay`: what a stream would be worth if its labels came late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from river import dummy, metrics
from river.evaluate import progressive_val_score

from headrace.stream.errors import UsageError
from headrace.stream.evaluation.evaluate import evaluate
from headrace.stream.rows import label_delay
from headrace.stream.rows.label_delay import DelayedLabels, LabelDelay, parse
from headrace.stream.rows.late import LateLabel
from headrace.stream.task import Task, validate

ROWS = 600


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a class that stays for a while, a number that tells it, an event a minute."""
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("late") / "steps.csv"
    lines, label = ["when,a,y"], 0
    for row in range(ROWS):
        label = int(rng.integers(3)) if rng.random() < 0.1 else label
        known = "?" if row % 50 == 7 else "xyz"[label]
        lines.append(f"{1714564800 + 60 * row},{label + rng.normal():.4f},{known}")
    path.write_text("\n".join(lines) + "\n")
    return path


def task(**target: object) -> Task:
    return validate(
        {
            "name": "steps",
            "input": {"topic": "events.steps", "time": "when"},
            "target": {
                key: value
                for key, value in (
                    {"field": "y", "kind": "classify", "classes": ["x", "y", "z"]} | target
                ).items()
                if value is not None
            },
            "features": {"a": {"kind": "number"}},
            "model": {"neighbours": 50, "learning_rate": 0.01},
        },
        "test",
    )


@pytest.mark.parametrize("delay", [1, 2, 30])
def test_the_last_label_is_worth_what_it_is_to_river(delay: int, steps: Path) -> None:
    """Before the first label comes, River's says nothing, and ours the first class."""
    path = without_unlabelled(steps)
    labels = [line.rsplit(",", 1)[1] for line in path.read_text().splitlines()[1:]]
    rows: list[tuple[dict[Any, Any], str]] = [({}, label) for label in labels]
    score = progressive_val_score(rows, dummy.NoChangeClassifier(), metrics.Accuracy(), delay=delay)
    right = score.get() * (len(rows) - delay) + labels[:delay].count("x")
    found = evaluate(task(), path, label_delay=str(delay))
    assert found.metrics["all"]["events"] == found.learned == len(rows)
    ours = found.baselines["no_change"]["all"]["accuracy"]
    assert ours == pytest.approx(right / len(rows))
    by_event = found.as_json()["event_time"]
    assert (by_event["labelled"], by_event["behind"]) == (pytest.approx(1.0), 0)
    assert "event_time" not in evaluate(task(), path).as_json()


def without_unlabelled(path: Path) -> Path:
    lines = [line for line in path.read_text().splitlines() if not line.endswith("?")]
    kept = path.with_suffix(".known.csv")
    kept.write_text("\n".join(lines) + "\n")
    return kept


def test_labels_at_once_are_what_they_are_in_events(steps: Path) -> None:
    path = without_unlabelled(steps)
    said, at_once = evaluate(task(), path), evaluate(task(), path, label_delay="0")
    assert at_once.learned == said.learned
    assert at_once.metrics["all"]["accuracy"] == said.metrics["all"]["accuracy"]
    assert at_once.baselines == said.baselines


def test_an_id_that_comes_again_changes_no_other_row_s_label(steps: Path, tmp_path: Path) -> None:
    head, *lines = steps.read_text().splitlines()
    path = tmp_path / "ids.csv"
    named = [f"{line},{at % 10}" for at, line in enumerate(lines)]
    path.write_text("\n".join([f"{head},id", *named]) + "\n")
    many = task().input.model_copy(update={"recent_ids": 0})
    with_ids = task().model_copy(update={"input": many})
    found, plain = (
        evaluate(*each, label_delay="30") for each in ((with_ids, path), (task(), steps))
    )
    assert found.metrics == plain.metrics
    assert found.learned == plain.learned == sum(not line.endswith("?") for line in lines)
    assert found.warnings == ()


def test_labels_that_come_too_late_are_told(steps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_delay, "MOST_WAITING", 40)
    found = evaluate(task(), steps, label_delay="45m")
    assert found.learned < 40 + 12
    assert "labels came too late: 40 rows wait at a time" in found.warnings[0]


def test_numbers_far_from_zero_are_told_as_well(tmp_path: Path) -> None:
    """Rows wait while what numbers are counted from changes."""
    rng, found = np.random.default_rng(5), []
    level = rng.normal(size=ROWS).cumsum()
    for far in (0.0, 1e9):
        path = tmp_path / f"{far}.csv"
        rows = [f"{1714564800 + 60 * at},{y:.3f},{far + y:.3f}" for at, y in enumerate(level)]
        path.write_text("\n".join(["when,a,y", *rows]) + "\n")
        given = {"kind": "regress", "classes": None}
        found.append(evaluate(task(**given), path, label_delay="7").metrics["all"])
    assert found[1]["mae"] == pytest.approx(found[0]["mae"], rel=0.1)
    assert found[1]["mae"] < 1.5 < level.std()


def test_a_class_that_is_not_in_the_task_is_known_when_its_label_comes(steps: Path) -> None:
    found = evaluate(task(classes=[], max_classes=2), steps, label_delay="20")
    assert found.codes == {"label": found.rejected}
    labels = [line.rsplit(",", 1)[1] for line in steps.read_text().splitlines()[1:]]
    third = list(dict.fromkeys(label for label in labels if label != "?"))[2]
    assert found.rejected == labels.count(third) > 50
    assert found.learned == len(labels) - labels.count("?") - found.rejected


@pytest.mark.parametrize(
    ("text", "delay"),
    [
        ("500", LabelDelay(500)),
        ("0", LabelDelay(0)),
        ("10m", LabelDelay(600_000, timed=True)),
        ("1.5h", LabelDelay(5_400_000, timed=True)),
        ("exp(500)", LabelDelay(500, drawn=True)),
        (" exp( 1d ) ", LabelDelay(86_400_000, timed=True, drawn=True)),
    ],
)
def test_delays_are_read(text: str, delay: LabelDelay) -> None:
    assert parse(text) == delay


@pytest.mark.parametrize("text", ["", "-1", "1.5", "soon", "exp(5", "5)", "10w", "1e3", "99999999"])
def test_what_is_no_delay_is_told(text: str) -> None:
    with pytest.raises(UsageError, match=r"--label-delay .*expected"):
        parse(text)


@pytest.mark.parametrize("text", ["0", "3", "2m", "90s", "exp(4)", "exp(3m)"])
def test_each_label_comes_once_when_it_is_due_wherever_events_are_cut(text: str) -> None:
    rng = np.random.default_rng(0)
    times = np.sort(rng.integers(0, 60_000 * 40, 200))
    labels = [
        None if at % 9 == 4 else LateLabel(at, None, 0, at, int(time), 1.0, None)
        for at, time in enumerate(times)
    ]
    orders = []
    for size in (1, 7, 200):
        held, order = DelayedLabels[LateLabel](parse(text)), list[object]()
        for first in range(0, 200, size):
            part = labels[first : first + size]
            come = held.pass_by(
                part, range(first, first + len(part)), times[first : first + size].tolist()
            )
            for at in range(len(part) + 1):
                order += [label.id for before, label in come if before == at]
                order += [("event", first + at)] if at < len(part) else []
        orders.append(order + [label.id for _, label in held.rest()])
    assert orders[0] == orders[1] == orders[2]
    came = [each for each in orders[0] if isinstance(each, int)]
    assert sorted(came) == [label.id for label in labels if label]
    delays = parse(text).of(range(200))
    for label in filter(None, labels):
        place, own = orders[0].index(label.id), orders[0].index(("event", label.offset))
        later = [each[1] for each in orders[0][own + 1 : place] if isinstance(each, tuple)]
        now = times if parse(text).timed else np.arange(200)
        assert place > own
        assert all(now[at] < now[label.offset] + delays[label.offset] for at in later)


def test_drawn_delays_have_the_mean_that_was_told() -> None:
    assert parse("exp(500)").of(range(100_000)).mean() == pytest.approx(500, rel=0.02)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"horizon": 2}, "target.horizon = 2"),
        ({"chunk": 4}, "model.chunk = 4"),
        ({"time": None}, "input.time"),
    ],
)
def test_what_does_not_go_with_a_delay_is_told(
    options: dict[str, object], told: str, steps: Path
) -> None:
    made = task(**({"horizon": 2} if "horizon" in options else {}))
    if "chunk" in options:
        made = made.model_copy(update={"model": made.model.model_copy(update=options)})
    if "time" in options:
        made = made.model_copy(update={"input": made.input.model_copy(update=options)})
    with pytest.raises(UsageError, match=told):
        evaluate(made, steps, label_delay="5m")


def test_a_trace_tells_what_was_scored(steps: Path, tmp_path: Path) -> None:
    found = evaluate(task(), steps, label_delay="45m", trace=tmp_path / "t.parquet")
    lines = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert [line["offset"] for line in lines] == list(range(ROWS))
    scored = [line for line in lines if line["scored"]]
    assert len(scored) == found.metrics["all"]["events"]
    right = sum(line["prediction"] == line["label"] for line in scored)
    assert found.metrics["all"]["accuracy"] == pytest.approx(right / len(scored), abs=1e-6)
    text = [line.rsplit(",", 1)[1] for line in steps.read_text().splitlines()[1:]]
    assert [line["label"] or "?" for line in lines] == text


def test_a_comparison_is_of_both_tasks_under_the_delay(steps: Path) -> None:
    other = task().model_copy(update={"lags": task().lags.model_copy(update={"labels": 3})})
    found = evaluate(task(), steps, label_delay="30", other=other)
    alone = evaluate(other, steps, label_delay="30")
    assert found.comparison is not None
    assert found.comparison.metrics == alone.metrics
    assert found.comparison.pairs == found.metrics["all"]["events"]
    gain = alone.metrics["all"]["accuracy"] - found.metrics["all"]["accuracy"]
    assert found.comparison.gain == pytest.approx(gain, abs=1e-6)

from __future__ import annotations

import json
import shutil
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from river import metrics, naive_bayes
from river.evaluate import progressive_val_score

from bench.learning import environment, ours, run, streams, table, write
from bench.learning.cache import Results
from bench.learning.contestants import BASELINES, CONTESTANTS, choose
from bench.learning.environment import PeerError
from bench.learning.prepare import Prepared, StreamMissingError, prepare
from bench.learning.ranks import duels, ranking
from bench.learning.streams import STREAMS, Stream
from bench.peers import river_models
from bench.peers import run as peers_run
from bench.peers.inputs import Scaler, inputs
from bench.peers.rows import read
from bench.peers.score import score
from headrace.stream.errors import UsageError
from headrace.stream.evaluation.evaluate import evaluate
from headrace.stream.task import validate

Row = dict[str, Any]
LATE = 30
NAIVE_BAYES = {"classify": "naive_bayes.GaussianNB"}


def _tiny(path: Path) -> Iterator[Row]:
    for label in path.read_text().split():
        yield {"a": None if label == "up" else 1, "color": 7, "target": label}


def _values(path: Path) -> Iterator[Row]:
    for hour, value in enumerate((1.0, 2.0, None, 4.0)):
        yield {"time": f"2026-01-0{1 + hour}T06:00:00Z", "v": value, "target": value}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Register a stream of six labels, and one whose file is missing."""
    (tmp_path / "tiny.txt").write_text("up down down up up up")
    known = {
        "tiny": Stream("tiny", _tiny, "tiny.txt", categories=("color",)),
        "values": Stream(
            "values", _values, "tiny.txt", "numbers", "mae", horizon=1, calendar=("hour",)
        ),
        "gone": Stream("gone", _tiny, "gone.txt"),
    }
    monkeypatch.setattr(run, "STREAMS", known)
    monkeypatch.setattr(streams, "STREAMS", known)
    return tmp_path


def _run(place: Path, **options: Any) -> dict[str, Any]:
    chosen = run.Options(data=place, cache=place, **options)
    return run.run(["tiny", "values", "gone"], BASELINES, chosen)


def test_baselines_over_a_tiny_stream_and_a_missing_file_is_told(tiny: Path) -> None:
    found = _run(tiny)
    tiny_results = found["streams"]["tiny"]["results"]
    assert tiny_results["no-change"]["metrics"]["accuracy"] == 3 / 6
    assert tiny_results["majority"]["metrics"]["accuracy"] == 2 / 6
    values = found["streams"]["values"]["results"]
    assert values["no-change"]["metrics"]["mae"] == (1 + 2) / 2
    assert values["no-change"]["events"] == 3
    assert "no file gone.txt" in found["missing"]["gone"]
    shown = table.table(found)
    assert "**MISSING STREAM** gone" in shown
    assert "| tiny | accuracy | 6 | **0.5000** | 0.3333 |" in shown
    assert "| no-change | **0.5000** |" in table.details(found)
    assert "| majority | 0.3333 |" in table.details(found)
    json.dumps(found | {"ranks": table.summary(found)})


def test_results_are_kept_by_content(tiny: Path) -> None:
    first = _run(tiny)
    assert _run(tiny) == first
    assert _run(tiny, cached=True) == first
    fewer = _run(tiny, rows=3, cached=True)
    assert fewer["streams"]["tiny"]["results"]["majority"] == {"error": "not measured"}
    (tiny / "tiny.txt").write_text("up up")
    assert _run(tiny, cached=True)["streams"]["tiny"]["results"]["majority"].keys() == {"error"}
    assert _run(tiny)["streams"]["tiny"]["results"]["majority"]["metrics"]["accuracy"] == 0.5
    key = {"peer": "x"}
    results = Results(place=tiny / "results")
    results.put(key, {"seconds": 1})
    assert results.get(key) == {"seconds": 1}
    assert Results(place=tiny / "results", fresh=True).get(key) is None


def test_a_failure_is_told_and_not_kept(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise PeerError("no wheel for this machine")

    monkeypatch.setattr(environment, "run", fail)
    options = run.Options(data=tiny, cache=tiny)
    found = run.run(["tiny"], ["no-change", "vw-linear"], options)
    assert found["streams"]["tiny"]["results"]["vw-linear"] == {
        "error": "no wheel for this machine"
    }
    shown = table.table(found)
    assert "| **0.5000** | FAILED |" in shown
    assert "| vw-linear | FAILED | - |" in table.details(found)
    assert "**FAILED** vw-linear on tiny: no wheel for this machine" in shown
    assert table.summary(found)["classes"]["average_rank"] == {"no-change": 1.0, "vw-linear": 2.0}


def test_headrace_is_given_a_task_without_settings_of_a_model(tiny: Path) -> None:
    prepared = prepare(streams.STREAMS["tiny"], tiny, place=tiny)
    told = prepared.task()
    assert not {"model", "lags", "drift"} & told.keys()
    task = validate(told, "test")
    assert task.target.classes == ("down", "up")
    assert {name: f.kind for name, f in task.features.items()} == {
        "a": "number",
        "color": "category",
    }
    with pytest.raises(StreamMissingError, match="--data"):
        prepare(streams.STREAMS["tiny"], None, place=tiny)


def test_every_registered_stream_can_be_told_to_headrace_and_a_third_is_held_out() -> None:
    drawn = [s for s in STREAMS.values() if isinstance(s.source, streams.Drawn)]
    seeds = [s for s in drawn if s.source.kind != "bundled"]  # type: ignore[union-attr]
    assert sum(s.held_out for s in seeds) * 3 == len(seeds)
    assert all(name == stream.name for name, stream in STREAMS.items())
    assert set(run.selected([], held_out=True)).isdisjoint(run.selected([], held_out=False))
    assert choose("nab,sms", STREAMS, "streams")[-1] == "sms"
    assert choose("vw", CONTESTANTS, "peers") == ["vw-linear", "vw-nn"]
    with pytest.raises(UsageError, match="--streams nothing: unknown"):
        choose("nothing", STREAMS, "streams")


def test_peers_get_numbers_filled_categories_encoded_and_the_calendar(tiny: Path) -> None:
    rows = read(prepare(streams.STREAMS["tiny"], tiny, place=tiny).path, 6)
    assert [x["a"] for x in rows.x] == [0, 1, 1, 1, 1, 1]
    assert inputs(rows, scale=False, categories="one-hot")(rows.x[1]) == {"a": 1.0, "color=7": 1.0}
    assert inputs(rows, scale=False, categories="ordinal")(rows.x[1]) == {"a": 1.0, "color": 0.0}
    series = read(prepare(streams.STREAMS["values"], tiny, place=tiny).path, 4)
    assert series.y == [2.0, None, 4.0]
    assert series.now == [1.0, 2.0, None]
    assert series.x[0]["hour_sin"] == pytest.approx(1.0)


def test_numbers_are_scaled_by_what_was_seen() -> None:
    values = np.random.default_rng(0).normal(5, 3, 50)
    scaler = Scaler()
    scaled = [scaler({"a": float(value)})["a"] for value in values]
    assert scaled[-1] == pytest.approx((values[-1] - values.mean()) / values.std())


def test_scores() -> None:
    assert score(["n", "y"], ["y", "n", None, "y"], ["y", "y", "y", None]) == {
        "accuracy": 1 / 3,
        "f1": 2 / 4,
    }
    assert score([], [1.0, 3.0], [None, 1.0]) == {"mae": 1.5, "rmse": pytest.approx(2.5**0.5)}


def test_f1_of_the_rare_class_is_found_from_the_report() -> None:
    truth = np.r_[np.ones(30, int), np.zeros(970, int)]
    said = truth.copy()
    said[:12] = 0
    said[100:105] = 1
    hits = [int(((truth == c) & (said == c)).sum()) for c in (0, 1)]
    both = [2 * hits[c] / ((truth == c).sum() + (said == c).sum()) for c in (0, 1)]
    found = ours.f1_of_last(1000, 30, float((truth == said).mean()), float(np.mean(both)))
    assert found == pytest.approx(both[1])


def test_ranks_of_demsar() -> None:
    """Demšar 2006, section 3.2.3: C4.5 with and without tuning over 14 data sets."""
    plain = [763, 599, 954, 628, 882, 936, 661, 583, 775, 1000, 940, 619, 972, 957]
    tuned_m = [768, 591, 971, 661, 888, 931, 668, 583, 838, 1000, 962, 666, 981, 978]
    tuned_cf = [771, 590, 968, 654, 886, 916, 609, 563, 866, 1000, 965, 614, 975, 946]
    both = [798, 569, 967, 657, 898, 931, 685, 625, 875, 1000, 962, 669, 975, 970]
    names = ("C4.5", "+m", "+cf", "+m+cf")
    rows = zip(plain, tuned_m, tuned_cf, both, strict=True)
    scores = {str(n): dict(zip(names, map(float, row), strict=True)) for n, row in enumerate(rows)}
    found = ranking(scores)
    assert found.ranks["C4.5"] == pytest.approx(3.143, abs=0.001)
    assert found.ranks["+m"] == pytest.approx(2.0, abs=0.001)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    assert found.p is not None
    assert 0.01 < found.p < 0.06
    duel = duels(scores, "+m")["C4.5"]
    assert (duel.wins, duel.losses, duel.ties) == (10, 2, 2)
    assert duel.p is not None
    assert duel.p < 0.05


def test_the_section_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("# Results\n\n## `python -m bench learning`\n\nold\n\n## Other\n\nkept\n")
    write.write("new \\1", path=path)
    write.write("held", held_out=True, path=path)
    text = path.read_text()
    assert "old" not in text
    assert "new \\1\n\n## Other\n\nkept\n" in text
    assert text.endswith("--held-out`\n\nheld\n")


def test_columns_become_an_image(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"p0": 0, "p1": 255, "target": "a"}\n{"p0": 16, "p1": 1, "target": "b"}\n')
    made = ours.with_images(rows, ["p1", "p0"], tmp_path / "images.jsonl").read_text()
    assert [json.loads(line)["target"] for line in made.splitlines()] == ["a", "b"]
    images = [b64decode(json.loads(line)["image"]) for line in made.splitlines()]
    assert images == [b"\xff\x00", b"\x01\x10"]
    learner, chosen = CONTESTANTS["headrace-cnn2d"], (STREAMS["electricity"], STREAMS["digits-1"])
    assert [learner.takes(stream) for stream in chosen] == [False, True]


def test_peers_scores_come_with_the_repository(tiny: Path) -> None:
    record = tiny / "measured.jsonl"
    first = _run(tiny, write=True, record=record)
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    names = {(line["stream"], line["peer"], line["rows"]) for line in lines}
    assert names == {(s, p, n) for s, n in (("tiny", 6), ("values", 4)) for p in BASELINES}
    shutil.rmtree(tiny / "results")
    again = _run(tiny, cached=True, record=record)
    for stream, found in first["streams"].items():
        for peer, result in found["results"].items():
            shown = again["streams"][stream]["results"][peer]
            assert shown == {name: result[name] for name in ("metrics", "events")}
    assert "| majority | 2.00 | - |" in table.table(again)
    (tiny / "tiny.txt").write_text("up up")
    _run(tiny, write=True, record=record)
    assert len(record.read_text().splitlines()) == len(lines) + 2  # of two rows now


@pytest.fixture
def noisy(tmp_path: Path) -> Prepared:
    """Prepare 200 rows of two classes that overlap."""

    def rows(_: Path) -> Iterator[Row]:
        rng = np.random.default_rng(7)
        for at in range(200):
            yield {"a": at % 2 + rng.normal(), "target": "no" if at % 2 else "yes"}

    (tmp_path / "noisy").touch()
    return prepare(Stream("noisy", rows, "noisy"), tmp_path, place=tmp_path)


def test_late_labels_of_river_s_models_are_its_delayed_progressive_validation(
    noisy: Prepared,
) -> None:
    request = {"module": "river_models", "peer": "river-nb", "rows": 200, "scored_from": LATE}
    request |= {"stream": str(noisy.path), "settings": NAIVE_BAYES | {"label_delay": LATE}}
    found, rows = peers_run.run(request), read(noisy.path, 200)
    river: Any = zip(rows.x, [y == "yes" for y in rows.y], strict=True)
    theirs = metrics.Accuracy()
    progressive_val_score(river, naive_bayes.GaussianNB(), theirs, delay=LATE)
    assert found["metrics"]["accuracy"] == pytest.approx(theirs.get())
    assert theirs.get() > 0.6


def test_late_by_one_row_is_what_at_once_is(noisy: Prepared) -> None:
    rows = read(noisy.path, 200)
    said = [
        river_models.make("river-nb", NAIVE_BAYES | {"label_delay": delay}, rows)()
        for delay in (0, 1, 2)
    ]
    assert said[0] == said[1] != said[2]


def test_headrace_is_scored_from_the_first_label_on_as_its_peers(noisy: Prepared) -> None:
    request = {"task": noisy.task(), "path": str(noisy.path), "pixels": [], "f1": False}
    found = ours.measure(request | {"rows": 200, "label_delay": LATE})
    task, right = validate(noisy.task(), "test"), {}
    for rows in (LATE, 200):
        whole = evaluate(task, noisy.path, limit=rows, label_delay=str(LATE)).metrics["all"]
        right[rows] = round(whole["accuracy"] * rows)
    expected = (right[200] - right[LATE]) / (200 - LATE)
    assert found["metrics"]["accuracy"] == pytest.approx(expected)

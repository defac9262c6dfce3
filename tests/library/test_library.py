"""`import headrace`: the service's learner in a program, without Kafka."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import headrace
from headrace.stream.errors import RecoveryError, UsageError
from headrace.stream.task import validate
from headrace.stream.training.snapshot import digest
from tests.support.readers import normalizers_of_readers

ROWS = 400
SMALL = {"hidden": [4], "neighbours": 20}
CLASSES: dict[str, Any] = {
    "name": "fruit",
    "input": {"topic": "fruit", "entity": "tree", "time": "time"},
    "target": {"field": "kind", "kind": "classify", "max_classes": 4},
    "features": {
        "weight": {"kind": "number"},
        "colour": {"kind": "category"},
        "note": {"kind": "text", "max_tokens": 4},
    },
    "model": SMALL,
}
NUMBERS: dict[str, Any] = {
    "name": "air",
    "input": {"topic": "air", "id": "/station/id", "entity": "/station/name", "time": "time"},
    "calendar": ["hour"],
    "target": {"field": "/reading/dust", "kind": "regress", "horizon": 1},
    "features": {
        "dust": {"kind": "number", "field": "/reading/dust"},
        "wind": {"kind": "number", "max": 50.0},
    },
    "model": SMALL,
}


COLOURS = np.array(["red", "green", None], object)


def fruit() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    events = []
    for at in range(ROWS):
        weight = None if at % 17 == 5 else float(rng.normal(at % 3, 0.4))
        kind = ["apple", "pear", "plum"][at % 3] if at > 40 else ["apple", "pear"][at % 2]
        colour = rng.choice(COLOURS) if at % 7 else 3
        events.append(
            {
                "tree": f"t{at % 5}",
                "time": 1_700_000_000 + at,
                "weight": weight,
                "colour": colour,
                "note": f"number {at % 3} of the basket",
                "kind": kind if at % 11 else None,
            }
        )
    events[30]["weight"] = "heavy"  # refused
    return events


def air() -> list[dict[str, Any]]:
    rng, dust = np.random.default_rng(1), np.cumsum(np.random.default_rng(2).normal(size=ROWS))
    return [
        {
            "station": {"id": at - (at == 60), "name": f"s{at % 2}"},  # 59 comes twice
            "time": f"2026-01-{1 + at // 24:02}T{at % 24:02}:00:00Z",
            "reading": {"dust": round(float(dust[at]), 3)},
            "wind": float(rng.normal(5, 3)),
        }
        for at in range(ROWS)
    ]


STREAMS = {"fruit": (CLASSES, fruit), "air": (NUMBERS, air)}


def told(lines: pa.Table) -> list[list[Any]]:
    """Return what was said of each row; NaN of a trace is none."""
    names = ("prediction", "probabilities", "low", "high", "rejected")
    kept = [name for name in names if name in lines.column_names]
    return [[line[name] for name in kept] for line in lines.select(kept).to_pylist()]


class Stream:
    """Hold a task, its events, and what `evaluate` says of them, as lines and in the whole."""

    def __init__(self, task: headrace.Task, events: list[dict[str, Any]], place: Path) -> None:
        self.task, self.events = task, events
        (place / "rows.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, events)) + b"\n")
        trace = place / "trace.parquet"
        self.found = headrace.evaluate(task, place / "rows.jsonl", trace=trace)
        self.wanted = told(pq.read_table(trace))

    def __repr__(self) -> str:
        return self.task.name


@pytest.fixture(scope="module", params=STREAMS)
def stream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stream:
    table, events = STREAMS[request.param]
    task = validate(table, request.param)
    return Stream(task, events(), tmp_path_factory.mktemp(request.param))


def one(learner: headrace.Learner, event: dict[str, Any], *, predicts: bool) -> list[Any]:
    """Learn an event by itself, as a line."""
    try:
        if predicts:
            before = learner.predict_one(event)
        said = learner.learn_one(event)
    except headrace.EventError as error:
        return [None, None, None, error.code] if not learner.classes else [None, None, error.code]
    assert not predicts or before == said
    if said.value is not None or not learner.task.spec.classes:
        return [said.value, said.low, said.high, None]
    return [said.label, [*said.probabilities.values()], None]


@settings(
    deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(1, 60), min_size=3, max_size=12), st.booleans())
def test_events_and_tables_in_any_order_say_what_evaluate_says(
    stream: Stream, cuts: list[int], begin: bool
) -> None:
    task, events, wanted = stream.task, stream.events, stream.wanted
    learner, said = headrace.Learner(task), list[list[Any]]()
    alone = begin
    for cut in (*cuts, ROWS):
        part = events[len(said) :][:cut]
        if alone:
            said += [one(learner, event, predicts=at % 2 == 0) for at, event in enumerate(part[:9])]
        else:
            said += told(learner.predict_then_learn(part))
        alone = not alone
    said += told(learner.predict_then_learn(events[len(said) :]))
    for at, (mine, theirs) in enumerate(zip(said, wanted, strict=True)):
        assert mine[0] == theirs[0], at
        assert mine[-1] == theirs[-1], at
        assert [*map(bare, mine[1:-1])] == [*map(bare, theirs[1:-1])], at


def bare(said: Any) -> Any:
    """Leave out classes that were not met yet: a program is not told of them."""
    return [chance for chance in said if chance] if isinstance(said, list) else said


def test_scores_are_those_of_evaluate(stream: Stream) -> None:
    learner, found = headrace.Learner(stream.task), stream.found
    learner.predict_then_learn(stream.events)
    assert {scope: learner.metrics[scope] for scope in ("all", "window")} == found.metrics
    assert learner.metrics["baselines"] == found.baselines
    assert learner.events == found.events


def test_an_evaluation_shows_itself(stream: Stream, tmp_path: Path) -> None:
    found = stream.found
    metric = "accuracy" if stream.task.spec.classes else "mae"
    baselines = ("no_change", "majority" if stream.task.spec.classes else "median")
    for text in (repr(found), str(found), found._repr_html_()):
        assert metric in text
        assert "400 events" in text
        assert "1 rejected" in text
        for scores in (found.metrics, *(found.baselines[name] for name in baselines)):
            for scope in ("all", "window"):
                assert f"{scores[scope][metric]:.4f}" in text
    figure = found.plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    line = figure.axes[0].lines[0]  # which ends with the scores at the end of the file
    assert line.get_xdata().tolist() == [128, 256, 384, 400]
    assert line.get_ydata()[-1] == pytest.approx(found.metrics["window"][metric])
    assert line.get_ydata()[0] != line.get_ydata()[-1]
    with pytest.raises(UsageError, match=r"\.gif: expected a name that ends with"):
        found.plot(tmp_path / "curve.gif")


def test_an_evaluation_goes_from_one_process_to_another(tmp_path: Path) -> None:
    path = tmp_path / "fruit.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, fruit())))
    found = headrace.evaluate(validate(CLASSES, "fruit"), path)
    again = pickle.loads(pickle.dumps(found))
    assert again == found
    assert repr(again) == repr(found)
    assert again.curve and found.curve and again.curve.points == found.curve.points


def test_names_in_a_notebook_are_no_html() -> None:
    scores = {scope: {"accuracy": 0.5} for scope in ("all", "window")}
    found = headrace.Evaluation(
        events=1,
        learned=1,
        rejected=1,
        seconds=1.0,
        metrics=scores,
        baselines={"<script>": scores},
        per_class={},
        drifts=[],
        ladder=[],
        codes={"<b>": 1},
        comparison=None,
        names=("<i>\x1b[2J", ""),
    )
    shown = found._repr_html_()
    assert "&lt;script&gt;" in shown
    assert all(part not in shown for part in ("<script", "<b>", "<i>", "\x1b"))
    assert "\x1b" not in repr(found)
    with pytest.raises(UsageError, match="nothing to plot"):
        found.plot()


def test_to_predict_changes_nothing(stream: Stream) -> None:
    task, events = stream.task, stream.events
    learner = headrace.Learner(task)
    learner.predict_then_learn(events[:100])
    before = digest(learner._trainer.snapshot().tensors())
    strange = "never met" if task.spec.classes else 1e9
    asked = [learner.predict_one(event) for event in (*events[100:110], *events[100:110])]
    assert asked[:10] == asked[10:]
    if task.spec.classes:  # whatever the label says
        assert learner.predict_one(events[100] | {"kind": strange}) == asked[0]
    assert digest(learner._trainer.snapshot().tensors()) == before
    assert learner.events == 100


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("kind", ["classify", "regress"])
def test_a_label_is_not_looked_at_before_it_is_learned(kind: str, chunk: int) -> None:
    """To the bit, at each row; what was foreseen with it is learned then, and nothing else is."""
    rng = np.random.default_rng(3)
    table = {"name": "t", "input": {"topic": "t"}, "features": {"x": {"kind": "number"}}}
    target = {"field": "y", "kind": kind} | ({"max_classes": 3} if kind == "classify" else {})
    task = validate(table | {"target": target, "model": SMALL | {"chunk": chunk}}, "t")
    ours, plain = headrace.Learner(task), headrace.Learner(task)
    for x in rng.normal(size=90).tolist():
        right, wrong = ("ab"[x > 0], "c") if kind == "classify" else (1e6 + x, -1e12)
        bare = ours.predict_one({"x": x})
        assert ours.predict_one({"x": x, "y": wrong}) == bare
        assert ours.predict_one({"x": x, "y": right}) == bare
        if x > 0.5:  # what was said of another event is no more of use
            ours.predict_one({"x": 0.0, "y": wrong})
        assert ours.learn_one({"x": x, "y": right}) == plain.learn_one({"x": x, "y": right})
    before, after = (digest(each._trainer.snapshot().tensors()) for each in (ours, plain))
    assert before == after
    assert ours.metrics == plain.metrics


def test_a_table_is_predicted_row_by_row_and_nothing_is_learned(stream: Stream) -> None:
    learner, events = headrace.Learner(stream.task), stream.events
    if not stream.task.target.horizon:  # with which an event itself brings a first label
        assert learner.predict(events[:3])["prediction"].null_count == 3
    learner.predict_then_learn(events[:300])
    before = digest(learner._trainer.snapshot().tensors())
    lines = learner.predict(events[300:]).to_pylist()
    assert len(lines) == ROWS - 300
    numbers = ("value", "low", "high")
    for line, event in zip(lines[::9], events[300::9], strict=True):
        one = learner.predict_one(event)
        if stream.task.spec.classes:
            assert line["prediction"] == one.label
            assert [*one.probabilities.values()] == pytest.approx(
                line["probabilities"][: len(one.probabilities)], abs=1e-5
            )
        else:
            said = [line["prediction"], line["low"], line["high"]]
            assert said == pytest.approx([getattr(one, name) for name in numbers], rel=1e-4)
    assert learner.predict(events[310:320]).to_pylist() == lines[10:20]
    assert learner.predict(events[:300:-1]).to_pylist() == lines[:0:-1]
    assert learner.predict(events[30:31])["rejected"].to_pylist() == (
        ["schema"] if stream.task.spec.classes else [None]
    )
    assert learner.events == 300
    assert digest(learner._trainer.snapshot().tensors()) == before


def test_rows_are_numbered_if_none_of_the_first_brings_an_id(tmp_path: Path) -> None:
    table = {"name": "t", "input": {"topic": "t"}, "features": {"x": {"kind": "number"}}}
    task = validate(table | {"target": {"field": "y", "kind": "regress"}, "model": SMALL}, "t")
    later = [{"x": 1.0, "y": 2.0}] * 5 + [{"x": 1.0, "y": 2.0, "row": 3}]
    some = [{"x": 1.0, "y": 2.0}, *({"x": 1.0, "y": 2.0, "id": at // 2} for at in range(6))]
    for events, codes in ((later, [None] * 6), (some, ["schema", *[None, "duplicate_id"] * 3])):
        learner = headrace.Learner(task)
        said = learner.predict_then_learn(events)["rejected"].to_pylist()
        refused = {each.code: (each.count, each.offset) for each in learner.refusals}
        assert refused == {
            code: (codes.count(code), codes.index(code)) for code in {*codes} - {None}
        }
        assert said == codes
        (tmp_path / "rows.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, events)))
        trace = tmp_path / "trace.parquet"
        headrace.evaluate(task, tmp_path / "rows.jsonl", trace=trace)
        assert pq.read_table(trace)["rejected"].to_pylist() == codes


def test_a_label_goes_where_the_task_says() -> None:
    task, events = validate(NUMBERS, "air"), air()
    ours, other = headrace.Learner(task), headrace.Learner(task)
    for event in events[:20]:
        bare = {name: value for name, value in event.items() if name != "reading"}
        label = event["reading"]["dust"]
        assert ours.learn_one(bare, label) == other.learn_one(event)


def test_a_refused_event_names_what_is_wrong_and_changes_nothing() -> None:
    learner = headrace.Learner(validate(CLASSES, "fruit"))
    learner.predict_then_learn(fruit()[:20])
    before = digest(learner._trainer.snapshot().tensors())
    for event, code, words in (
        (fruit()[20] | {"weight": "heavy"}, "schema", r"weight"),
        (fruit()[20] | {"time": "soon"}, "time", r"'soon'"),
        (fruit()[20] | {"weight": object()}, "schema", r"JSON"),
        ({}, "schema", r"tree"),
    ):
        for ask in (learner.predict_one, learner.learn_one):
            with pytest.raises(headrace.EventError, match=words) as error:
                ask(event)
            assert error.value.code == code
    assert digest(learner._trainer.snapshot().tensors()) == before


def test_tables_of_any_make_are_the_same_rows() -> None:
    rng = np.random.default_rng(0)
    columns: dict[str, NDArray[Any]]
    columns = {"x": rng.normal(size=100), "n": rng.integers(0, 5, 100)}
    columns["x"][7] = np.nan
    columns["y"] = columns["x"] * 2 + columns["n"]
    columns["y"][9] = np.nan
    features = {"x": {"kind": "number"}, "n": {"kind": "number"}}
    table = {"name": "t", "input": {"topic": "t"}, "features": features, "model": SMALL}
    task = validate(table | {"target": {"field": "y", "kind": "regress"}}, "t")
    kinds = [(name, column.dtype) for name, column in columns.items()]
    structured = np.array([*zip(*columns.values(), strict=True)], kinds)
    events = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    arrow = pa.table(columns)
    said = [
        headrace.Learner(task).predict_then_learn(each)
        for each in (columns, structured, events, arrow, arrow.to_reader(13), iter(events))
    ]
    assert said[0].num_rows == 100
    assert said[0]["rejected"].null_count == 100
    assert said[0]["prediction"].null_count == 1
    assert all(each.equals(said[0]) for each in said)
    empty = headrace.Learner(task).predict_then_learn([])
    assert (empty.num_rows, empty.schema) == (0, said[0].schema)
    for wrong in (3, "x,y", np.zeros((3, 2))):
        with pytest.raises(UsageError, match="is no table, or row"):
            headrace.Learner(task).predict_then_learn(wrong)


def test_a_saved_learner_goes_on_as_if_nothing_had_been(stream: Stream, tmp_path: Path) -> None:
    task, events, wanted = stream.task, stream.events, stream.wanted
    learner = headrace.Learner(task)
    first = told(learner.predict_then_learn(events[:150]))
    learner.save(tmp_path / "now.hr")
    assert [path.name for path in tmp_path.iterdir()] == ["now.hr"]
    again = headrace.Learner.load(tmp_path / "now.hr")
    assert again.task == task
    rest = told(again.predict_then_learn(events[150:]))
    assert [line[0] for line in first + rest] == [line[0] for line in wanted]
    learner.predict_then_learn(events[150:])
    assert again.metrics == learner.metrics


@pytest.mark.parametrize("name", ["now.safetensors", "now.json", "now", "202611292316.json"])
def test_a_saved_learner_may_have_any_name(name: str, tmp_path: Path) -> None:
    learner = headrace.Learner(validate(CLASSES, "fruit"))
    learner.predict_then_learn(fruit()[:5])
    learner.save(tmp_path / name)
    assert headrace.Learner.load(tmp_path / name).events == 5


def test_two_columns_of_one_name_are_refused() -> None:
    learner = headrace.Learner(validate(CLASSES, "fruit"))
    table = pa.table([pa.array([1.0]), pa.array([2.0])], names=["weight", "weight"])
    for use in (learner.predict, learner.predict_then_learn):
        with pytest.raises(UsageError, match="two columns are called 'weight'"):
            use(table)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"weight": [1.0], "colour": ["red", "green"]}, UsageError),
        ({"weight": 1.0, "colour": "red"}, UsageError),
        ({1: [1.0]}, UsageError),
        (pd.DataFrame({"colour": ["red", 1]}), UsageError),
        (pd.Series([1.0]), UsageError),
        (pa.table({"colour": pa.array([1], pa.duration("ns"))}), headrace.EventError),
        (pa.table({"colour": pa.array([1 << 30], pa.date32())}), headrace.EventError),
    ],
)
def test_what_cannot_be_a_table_or_a_row_is_told(table: Any, told: type[Exception]) -> None:
    learner = headrace.Learner(validate(CLASSES, "fruit"))
    for use in (learner.predict, learner.predict_then_learn):
        with pytest.raises(told):
            use(table)


def test_threads_share_a_learner() -> None:
    learner, events = headrace.Learner(validate(CLASSES, "fruit")), fruit()[50:80]
    learner.predict_then_learn(fruit()[:20])

    def ask(at: int) -> None:
        for event in events:
            (learner.predict_one, learner.learn_one)[at % 2](event)
            assert learner.metrics["all"]

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(ask, range(4))] == [None] * 4
    assert learner.events == 20 + 2 * len(events)


def test_what_is_no_saved_learner_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "now.hr"
    learner = headrace.Learner(validate(CLASSES, "fruit"))
    learner.save(place)
    whole = place.read_bytes()
    line, _, state = whole.partition(b"\n")
    spoiled = bytearray(state)
    spoiled[-3] ^= 1
    for data, kind, words in (
        (b"", UsageError, "no saved learner"),
        (b"PK\x03\x04" * 99, UsageError, "no saved learner"),
        (b"[" * 100_000, UsageError, "no saved learner"),
        (line.replace(b'"kind":"text"', b'"kind":"tekst"') + b"\n" + state, UsageError, "tekst"),
        (line.replace(b'"code":"', b'"code":"0') + b"\n" + state, RecoveryError, "other code"),
        (whole[:-1], RecoveryError, "broken"),
        (whole + b"\0", RecoveryError, "broken"),
        (line + b"\n" + spoiled, RecoveryError, "broken"),
    ):
        place.write_bytes(data)
        with pytest.raises(kind, match=words) as error:
            headrace.Learner.load(place)
        assert str(place) in str(error.value)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        headrace.Learner.load(tmp_path / "none.hr")
    with pytest.raises(UsageError, match="cannot be written"):
        learner.save(tmp_path / "none" / "now.hr")


def test_whatever_place_is_given_to_load_the_error_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = "000000000001.json"
    for name in ("strange", "abc", f"strange/of/{checkpoint}", "empty"):
        (tmp_path / name).mkdir(mode=0o700, parents=True)
    for name in ("strange", "abc"):
        (tmp_path / name / checkpoint).write_text("no manifest")
    (tmp_path / "void").write_bytes(b"")
    (tmp_path / "words").write_text("no learner\n")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "other.safetensors")
    for place, kind, words in (
        ("strange", UsageError, "no run of a service, by its name"),
        (f"strange/{checkpoint}", UsageError, "no run of a service, by its name"),
        (f"strange/of/{checkpoint}", UsageError, "no checkpoint of a service"),
        ("abc", RecoveryError, "no manifest"),
        (f"abc/{checkpoint}", RecoveryError, "no manifest"),
        ("empty", UsageError, "no checkpoint of a service"),
        ("void", UsageError, "no saved learner"),
        ("words", UsageError, "no saved learner"),
        ("words/now.hr", UsageError, "cannot be read"),
        ("loop", UsageError, "cannot be read"),
        ("other.safetensors", UsageError, "no saved learner"),
        ("n" * 300, UsageError, "cannot be read"),
        ("now\0.hr", UsageError, "cannot be read"),
    ):
        with pytest.raises(kind, match=words):
            headrace.Learner.load(tmp_path / place)
    with pytest.raises(UsageError, match="no run of a service, by its name"):
        headrace.Learner.load(f"file://{tmp_path}/strange")
    monkeypatch.chdir(tmp_path / "abc")
    with pytest.raises(RecoveryError, match="no manifest"):
        headrace.Learner.load(".")


@pytest.mark.parametrize("place", ["", "..", "n" * 252, "now\0.hr", "none/now.hr"])
def test_wherever_a_learner_cannot_be_written_it_is_told(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    with pytest.raises(UsageError, match="cannot be written"):
        headrace.Learner(validate(CLASSES, "fruit")).save(place)
    assert [*tmp_path.rglob("*")] == [tmp_path / "in"]


def test_a_task_that_goes_by_time_needs_one() -> None:
    table = {key: value for key, value in NUMBERS["input"].items() if key != "time"}
    with pytest.raises(UsageError, match=r"calendar needs the time .* input\.time"):
        headrace.Learner(validate(NUMBERS | {"input": table}, "air"))


def test_the_name_is_light_and_has_what_it_lists() -> None:
    code = (
        "import sys, headrace; print({'jax', 'kafka', 'pydantic', 'numpy'} & {*sys.modules});"
        "print(all(getattr(headrace, name) for name in headrace.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\nTrue\n", done.stderr
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = headrace.nothing


def test_what_the_readme_shows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (example,) = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    rng = np.random.default_rng(0)
    events = [{"load": x, "price": 2.0 * x} for x in rng.uniform(0, 9, 200).tolist()]
    rows = "".join(f"{event['load']},{event['price']}\n" for event in events)
    (tmp_path / "power.csv").write_text(f"load,price\n{rows}")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {"events": events, "table": pa.table({"load": [3], "price": [6.0]})}
    exec(example, found)
    assert found["prediction"].value == pytest.approx(2.0 * events[-1]["load"], abs=1.0)
    assert found["said"].num_rows == 1
    assert headrace.Learner.load("power.hr").events == 201


def test_a_label_of_a_cloudevent_goes_into_its_data() -> None:
    source = {"topic": "t", "format": "cloudevents", "id": "id"}
    table = {"name": "t", "input": source, "features": {"x": {"kind": "number"}}, "model": SMALL}
    task = validate(table | {"target": {"field": "y", "kind": "regress"}}, "t")
    ours, other = headrace.Learner(task), headrace.Learner(task)
    for at in range(20):
        bare = {"specversion": "1.0", "id": f"e{at}", "data": {"x": at % 3}}
        whole = bare | {"data": {"x": at % 3, "y": 2.0 * (at % 3)}}
        assert ours.learn_one(bare, 2.0 * (at % 3)) == other.learn_one(whole)
    assert ours.metrics["all"]["mae"] is not None
    assert ours.metrics == other.metrics


def test_a_prediction_does_not_decide_whether_events_bring_ids() -> None:
    learner = headrace.Learner(validate(CLASSES, "fruit"))
    event = {"tree": "t1", "time": 1_700_000_000, "weight": 1.0, "kind": "apple"}
    learner.predict_one(event)
    learner.predict([event])
    learner.learn_one(event | {"id": "a"})
    with pytest.raises(headrace.EventError) as caught:
        learner.learn_one(event | {"id": "a"})
    assert caught.value.code == "duplicate_id"


def test_a_loaded_learner_reads_its_events_by_one_normaliser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = headrace.Learner(validate(CLASSES, "fruit"))
    event = {"tree": "t1", "time": 1_700_000_000, "weight": 1.0, "kind": "apple"}
    learner.learn_one(event)
    learner.save(tmp_path / "fruit.hr")
    again = headrace.Learner.load(tmp_path / "fruit.hr")
    made = normalizers_of_readers(monkeypatch)
    for _ in range(3):
        again.predict_one(event)
    assert len(made) == 1

"""A corpus of files as people have them: what is guessed, what is told, and the rows of them.

Each case of `tests/corpus/corpus.toml` names a file, the options, and what has to come of them:
the features, what is left out (by a part of the reason), what is told, numbers of one row; or the
error; how many rows are refused, or repeat an id. The rows are those of `evaluate` and those of a
topic, which have to be the same; and all of them are learned (`-m long`).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.producers import sources
from headrace.stream.errors import HeadraceError
from headrace.stream.evaluation import sampling
from headrace.stream.evaluation.evaluate import evaluate
from headrace.stream.evaluation.explain import explain
from headrace.stream.evaluation.file_rows import FileRows
from headrace.stream.evaluation.infer import Inferred, Options, describe, guess_file
from headrace.stream.events import Records
from headrace.stream.formats import files, unpack
from headrace.stream.formats.times import time_ms
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task, parse
from tests.conftest import MakeTopic
from tests.support.hostile import Run
from tests.support.plainly import plainly_compiled  # noqa: F401

CORPUS = Path(__file__).parents[1] / "corpus"
CASES: list[dict[str, Any]] = tomllib.loads((CORPUS / "corpus.toml").read_text("utf-8"))["case"]
GOOD = [case for case in CASES if "error" not in case]
BAD = [case for case in CASES if "error" in case]
MOST = 100_000


def name_of(case: dict[str, Any]) -> str:
    return str(case["file"])


def guessed(case: dict[str, Any]) -> Inferred:
    return guess_file(CORPUS / case["file"], "y", Options(**case.get("options", {})))


def rows_of_file(task: Task, path: Path) -> Rows:
    """Return the rows of a file as `evaluate` reads them."""
    source = FileRows(task, path, None)
    return Normalizer(source.task).normalize(source.take(MOST))[0]


def rows_of_events(task: Task, values: Sequence[bytes | None]) -> Rows:
    """Return the rows of events in a topic."""
    count = len(values)
    nothing = [0] * count
    given = Records("t", [*values], [None] * count, nothing, [*range(count)], nothing)
    return Normalizer(task).normalize(given)[0]


def sent(path: Path, id: str) -> list[sources.Event]:
    """Return the events that `produce file` makes of a file."""
    return [*sources.file(path, id=None if id == "id" else id)]


def values_of(events: Sequence[sources.Event]) -> list[bytes | None]:
    return [event.value for event in events]


def assert_same(rows: Rows, others: Rows, task: Task) -> None:
    assert rows.offset == others.offset
    for name in ("numeric", "ids", "label", *(["time_ms"] if task.input.time else [])):
        np.testing.assert_array_equal(getattr(rows, name), getattr(others, name), name)


def test_the_table_names_every_file() -> None:
    named = [*map(name_of, CASES)]
    assert len(named) == len(set(named)) >= 120
    assert {path.name for path in CORPUS.iterdir()} == {*named, "corpus.toml"}


@pytest.mark.parametrize("case", GOOD, ids=name_of)
def test_a_file_is_guessed_and_read_as_the_table_says(case: dict[str, Any]) -> None:
    path, found = CORPUS / case["file"], guessed(case)
    task = found.task
    shown = task.model_dump(mode="json", exclude_defaults=True)
    assert shown["features"] == case["features"]
    assert shown["target"] == case["target"]
    assert {k: v for k, v in shown["input"].items() if k != "topic"} == case.get("input", {})
    assert found.left_out.keys() == case.get("left", {}).keys()
    for name, reason in case.get("left", {}).items():
        assert reason in found.left_out[name][1]
    told = [*found.told, *map(str, found.refusals)]
    assert len(told) == len(case.get("told", [])), told
    for line, expected in zip(told, case.get("told", []), strict=True):
        assert expected in line
    assert parse(found.to_toml(), "again") == task
    assert [line for line in found.to_toml().splitlines() if "# left out: " in line] or not (
        found.left_out
    )

    rows = rows_of_file(task, path)
    whole = sum(1 for _ in files.read(path))
    assert whole - len(rows.id) == case.get("refused", 0)
    at = rows.offset.index(case["at"])
    numbers = dict(zip(task.columns, rows.numeric[at].tolist(), strict=False))
    for name, value in case.get("row", {}).items():
        assert numbers[name] == pytest.approx(value, nan_ok=True), name
    if "label" in case:
        assert rows.label[at] == pytest.approx(case["label"], nan_ok=True)
    if "time" in case:
        assert rows.time_ms[at] == time_ms(case["time"])
    assert_same(rows, rows_of_events(task, values_of(sent(path, task.input.id))), task)


@pytest.mark.parametrize("case", BAD, ids=name_of)
def test_a_mistake_is_told_in_the_words_of_the_table(case: dict[str, Any]) -> None:
    with pytest.raises(HeadraceError) as raised:
        guessed(case)
    assert case["error"] in str(raised.value)
    assert raised.value.exit_code == 2


def test_a_topic_gives_the_rows_of_the_file(kafka: KafkaConnection, topic: MakeTopic) -> None:
    """All files through one topic, each read back at its own offsets."""
    from headrace.producers.publish import publish

    name, parts, events = topic("corpus"), [], []
    for case in GOOD:
        path, task = CORPUS / case["file"], guessed(case).task
        mine = sent(path, task.input.id)
        parts.append((path, task, len(mine)))
        events += mine
    publish(iter(events), kafka=kafka, topic=name)
    source = kafka.source(name)
    values: list[bytes | None] = []
    try:
        while len(values) < len(events):
            records = source.poll(MOST, 30.0)
            assert records
            values += records.values
    finally:
        source.close()
    start = 0
    for path, task, count in parts:
        assert_same(
            rows_of_file(task, path), rows_of_events(task, values[start : start + count]), task
        )
        start += count


def small(case: dict[str, Any]) -> Task:
    """Return the task that is guessed, with a pool that compiles fast."""
    pool = "[model]\nhidden = [4]\nneighbours = 0\nlearning_rate = 0.01\n[drift]\nladder = []\n"
    return parse(guessed(case).to_toml().replace("[features]", f"{pool}[features]"), "small")


@pytest.mark.usefixtures("plainly_compiled")
def test_what_is_guessed_is_learned() -> None:
    case = next(case for case in CASES if case["file"] == "missing-dash.csv")
    assert [*explain(small(case))]
    assert_learned(case)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("plainly_compiled")
def test_every_file_is_learned() -> None:
    """All in one process: most share their compiled programs."""
    wrong = {}
    for case in GOOD:
        try:
            assert_learned(case)
        except Exception as error:
            wrong[case["file"]] = f"{type(error).__name__}: {error}"
    assert wrong == {}


def assert_learned(case: dict[str, Any]) -> None:
    """Evaluate a file: each row is learned, refused, or has no label; the scores are numbers."""
    path, task = CORPUS / case["file"], small(case)
    found = evaluate(task, path)
    assert found.events == sum(1 for _ in files.read(path))
    repeated = case.get("repeated", 0)
    assert found.codes.get("duplicate_id", 0) == repeated
    assert found.rejected == case.get("refused", 0) + repeated
    unlabelled = int(np.isnan(rows_of_file(task, path).label).sum())
    assert found.learned == found.events - found.rejected - unlabelled > 0
    metrics = found.metrics["all"]
    for name in ("accuracy", "log_loss") if task.spec.classes else ("mae", "rmse"):
        assert np.isfinite(metrics[name]), (name, metrics)
    assert all(np.isfinite(value) for value in metrics.values() if isinstance(value, float)), (
        metrics
    )
    assert str(found)
    json.dumps(found.as_json(), allow_nan=False)


def test_the_command_tells_what_is_not_plain_and_strict_refuses_it(run: Run) -> None:
    path = CORPUS / "missing-dash.csv"
    done = run("infer", path, "--target", "y")
    assert done.code == 0
    assert 'temp: 95 % numbers, "-" counts as missing' in done.err
    assert tomllib.loads(done.out)["features"]["temp"]["missing"] == ["-"]
    strict = run("infer", path, "--target", "y", "--strict")
    assert (strict.code, strict.out) == (1, "")
    assert "--strict: 1 line says" in strict.err
    assert run("infer", CORPUS / "colours.csv", "--target", "y", "--strict").code == 0
    left = run("infer", CORPUS / "free-ids.csv", "--target", "y")
    assert "left out: ref (60 different values in 60 rows name the rows)" in left.err
    assert '# ref = { kind = "category" }  # left out: 60 different' in left.out
    dates = run("infer", CORPUS / "time-doubtful.csv", "--target", "y", "--dayfirst")
    assert tomllib.loads(dates.out)["input"]["dayfirst"] is True


CELLS = st.one_of(
    st.sampled_from(["", "-", "NA", "1,5", "1.234", "1,234", "$5", "5 %", "12 kWh", "yes", "t"]),
    st.sampled_from(["007", "1:30:00", "PT5M", "2026-01-31", "31/12/2026", "1769817600000000"]),
    st.integers().map(str),
    st.floats().map(str),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | CELLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELLS, inner, max_size=3),
    max_leaves=4,
)


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_cell_and_no_header_is_lost_without_a_word(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "rows.csv"
    header = data.draw(st.lists(CELLS, min_size=1, max_size=4))
    cells = data.draw(
        st.lists(
            st.lists(CELLS, min_size=len(header), max_size=len(header)), min_size=1, max_size=6
        )
    )
    lines = [",".join(map(quoted, [*header, "y", "b"]))]
    lines += [",".join([*map(quoted, row), str(at + 0.5), "1"]) for at, row in enumerate(cells)]
    path.write_text("\n".join(lines) + "\n", "utf-8", newline="")
    said_of_all(path, _names(path))


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.dictionaries(CELLS, VALUES, max_size=4), min_size=1, max_size=5))
def test_no_value_and_no_key_is_lost_without_a_word(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    events = [{**row, "y": at + 0.5, "b": at % 2} for at, row in enumerate(rows)]
    path.write_text("\n".join(map(json.dumps, events)) + "\n", "utf-8")
    said_of_all(path, {key for row in rows for key, value in row.items() if _is_leaf(value)})


def _names(path: Path) -> set[str]:
    try:
        return {*files.sample(path)[0]}
    except HeadraceError:
        return set()


def _is_leaf(value: Any) -> bool:
    return value is not None and not isinstance(value, dict)


def said_of_all(path: Path, names: set[str]) -> None:
    """Infer a task of a file: an error in words, or each column is used, or told of."""
    try:
        found = guess_file(path, "y", Options())
    except HeadraceError as error:
        assert str(error)
        return
    task = found.task
    assert parse(found.to_toml(), "again") == task
    used = {each.field or name for name, each in task.features.items()}  # type: ignore[union-attr]
    used |= {task.target.field, task.input.time or "", task.input.id}
    told = {dict(keys).get("field", name) for name, (keys, _) in found.left_out.items()}
    for name in names:
        pointed = "/" + name.replace("~", "~0").replace("/", "~1")
        assert {name, pointed} & (used | told), (name, describe(task), found.lines())
    rows = rows_of_file(task, path)
    assert not np.isinf(rows.numeric).any()
    assert len(rows.id) or found.refusals
    assert_same(rows, rows_of_events(task, values_of(sent(path, task.input.id))), task)


def test_what_stands_only_at_the_end_of_a_large_file_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "READ", 3000)
    monkeypatch.setattr(unpack, "_LONG_BYTES", 100_000)
    lines = [
        f"{at % 7},{'ERR' if at > 38_000 and at % 3 == 0 else at % 9},{at / 4}"
        for at in range(40_000)
    ]
    path = tmp_path / "late.csv"
    path.write_text("\n".join(["a,late,y", *lines]) + "\n")
    (line,) = guess_file(path, "y", Options()).lines()
    assert '"ERR" counts as missing' in line

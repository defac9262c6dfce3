"""Exported predictors say what the learner says; read by runtimes that know nothing of headrace."""

from __future__ import annotations

import json
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

import headrace
from headrace.stream.errors import UsageError
from tests.export.tasks import TASKS, events

LEARNED, ASKED = 120, 40  # of chunks of 4 all are full


def learned(task: headrace.Task) -> tuple[headrace.Learner, list[dict[str, Any]]]:
    """Return a learner, and events that it is to be asked about."""
    learner, drawn = headrace.Learner(task), events(task, LEARNED + ASKED)
    learner.predict_then_learn(drawn[:LEARNED])
    asked = drawn[LEARNED:]
    if task.target.horizon:  # what it learns of their labels is not in an exported predictor
        asked = [event | {task.target.field: None} for event in asked]
    return learner, asked


def run_onnx(path: Path, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run a model in onnxruntime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, arrays), strict=True))


def differences(
    task: headrace.Task, said: Any, found: dict[str, Any], classes: list[str]
) -> NDArray[np.float64]:
    """Return how far each row is from what the learner said, in the deviation of numbers."""
    predicted = said["prediction"].to_pylist()
    if not task.spec.classes:
        names = ("prediction", "low", "high")
        apart = np.abs([said[name].to_numpy() - found[name] for name in names])
        return np.asarray(apart.max(0) / np.std(predicted))
    assert [classes[at] for at in found["prediction"].tolist()] == predicted
    chances = [each[: len(classes)] for each in said["probabilities"].to_pylist()]
    return np.asarray(np.abs(np.array(chances) - found["probabilities"]).max(1))


@pytest.mark.filterwarnings("ignore:.*__array__.*:DeprecationWarning")  # as Keras saves
@pytest.mark.parametrize("kind", TASKS)
def test_a_model_of_onnx_says_what_the_learner_says(
    kind: str, tmp_path: Path, plainly_compiled: None
) -> None:
    task = TASKS[kind]()
    learner, asked = learned(task)
    said, arrays = learner.predict(asked), learner.arrays(asked)
    card = learner.export(tmp_path / "it.onnx")
    found = run_onnx(tmp_path / "it.onnx", arrays)
    apart = differences(task, said, found, card.classes)
    # Programs for tests round otherwise, which shows beside a neighbour that is nearly the same.
    assert np.quantile(apart, 0.9) < 1e-5 and apart.max() < 1e-3
    one = run_onnx(tmp_path / "it.onnx", {name: array[3:4] for name, array in arrays.items()})
    for name, array in one.items():
        np.testing.assert_allclose(array, found[name][3:4], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["words", "entities", "far from 0"])
def test_as_users_compile_it_stablehlo_says_it_to_the_bit_and_onnx_within_a_hundred_thousandth(
    kind: str, tmp_path: Path
) -> None:
    task = TASKS[kind]()
    learner, asked = learned(task)
    newest, draw = events(task, LEARNED)[-12:], np.random.default_rng(0)
    for number, event in enumerate(newest * 80):  # neighbours vote by rows that are nearly these
        by = 1.0 + draw.choice([0.0, 1e-7, 1e-5]) * draw.normal()
        same = {name: by * event[name] for name in ("x", "y", "far_x") if event[name] is not None}
        asked.append(event | same | {"id": f"near {number}"})
    said, arrays = learner.predict(asked), learner.arrays(asked)
    card = learner.export(tmp_path / "it", "stablehlo")
    assert not differences(task, said, run_stablehlo(tmp_path / "it", arrays), card.classes).any()
    learner.export(tmp_path / "it.onnx")
    apart = differences(task, said, run_onnx(tmp_path / "it.onnx", arrays), card.classes)
    assert apart.max() < 1e-5


def run_stablehlo(place: Path, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run a program of StableHLO by JAX alone, as the page on export says."""
    program = jax.export.deserialize(bytearray((place / "predictor.stablehlo").read_bytes()))
    state = load_file(place / "state.safetensors")
    count, capacity = len(next(iter(arrays.values()))), 1024
    rows = {name: np.resize(array, (capacity, *array.shape[1:])) for name, array in arrays.items()}
    with jax.enable_x64(True):
        found = program.call(state, rows, np.int32(count))  # type: ignore[no-untyped-call]
    return {name: np.asarray(array)[:count] for name, array in found.items()}


def test_the_tasks_go_far_from_zero_where_they_say_so(plainly_compiled: None) -> None:
    learner, _ = learned(TASKS["far from 0"]())
    assert not learner._trainer.frozen().frame.is_plain


def test_before_anything_is_learned_it_says_nothing(tmp_path: Path, plainly_compiled: None) -> None:
    numbers, classes, none = (TASKS[kind]() for kind in ("far from 0", "textcnn", "new classes"))
    learner, asked = headrace.Learner(numbers), events(numbers, 3)
    learner.export(tmp_path / "it.onnx")
    assert np.isnan(run_onnx(tmp_path / "it.onnx", learner.arrays(asked))["prediction"]).all()
    learner, asked = headrace.Learner(classes), events(classes, 3)
    learner.export(tmp_path / "it.onnx")
    found = run_onnx(tmp_path / "it.onnx", learner.arrays(asked))
    said = learner.predict(asked)["prediction"].to_pylist()
    assert [classes.target.classes[at] for at in found["prediction"]] == said
    with pytest.raises(UsageError, match="knows no class yet"):
        headrace.Learner(none).export(tmp_path / "it.onnx")


def test_what_cannot_be_is_refused_as_the_learner_refuses_it(plainly_compiled: None) -> None:
    learner, asked = learned(TASKS["numbers, costs"]())
    with pytest.raises(headrace.EventError, match="x"):
        learner.arrays([asked[0], asked[1] | {"x": "wide"}])


def test_the_card_says_what_it_is(tmp_path: Path, plainly_compiled: None) -> None:
    task = TASKS["words"]()
    learner, _ = learned(task)
    card = learner.export(tmp_path / "it.onnx", licence="CC-BY-4.0")
    text = (tmp_path / "it.onnx.md").read_text()
    scores = learner.metrics
    for part in (
        "CC-BY-4.0",
        f"{scores['all']['accuracy']:.4f}",
        f"{scores['baselines']['no_change']['all']['accuracy']:.4f}",
        "`color x shape`",
        "['n', 16]",
        "`no`, `yes`, `perhaps`",
        "[features]",
        card.state,
        "rows that it learned from",
    ):
        assert part in text, part
    model = onnx.load(tmp_path / "it.onnx")
    notes = {each.key: each.value for each in model.metadata_props}
    assert json.loads(notes["headrace"])["state"] == card.state
    assert json.loads(notes["classes"]) == ["no", "yes", "perhaps"]
    learner.learn_one(events(task, 200)[-1])
    assert learner.export(tmp_path / "it.onnx").state != card.state


def test_what_goes_wrong_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plainly_compiled: None
) -> None:
    learner, _ = learned(TASKS["numbers, costs"]())
    with pytest.raises(UsageError, match="'pmml' is no format: expected one of onnx, stablehlo"):
        learner.export(tmp_path / "it.pmml", "pmml")
    with pytest.raises(UsageError, match=r"a name that ends in \.onnx"):
        learner.export(tmp_path / "it")
    with pytest.raises(UsageError, match="the name of a folder"):
        learner.export(tmp_path / "it.hlo", "stablehlo")
    with pytest.raises(UsageError, match=r"it\.onnx: cannot be written: No such file"):
        learner.export(tmp_path / "nowhere" / "it.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "headrace.export.onnx", raising=False)
    with pytest.raises(UsageError, match=r"pip install 'headrace\[onnx\]'"):
        learner.export(tmp_path / "it.onnx")
    assert [*tmp_path.iterdir()] == []


TAKEN = ("event.time_ms", "event.label", "event.entity", "prediction", "low", "/Shape/1")


@pytest.mark.parametrize("kind", ["onnx", "stablehlo"])
def test_any_name_of_a_feature_is_an_input(
    kind: str, tmp_path: Path, plainly_compiled: None
) -> None:
    task = TASKS["numbers, costs"]()
    told = task.model_dump(exclude_defaults=True)
    numbers = {name: {"kind": "number", "field": "xy"[at % 2]} for at, name in enumerate(TAKEN)}
    told["features"] = numbers | {
        "color": {"kind": "category"},
        "shape": {"kind": "category"},
        "color x shape": {"kind": "category", "field": "who"},
        "t": {"kind": "text", "field": "text", "max_tokens": 8},
        "t, words": {"kind": "text", "field": "color", "max_tokens": 3},
    }
    told["model"] |= {"network": "textcnn"}
    told |= {"cross": [["color", "shape"]], "calendar": ["hour"]}
    told["input"] = {"topic": "t", "time": "time", "entity": "who"}
    task = headrace.Task.model_validate(told)
    learner, asked = learned(task)
    said, arrays = learner.predict(asked), learner.arrays(asked)
    place = tmp_path / ("it.onnx" if kind == "onnx" else "it")
    card = learner.export(place, kind)
    found = (run_onnx if kind == "onnx" else run_stablehlo)(place, arrays)
    assert differences(task, said, found, card.classes).max() < 1e-5
    taken = [each["name"] for each in card.inputs]
    assert len({*taken}) == len(taken) == 6 + 3 + 1 + 4 + 2
    assert arrays["event.time_ms"].tolist() == [1000 * each["time"] for each in asked]
    assert arrays["prediction_"].tolist()[2] == asked[2]["y"]


def test_a_program_of_stablehlo_names_no_files_of_the_machine(
    tmp_path: Path, plainly_compiled: None
) -> None:
    learner, _ = learned(TASKS["numbers, costs"]())
    learner.export(tmp_path / "it", "stablehlo")
    assert b".py" not in (tmp_path / "it" / "predictor.stablehlo").read_bytes()


def test_what_is_there_stays_where_an_export_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plainly_compiled: None
) -> None:
    learner, drawn = learned(TASKS["numbers, costs"]())
    learner.export(tmp_path / "it.onnx")
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    learner.learn_one(drawn[0])

    def interrupted(card: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(headrace.export.Card, "as_markdown", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learner.export(tmp_path / "it.onnx")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_names_break_out_of_no_line_of_the_card(tmp_path: Path, plainly_compiled: None) -> None:
    odd = "a|b\n## Licence\x1b[31m `c` ``` <b>"
    told = TASKS["numbers, costs"]().model_dump(exclude_defaults=True)
    told["target"] = {"field": "label", "kind": "classify", "classes": ["no", odd]}
    told["features"] = {odd: {"kind": "number", "field": "x"}}
    learner = headrace.Learner(headrace.Task.model_validate(told))
    learner.learn_one({"x": 1.0, "label": odd})
    learner.export(tmp_path / "it.onnx", licence="MIT\x1b[31m\ud800")
    text = (tmp_path / "it.onnx.md").read_text("utf-8")
    assert "\x1b" not in text and text.count("\n## Licence") == 1
    name = r"a\|b\u000a## Licence\u001b[31m `c` ``` <b>"
    assert f"| ```` {name} ```` | float64 |" in text
    assert "\n````toml\n" in text and text.endswith("\n````\n")


def test_a_category_is_hashed_as_the_page_says(plainly_compiled: None) -> None:
    learner = headrace.Learner(TASKS["words"]())
    key = blake2b(b"tried", digest_size=32).digest()
    for value, text, kind in (
        (" Stra\u200bße ", "strasse", "category"),
        ("E\u0301te", "\u00e9te", "category"),
        (3.0, "3", "category: number"),
        (0.1, "0.1", "category: number"),
        (True, "true", "category: boolean"),
    ):
        hashed = blake2b(f"{kind}\0color\0{text}".encode(), key=key, digest_size=4).digest()
        found = learner.arrays([{"color": value}])["color"]
        assert found.tolist() == [int.from_bytes(hashed, "little")]


def test_only_a_predictor_is_replaced(tmp_path: Path, plainly_compiled: None) -> None:
    learner, _ = learned(TASKS["numbers, costs"]())
    learner.export(tmp_path / "it", "stablehlo")
    state = load_file(tmp_path / "it" / "state.safetensors")
    learner.learn_one(events(learner.task, 200)[-1])
    learner.export(tmp_path / "it", "stablehlo")
    after = load_file(tmp_path / "it" / "state.safetensors")
    assert any((after[name] != state[name]).any() for name in state)
    for place, to in (("it", "stablehlo"), ("folder.onnx", "onnx")):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "mine.txt").write_text("mine")
        with pytest.raises(UsageError, match="is there, and no predictor as"):
            learner.export(tmp_path / place, to)
        assert (tmp_path / place / "mine.txt").read_text() == "mine"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"it", "it.md", "folder.onnx"}


def test_a_nul_in_a_path_is_told_in_a_line(tmp_path: Path, plainly_compiled: None) -> None:
    task = TASKS["numbers, costs"]()
    learner, odd = headrace.Learner(task), f"{tmp_path}/a\0b"
    for wrong in (
        lambda: learner.export(f"{odd}.onnx"),
        lambda: learner.export(odd, "stablehlo"),
        lambda: learner.save(odd),
        lambda: headrace.Learner.load(odd),
        lambda: headrace.Task.load(f"{odd}.toml"),
        lambda: headrace.evaluate(task, f"{odd}.csv"),
        lambda: headrace.infer(f"{odd}.jsonl", "label"),
    ):
        with pytest.raises(UsageError, match=r"cannot .*(NUL|null byte)"):
            wrong()

"""Keras models that cannot be learned, and files that are none: told in a line, and no code run."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import headrace
from headrace.stream.errors import TaskError
from headrace.stream.task import Task, validate
from headrace.stream.training.plugins import learner_of
from tests.support.hostile import Run
from tests.support.keras_models import Change, altered, config, dense, forget, keras, saved

L = keras.layers
pytestmark = [
    pytest.mark.usefixtures("registries"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of Keras
]


def table(network: str | None = None, **tables: Any) -> dict[str, Any]:
    model = {"neighbours": 0} | ({"network": network} if network else {})
    return {
        "name": "k",
        "input": {"topic": "k"},
        "target": {"field": "y", "kind": "classify", "classes": ["a", "b", "c"]},
        "features": {"u": {"kind": "number"}, "v": {"kind": "number"}},
        "model": model | tables.pop("model", {}),
    } | tables


def with_layer(layer: Any) -> Any:
    return keras.Sequential([L.Input((2,)), layer, L.Flatten(), L.Dense(3)])


def shared() -> Any:
    rows, layer = L.Input((2,)), L.Dense(2)
    return keras.Model(rows, layer(layer(rows)))


def two_outputs() -> Any:
    rows = L.Input((2,))
    return keras.Model(rows, [L.Dense(3)(rows), L.Dense(3)(rows)])


def without_input() -> Any:
    model = keras.Sequential([L.Dense(3)])
    model(np.zeros((1, 2), np.float32))
    return model


class Own(keras.layers.Layer):  # type: ignore[misc]
    """Do nothing."""

    def call(self, rows: Any) -> Any:
        """Return what came."""
        return rows


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "no model": (lambda: "model", "is a str, expected a Keras model"),
    "units": (lambda: dense(4, 2), "its last layer has 2 units, expected 3, one for each class"),
    "input": (
        lambda: dense(3, inputs=5),
        "has the shape (5,), expected one of (11,) (all inputs of a row), (2,) (the numbers)",
    ),
    "activation": (
        lambda: dense(3, activation="sigmoid"),
        "has the activation sigmoid, expected linear or softmax with model.loss = 'cross_entropy'",
    ),
    "last": (lambda: keras.Sequential([L.Input((2,)), L.Flatten()]), "it ends in 'flatten"),
    "frozen last": (lambda: dense(3, trainable=False), "'end' is frozen"),
    "shared last": (shared, "is used twice"),
    "two outputs": (two_outputs, "has 2 outputs, expected one"),
    "no input": (without_input, "begin it with an Input"),
    "dropout": (lambda: with_layer(L.Dropout(0.5)), "(Dropout) is not learned"),
    "running state": (lambda: with_layer(L.BatchNormalization()), "moving_mean"),
    "recurrent dropout": (
        lambda: with_layer(keras.Sequential([L.Reshape((1, 2)), L.GRU(2, dropout=0.5)])),
        "has running state",
    ),
    "regularizer": (lambda: with_layer(L.Dense(2, kernel_regularizer="l2")), "has regularizers"),
    "constraint": (lambda: with_layer(L.Dense(2, bias_constraint="non_neg")), "has a constraint"),
    "half precision": (lambda: with_layer(L.Dense(2, dtype="mixed_bfloat16")), "dtype"),
    "integers": (
        lambda: keras.Sequential([L.Input((2,), dtype="int32"), L.Dense(3)]),
        "dtype int32, expected float32",
    ),
    "wide": (
        lambda: keras.Sequential(
            [L.Input((2,)), L.RepeatVector(10**8), L.GlobalAveragePooling1D(), L.Dense(3)]
        ),
        "makes 200,000,000 numbers of one row",
    ),
    "own layer": (lambda: with_layer(Own()), "custom object, and no code of a file is run"),
    "lambda": (lambda: with_layer(L.Lambda(lambda rows: rows)), "(Lambda) is not learned"),
}


@pytest.mark.filterwarnings("ignore:The object being serialized:UserWarning")
@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_cannot_be_learned_exactly_is_told_why(name: str) -> None:
    make, reason = MODELS[name]
    with pytest.raises(TaskError) as caught:
        headrace.Learner(validate(table(), "k"), network=make())
    assert str(caught.value).startswith("network: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tables", "units", "reason"),
    [
        (
            {"target": {"field": "y", "kind": "regress"}},
            3,
            "3 units, expected 1, as the loss huber",
        ),
        ({"model": {"loss": "bce"}}, 3, "softmax, expected linear or sigmoid with model.loss"),
    ],
)
def test_what_the_target_asks_for_is_told(tables: dict[str, Any], units: int, reason: str) -> None:
    with pytest.raises(TaskError, match=reason):
        headrace.Learner(validate(table(**tables), "k"), network=dense(units, activation="softmax"))


# Files -------------------------------------------------------------------------------------------


def weights(change: Callable[[h5py.File], None]) -> Change:
    def apply(members: dict[str, bytes]) -> None:
        held = io.BytesIO(members["model.weights.h5"])
        with h5py.File(held, "r+") as file:
            change(file)
        members["model.weights.h5"] = held.getvalue()

    return apply


def first_layer(**changes: Any) -> Change:
    return config(lambda table: table["config"]["layers"][1].update(changes))


def settings(**changes: Any) -> Change:
    return config(lambda table: table["config"]["layers"][1]["config"].update(changes))


def huge(file: h5py.File) -> None:
    del file["layers/dense/vars/0"]
    file.create_dataset("layers/dense/vars/0", (10**6, 10**6), "f4", chunks=(1000, 1000))


def elsewhere(file: h5py.File) -> None:
    file["layers/away"] = h5py.ExternalLink("/etc/passwd", "/")


def endless(file: h5py.File) -> None:
    file["layers/again"] = file["layers"]


def nest(members: dict[str, bytes]) -> None:
    members["config.json"] = b'{"config":' * 5000 + b"1" + b"}" * 5000


def code(path: str) -> dict[str, Any]:
    return {"class_name": "__lambda__", "config": {"value": ["4wEAAAAAAAAA", None, None]}}


FILES: dict[str, tuple[Change, str]] = {
    "command": (first_layer(module="os", class_name="system", config="CODE"), "os.system is a"),
    "module": (first_layer(module="MODULE", class_name="Layer"), "MODULE.Layer is a custom object"),
    "registered": (first_layer(registered_name="package>Own"), "is a custom object"),
    "function": (
        settings(activation={"module": "builtins", "class_name": "function", "config": "eval"}),
        "builtins.function is a custom object",
    ),
    "lambda": (settings(activation=code("")), "__lambda__ is a custom object"),
    "saved model": (first_layer(class_name="TFSMLayer"), "(TFSMLayer) is not learned"),
    "file reader": (first_layer(class_name="StringLookup"), "(StringLookup) is not learned"),
    "compiled code": (
        config(lambda table: table["config"]["layers"][1].update(compile_config=code(""))),
        "",
    ),
    "unknown layer": (first_layer(class_name="Densest"), "(Densest) is not learned"),
    "other weights": (settings(units=7), "Keras cannot load it: "),
    "huge layer": (
        config(
            lambda table: [
                layer["config"].update(units=2 * 10**9) for layer in table["config"]["layers"][1:]
            ]
        ),
        "Keras cannot load it: ",
    ),
    "no layers": (config(lambda table: table["config"].update(layers="all")), "Keras cannot load"),
    "nested": (nest, "expected a file that Keras 3 saved"),
    "no config": (lambda members: members.pop("config.json"), "expected a file that"),
    "no json": (lambda members: members.update({"config.json": b"\xff{"}), "expected a file that"),
    "no tensors": (lambda members: members.update({"model.weights.h5": b"HDF"}), "weights.h5: "),
    "stranger": (lambda members: members.update({"assets/a.py": b"1"}), "holds 'assets/a.py'"),
    "huge array": (weights(huge), "is no plain array of numbers"),
    "link": (weights(elsewhere), "/layers/away is no plain array"),
    "endless": (weights(endless), "no plain array"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_in_words(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, reason = FILES[name]
    (tmp_path / "MODULE.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = altered(saved(dense(4, 3), tmp_path / "model.keras"), change)

    def use() -> None:
        learner_of(validate(table(f"keras:{path}"), "k"))

    if name == "compiled code":
        use()  # how it was compiled is not looked at
    else:
        with pytest.raises(TaskError) as caught:
            use()
        assert "model.network" in str(caught.value) and str(path) in str(caught.value)
        assert len(str(caught.value)) < 500
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    assert "MODULE" not in sys.modules


def bomb() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", "{}")
        with file.open("model.weights.h5", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(1 << 20))
    return made.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "expected a file that Keras 3 saved"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "expected a file that Keras 3 saved"),
        (b"PK\x03\x04" + bytes(1000), "expected a file that Keras 3 saved"),
        (bomb, "unpacks to more than 256 MiB"),
    ],
    ids=["empty", "old format", "cut off", "bomb"],
)
def test_what_is_no_such_file_is_refused(
    data: bytes | Callable[[], bytes], reason: str, tmp_path: Path, run: Run
) -> None:
    path, task = tmp_path / "model.keras", tmp_path / "task.toml"
    path.write_bytes(data if isinstance(data, bytes) else data())
    task.write_text(
        'name = "k"\n[input]\ntopic = "k"\n[target]\nfield = "y"\nkind = "regress"\n[features]\n'
        'u = { kind = "number" }\n[model]\nnetwork = "keras:model.keras"\n'
    )
    done = run("check", str(task))
    assert done.code == 2
    assert "model.network = 'keras:model.keras': " in done.err
    assert reason in done.err
    assert "Traceback" not in done.err
    path.unlink()
    gone = run("check", str(task))
    assert gone.code == 2
    assert f"{path}: cannot be read: No such file or directory" in gone.err


def test_a_file_that_changes_under_a_task_is_told(tmp_path: Path) -> None:
    path = saved(dense(4, 3), tmp_path / "model.keras")
    task = validate(table("keras:model.keras"), "k", tmp_path)
    written = task.model_dump(mode="json", exclude_unset=True)
    saved(dense(4, 3, seed=1), path)
    forget()
    with pytest.raises(TaskError, match=r"model\.keras': has changed: now it is sha256:"):
        learner_of(Task.model_validate(written))


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ("import os; os.environ['KERAS_BACKEND'] = 'numpy'; import keras", "backend 'numpy'"),
        ("import sys; sys.modules['keras'] = None", "pip install 'headrace[keras]'"),
        ("import os; os.environ['KERAS_BACKEND'] = 'torch'", ""),
    ],
    ids=["imported", "missing", "asked for"],
)
def test_keras_runs_on_jax_or_it_is_told(first: str, told: str, tmp_path: Path) -> None:
    path = saved(dense(4, 3), tmp_path / "model.keras")
    program = f"""
{first}
from headrace.stream.errors import TaskError
from headrace.stream.task import validate
from headrace.stream.training.plugins import learner_of
try:
    learner_of(validate({table(f"keras:{path}")!r}, "k"))
except TaskError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    assert bool(told) == bool(done.stdout)


def test_tasks_without_such_a_model_do_not_import_keras() -> None:
    program = f"""
import sys, headrace
headrace.Learner(headrace.Task.model_validate({table()!r}))
assert not {{"keras", "h5py"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)

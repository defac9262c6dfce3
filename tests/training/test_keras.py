"""Keras models in the pool: what they say and learn is what Keras and an optimizer's book say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

import headrace
from headrace.model.embed import Embedded
from headrace.model.networks import Seen, answer, make_network
from headrace.model.spec import Spec
from headrace.stream.ledger import fingerprint
from headrace.stream.task import Task, keras_file, validate
from headrace.stream.training.plugins import learner_of
from headrace.stream.training.snapshot import digest
from tests.support.keras_models import dense, forget, keras, saved

L = keras.layers
ROWS = 60
Floats = NDArray[np.float32]

pytestmark = [
    pytest.mark.usefixtures("registries"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of Keras
]


def task_of(classes: int = 3, **tables: Any) -> Task:
    """Return a task of two numbers, with a pool of one network."""
    target: dict[str, Any] = {"field": "y", "kind": "regress"}
    if classes:
        target = {"field": "y", "kind": "classify", "classes": [*"abcdef"[:classes]]}
    table = {
        "name": "k",
        "input": {"topic": "k"},
        "target": target,
        "features": {"u": {"kind": "number"}, "v": {"kind": "number"}},
        "model": {"neighbours": 0, "learning_rate": 0.01} | tables.pop("model", {}),
        "drift": {"ladder": []},
    }
    return validate(table | tables, "k")


def events(count: int = ROWS) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(count, 2)).round(3).tolist()
    return [{"u": u, "v": v, "y": "abc"[(u > 0) + (v > 0)]} for u, v in rows]


def said_by(spec: Spec, inputs: Floats) -> Floats:
    """Return what the first network of a pool that learned nothing puts out about rows."""
    network = make_network(spec)
    params = network.init(jax.random.key(5))
    nothing = jnp.zeros((len(inputs), 0))
    seen = Seen(jnp.asarray(inputs), Embedded(*[nothing] * len(Embedded._fields)))
    features = network.features(params.below, seen)
    return np.asarray(answer(params.last, features.seen))


def image_task(**model: Any) -> Task:
    image = {"image": {"kind": "image", "height": 6, "width": 5}}
    return task_of(features=image, model=model)


def convolutions() -> Any:
    image = L.Input((6, 5, 1))
    seen = L.Flatten()(L.MaxPooling2D()(L.Conv2D(4, 3, activation="relu")(image)))
    frozen = L.BatchNormalization(trainable=False, moving_mean_initializer="ones")(seen)
    units = L.Dense(5, activation="tanh")(L.Add()([frozen, seen * 2.0]))
    return keras.Model(image, L.Softmax()(L.Dense(3)(units)))


def window_and_numbers() -> Any:
    rows, numbers = L.Input((3, 4), name="a"), L.Input((2,), name="b")
    both = L.Concatenate()([L.LSTM(4)(rows), L.Dense(3, activation="relu")(numbers)])
    return keras.Model({"b": numbers, "a": rows}, L.Dense(3, activation="softmax")(both))


def nested() -> Any:
    inner = dense(6, 4, inputs=30)
    layers = [L.Input((6, 5)), L.Flatten(), inner, L.PReLU("ones"), L.Dense(3, use_bias=False)]
    return keras.Sequential([*layers, L.Activation("softmax")])


LAGS = {"rows": 2, "labels": 0, "traces": []}
MODELS: dict[str, tuple[Any, Task, Any]] = {  # the model, a task, and its inputs of rows
    "dense": (lambda: dense(5, 4, 3, activation="softmax"), task_of(), lambda rows: rows[:, :2]),
    "one layer": (lambda: dense(3, inputs=7), task_of(lags={"traces": []}), lambda rows: rows),
    "image": (convolutions, image_task(), lambda rows: rows[:, :30].reshape(-1, 6, 5, 1)),
    "nested": (nested, image_task(), lambda rows: rows[:, :30].reshape(-1, 6, 5)),
    "window": (
        window_and_numbers,
        task_of(lags=LAGS),
        lambda rows: {
            # of the present row two numbers and two flags of missing ones; then the numbers of the
            # two earlier rows, newest first, and their flags
            "a": rows[:, [8 - 2, 9 - 2, 10, 11, 4, 5, 8, 9, 0, 1, 2, 3]].reshape(-1, 3, 4),
            "b": rows[:, :2],
        },
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_before_it_learns_a_network_says_what_the_model_says(name: str, tmp_path: Path) -> None:
    make, task, inputs_of = MODELS[name]
    model = make()
    task = named(task, saved(model, tmp_path / "model.keras"))
    learner_of(task)
    rows = np.random.default_rng(1).normal(size=(9, task.spec.inputs)).astype(np.float32)
    logits = said_by(task.spec, rows)
    expected = np.asarray(model(inputs_of(rows)))
    if name == "one layer":
        np.testing.assert_allclose(logits, expected, atol=1e-6)
    else:
        np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=1e-6)


def named(task: Task, path: Path) -> Task:
    return task.with_network(keras_file.pin(Path(path)))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_it_learns_what_the_optimizer_makes_of_the_gradient_that_keras_has(optimizer: str) -> None:
    """Each row moves all layers at once, by the gradient of the cross-entropy."""
    model, steps = dense(5, 4, 3, activation="softmax"), 1 if optimizer == "adam" else 20
    learner = headrace.Learner(task_of(model={"optimizer": optimizer}), network=model)
    weights = [np.asarray(value, np.float64) for value in model.get_weights()]

    def loss(weights: list[Any], row: Any, label: int) -> Any:
        said, _ = model.stateless_call(weights, [], row[None])
        return -jnp.log(said[0, label])

    for event in events(steps):
        learner.learn_one(event)
        state = learner._trainer._state
        row, label = state.chunk.inputs[0, :2], "abc".index(event["y"])
        single = [value.astype(np.float32) for value in weights]
        gradient = jax.grad(loss)(single, row, label)
        for at, slope in enumerate(np.asarray(each, np.float64) for each in gradient):
            step = slope / np.sqrt(slope**2 + 1e-8) if optimizer == "adam" else slope
            weights[at] = weights[at] - 0.01 * step
    params = state.champion.params
    layers = params.below["head"]["layers"]
    found = [*(layers[at]["kernel"][0] for at in range(2)), params.last[0].T]
    for at, kernel in enumerate(found):
        np.testing.assert_allclose(kernel, np.vstack(weights[2 * at : 2 * at + 2]), atol=1e-6)
    moved = max(
        float(np.abs(a - b).max()) for a, b in zip(weights, model.get_weights(), strict=True)
    )
    assert moved > 1e-3  # and the model of the program has stayed as it was


@pytest.mark.parametrize("chunk", [1, 4])
def test_cuts_of_the_stream_copies_and_files_change_no_bit(chunk: int, tmp_path: Path) -> None:
    task = task_of(model={"learning_rate": [0.001, 0.01], "chunk": chunk})
    model = dense(5, 4, 3, activation="softmax")
    whole, cut = (headrace.Learner(task, network=model) for _ in range(2))
    said = whole.predict_then_learn(events())
    rows = events()
    pieces = [cut.predict_then_learn(rows[:7]), cut.predict_then_learn(rows[7:21])]
    cut.save(tmp_path / "saved.hr")
    again = headrace.Learner.load(tmp_path / "saved.hr")
    pieces += [again.predict_then_learn([row]) for row in rows[21:]]
    lines = [line for piece in pieces for line in piece.to_pylist()]
    assert lines == said.to_pylist()
    assert digest(again._trainer.snapshot().tensors()) == digest(
        whole._trainer.snapshot().tensors()
    )
    assert again.learn_one(rows[3]) == whole.learn_one(rows[3])


def test_a_saved_learner_needs_nothing_beside_it(tmp_path: Path, registries: None) -> None:
    path = saved(dense(4, 3), tmp_path / "model.keras")
    learner = headrace.Learner(named(task_of(), path))
    learner.predict_then_learn(events())
    learner.save(tmp_path / "saved.hr")
    path.unlink()
    forget()
    again = headrace.Learner.load(tmp_path / "saved.hr")
    assert again.predict_one(events()[0]) == learner.predict_one(events()[0])


def test_dead_units_of_dense_layers_begin_anew() -> None:
    """Only of the layers right before the last, where the last and no other sees them."""
    model = dense(6, 5, 3)
    kernel, bias = model.get_layer("layer1").get_weights()
    bias[2] = -1e3
    model.get_layer("layer1").set_weights([kernel, bias])
    learner = headrace.Learner(task_of(), network=model)
    for _ in range(4):
        learner.predict_then_learn(events(2000))
    assert learner.metrics["plasticity"]["revived_units"] > 0
    assert learner.metrics["plasticity"]["dead_units"] == 0.0


def test_what_counts_of_a_file_is_its_architecture_and_its_weights(tmp_path: Path) -> None:
    model = dense(4, 3, activation="softmax")
    before = saved(model, tmp_path / "a.keras")
    again = keras.saving.load_model(before)
    again.compile("adam", "sparse_categorical_crossentropy")
    again.optimizer.build(again.trainable_variables)
    tasks = [named(task_of(), before), named(task_of(), saved(again, tmp_path / "b.keras"))]
    assert before.read_bytes() != (tmp_path / "b.keras").read_bytes()
    assert len({fingerprint.of_task(task) for task in tasks}) == 1
    assert fingerprint.settings_of(tasks[0])["packages"] == {"keras": keras.__version__}
    kernel, bias = model.layers[0].get_weights()
    model.layers[0].set_weights([kernel + 1e-7, bias])
    other = named(task_of(), saved(model, before))
    assert fingerprint.of_task(other) != fingerprint.of_task(tasks[0])
    assert "keras" not in fingerprint.settings_of(task_of()).get("packages", {})

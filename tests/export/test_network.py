"""One network of the pool, as PyTorch's weights and as a Keras model: by numpy and by Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

import headrace
from headrace import weights
from headrace.model import pool
from headrace.stream.errors import UsageError
from tests.export.tasks import TASKS, events

pytestmark = pytest.mark.filterwarnings("ignore:.*__array__.*:DeprecationWarning")


def by_numpy(found: dict[str, NDArray[Any]], inputs: NDArray[Any]) -> NDArray[Any]:
    """Calculate what a network with one hidden layer of relu says."""
    deep = np.maximum(inputs @ found["hidden.0.weight"].T + found["hidden.0.bias"], 0.0)
    seen = np.concatenate([deep, inputs], 1)
    return np.asarray(seen @ found["output.weight"].T + found["output.bias"])


def test_the_network_that_weighs_most_leaves(tmp_path: Path, plainly_compiled: None) -> None:
    task = TASKS["words"]()
    learner, drawn = headrace.Learner(task), events(task, 160)
    learner.predict_then_learn(drawn[:120])
    card = learner.export(tmp_path / "it.safetensors", "torch")
    networks = pool.names(task.spec)[: task.spec.networks]
    told = {name: learner.metrics["members"][name] for name in networks}
    (name,) = (name for name in networks if f"{name!r}" in card.limits[0])
    assert told[name] == max(told.values()) and f"{told[name]:.2f} of" in card.limits[0]
    found = load_file(tmp_path / "it.safetensors")
    inputs = weights.examples(learner, drawn[120:], name).inputs
    assert card.inputs[0]["shape"] == (inputs.shape[1],)

    learner.export(tmp_path / "it.keras", "keras")
    import keras

    model = keras.saving.load_model(tmp_path / "it.keras", safe_mode=True)
    said = np.asarray(model(inputs))
    np.testing.assert_allclose(said, by_numpy(found, inputs), atol=1e-5)
    assert said.std() > 0.01
    with pytest.raises(UsageError, match="'linear' or 'mlp'"):
        headrace.Learner(TASKS["image"]()).export(tmp_path / "other.safetensors", "torch")


def test_a_keras_model_comes_back_with_what_it_learned(
    tmp_path: Path, plainly_compiled: None
) -> None:
    from headrace.stream.training import keras_models

    keras = keras_models._keras()
    keras.utils.set_random_seed(3)  # with others, a small network may be dead from the first
    model = keras.Sequential(
        [
            keras.Input((5, 4, 3)),
            keras.layers.Conv2D(2, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    task = TASKS["image"]().model_copy(update={"lags": headrace.Task.model_fields["lags"].default})
    learner = headrace.Learner(task, network=model)
    learner.export(tmp_path / "before.keras", "keras")
    learner.predict_then_learn(events(task, 80))
    learner.export(tmp_path / "after.keras", "keras")
    before, after = (
        keras.saving.load_model(tmp_path / f"{when}.keras", safe_mode=True)
        for when in ("before", "after")
    )
    for old, given, new in zip(before.weights, model.weights, after.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(old.value), np.asarray(given.value))
        assert (np.asarray(new.value) != np.asarray(old.value)).any()
    params = learner._trainer.frozen().state.champion.params
    last = np.concatenate([after.layers[-1].kernel.value, after.layers[-1].bias.value[None]])
    assert any(np.array_equal(last.T, each) for each in np.asarray(params.last))


def test_a_network_that_learned_a_sample_says_so(tmp_path: Path) -> None:
    """Its logits are those of the sample; headrace corrects what it publishes."""
    sampled = {"topic": "l", "max_pending": 20, "on_expiry": "no", "sample_negatives": 0.25}
    task = headrace.Task.model_validate(
        TASKS["numbers, costs"]().model_dump() | {"labels": sampled}
    )
    learner = headrace.Learner(task)
    learner.predict_then_learn(events(task, 60))
    card = learner.export(tmp_path / "it.safetensors", "torch")
    assert "a share of 0.25 of the events labelled 'no'" in card.limits[-1]
    card = learner.export(tmp_path / "it.onnx", "onnx")  # the predictor, corrected
    assert not any("odds" in limit for limit in card.limits)


def test_labels_within_events_are_no_goals_of_their_rows_with_a_horizon(tmp_path: Path) -> None:
    """With a topic of labels, too: what is learned of an event is not the label that it brings."""
    told = TASKS["numbers, costs"]().model_dump() | {"labels": {"topic": "l", "max_pending": 20}}
    table = events(headrace.Task.model_validate(told), 60)
    for horizon in (0, 1):
        task = headrace.Task.model_validate(
            told | {"target": told["target"] | {"horizon": horizon}}
        )
        learner = headrace.Learner(task)
        learner.predict_then_learn(table)
        goals = weights.examples(learner, table, 0).goals
        assert np.isnan(goals).all() == bool(horizon)
        limits = learner.export(tmp_path / f"{horizon}.onnx", "onnx").limits
        assert any("which headrace learns before" in limit for limit in limits) == bool(horizon)

"""The slopes are the derivatives of the textbook's losses, and what is published fits each loss."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array
from numpy.typing import NDArray

from headrace.model.learner import make_learner
from headrace.model.losses import log_probabilities, slope
from headrace.model.spec import Loss, Spec
from tests.support.columns import feed

N = 4000
TAILS = jnp.array([0.1, 0.5, 0.9])


def pinball(outputs: Array, goal: Array) -> Array:
    short = goal[..., None] - outputs
    return jnp.maximum(TAILS * short, (TAILS - 1) * short).sum(-1)


TEXTBOOK: dict[Loss, Any] = {
    "cross_entropy": lambda out, goal: optax.softmax_cross_entropy_with_integer_labels(out, goal),
    "bce": lambda out, goal: optax.sigmoid_binary_cross_entropy(
        out, jax.nn.one_hot(goal, out.shape[-1])
    ).sum(-1),
    "mse": lambda out, goal: jnp.square(out[..., 0] - goal),
    "huber": lambda out, goal: optax.huber_loss(out[..., 0], goal, delta=0.5),
    "pinball": pinball,
}


@pytest.mark.parametrize("loss", TEXTBOOK)
def test_a_slope_is_the_derivative_of_the_loss(loss: Loss) -> None:
    rng = np.random.default_rng(0)
    classes = 4 if loss in ("cross_entropy", "bce") else 0
    spec = Spec(numeric=1, classes=classes, loss=loss, coverage=0.8)
    outputs = jnp.asarray(rng.normal(0, 2, (3, 50, spec.outputs)), jnp.float32)
    goal = rng.integers(0, 4, 50) if classes else rng.normal(0, 2, 50)
    wanted = jax.grad(lambda out: TEXTBOOK[loss](out, jnp.broadcast_to(goal, (3, 50))).sum())
    assert np.allclose(slope(spec, outputs, jnp.asarray(goal)), wanted(outputs), atol=1e-6)


def test_one_against_the_rest_is_published_as_a_distribution() -> None:
    spec = Spec(numeric=1, classes=3, loss="bce")
    outputs = np.random.default_rng(0).normal(0, 3, (20, 3))
    each = 1 / (1 + np.exp(-outputs))
    said = np.exp(log_probabilities(spec, jnp.asarray(outputs, jnp.float32)))
    assert np.allclose(said, each / each.sum(1, keepdims=True), atol=1e-6)
    wild = np.array([[-1e4, -1e4, -1e4], [1e4, -1e4, 0]], np.float32)
    assert np.allclose(np.exp(log_probabilities(spec, jnp.asarray(wild))).sum(1), 1)


def test_classes_are_learned_one_against_the_rest() -> None:
    rng = np.random.default_rng(0)
    spec = Spec(numeric=2, classes=3, loss="bce", hidden=(16,), label_lags=0, detectors=())
    numeric = rng.normal(size=(N, 2)).astype(np.float32)
    label = np.digitize(numeric[:, 0] - numeric[:, 1], [-0.6, 0.6]).astype(np.float32)
    said = learn(spec, numeric, label)
    assert np.allclose(said.sum(1), 1, atol=1e-5)
    assert (said >= 0).all()
    assert (said.argmax(1) == label)[-1000:].mean() > 0.9


def test_quantiles_hold_what_they_should_where_the_noise_depends_on_the_row() -> None:
    rng = np.random.default_rng(0)
    n = 4 * N
    spec = Spec(numeric=1, loss="pinball", coverage=0.8, hidden=(16,), label_lags=0, detectors=())
    numeric = rng.uniform(0, 1, (n, 1)).astype(np.float32)
    wide = 0.2 + 3 * (numeric[:, 0] > 0.5)
    label = (20 + 5 * numeric[:, 0] + wide * rng.exponential(size=n)).astype(np.float32)
    value, low, high = learn(spec, numeric, label).T
    assert ((low <= value) & (value <= high))[2:].all()
    late = np.arange(n) >= n // 2
    for part in (wide < 1, wide > 1):
        inside = ((low <= label) & (label <= high))[part & late]
        assert 0.7 < inside.mean() < 0.9, inside.mean()
    half = (label < value)[late].mean()
    assert 0.42 < half < 0.58
    width = high - low
    assert width[late & (wide > 1)].mean() > 3 * width[late & (wide < 1)].mean()


def learn(spec: Spec, numeric: NDArray[Any], label: NDArray[Any]) -> NDArray[Any]:
    n = len(label)
    columns = (numeric, np.zeros((n, 0), np.uint32), np.zeros((n, 2), np.uint32), label)
    return np.asarray(feed(make_learner(spec), columns, [], n)[1])

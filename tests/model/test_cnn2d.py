from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.model.batch import empty_batch
from headrace.model.embed import Embedded
from headrace.model.learner import make_learner, warm_up
from headrace.model.networks import Seen, answer, make_network
from headrace.model.networks.window import window
from headrace.model.spec import Spec

Floats = NDArray[np.float64]


def convolved(image: Floats, kernel: Floats) -> Floats:
    """Look through each 3 x 3 window of f64[H, W, C] by f64[9 * C + 1, O]; then ReLU, maxima."""
    height, width, _ = image.shape
    out = np.zeros((-(-height // 2), -(-width // 2), kernel.shape[1]))
    for y in range(height):
        for x in range(width):
            total = kernel[-1].copy()
            for dy in range(3):
                for dx in range(3):
                    at, to = y + dy - 1, x + dx - 1
                    if 0 <= at < height and 0 <= to < width:
                        first = (3 * dy + dx) * image.shape[2]
                        total += image[at, to] @ kernel[first : first + image.shape[2]]
            out[y // 2, x // 2] = np.maximum(out[y // 2, x // 2], total)
    return out


@pytest.mark.parametrize("shape", [(5, 4, 3), (1, 8, 1)])
def test_it_equals_plain_loops(shape: tuple[int, int, int]) -> None:
    spec = Spec(numeric=2, classes=4, image=shape, hidden=(6,), network="cnn2d", categories=1)
    network, rng = make_network(spec), np.random.default_rng(0)
    # so that biases are not 0
    params = jax.tree.map(lambda p: p + 0.1, network.init(jax.random.key(0)))
    dense, vectors = rng.normal(size=(3, spec.inputs)), rng.normal(size=(3, spec.embedding))
    no_words = jnp.zeros((3, 0)), jnp.zeros((3, 0, spec.embedding)), jnp.zeros((3, 0), bool)
    seen = Seen(jnp.asarray(dense), Embedded(jnp.asarray(vectors), *no_words))
    said = answer(params.last, jax.jit(network.features)(params.below, seen).seen)

    params = jax.tree.map(lambda leaf: np.asarray(leaf, float), params)
    hidden, last = params.below["head"]["layers"][0]["kernel"], params.last.T
    for row in range(3):
        image = dense[row, : spec.pixels].reshape(shape)
        for layer in range(2):
            image = convolved(image, params.below["kernels"][layer]["kernel"])
        rest = np.concatenate([dense[row, spec.pixels :], vectors[row], [1.0]])
        units = np.maximum(np.concatenate([image.ravel(), rest]) @ hidden, 0)
        wanted = np.concatenate([units, rest]) @ last  # pixels take no linear path
        assert np.allclose(said[row], wanted, rtol=1e-4, atol=1e-4)


def test_a_window_of_rows_leaves_the_image_aside() -> None:
    plain = Spec(numeric=2, numeric_lags=3, label_lags=2, network="cnn1d")
    pictured = replace(plain, image=(2, 2, 1))
    rows = np.random.default_rng(0).normal(size=(3, pictured.inputs))
    no_ids = Embedded(*4 * [jnp.zeros((3, 0))])
    found = window(pictured, Seen(jnp.asarray(rows), no_ids))
    assert (found == window(plain, Seen(jnp.asarray(rows[:, 4:]), no_ids))).all()


def test_pixels_are_measured_by_channel_and_an_image_counts_as_one() -> None:
    spec = Spec(0, classes=2, image=(2, 3, 2), network="cnn2d", chunk=10, detectors=())
    learner, batch = make_learner(spec), empty_batch(spec, 200)
    rng: Any = np.random.default_rng(0)
    light = np.array([40, 200])
    batch.image[:] = rng.normal(light, 10, batch.image.shape).clip(0, 255)
    batch.label[:] = rng.integers(0, 2, 200)
    state, _ = learner.run(warm_up(learner, 200), batch, np.int32(200))
    shares = batch.image / 255.0
    assert np.allclose(state.pixels.mean, shares.mean((0, 1, 2)), atol=1e-5)
    assert np.allclose(state.pixels.variance, shares.var((0, 1, 2)), rtol=1e-3)
    assert state.pixels.seen.tolist() == [200, 200]

"""How networks are moved: each as optax or numpy would move it alone."""

from __future__ import annotations

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from headrace.model import pool
from headrace.model.batch import empty_batch
from headrace.model.learner import make_learner, warm_up
from headrace.model.networks import Params
from headrace.model.optimizer import Optimizer, make_optimizer, scheduled
from headrace.model.spec import OptimizerName, Schedule, Spec

SHAPES = {"a": (2, 3, 4), "b": (2, 5, 2)}  # of two networks
RATES = dict.fromkeys(SHAPES, jnp.array([0.1, 0.01]))


def gradients(steps: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {
            name: (rng.normal(size=shape) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
            for name, shape in SHAPES.items()
        }
        for _ in range(steps)
    ]


def walk(optimizer: Optimizer, steps: list[Any], apply: list[bool] | None = None) -> Any:
    params = {name: jnp.ones(shape) for name, shape in SHAPES.items()}
    state, step = optimizer.init(params), jax.jit(optimizer.step)
    refused = np.zeros(2, int)
    for gradient, wanted in zip(steps, apply or [True] * len(steps), strict=True):
        params, state, no = step(params, state, gradient, RATES, jnp.bool_(wanted))
        refused += np.asarray(no)
    return jax.device_get(params), jax.device_get(state), refused.tolist()


def alone(optimizer: optax.GradientTransformation, steps: list[Any], network: int) -> Any:
    """Walk one network by optax itself."""
    params = {name: jnp.ones(shape[1:]) for name, shape in SHAPES.items()}
    state = optimizer.init(params)
    for gradient in steps:
        one = {name: leaf[network] for name, leaf in gradient.items()}
        updates, state = optimizer.update(one, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_adam_without_momentum_is_adam_written_in_numpy() -> None:
    steps = gradients(100)
    params, _, _ = walk(make_optimizer(Spec(numeric=1)), steps)
    for name, shape in SHAPES.items():
        wanted, second = np.ones(shape), np.zeros(shape)
        for t, gradient in enumerate(steps, start=1):
            slope = gradient[name].astype(float)
            second = 0.999 * second + 0.001 * slope**2
            hat = np.sqrt(second / (1 - 0.999**t) + 1e-8)
            wanted -= np.array([0.1, 0.01])[:, None, None] * slope / hat
        assert np.allclose(params[name], wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "nadam"])
def test_steps_of_wide_layers_are_shorter_where_there_is_an_image(optimizer: OptimizerName) -> None:
    """By the root of how many more inputs than 32 they have."""
    gradient = Params(
        {"wide": jnp.full((2, 128, 3), 0.5), "narrow": jnp.full((2, 32, 3), 0.5)},
        jnp.full((2, 3, 128), 0.5),
    )
    moved = []
    for image in ((0, 0, 0), (4, 4, 1)):
        spec = Spec(numeric=1, classes=2, image=image, optimizer=optimizer)
        start = jax.tree.map(jnp.zeros_like, gradient)
        rates = pool.paces(spec, start, jnp.array([0.1, 0.01]))
        own = make_optimizer(spec)
        moved.append(own.step(start, own.init(start), gradient, rates, jnp.bool_(True)).params)
    plain, pictured = moved
    assert np.allclose(plain.below["wide"], plain.below["narrow"][:, :1])
    assert np.allclose(pictured.below["narrow"], plain.below["narrow"])
    assert np.allclose(pictured.below["wide"], plain.below["wide"] / 2)
    assert np.allclose(pictured.last, plain.last / 2)


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_each_network_moves_as_optax_moves_it_alone(name: OptimizerName) -> None:
    spec = Spec(numeric=1, optimizer=name, beta1=0.5, beta2=0.9)
    steps = gradients(20)
    params, _, refused = walk(make_optimizer(spec), steps)
    both = {"b1": 0.5, "b2": 0.9}
    for network, rate in enumerate([0.1, 0.01]):
        match name:
            case "sgd" | "adagrad":
                peer = getattr(optax, name)(rate)
            case "momentum" | "nesterov":
                peer = optax.sgd(rate, momentum=0.5, nesterov=name == "nesterov")
            case "rmsprop":
                peer = optax.rmsprop(rate, decay=0.9)
            case _:
                peer = getattr(optax, name)(rate, **both)
        wanted = alone(peer, steps, network)
        for leaf in SHAPES:
            assert np.allclose(params[leaf][network], wanted[leaf], rtol=1e-4, atol=1e-5), leaf
    assert refused == [0, 0]


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_what_is_not_finite_is_refused_for_that_network_and_counted(beta1: float) -> None:
    steps = gradients(30)
    optimizer = make_optimizer(Spec(numeric=1, beta1=beta1))
    hurt = [{name: leaf.copy() for name, leaf in gradient.items()} for gradient in steps]
    for at, value in ((3, np.nan), (7, np.inf), (8, 3e38)):
        hurt[at]["b"][1, 2, 1] = value
    params, state, refused = walk(optimizer, hurt)
    assert refused == [0, 3]
    whole, _, _ = walk(optimizer, steps)
    without, _, _ = walk(optimizer, [g for at, g in enumerate(steps) if at not in (3, 7, 8)])
    for name in SHAPES:
        assert np.array_equal(params[name][0], whole[name][0])
        assert np.array_equal(params[name][1], without[name][1])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_a_step_that_is_not_to_be_applied_changes_no_bit(beta1: float) -> None:
    optimizer = make_optimizer(Spec(numeric=1, beta1=beta1))
    steps = gradients(20)
    some = [at % 3 != 1 for at in range(20)]
    params, state, _ = walk(optimizer, steps, some)
    wanted = walk(optimizer, [g for g, yes in zip(steps, some, strict=True) if yes])
    same = jax.tree.map(np.array_equal, (params, state), wanted[:2])
    assert all(jax.tree.leaves(same))


def test_clipping_bounds_the_norm_of_each_network_as_optax_does() -> None:
    spec = Spec(numeric=1, optimizer="sgd", clip=0.5)
    steps = gradients(10)
    params, _, _ = walk(make_optimizer(spec), steps)
    for network, rate in enumerate([0.1, 0.01]):
        peer = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(rate))
        wanted = alone(peer, steps, network)
        for leaf in SHAPES:
            assert np.allclose(params[leaf][network], wanted[leaf], rtol=1e-4, atol=1e-6)


def test_schedules_warm_up_and_fall_to_what_is_left() -> None:
    def at(step: int, **settings: Any) -> float:
        return float(scheduled(Schedule(**settings), jnp.int32(step)))

    assert at(10**6) == 1.0
    falling: dict[str, Any] = {"steps": 100, "end": 0.2}
    assert at(50, kind="linear", **falling) == pytest.approx(0.6)
    assert at(50, kind="cosine", **falling) == pytest.approx(0.6)
    assert at(100, kind="exponential", **falling) == pytest.approx(0.5)
    for kind in ("linear", "cosine", "exponential"):
        assert at(10**6, kind=kind, **falling) == pytest.approx(0.2)
    warm = [at(step, kind="linear", warmup=4, **falling) for step in (0, 2, 4, 54)]
    assert warm == pytest.approx([0.25, 0.625, 1.0, 0.6])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_stream_that_explodes_leaves_predictions_finite(optimizer: OptimizerName) -> None:
    spec = Spec(
        numeric=2, loss="mse", optimizer=optimizer, rates=(1.0,), traces=(4.0,), detectors=()
    )
    learner, n = make_learner(spec), 400
    rng = np.random.default_rng(0)
    batch = empty_batch(spec, n)
    batch.numeric[:] = rng.normal(size=(n, 2)) * 10.0 ** rng.integers(-30, 30, (n, 1))
    batch.label[:] = rng.normal(size=n) * 10.0 ** rng.integers(-10, 18, n)
    state, outcome = learner.run(warm_up(learner, n), batch, np.int32(n))
    assert np.isfinite(np.asarray(outcome.published)[2:]).all()
    assert all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state.champion.params))
    )
    if optimizer == "sgd":
        assert np.asarray(state.refused).sum() + np.asarray(state.resets).sum() > 0

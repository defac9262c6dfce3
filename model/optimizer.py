"""How networks are moved by their gradients: Adam by default, or an optimizer of optax by name.

All networks of the pool are moved at once, each with a rate and a state of its own. An update that
is not finite is refused: neither that network nor what its optimizer remembers is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from headrace.model.spec import OptimizerName, Schedule, Spec
from headrace.model.xla import once

EPSILON = 1e-8


class Stepped(NamedTuple):
    """Hold what became of M networks."""

    params: Any
    state: Any
    refused: Array  # bool[M]  the update was not finite


class Optimizer(NamedTuple):
    """Hold `init(params)` and `step(params, state, gradient, rates, apply)`.

    Parameters and gradient are any tree. Every leaf of these and of the state has a leading axis of
    M networks; rates are such a tree of f32[M]. Where `apply`, bool[], is False nothing moves, to
    the bit.
    """

    init: Callable[[Any], Any]
    step: Callable[[Any, Any, Any, Any, Array], Stepped]


class AdamState(NamedTuple):
    """Hold what Adam without momentum remembers."""

    squares: Any  # as the parameters: mean of squared gradients and EPSILON, bias corrected
    unseen: Array  # f32[M]  beta2 to the power of the steps made


def make_optimizer(spec: Spec, rows: int = 1) -> Optimizer:
    """Make the optimizer that a spec names, for gradients that are the means of so many `rows`.

    Its memory of squares is counted in rows, and a mean with less noise takes longer steps: by the
    cube root of the rows, where the square root would do if all were noise (Malladi et al. 2022,
    "On the SDEs and scaling rules for adaptive gradient algorithms").
    """
    spec = replace(spec, beta2=spec.beta2**rows)
    plain = spec.optimizer == "adam" and not spec.beta1
    init, step = adam_without_momentum(spec) if plain else of_optax(spec)
    if rows == 1:
        return Optimizer(init, step)

    def longer(params: Any, state: Any, gradient: Any, rates: Any, apply: Array) -> Stepped:
        rates = jax.tree.map(lambda rate: rows ** (1 / 3) * rate, rates)
        return step(params, state, gradient, rates, apply)

    return Optimizer(init, longer)


def adam_without_momentum(spec: Spec) -> Optimizer:
    """Return Adam (Kingma & Ba 2015) with beta1 = 0, which is RMSProp with bias correction.

    Momentum hurts when the world drifts, and takes half the time. EPSILON is added to the squares,
    so that one inverse root is all that a step takes: it is twice as fast as optax here.
    """

    def init(params: Any) -> AdamState:
        networks = len(jax.tree.leaves(params)[0])
        return AdamState(jax.tree.map(jnp.zeros_like, params), jnp.ones(networks))

    def step(params: Any, state: AdamState, gradient: Any, rates: Any, apply: Array) -> Stepped:
        norm = norms(gradient)
        moves = jnp.isfinite(norm) & apply
        unseen = jnp.where(moves, state.unseen * spec.beta2, state.unseen)
        share = jnp.where(moves, (1.0 - spec.beta2) / (1.0 - unseen), 0.0)
        gradient = shrink(spec, gradient, norm, moves)
        squares = jax.tree.map(
            lambda old, g: old + each(share, g) * (g * g + EPSILON - old), state.squares, gradient
        )
        params = jax.tree.map(
            lambda old, g, mean, rate: old - each(rate, g) * g * _inverse_root(mean),
            params,
            gradient,
            squares,
            rates,
        )
        return Stepped(params, AdamState(squares, unseen), apply & ~jnp.isfinite(norm))

    return Optimizer(init, step)


def _inverse_root(squares: Array) -> Array:
    """Return 1 / sqrt(squares) to four digits, in a third of the time of a root and a division.

    A first guess from the number's bits (Lomont 2003, "Fast inverse square root"), and one step
    that uses the first two terms of the error (Householder 1970, "The numerical treatment of a
    single nonlinear equation"): the same bits on all machines, which instructions for it do not
    give.
    """
    bits = jnp.int32(0x5F3759DF) - (lax.bitcast_convert_type(squares, jnp.int32) >> 1)
    guess = lax.bitcast_convert_type(bits, jnp.float32)
    error = 1.0 - squares * guess * guess
    return guess + guess * error * (0.5 + 0.375 * error)


def of_optax(spec: Spec) -> Optimizer:
    """Return an optimizer of optax, one for each network; all of them are linear in the rate."""
    optimizer = _OPTAX[spec.optimizer](spec)

    def step(params: Any, state: Any, gradient: Any, rates: Any, apply: Array) -> Stepped:
        norm = norms(gradient)
        moves = jnp.isfinite(norm) & apply
        updates, moved = jax.vmap(optimizer.update)(
            shrink(spec, gradient, norm, moves), state, params
        )
        updates = jax.tree.map(lambda u, rate: each(rate, u) * u, updates, rates)
        params, state = jax.tree.map(
            lambda new, old: jnp.where(each(moves, new), new, old),
            (optax.apply_updates(params, updates), moved),
            (params, state),
        )
        return Stepped(params, state, apply & ~jnp.isfinite(norm))

    return Optimizer(jax.vmap(optimizer.init), step)


_OPTAX: dict[OptimizerName, Callable[[Spec], optax.GradientTransformation]] = {
    "adabelief": lambda spec: optax.adabelief(1.0, b1=spec.beta1, b2=spec.beta2),
    "adagrad": lambda spec: optax.adagrad(1.0),
    "adam": lambda spec: optax.adam(1.0, b1=spec.beta1, b2=spec.beta2),
    "adamw": lambda spec: optax.adamw(1.0, b1=spec.beta1, b2=spec.beta2),
    "amsgrad": lambda spec: optax.amsgrad(1.0, b1=spec.beta1, b2=spec.beta2),
    "lion": lambda spec: optax.lion(1.0, b1=spec.beta1, b2=spec.beta2),
    "momentum": lambda spec: optax.sgd(1.0, momentum=spec.beta1 or 0.9),
    "nadam": lambda spec: optax.nadam(1.0, b1=spec.beta1, b2=spec.beta2),
    "nesterov": lambda spec: optax.sgd(1.0, momentum=spec.beta1 or 0.9, nesterov=True),
    "radam": lambda spec: optax.radam(1.0, b1=spec.beta1, b2=spec.beta2),
    "rmsprop": lambda spec: optax.rmsprop(1.0, decay=spec.beta2),
    "sgd": lambda spec: optax.sgd(1.0),
    "yogi": lambda spec: optax.yogi(1.0, b1=spec.beta1, b2=spec.beta2),
}


def scheduled(schedule: Schedule, step: Array) -> Array:
    """Return the share of the rates, f32[] in (0, 1], that is used at a step i32[]."""
    if schedule.kind == "constant":
        after: optax.Schedule = optax.constant_schedule(1.0)
    elif schedule.kind == "linear":
        after = optax.linear_schedule(1.0, schedule.end, schedule.steps)
    elif schedule.kind == "cosine":
        after = optax.cosine_decay_schedule(1.0, schedule.steps, schedule.end)
    else:
        after = optax.exponential_decay(1.0, schedule.steps, 0.5, end_value=schedule.end)
    if not schedule.warmup:
        return jnp.asarray(after(step), jnp.float32)
    first = optax.linear_schedule(1.0 / schedule.warmup, 1.0, schedule.warmup)
    return jnp.asarray(optax.join_schedules([first, after], [schedule.warmup])(step), jnp.float32)


def norms(gradient: Any) -> Array:
    """Return the norm of each network's gradient, f32[M].

    It is taken in two steps, rows and then the norms of rows: in one, XLA would not make vector
    code of it.
    """
    rows = [leaf.reshape(len(leaf), -1, leaf.shape[-1]) for leaf in jax.tree.leaves(gradient)]
    squares = [once(jnp.einsum("mio,mio->mi", leaf, leaf)) for leaf in rows]
    return jnp.sqrt(jnp.stack([row.sum(1) for row in squares]).sum(0))


def shrink(spec: Spec, gradient: Any, norm: Array, moves: Array) -> Any:
    """Clip each network's gradient to the norm `spec.clip`, and give zeros where it may not move.

    Clipping by the global norm: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training
    recurrent neural networks".
    """

    def one(leaf: Array) -> Array:
        if spec.clip:
            share = jnp.minimum(1.0, spec.clip / jnp.maximum(norm, 1e-30))
            leaf = leaf * each(share, leaf)
        return jnp.where(each(moves, leaf), leaf, 0.0)

    return jax.tree.map(one, gradient)


def each(values: Array, leaf: Array) -> Array:
    """Spread one value for each network, [M], over a leaf [M, ...]."""
    return values.reshape(-1, *(1,) * (leaf.ndim - 1))

"""Checks that hold for every fold; `test_folds.py` runs all of them over all folds."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from headrace.model.fold import Fold

AnyFold = Fold[Any, Any, Any]
Events = Any  # a pytree of arrays with one row for each event
MAX_STATE_BYTES = 160 * 1024


def size(events: Events) -> int:
    return int(jax.tree.leaves(events)[0].shape[0])


def row(events: Events, i: Any) -> Any:
    return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, i, keepdims=False), events)


@lru_cache
def _looped(fold: AnyFold) -> Callable[..., Any]:
    def loop(state: Any, events: Events, start: jax.Array, stop: jax.Array) -> Any:
        _, result = jax.eval_shape(fold.update, state, row(events, 0))
        outputs = jax.tree.map(lambda y: jnp.zeros((size(events), *y.shape), y.dtype), result)

        def body(i: jax.Array, carry: Any) -> Any:
            state, outputs = carry
            state, y = fold.update(state, row(events, i))
            return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), outputs, y)

        return lax.fori_loop(start, stop, body, (state, outputs))

    return jax.jit(loop)


def run(
    fold: AnyFold, events: Events, start: int = 0, stop: int | None = None, state: Any = None
) -> tuple[Any, Any]:
    """Return the state and the outputs, one row per event, of a compiled loop."""
    state = fold.init() if state is None else state
    stop = size(events) if stop is None else stop
    state, outputs = _looped(fold)(state, events, jnp.int32(start), jnp.int32(stop))
    return state, outputs


def structure(tree: Any) -> object:
    """Return what JAX declares as a type that mypy does not find."""
    return jax.tree.structure(tree)


def same_bits(a: Any, b: Any) -> bool:
    assert structure(a) == structure(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def check_is_deterministic(fold: AnyFold, events: Events) -> None:
    assert same_bits(run(fold, events), run(fold, events))


def check_learns_something(fold: AnyFold, events: Events) -> None:
    assert not same_bits(fold.init(), run(fold, events)[0])


def check_is_pure(fold: AnyFold, events: Events) -> None:
    state, _ = run(fold, events, stop=size(events) // 2)
    kept = jax.tree.map(np.array, state)
    event = row(events, 0)
    with jax.disable_jit():  # each step of it by itself, and none compiled for this alone
        first = fold.update(state, event)
        assert same_bits(state, kept)
        assert same_bits(first, fold.update(state, event))


def check_states_share_no_buffers(fold: AnyFold, events: Events) -> None:
    expected = jax.tree.map(np.array, fold.init())
    donating = jax.jit(fold.update, donate_argnums=0)
    for _ in range(2):
        state = fold.init()
        assert same_bits(state, expected)
        for i in range(3):
            state, _ = donating(state, row(events, i))


def check_compiled_equals_eager(fold: AnyFold, events: Events) -> None:
    n = min(size(events), 40)
    state = fold.init()
    eager = []
    with jax.disable_jit():
        for i in range(n):
            state, y = fold.update(state, row(events, i))
            eager.append(y)
    compiled_state, compiled = run(fold, events, stop=n)
    stacked = jax.tree.map(lambda *ys: np.stack(ys), *eager)
    compiled = jax.tree.map(lambda y: y[:n], compiled)
    # XLA may contract a product and a sum into one rounding, so the last bits may differ
    for a, b in ((state, compiled_state), (stacked, compiled)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), a, b)


def check_state_keeps_shape_and_type(fold: AnyFold, events: Events) -> None:
    def avals(state: Any) -> Any:
        return [(x.shape, x.dtype, bool(x.weak_type)) for x in jax.tree.leaves(state)]

    before = jax.eval_shape(fold.init)
    after, _ = jax.eval_shape(fold.update, before, row(events, 0))
    assert structure(before) == structure(after)
    assert avals(before) == avals(after)
    assert not any(weak for _, _, weak in avals(before))


def check_state_is_small(fold: AnyFold, events: Events) -> None:
    state, _ = run(fold, events)
    assert sum(np.asarray(x).nbytes for x in jax.tree.leaves(state)) <= MAX_STATE_BYTES


def check_cutting_the_stream_changes_nothing(fold: AnyFold, events: Events) -> None:
    whole, outputs = run(fold, events)
    n = size(events)
    cuts = sorted({0, 1, 2, 31, 33, n // 3, n // 2 + 1, n - 1, n})
    state, parts = fold.init(), []
    for start, stop in pairwise(cuts):
        state, ys = run(fold, events, start, stop, state)
        parts.append(jax.tree.map(lambda y, a=start, b=stop: np.asarray(y[a:b]), ys))
    assert same_bits(whole, state)
    assert same_bits(outputs, jax.tree.map(lambda *ys: np.concatenate(ys), *parts))


def check_finite_input_makes_no_nan(fold: AnyFold, events: Events) -> None:
    extremes = np.array([0.0, -0.0, 1.0, 1e-38, -1e-30, 1e30, -1e30, 3e38, -3e38], np.float32)
    rng = np.random.default_rng(0)

    def wild(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jnp.asarray(rng.choice(extremes, leaf.shape), leaf.dtype)

    for stream in (events, jax.tree.map(wild, events)):
        for leaf in jax.tree.leaves(run(fold, stream)):
            assert not np.isnan(np.asarray(leaf, np.float64)).any()


def check_ignored_events_leave_no_trace(fold: AnyFold, events: Events, ignored: Events) -> None:
    half = size(events) // 2 + 7
    state, _ = run(fold, events, stop=half)
    for before in (fold.init(), state):
        after, outputs = run(fold, ignored, state=before)
        assert same_bits(before, after)
        assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(outputs))


CHECKS = (
    check_is_deterministic,
    check_learns_something,
    check_is_pure,
    check_states_share_no_buffers,
    check_compiled_equals_eager,
    check_state_keeps_shape_and_type,
    check_state_is_small,
    check_cutting_the_stream_changes_nothing,
    check_finite_input_makes_no_nan,
)

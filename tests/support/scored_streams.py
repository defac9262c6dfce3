"""Streams of scored events, some of which do not count."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from headrace.model.metrics import ScoredClass, ScoredNumber


def classes(seed: int, n: int, n_classes: int, labels: np.ndarray | None = None) -> ScoredClass:
    """Return a drifting stream in which some events have no label."""
    rng = np.random.default_rng(seed)
    if labels is None:
        labels = rng.choice(n_classes - 1, n, p=rng.dirichlet(np.ones(n_classes - 1)))
        labels[n // 2 :] = rng.integers(0, n_classes - 1, n - n // 2)
    scores = rng.normal(size=(n, n_classes)) + 2 * np.eye(n_classes)[labels]
    scores[:, -1] -= 20  # neither a label nor a prediction
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    known = rng.random(n) < 0.8
    last, no_change = -1, np.zeros(n, np.int32)
    for i in range(n):
        no_change[i] = last
        last = labels[i] if known[i] else last
    return ScoredClass(
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(probabilities, jnp.float32),
        jnp.asarray(no_change),
        jnp.asarray(known, jnp.float32),
    )


def numbers(seed: int, n: int, offset: float = 0.0) -> ScoredNumber:
    rng = np.random.default_rng(seed)
    y = offset + np.cumsum(rng.normal(size=n)) * 0.2 + np.where(np.arange(n) > n // 2, 5.0, 0.0)
    prediction = y + rng.normal(size=n)
    half = rng.uniform(0, 2, n)
    no_change = np.concatenate([np.full(50, np.nan), y[49:-1]])
    known = rng.random(n) < 0.8
    median = np.where(np.arange(n) < 20, np.nan, np.roll(y, 1) + np.roll(half, 2))
    low, high = prediction - half, prediction + half
    columns = (y, prediction, low, high, no_change, median, abs(y), known)
    return ScoredNumber(*(jnp.asarray(x, jnp.float32) for x in columns))


def counting(events: Any) -> list[Any]:
    """Return the events that count, as numpy rows."""
    columns = [np.asarray(column) for column in events if column is not None]
    counts = np.asarray(events.weight).tolist()
    return [row for row, weight in zip(zip(*columns, strict=True), counts, strict=True) if weight]


def blocks(events: Any, k: int = 1) -> Any:
    """Cut a stream into blocks of k events; what is left at the end is left out."""
    n = len(events[0]) // k
    return jax.tree.map(lambda x: x[: n * k].reshape(n, k, *x.shape[1:]), events)

"""The mean error with its sign as a metric: do predictions lie above the labels, or below?

Hyndman and Koehler (2006), "Another look at measures of forecast accuracy", International Journal
of Forecasting 22.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from headrace.model.fold import Fold
from headrace.model.metrics import Metric, ScoredNumber
from headrace.model.spec import Spec

MOST = 1e6  # events that the means remember


class Bias(NamedTuple):
    """Hold the mean errors of the model and of the last label said again."""

    events: Array  # f32[]
    means: Array  # f32[2]  in the unit that numbers are counted in


def make(spec: Spec) -> Fold[Bias, ScoredNumber, None]:
    """Make the fold, which is of numbers."""
    if spec.classes:
        raise ValueError("bias is of numbers: expected target.kind = 'regress'")

    def init() -> Bias:
        return Bias(jnp.float32(0), jnp.zeros(2))

    def update(state: Bias, scored: ScoredNumber) -> tuple[Bias, None]:
        said = jnp.stack([scored.prediction, scored.no_change])
        errors = said - scored.label  # f32[2, K]
        counts = (scored.weight != 0) & jnp.isfinite(errors).all(0)
        more = counts.sum()
        events = jnp.minimum(state.events + more, MOST)
        off = jnp.where(counts, errors - state.means[:, None], 0.0).sum(1)
        return Bias(events, state.means + off / jnp.maximum(events, 1.0)), None

    return Fold(init, update)


def report(state: Bias, unit: float) -> dict[str, float | None]:
    """Return both in the unit of the label, None before there is an error."""
    model, no_change = unit * state.means if state.events else (None, None)
    return {"bias": model, "no_change": no_change}


def convert(state: Bias, to: Callable[..., Any]) -> Bias:
    """Convert the errors, as numbers are counted in another unit now."""
    return state._replace(means=to(state.means))


METRIC = Metric(make, report, convert)

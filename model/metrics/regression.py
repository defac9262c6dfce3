"""Prequential MAE, RMSE, R² and interval coverage, beside two baselines."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model import sums
from model.fold import Fold
from model.metrics import tally

_LIMIT = 1e15  # of labels and errors, so that sums of their squares stay finite
_N_TERMS = 10  # an event, a covered one, spread, fading spread, 3 absolute errors, 3 squared ones


class ScoredNumber(NamedTuple):
    """Hold one prediction and the truth about it."""

    label: jax.Array  # f32[]: an event whose label is not finite is passed over
    prediction: jax.Array  # f32[]
    low: jax.Array  # f32[]: of the predicted interval
    high: jax.Array  # f32[]
    no_change: jax.Array  # f32[]: the label known last, NaN if there is none
    weight: jax.Array  # f32[] or bool[]: 0 leaves the state as it is, all else scores the event


class RegressionMetrics(NamedTuple):
    """Sum up events, covered ones, the spread of the labels and the errors of three predictors."""

    sums: jax.Array  # f32[3, 10]: a tally
    means: jax.Array  # f32[3]: mean of all labels, what float32 lost of it, fading mean


def make_regression_metrics(window: int = 1000) -> Fold[RegressionMetrics, ScoredNumber, None]:
    """Make the metrics of a regressor, and of two baselines: the last label, the running mean.

    The running mean predicts 0 at first; repeating the last label predicts the running mean while
    there is no last one. Labels and errors are clipped to plus and minus 1e15, a prediction that
    is not a number counts as such an error. Both ends belong to the interval.

    Args:
        window: effective number of events of the fading metrics, at least 1.

    Raises:
        ValueError: window is below 1.

    References:
        Welford 1962, Note on a method for calculating corrected sums of squares and products,
        Technometrics 4.
    """
    fade = tally.fading_factor(window)

    def update(state: RegressionMetrics, scored: ScoredNumber) -> tuple[RegressionMetrics, None]:
        counts = (scored.weight != 0) & jnp.isfinite(scored.label)
        y = jnp.clip(scored.label, -_LIMIT, _LIMIT)
        mean, lost, faded_mean = state.means
        repeated = jnp.where(jnp.isnan(scored.no_change), mean, scored.no_change)
        errors = sums.once(jnp.abs(y - sums.pack(scored.prediction, repeated, mean)))
        errors = jnp.where(errors < _LIMIT, errors, _LIMIT)  # also where it is not a number
        covered = (scored.low <= y) & (y <= scored.high)

        off, _ = sums.subtract(y, mean, lost)
        mean, lost = sums.add(mean, lost, off / (state.sums[0, 0] + 1.0))
        faded_off = y - faded_mean
        faded_mean += faded_off / (fade * state.sums[2, 0] + 1.0)
        spreads = (off * sums.subtract(y, mean, lost)[0], faded_off * (y - faded_mean))
        terms = sums.pack(jnp.ones_like(y), covered.astype(y.dtype), *spreads, *errors, *errors**2)
        new = RegressionMetrics(
            sums=tally.add(state.sums, sums.once(terms), fade),
            means=sums.pack(mean, lost, faded_mean),
        )
        return jax.tree.map(lambda a, b: jnp.where(counts, a, b), new, state), None

    def init() -> RegressionMetrics:
        return RegressionMetrics(tally.empty(_N_TERMS), jnp.zeros(3, jnp.float32))

    return Fold(init, update)


def regression_report(state: RegressionMetrics) -> dict[str, Any]:
    """Return MAE, RMSE, R² and coverage as plain numbers, None where undefined.

    R² is 1 less the squared errors over the squared deviations of the labels from their mean; it
    is undefined below two events and where all labels are equal.

    Example:
        {"all": {"mae": .9, "rmse": 1.2, "r2": .7, "coverage": .8, "events": 100},
         "window": {...}, "baselines": {"no_change": {"all": {...}, "window": {...}},
         "mean": {...}}}
    """
    report: dict[str, Any] = {"baselines": {"no_change": {}, "mean": {}}}
    for span, terms in tally.spans(state.sums).items():
        events, covered, spread, faded_spread = (float(term) for term in terms[:4])
        absolute, squared = terms[4:7], terms[7:10]
        spread = spread if span == "all" else faded_spread
        for k, name in enumerate(("no_change", "mean"), start=1):
            report["baselines"][name][span] = _scores(events, spread, absolute[k], squared[k])
        report[span] = _scores(events, spread, absolute[0], squared[0]) | {
            "coverage": covered / events if events else None,
            "events": int(events) if span == "all" else events,
        }
    return report


def _scores(
    events: float, spread: float, absolute: float, squared: float
) -> dict[str, float | None]:
    if not events:
        return {"mae": None, "rmse": None, "r2": None}
    return {
        "mae": float(absolute / events),
        "rmse": float(np.sqrt(squared / events)),
        "r2": float(1 - squared / spread) if spread > 0 else None,
    }

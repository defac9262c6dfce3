"""How a regressor does, event after event: errors and its interval, beside baselines."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from headrace.model import sums, xla
from headrace.model.fold import Fold
from headrace.model.metrics import tally
from headrace.model.metrics.tally import FADED

_LIMIT = 1e15  # of labels, errors and widths, so that sums of their squares stay finite
# a label, a scored one, a scored one that is not 0, an interval, one that covers, its width,
# spread, fading spread; then the absolute, the squared and the relative error of each predictor
BASELINES = ("no_change", "mean", "median")
_PREDICTORS = 1 + len(BASELINES)
_TERM = np.array([0, 1, 2, 3, 4, 5, 6, 7, *np.repeat([8, 9, 10], _PREDICTORS)])
_PREDICTOR = np.array([*[0] * 8, *range(_PREDICTORS), *range(_PREDICTORS), *range(_PREDICTORS)])
_ERRORS = 8  # columns before them
UNITS = np.array([0, 0, 0, 0, 0, 1, 2, 2, 1, 2, 0])[_TERM]
"""The power of the label's unit in each column of the sums."""


class ScoredNumber(NamedTuple):
    """Hold a block of K predictions, in their order, and the truth about them."""

    label: jax.Array  # f32[K]: an event whose label is not finite is passed over
    prediction: jax.Array  # f32[K]: NaN if nothing was said, which is not scored
    low: jax.Array  # f32[K]: of the predicted interval, NaN if there is none
    high: jax.Array  # f32[K]
    no_change: jax.Array  # f32[K]: the label known last, NaN if there is none
    median: jax.Array  # f32[K]: of the newest labels, NaN if there is none
    size: jax.Array  # f32[K]: of the label, for relative errors: it may be counted from elsewhere
    weight: jax.Array  # f32[K] or bool[K]: 0 leaves the state as it is, all else takes the label in


class RegressionMetrics(NamedTuple):
    """Sum up events, intervals, the spread of the labels and the errors of four predictors."""

    sums: jax.Array  # f32[3, 20]: a tally
    means: (
        jax.Array
    )  # f32[5]: mean of all labels and of the scored ones, each with what float32 lost
    # of it; fading mean of the scored ones


def make_regression_metrics(window: int = 1000) -> Fold[RegressionMetrics, ScoredNumber, None]:
    """Make the metrics of a regressor, and of three baselines: last label, running mean, median.

    A label about which nothing was said scores nobody, but the running mean takes it in. Repeating
    the last label predicts the running mean while there is no last one, and so does the median of
    the newest labels, which comes from outside; the mean of no labels is 0.
    The mean is that from before the block, as the model too predicts a block with what it knew
    before; so the state depends on where blocks begin, and with blocks of one event it is that of
    each event after the other.

    Labels and errors are clipped to plus and minus 1e15, and so are relative errors and the
    interval's width. Both ends belong to the interval; one that ends before it begins is 0 wide and
    holds nothing.

    Args:
        window: effective number of events of the fading metrics, at least 1.

    Raises:
        ValueError: window is below 1.

    References:
        Welford 1962, Note on a method for calculating corrected sums of squares and products,
        Technometrics 4; for blocks, Chan, Golub, LeVeque 1983, Algorithms for computing the sample
        variance, The American Statistician 37.
    """
    fade = tally.fading_factor(window)

    def update(state: RegressionMetrics, scored: ScoredNumber) -> tuple[RegressionMetrics, None]:
        counts = (scored.weight != 0) & jnp.isfinite(scored.label)
        weights, kept = tally.weights(counts, fade)
        y = jnp.where(counts, jnp.clip(scored.label, -_LIMIT, _LIMIT), 0.0)
        mean, lost, centre, blur, faded_centre = state.means
        repeated = jnp.where(jnp.isnan(scored.no_change), mean, scored.no_change)
        middle = jnp.where(jnp.isnan(scored.median), mean, scored.median)
        predicted = (
            scored.prediction[:, None],
            repeated[:, None],
            mean[None, None],
            middle[:, None],
        )
        miss = jnp.abs(y[:, None] - xla.choose(_PREDICTOR[None], predicted))
        said = counts & ~jnp.isnan(scored.prediction)
        miss = jnp.where(miss < _LIMIT, miss, _LIMIT)
        width = scored.high - scored.low
        bounded = said & ~jnp.isnan(width)
        width = jnp.where(bounded, jnp.clip(width, 0.0, _LIMIT), 0.0)
        covered = bounded & (scored.low <= y) & (y <= scored.high)

        some = said & (scored.size > 0)
        relative = miss * (1.0 / jnp.where(some, scored.size, jnp.inf))[:, None]
        relative = jnp.where(relative < _LIMIT, relative, _LIMIT)
        labels = state.sums[0, 0] + jnp.sum(weights[0])
        step = jnp.sum(weights[0] * sums.subtract(y, mean, lost)[0]) / jnp.maximum(labels, 1.0)
        mean, lost = sums.add(mean, lost, step)
        share = weights * said
        off = xla.pack(sums.subtract(y, centre, blur)[0], y - faded_centre)
        events = xla.pack(state.sums[0, 1], kept * state.sums[2, 1]) + jnp.sum(share, axis=1)
        step, faded_step = jnp.sum(share * off, axis=1) / jnp.maximum(events, 1.0)
        centre, blur = sums.add(centre, blur, step)
        faded_centre += faded_step
        spreads = off * xla.pack(sums.subtract(y, centre, blur)[0], y - faded_centre)
        flags = [flag.astype(y.dtype) for flag in (counts, said, some, bounded, covered)]
        columns = [number[:, None] for number in (*flags, width, *spreads)]
        terms = xla.choose(_TERM[None], (*columns, miss, miss**2, relative))
        terms = jnp.where(said[:, None] | (_TERM == 0), terms, 0.0)
        new = RegressionMetrics(
            sums=tally.add(state.sums, terms, weights, kept),
            means=xla.pack(mean, lost, centre, blur, faded_centre),
        )
        return jax.tree.map(lambda a, b: jnp.where(counts.any(), a, b), new, state), None

    def init() -> RegressionMetrics:
        return RegressionMetrics(tally.empty(len(_TERM)), jnp.zeros(5, jnp.float32))

    return Fold(init, update)


def regression_report(state: RegressionMetrics, unit: float = 1.0) -> dict[str, Any]:
    """Return plain numbers, None where undefined; labels were counted in a `unit`.

    "all" is over all events, "window" over the fading ones:

    - mae, rmse: of the unit of the label, at least 0.
    - r2: 1 less the squared errors over the squared deviations of the labels from their mean, at
      most 1; undefined below two events and where all labels are equal.
    - mape: the mean absolute error over the absolute label, as a share (0.1 is 10 %), over the
      `mape_events` events whose label is not 0.
    - coverage: the share of labels inside the predicted interval, where there was one.
    - width: the mean width of these, of the unit of the label.
    - events: those that were scored; the first label is not, as nothing was said about it.

    Baselines have what a prediction without interval gives.

    Example:
        {"all": {"mae": .9, "rmse": 1.2, "r2": .7, "mape": .1, "coverage": .8, "width": 3.5,
         "mape_events": 99, "events": 100}, "window": {...},
         "baselines": {"no_change": {"all": {...}, "window": {...}}, "mean": {...},
                       "median": {...}}}

    References:
        Hyndman & Koehler 2006, Another look at measures of forecast accuracy, International Journal
        of Forecasting 22 (MAE, RMSE, MAPE). Wright 1921, Correlation and causation, Journal of
        Agricultural Research 20 (R²). Gneiting & Raftery 2007, Strictly proper scoring rules,
        prediction, and estimation, Journal of the American Statistical Association 102 (coverage
        and width).
    """
    report: dict[str, Any] = {"baselines": {name: {} for name in BASELINES}}
    for span, terms in tally.spans(state.sums).items():
        _, events, some, bounded, covered, width, spread, faded_spread = map(float, terms[:_ERRORS])
        errors = terms[_ERRORS:].reshape(3, _PREDICTORS)
        spread = spread if span == "all" else faded_spread
        for k, name in enumerate(BASELINES, start=1):
            report["baselines"][name][span] = _scores(events, some, spread, errors[:, k], unit)
        report[span] = _scores(events, some, spread, errors[:, 0], unit) | {
            "coverage": covered / bounded if bounded else None,
            "width": unit * width / bounded if bounded else None,
            "mape_events": int(some) if span == "all" else some,
            "events": int(events) if span == "all" else events,
        }
    return report


def _scores(
    events: float, some: float, spread: float, errors: np.ndarray, unit: float
) -> dict[str, float | None]:
    absolute, squared, relative = map(float, errors)
    return {
        "mae": unit * absolute / events if events else None,
        "rmse": unit * float(np.sqrt(squared / events)) if events else None,
        "r2": 1 - squared / spread if spread > 0 else None,
        "mape": relative / some if some > FADED else None,
    }

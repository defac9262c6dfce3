"""Prequential metrics, total and fading, each beside baselines: folds over scored events."""

from __future__ import annotations

from headrace.model.metrics.classification import (
    ScoredClass,
    classification_report,
    make_classification_metrics,
)
from headrace.model.metrics.metric import METRICS, Metric, register, report
from headrace.model.metrics.regression import (
    ScoredNumber,
    make_regression_metrics,
    regression_report,
)

__all__ = [
    "METRICS",
    "Metric",
    "ScoredClass",
    "ScoredNumber",
    "classification_report",
    "make_classification_metrics",
    "make_regression_metrics",
    "register",
    "regression_report",
    "report",
]

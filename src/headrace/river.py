"""Headrace as River's estimators: in its pipelines, with its metrics and its evaluation.

Montiel et al. 2021, "River: machine learning for streaming data in Python".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from river import base

from headrace.learner import Learner
from headrace.predictions import Prediction
from headrace.stream.errors import EventError
from headrace.stream.task import validate

TARGET = "target"


class _Estimator(base.Estimator):
    """Make the task of the first features that come, and learn by it.

    A feature is a category if its first value is a text, and else a number. What comes later under
    another name is not learned: `unknown` names it. A value that a feature cannot take is missing.
    """

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        self.settings = settings
        self.unknown: set[Any] = set()
        """Features that were not among the first ones, a thousand at most."""
        self._learner: Learner | None = None
        self._names: dict[Any, str] = {}
        self._texts: set[Any] = set()

    @property
    def _raw_memory_usage(self) -> int:
        return self._learner.state_bytes if self._learner else 0

    def _target(self) -> dict[str, Any]:
        raise NotImplementedError

    def _begin(self, x: Mapping[Any, Any]) -> Learner:
        if self._learner is None:
            keys = sorted(x, key=lambda key: (type(key).__name__, str(key)))
            self._names = {key: f"x{at}" for at, key in enumerate(keys)}
            self._texts = {key for key in keys if isinstance(x[key], str)}
            features = {
                name: {"kind": "category" if key in self._texts else "number"}
                for key, name in self._names.items()
            }
            table = {"name": "river", "input": {"topic": "river"}, **(self.settings or {})}
            table |= {"target": {"field": TARGET, **self._target()}, "features": features}
            self._learner = Learner(validate(table, "settings"))
        return self._learner

    def _event(self, x: Mapping[Any, Any]) -> dict[str, Any]:
        event = {}
        for key, value in x.items():
            name = self._names.get(key)
            if name is None:
                if len(self.unknown) < 1000:
                    self.unknown.add(key)
            elif key in self._texts:
                event[name] = value
            elif value is not None and not isinstance(value, str):
                event[name] = _number(key, value)
        return event

    def _predicted(self, x: Mapping[Any, Any]) -> Prediction:
        return self._begin(x).predict_one(self._event(x))


class Classifier(_Estimator, base.Classifier):
    """Learn classes: the default pool of networks, words, neighbours and others.

    Parameters
    ----------
    max_classes
        Classes that there is room for; a label beyond them raises `EventError`.
    settings
        Further tables of a task, such as `{"model": {"chunk": 32}}`.

    Examples
    --------
    >>> from headrace.river import Classifier
    >>> from river import datasets, evaluate, metrics
    >>> evaluate.progressive_val_score(
    ...     datasets.Phishing(), Classifier(), metrics.Accuracy()
    ... )  # doctest: +SKIP

    """

    def __init__(self, max_classes: int = 16, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings)
        self.max_classes = max_classes
        self._labels: dict[str, base.typing.ClfTarget] = {}

    @property
    def _multiclass(self) -> bool:
        return True

    def _target(self) -> dict[str, Any]:
        return {"kind": "classify", "max_classes": self.max_classes}

    def learn_one(self, x: dict[base.typing.FeatureName, Any], y: base.typing.ClfTarget) -> None:
        """Learn a label."""
        learner, name = self._begin(x), _name(y)
        learner.learn_one(self._event(x) | {TARGET: name})
        self._labels.setdefault(name, y)

    def predict_proba_one(
        self, x: dict[base.typing.FeatureName, Any], **kwargs: Any
    ) -> dict[base.typing.ClfTarget, float]:
        """Return the probability of each label that came; nothing before there is one."""
        chances = self._predicted(x).probabilities
        total = sum(chances.values())
        return {self._labels[name]: chance / total for name, chance in chances.items()}


class Regressor(_Estimator, base.Regressor):
    """Learn numbers: the default pool of networks, medians, neighbours and others.

    Parameters
    ----------
    settings
        Further tables of a task, such as `{"model": {"chunk": 32}}`.

    """

    def _target(self) -> dict[str, Any]:
        return {"kind": "regress"}

    def learn_one(self, x: dict[base.typing.FeatureName, Any], y: base.typing.RegTarget) -> None:
        """Learn a number."""
        self._begin(x).learn_one(self._event(x) | {TARGET: _number("y", y)})

    def predict_one(self, x: dict[base.typing.FeatureName, Any]) -> base.typing.RegTarget:
        """Predict a number; 0 before any is known."""
        return self._predicted(x).value or 0.0


def _number(key: Any, value: Any) -> float:
    """Return a number, and say whose it is if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        shown = f"{type(value).__name__} {repr(value)[:40]}"
        raise EventError("number", f"{key!r} = {shown}: expected a number of float64") from error


def _name(label: Any) -> str:
    """Name a label as a class: numpy's and Python's are the same."""
    return str(label.item() if hasattr(label, "item") else label)

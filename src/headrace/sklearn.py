"""Headrace as scikit-learn's estimators: in its pipelines, with its scores and searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from headrace.columns import alike, column_of, kind_of, table_of
from headrace.learner import Learner
from headrace.stream.formats.scalars import scalar_text
from headrace.stream.task import Task, validate
from headrace.stream.task.field_path import pointer, to_pointer
from headrace.stream.task.schema import MOST_EVENT_BYTES

MOST_WEIGHT = 1000.0


class _Stream(BaseEstimator):
    """Learn rows in their order, each once, as a stream.

    Columns of a data frame keep their names; those of numbers are numbers, others are categories,
    or texts if they have three words on average. Arrays are numbers, `x0` and so on. NaN, None: not
    known. `learner_` is the `headrace.Learner`, and `learner_.task` a task for a service.
    """

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        self.settings = settings

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Forget all, and learn rows.

        Args:
            X: a data frame, or f64[n, N]: rows in the order of the stream.
            y: their labels, [n].
            sample_weight: how much each row teaches, f64[n], from 0 (nothing) to 1000; default 1.

        Returns:
            itself.

        Raises:
            ValueError, TypeError: X, y or the weights are not of this kind.
            TaskError: the settings are wrong.
        """
        return self._learn(X, y, None, sample_weight, anew=True)

    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn further rows, as if they had come with those before.

        Args:
            X, y, sample_weight: as of `fit`. A column holds what it did at the first call, numbers,
                texts or booleans, or nothing that is known; values of a categorical are these.
            classes: all labels that there will be, told with the first call; default: those of its
                `y`. Not of numbers.

        Returns:
            itself.

        Raises:
            ValueError, TypeError, TaskError: as `fit`; a label that is none of the classes.
        """
        return self._learn(X, y, classes, sample_weight, anew=not hasattr(self, "learner_"))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _labels(self, y: NDArray[Any], classes: Any, anew: bool) -> Sequence[Any]:
        """Return labels as events have them; the first time take down what they are."""
        raise NotImplementedError

    def _target(self) -> dict[str, Any]:
        """Return the target of the task but for its field."""
        raise NotImplementedError

    def _learn(self, X: Any, y: Any, classes: Any, weight: Any, *, anew: bool) -> Self:
        if y is None:
            kind = type(self).__name__
            raise ValueError(f"{kind} requires y to be passed, but the target y is None")
        columns = self._columns(X, anew)
        name, y = getattr(y, "name", None), column_or_1d(y, warn=True)
        check_consistent_length(columns[0], y)
        if weight is not None:
            weight = _check_sample_weight(weight, columns[0], ensure_non_negative=True)
            if weight.max() > MOST_WEIGHT:
                raise ValueError(f"sample_weight: {weight.max()}, expected {MOST_WEIGHT} at most")
        labels = self._labels(y, classes, anew)
        if anew:
            self.learner_ = Learner(self._task(columns, name))
        source, target = self.learner_.task.input, self.learner_.task.target
        table = dict(zip(self._fields(), columns, strict=True))
        table[pointer(target.field)[0]] = pa.array(labels)
        if weight is not None:
            table[pointer(source.weight or "")[0]] = pa.array(weight)
        _raise(self.learner_.predict_then_learn(pa.table(table))["rejected"], "and not learned")
        return self

    def _said(self, X: Any) -> pa.Table:
        """Predict rows, each as if it came next."""
        check_is_fitted(self, "learner_")
        columns = self._columns(X, anew=False)
        said = self.learner_.predict(pa.table(dict(zip(self._fields(), columns, strict=True))))
        _raise(said["rejected"], "and not predicted")
        return said

    def _fields(self) -> list[str]:
        features = self.learner_.task.features.items()
        return [pointer(getattr(each, "field", None) or name)[0] for name, each in features]

    def _columns(self, X: Any, anew: bool) -> list[pa.Array]:
        """Check rows, and give their columns."""
        if not hasattr(X, "columns"):
            rows = validate_data(
                self, X, reset=anew, dtype=np.float64, ensure_all_finite="allow-nan"
            )
            names = [f"x{at}" for at in range(rows.shape[1])] if anew else self._names
            columns = [pa.array(column, from_pandas=True) for column in rows.T]
            return self._alike(names, columns, anew)
        validate_data(self, X, reset=anew, skip_check_array=True)
        table = table_of(X)
        if not table.num_rows or not table.num_columns:
            raise ValueError(f"X has {table.shape} rows and columns: expected one of each at least")
        if len(set(table.column_names)) < table.num_columns:
            raise ValueError("X has two columns of the same name")
        columns = [column_of(*each) for each in zip(table.column_names, table.columns, strict=True)]
        return self._alike(table.column_names, columns, anew)

    def _alike(self, names: list[str], columns: list[pa.Array], anew: bool) -> list[pa.Array]:
        """Take down what the first columns hold, and hold later ones to it."""
        if anew:
            self._names, self._types = names, [each.type for each in columns]
            return columns
        return list(map(alike, names, columns, self._types))

    def _task(self, columns: list[pa.Array], target: Any) -> Task:
        """Make the task that the columns of the first rows tell."""
        names = self._names
        target = _free(target if target and isinstance(target, str) else "target", names)
        features: dict[str, Any] = {
            name: {"kind": kind_of(column)} | ({"field": _path(name)} if name[:1] == "/" else {})
            for name, column in zip(names, columns, strict=True)
        }
        source = {
            "topic": "events.sklearn",
            "id": _path(_free("id", [*names, target])),
            "weight": _path(_free("weight", [*names, target])),
            "max_bytes": MOST_EVENT_BYTES,
            "recent_ids": 0,
        }
        given: dict[str, Any] = {"name": "sklearn", **(self.settings or {})}
        made = {
            "input": source | given.get("input", {}),
            "target": given.get("target", {}) | {"field": _path(target), **self._target()},
            "features": features,
        }
        return validate(given | made, "settings")


class StreamClassifier(ClassifierMixin, _Stream):
    """Learn classes: the default pool of networks, words, neighbours and others.

    Parameters
    ----------
    settings
        Further tables of a task, such as `{"model": {"chunk": 32}, "lags": {"labels": 0}}`.

    Attributes
    ----------
    classes_
        the labels, sorted.
    learner_
        the `headrace.Learner`; its classes are named as JSON writes the labels.

    Examples
    --------
    >>> from headrace.sklearn import StreamClassifier
    >>> from sklearn.datasets import load_iris
    >>> model = StreamClassifier().fit(*load_iris(return_X_y=True))  # doctest: +SKIP

    """

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class of least expected cost of each row, [n], as if each came next.

        Raises:
            ValueError, TypeError: X has other columns than what was learned.
            NotFittedError: nothing was learned.
        """
        said = self._said(X)["prediction"].to_pylist()
        place = {name: at for at, name in enumerate(self.learner_.task.target.classes)}
        found: NDArray[Any] = self.classes_[[place[name] for name in said]]
        return found

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probabilities of `classes_`, f64[n, C], each row as if it came next.

        Raises:
            ValueError, TypeError, NotFittedError: as `predict`.
        """
        said = self._said(X)["probabilities"].combine_chunks().flatten().to_numpy()
        room = self.learner_.task.target.room
        chances = said.reshape(-1, room)[:, : len(self.classes_)].astype(np.float64)
        whole: NDArray[np.float64] = chances / chances.sum(1, keepdims=True)
        return whole

    def _labels(self, y: NDArray[Any], classes: Any, anew: bool) -> Sequence[Any]:
        check_classification_targets(y)
        known, at = np.unique(y, return_inverse=True)
        if anew:
            self.classes_ = known if classes is None else np.unique(np.asarray(classes))
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes = {classes}: expected {self.classes_}, those of the first")
        if unknown := set(known.tolist()) - set(self.classes_.tolist()):
            raise ValueError(f"y has labels that are none of the classes: {[*unknown][:5]}")
        names = list(map(_name, known.tolist()))
        return [names[each] for each in at]

    def _target(self) -> dict[str, Any]:
        names = list(map(_name, self.classes_.tolist()))
        return {"kind": "classify", "classes": names, "max_classes": max(len(names), 2)}


class StreamRegressor(RegressorMixin, _Stream):
    """Learn numbers: the default pool of networks, medians, neighbours and others.

    Parameters
    ----------
    settings
        Further tables of a task, such as `{"model": {"chunk": 32}, "lags": {"labels": 0}}`.

    Attributes
    ----------
    learner_
        the `headrace.Learner`.

    """

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return a number for each row, f64[n], as if each came next; 0 before any label is known.

        Raises:
            ValueError, TypeError: X has other columns than what was learned.
            NotFittedError: nothing was learned.
        """
        said = self._said(X)["prediction"].fill_null(0.0)
        return np.asarray(said.to_numpy(), np.float64)

    def _labels(self, y: NDArray[Any], classes: Any, anew: bool) -> Sequence[Any]:
        if classes is not None:
            raise ValueError("classes: numbers have none")
        labels = np.asarray(y, np.float64)
        if not np.isfinite(labels).all():
            raise ValueError("Input y contains NaN or infinity: expected finite numbers")
        return cast("Sequence[Any]", labels)

    def _target(self) -> dict[str, Any]:
        return {"kind": "regress"}


def _raise(rejected: Any, what: str) -> None:
    for at, code in enumerate(rejected.to_pylist()):
        if code is not None:
            raise ValueError(f"row {at} was refused {what}: {code}")


def _free(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _path(name: str) -> str:
    """Return the field path of a top-level key."""
    return to_pointer([name]) if name.startswith("/") else name


def _name(label: Any) -> str:
    """Name a label as a class."""
    return scalar_text(label) if isinstance(label, str | bool | int | float) else str(label)

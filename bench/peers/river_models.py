"""River's models, with the inputs that its authors recommend for each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any

from river import multiclass

from .inputs import TargetScaler, inputs
from .rows import Row, Rows


def make(peer: str, settings: dict[str, Any], rows: Rows) -> Callable[[], list[Any]]:
    """Make a model, and give what predicts and learns the rows with it.

    Settings: `classify` and `regress` are its class below `river`, `params` its arguments, `base`
    the class of its `model`; `binary` is for one that knows two classes only; `scale` and
    `categories` as in `inputs`, `regress_scale` and so on for numbers instead; `text` is the
    extractor of words; `counts` leaves out numbers, which are no counts; `target_scale` scales
    labels; `regressor` holds the arguments of a forecaster's scaled linear regression.
    """
    model = _model(settings, rows)
    if settings.get("series"):
        return lambda: _series(model, rows)
    return lambda: _loop(model, rows, settings)


def _model(settings: dict[str, Any], rows: Rows) -> Any:
    params = dict(settings.get("params", {}))
    if "base" in settings:
        params["model"] = _made(settings["base"])
    if "regressor" in settings:
        linear = _made("linear_model.LinearRegression", **settings["regressor"])
        params["regressor"] = _made("preprocessing.StandardScaler") | linear
    if not rows.classes:
        return _made(settings["regress"], **params, **settings.get("regress_params", {}))
    many = len(rows.classes) > 2
    name = settings.get("classify_many", settings["classify"]) if many else settings["classify"]
    model = _made(name, **params)
    return multiclass.OneVsRestClassifier(model) if many and "binary" in settings else model


def _made(name: str, **params: Any) -> Any:
    module, _, kind = name.rpartition(".")
    return getattr(import_module(f"river.{module}"), kind)(**params)


def _loop(model: Any, rows: Rows, settings: dict[str, Any]) -> list[Any]:
    """Predict, then learn; inputs are made once for both, words learned when they are seen.

    With a `label_delay`, a label is learned before the row that comes so many later is predicted,
    as in River's delayed progressive validation.
    """
    way = {
        "scale": settings.get("scale", False),
        "categories": settings.get("categories", "nominal"),
    }
    if not rows.classes:
        way |= {key: settings.get(f"regress_{key}", value) for key, value in way.items()}
    change = inputs(rows, **way)
    words = _words(rows, settings)
    target = TargetScaler() if settings.get("target_scale") and not rows.classes else None
    dropped = rows.numbers if settings.get("counts") else ()
    two = rows.classes if len(rows.classes) == 2 else ()  # River's binary models want truths
    said: list[Any] = []
    delay, waiting = settings.get("label_delay", 0), deque[tuple[int, Row, Any]]()

    def learn(until: int) -> None:
        while waiting and waiting[0][0] <= until:
            _, x, y = waiting.popleft()
            label = y == two[1] if two else y
            model.learn_one(x, target.learn(y) if target else label)

    for at, (row, y) in enumerate(zip(rows.x, rows.y, strict=True)):
        learn(at - delay)
        x = {**change(row), **words(row)}
        for name in dropped:
            del x[name]
        found = model.predict_one(x)
        if target:
            found = target.restore(found)
        said.append(two[int(found)] if two and found is not None else found)
        if y is not None:
            waiting.append((at, x, y))
        if not delay:
            learn(at)
    return said


def _words(rows: Rows, settings: dict[str, Any]) -> Callable[[Row], Row]:
    """Return what turns the texts of a row into counts or weights of words, by column and word."""
    name = settings.get("text", "feature_extraction.BagOfWords")
    extractors = {column: _made(name, lowercase=True) for column in rows.texts}

    def change(row: Row) -> Row:
        found: Row = {}
        for column, extractor in extractors.items():
            extractor.learn_one(row[column])
            weights = extractor.transform_one(row[column])
            found |= {f"{column}:{word}": weight for word, weight in weights.items()}
        return found

    return change


def _series(model: Any, rows: Rows) -> list[Any]:
    """Forecast the next value of a series; its current value is learned first."""
    target, last = TargetScaler(), 0.0
    said: list[Any] = []
    for now in rows.now:
        if now is not None:
            model.learn_one(target.learn(now))
            last = now
        try:
            said.append(target.restore(model.forecast(1)[0]))
        except (IndexError, ValueError, TypeError):
            said.append(last)  # too little history yet
    return said

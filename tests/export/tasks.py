"""Tasks of many kinds, and streams for them: all that an exported predictor has to express."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np

import headrace
from headrace.stream.training import keras_models

Event = dict[str, Any]
SMALL: dict[str, Any] = {"hidden": [5], "neighbours": 12}
CLASSES = {"field": "label", "kind": "classify", "classes": ["no", "yes", "perhaps"]}
NUMBER = {"field": "label", "kind": "regress"}
TIMED = {"topic": "t", "time": "time", "entity": "who"}


def _make(target: Any, features: Any, model: Any = None, **more: Any) -> headrace.Task:
    return headrace.Task.model_validate(
        {
            "name": "tried",
            "input": {"topic": "t"},
            "target": target,
            "features": features,
            "model": SMALL | (model or {}),
        }
        | more
    )


X_AND_Y = {"x": {"kind": "number"}, "y": {"kind": "number"}}
TEXT = {"text": {"kind": "text", "max_tokens": 12}}
IMAGE = {"image": {"kind": "image", "height": 5, "width": 4, "channels": 3}}
TASKS: dict[str, Callable[[], headrace.Task]] = {
    "numbers, costs": lambda: _make(
        CLASSES | {"costs": {"yes": {"no": 5.0}}},
        {
            "x": {"kind": "number", "unit": "degF", "to": "degC", "missing": [-999, 5]},
            "y": {"kind": "number", "min": -1.5, "max": 2.0, "missing": [0]},
        },
    ),
    "words": lambda: _make(
        CLASSES | {"class_weight": "balanced"},
        {
            "x": {"kind": "number"},
            "color": {"kind": "category"},
            "shape": {"kind": "category"},
            "tags": {"kind": "category", "several": True, "ngrams": [2, 3], "max_tokens": 8},
            "text": {"kind": "text", "max_tokens": 16},
        },
        cross=[["color", "shape"]],
    ),
    "entities": lambda: _make(
        NUMBER,
        X_AND_Y,
        {"activation": "gelu"},
        input=TIMED,
        calendar=["hour", "weekday", "year"],
        lags={"rows": 3, "labels": 2},
    ),
    "far from 0": lambda: _make({"field": "far", "kind": "regress"}, {"far_x": {"kind": "number"}}),
    "aggregates": lambda: _make(
        CLASSES,
        {"x": {"kind": "number"}, "color": {"kind": "category"}}
        | {
            f"{statistic} x": {
                "kind": "aggregate",
                "statistic": statistic,
                "of": "color" if statistic == "distinct" else "x",
                "seconds": 3600,
            }
            for statistic in ("sum", "mean", "max", "min", "distinct")
        }
        | {
            "count": {"kind": "aggregate", "statistic": "count", "seconds": 600},
            "gap": {"kind": "aggregate", "statistic": "since_last"},
        },
        input=TIMED,
    ),
    "image": lambda: _make(
        CLASSES,
        IMAGE,
        {"chunk": 4},
    ),
    "keras": lambda: _make(CLASSES, IMAGE, {"chunk": 4}).with_network(_convolutions()),
    "quantiles, linear": lambda: _make(NUMBER, X_AND_Y, {"loss": "pinball", "network": "linear"}),
    "new classes": lambda: _make(
        {"field": "label", "kind": "classify", "max_classes": 6}, X_AND_Y, {"activation": "tanh"}
    ),
    "cnn1d": lambda: _make(NUMBER, X_AND_Y, {"network": "cnn1d"}, input=TIMED, lags={"rows": 3}),
    "gru": lambda: _make(CLASSES, X_AND_Y, {"network": "gru"}, input=TIMED, lags={"rows": 3}),
    "textcnn": lambda: _make(CLASSES, TEXT, {"network": "textcnn"}),
    "textbag": lambda: _make(CLASSES, TEXT, {"network": "textbag", "chunk": 4}),
    "horizon": lambda: _make(NUMBER | {"horizon": 2}, X_AND_Y, input=TIMED),
}


def _convolutions() -> str:
    """Return the name of a Keras model with convolutions and pooling of several kinds."""
    keras = keras_models._keras()
    layers = keras.layers
    image = keras.Input((5, 4, 3))
    seen = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    seen = layers.MaxPooling2D(2, padding="same")(seen)
    seen = layers.DepthwiseConv2D(2, padding="same", depth_multiplier=2)(seen)
    seen = layers.Conv2D(6, 2, strides=(1, 2), groups=2, padding="same", activation="tanh")(seen)
    means = layers.AveragePooling2D(2, strides=1, padding="same")(seen)
    line = layers.Reshape((6, 3))(layers.Conv2D(6, 1, activation="relu")(means))
    line = layers.MaxPooling1D(2)(layers.Conv1D(5, 2, padding="causal", dilation_rate=2)(line))
    found = [layers.GlobalMaxPooling2D()(seen), layers.GlobalAveragePooling2D()(means)]
    said = layers.Concatenate()([*found, layers.Flatten()(line)])
    said = layers.Dense(3, activation="softmax")(layers.Dense(4, activation="relu")(said))
    return keras_models.given(keras.Model(image, said))


def events(task: headrace.Task, count: int, seed: int = 0) -> list[Event]:
    """Draw events that any of the tasks can read; what is missing, odd or new is among them."""
    draw = np.random.default_rng(seed)
    found: list[Event] = []
    for number in range(count):
        x, y = draw.normal(size=2).tolist()
        value = 2 * x - abs(y)
        text = " ".join(draw.choice(["buy", "now", "train", "late", "rain"], 4).tolist())
        label: Any = ["no", "yes", "perhaps"][int(np.digitize(value, [-1.0, 1.0]))]
        image = draw.integers(0, 256, 60, np.uint8) // (1 + (label == "no"))
        event: Event = {
            "id": str(number),
            "time": 1_700_000_000 + 97 * number,
            "who": f"w{number % 5}",
            "x": [x, None, -999.0, 5.0][0 if number % 7 else number % 4],
            "y": y if number % 11 else 0.0,
            "far": 1e9 + 0.01 * value,
            "far_x": 1e9 + 0.01 * x,
            "color": ["red", "green", None, f"c{number}"][number % 4],
            "shape": ["round", 3, True][number % 3],
            "tags": ["a", "bb"] if number % 2 else [],
            "text": text if number % 9 else None,
            "image": base64.b64encode(image.tobytes()).decode(),
            "label": value if task.target.kind == "regress" else label,
        }
        found.append(event)
    return found

"""Export a saved learner to TensorFlow and TensorFlow Lite; print what both say, as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # before TensorFlow imports Keras

import numpy as np
import tensorflow as tf

import headrace
from headrace.export.tensorflow import names_of


def main(saved: str, events: str, place: str) -> None:
    learner, rows = headrace.Learner.load(saved), json.loads(Path(events).read_text())
    arrays = learner.arrays(rows)
    named = dict(zip(names_of(arrays), arrays.values(), strict=True))
    learner.export(Path(place) / "model", "tf")
    model = tf.saved_model.load(str(Path(place) / "model"))
    given = {name: tf.constant(array) for name, array in named.items()}
    found = model.signatures["serving_default"](**given)
    told: dict[str, Any] = {
        "tf": {name: array.numpy().tolist() for name, array in found.items()},
        "operations": sorted(
            {each.type for each in model.signatures["serving_default"].graph.get_operations()}
        ),
    }
    file = Path(place) / "model.tflite"
    try:
        learner.export(file, "tflite")
    except headrace.HeadraceError as error:
        told["refused"] = str(error)
    else:
        narrow = {
            name: array.astype(np.float32) if array.dtype == np.float64 else array
            for name, array in named.items()
        }
        runner = tf.lite.Interpreter(str(file)).get_signature_runner()
        each = [
            runner(**{name: array[at : at + 1] for name, array in narrow.items()})
            for at in range(len(rows))
        ]
        told["tflite"] = {
            name: np.concatenate([one[name] for one in each]).tolist() for name in each[0]
        }
    sys.stdout.write("\n" + json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])

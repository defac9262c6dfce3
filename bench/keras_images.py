# /// script
# requires-python = ">=3.11"
# dependencies = ["keras==3.15.1", "jax>=0.10,<0.11", "numpy>=2"]
# ///
"""Keras on JAX over images, in batches of 32 in their order, in an environment of its own.

Usage: FILE.npz dense|convolutions. Saves the model as it begins, KIND.keras beside the file, and
prints JSON: images a second in the quickest pass but the first,
which compiles, and the accuracy on the images held back, after one pass and after five.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np

BATCH, PASSES = 32, 5


def main(path: str, kind: str) -> None:
    """Learn and judge."""
    keras.utils.set_random_seed(0)
    data = np.load(path)
    images, held = (data[name].astype("float32")[..., None] / 255 for name in ("images", "held"))
    layers = keras.layers
    sees = {
        "dense": [layers.Flatten()],
        "convolutions": [
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
        ],
    }
    dense = [layers.Dense(width, activation="relu") for width in data["hidden"].tolist()]
    model = keras.Sequential(
        [layers.Input(images.shape[1:]), *sees[kind], *dense, layers.Dense(10, "softmax")]
    )
    model.save(Path(path).with_name(f"{kind}.keras"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    settings = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    scores, times = [], []
    for _ in range(PASSES):
        begun_s = time.perf_counter()
        model.fit(images, data["labels"], **settings)
        times.append(time.perf_counter() - begun_s)
        scores.append(float(model.evaluate(held, data["held_labels"], verbose=0)[1]))
    speed = len(images) / min(times[1:])  # the first one compiles
    told = {"images_per_second": speed, "once": scores[0], "five_times": scores[-1]}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

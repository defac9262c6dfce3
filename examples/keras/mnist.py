"""The classic Keras model of MNIST, learned by headrace event by event and by `model.fit`.

Usage: KERAS_BACKEND=jax python examples/keras/mnist.py [FOLDER]
FOLDER holds MNIST's four files, unzipped; without it Keras downloads them.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np
import pyarrow as pa

import headrace

PASSES, BATCH = 5, 32
TASK = headrace.Task.model_validate(
    {
        "name": "mnist",
        "input": {"topic": "mnist"},
        "target": {"field": "digit", "kind": "classify", "classes": list("0123456789")},
        "features": {"image": {"kind": "image", "height": 28, "width": 28}},
        "model": {"chunk": BATCH},  # the hidden layers learn from so many at a time, as with `fit`
    }
)


def digits(folder: str | None) -> list[np.ndarray]:
    """Return images and labels to learn, then those of the test."""
    if not folder:
        learned, held = keras.datasets.mnist.load_data()
        return [*learned, *held]
    found = []
    for kind in ("train", "t10k"):
        images = np.fromfile(Path(folder) / f"{kind}-images-idx3-ubyte", np.uint8)[16:]
        labels = np.fromfile(Path(folder) / f"{kind}-labels-idx1-ubyte", np.uint8)[8:]
        found += [images.reshape(-1, 28, 28), labels]
    return found


def events(images: np.ndarray, labels: np.ndarray | None = None) -> pa.Table:
    """Return digits as events in their order."""
    columns = {"image": [image.tobytes() for image in images]}
    if labels is not None:
        columns["digit"] = [str(label) for label in labels]
    return pa.table(columns)


def main(folder: str | None = None) -> None:
    """Learn both ways from the same weights, and judge both on the 10,000 digits of the test."""
    images, labels, held, held_labels = digits(folder)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    learner = headrace.Learner(TASK, network=model)  # from the model's weights as they are now
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    test, orders = events(held), np.random.default_rng(0)
    for number in range(1, PASSES + 1):
        order = orders.permutation(len(images))  # the same for both, another in each pass
        stream = events(images[order], labels[order])
        begun_s = time.perf_counter()
        learner.predict_then_learn(stream)
        seconds = time.perf_counter() - begun_s
        said = np.array(learner.predict(test)["prediction"].to_pylist())
        right = float((said == held_labels.astype(str)).mean())
        model.fit(images[order] / 255.0, labels[order], batch_size=BATCH, shuffle=False, verbose=0)
        fitted = model.evaluate(held / 255.0, held_labels, verbose=0)[1]
        print(
            f"pass {number}: headrace {right:.4f} ({len(images) / seconds:,.0f} images/s), "
            f"model.fit {fitted:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Keras models for tests, with JAX under Keras."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras

from headrace.model.learner import make_learner
from headrace.model.networks import NETWORKS
from headrace.stream.task import keras_file

__all__ = ["Change", "altered", "config", "dense", "forget", "keras", "saved"]

Change = Callable[[dict[str, bytes]], object]


def dense(*widths: int, inputs: int = 2, seed: int = 0, **last: Any) -> Any:
    """Make a model of dense layers with random weights, its biases too."""
    keras.utils.set_random_seed(seed)
    layers = [
        keras.layers.Dense(width, "relu", bias_initializer="random_normal", name=f"layer{at}")
        for at, width in enumerate(widths[:-1])
    ]
    end = keras.layers.Dense(widths[-1], bias_initializer="random_normal", name="end", **last)
    return keras.Sequential([keras.layers.Input((inputs,), name="rows"), *layers, end], name="m")


def saved(model: Any, path: Path) -> Path:
    """Save a model, and return where."""
    model.save(path)
    return path


def forget() -> None:
    """Forget the models that were read, as another process does not know them."""
    keras_file._held.clear()
    make_learner.cache_clear()
    for name in [*NETWORKS]:
        if keras_file.is_keras(name):
            del NETWORKS[name]


def altered(path: Path, change: Change) -> Path:
    """Change the members of a file, which is written anew."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    path.write_bytes(made.getvalue())
    return path


def config(change: Callable[[Any], object]) -> Change:
    """Change what a file says of the architecture."""

    def apply(members: dict[str, bytes]) -> None:
        table = json.loads(members["config.json"])
        change(table)
        members["config.json"] = json.dumps(table).encode()

    return apply

"""deep-river's networks on torch, with scaled numbers and one-hot categories."""

from __future__ import annotations

import random
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch

from .inputs import TargetScaler, inputs
from .rows import Row, Rows


def make(peer: str, settings: dict[str, Any], rows: Rows) -> Callable[[], list[Any]]:
    """Make a network, and give what predicts and learns the rows with it.

    Settings: `classify` and `regress` are its class below `deep_river`, `params` its arguments.
    It is told the values of the categories beforehand, which a stream would not tell: to grow the
    network instead takes it a hundred times longer.
    """
    seed = settings["params"]["seed"]
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    columns = [f"{name}={value}" for name in rows.categories for value in rows.values(name)]
    blank: Row = dict.fromkeys([*rows.numbers, *columns], 0.0)
    module, _, kind = settings["classify" if rows.classes else "regress"].rpartition(".")
    params = dict(settings["params"], n_features=len(blank))
    if rows.classes:
        params |= {"n_init_classes": len(rows.classes)}
    model = getattr(import_module(f"deep_river.{module}"), kind)(**params)
    return lambda: _loop(model, rows, blank)


def _loop(model: Any, rows: Rows, blank: Row) -> list[Any]:
    change = inputs(rows, scale=True, categories="one-hot")
    target, said = TargetScaler(), []
    for row, y in zip(rows.x, rows.y, strict=True):
        x = {**blank, **change(row)}
        found = model.predict_one(x)
        said.append(found if rows.classes else target.restore(float(found)))
        if y is not None:
            model.learn_one(x, y if rows.classes else target.learn(y))
    return said

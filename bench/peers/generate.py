"""Write a stream that River or scikit-learn bundles or draws: `python -m peers.generate REQUEST`.

The request is JSON: kind (bundled, drift or digits), name, seed, rows, to. Exit code 3: it is not
on this machine, and the last line says why.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from .rows import Row

NOT_HERE = 3
SEGMENTS = 4  # an abrupt drift changes after each quarter


def bundled(name: str) -> Iterator[Row]:
    """Read a data set of River's wheel; a series gives its value as a feature of its own."""
    from river import datasets

    data = getattr(datasets, name)()
    if not getattr(data, "is_downloaded", True):
        sys.stdout.write(f"\nriver.datasets.{name} is not in River's wheel and not downloaded\n")
        sys.exit(NOT_HERE)
    for x, y in data:
        label = y if data.task == "Regression" else str(y)
        moment = next((key for key, value in x.items() if hasattr(value, "isoformat")), None)
        if moment is not None:
            time = x.pop(moment)
            zone = "" if time.tzinfo else "Z"
            yield {"time": time.isoformat() + zone, **x, "value": label, "target": label}
        else:
            yield {**{f"x{key}" if key.isdigit() else key: v for key, v in x.items()}} | {
                "target": label
            }


def drift(name: str, seed: int, rows: int) -> Iterator[Row]:
    """Draw a stream of River's generators whose concept changes."""
    draw = _ABRUPT[name](seed) if name in _ABRUPT else None
    if draw is None:
        for x, y in islice(_gradual(name, seed, rows), rows):
            yield _named(x, y)
        return
    length = rows // SEGMENTS
    for segment in range(SEGMENTS):
        for x, y in islice(draw(segment), length):
            yield _named(x, y)


def _named(x: dict[Any, Any], y: Any) -> Row:
    row: Row = {f"x{key}" if isinstance(key, int) else key: value for key, value in x.items()}
    return row | {"target": y if isinstance(y, float) else str(y)}


def _sea(seed: int) -> Callable[[int], Any]:
    from river.datasets import synth

    return lambda part: synth.SEA(variant=part, noise=0.1, seed=seed + 100 * part)


def _agrawal(seed: int) -> Callable[[int], Any]:
    from river.datasets import synth

    return lambda part: synth.Agrawal(
        classification_function=(0, 3, 6, 9)[part], perturbation=0.05, seed=seed + 100 * part
    )


def _led(seed: int) -> Callable[[int], Any]:
    from river.datasets import synth

    return lambda part: synth.LEDDrift(
        seed=seed + 100 * part,
        noise_percentage=0.1,
        irrelevant_features=True,
        n_drift_features=(0, 3, 5, 7)[part],
    )


_ABRUPT: dict[str, Callable[[int], Callable[[int], Any]]] = {
    "sea": _sea,
    "agrawal": _agrawal,
    "led": _led,
}


def _gradual(name: str, seed: int, rows: int) -> Any:
    from river.datasets import synth

    if name == "rbf":
        return synth.RandomRBFDrift(
            seed_model=seed,
            seed_sample=seed + 100,
            n_classes=5,
            n_features=10,
            n_centroids=50,
            change_speed=0.001,
            n_drift_centroids=50,
        )
    if name == "hyperplane":
        return synth.Hyperplane(
            seed=seed, n_features=10, n_drift_features=5, mag_change=0.001, noise_percentage=0.05
        )
    places = (rows // 4, rows // 2, 3 * rows // 4)
    return synth.FriedmanDrift(drift_type="lea", position=places, seed=seed)


def digits(seed: int, passes: int = 10) -> Iterator[Row]:
    """Yield scikit-learn's digits in shuffled passes; halfway each gets the name of another."""
    import numpy as np
    from sklearn.datasets import load_digits

    data = load_digits()
    rng = np.random.default_rng(seed)
    renamed = rng.permutation(10)
    for turn in range(passes):
        for at in rng.permutation(len(data.target)):
            label = int(data.target[at])
            pixels = data.data[at].astype(int).tolist()
            yield {f"p{n}": value for n, value in enumerate(pixels)} | {
                "target": str(label if turn < passes // 2 else int(renamed[label]))
            }


def main(request: dict[str, Any]) -> None:
    """Write the rows as JSON lines."""
    name, seed = request["name"], request["seed"]
    rows = {
        "bundled": lambda: bundled(name),
        "drift": lambda: drift(name, seed, request["rows"]),
        "digits": lambda: digits(seed),
    }[request["kind"]]()
    with Path(request["to"]).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

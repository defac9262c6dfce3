"""CapyMOA's models, in its own loop over an ARFF file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import capymoa.classifier
import capymoa.regressor
from capymoa.evaluation import prequential_evaluation
from capymoa.stream import ARFFStream

from .inputs import inputs
from .rows import Row, Rows


def make(peer: str, settings: dict[str, Any], rows: Rows) -> Callable[[], list[Any]]:
    """Write the rows for MOA, make a model, and give what predicts and learns them with it.

    Settings: `classify` and `regress` are its class in CapyMOA, `params` its arguments, `scale`
    brings numbers to mean 0 and deviation 1 beforehand, each row by those up to it. Categories are
    nominal attributes. Rows without a label are left out, and said to be the value before.
    """
    folder = tempfile.TemporaryDirectory(prefix="headrace-arff-")
    path = Path(folder.name) / "stream.arff"
    _write(path, rows, scale=settings.get("scale", False))
    stream = ARFFStream(str(path))
    module, name = (
        (capymoa.classifier, settings["classify"])
        if rows.classes
        else (capymoa.regressor, settings["regress"])
    )
    learner = getattr(module, name)(schema=stream.get_schema(), **settings.get("params", {}))

    def run() -> list[Any]:
        with folder:
            found = prequential_evaluation(
                stream,
                learner,
                store_predictions=True,
                optimise=bool(rows.classes),  # the fast loop rounds the numbers that it stores
            )
            said = [_class(rows, p) if rows.classes else float(p) for p in found.predictions()]
            known = iter(said)
            return [None if y is None else next(known) for y in rows.y]

    return run


def _class(rows: Rows, place: int | None) -> str | None:
    return rows.classes[place] if place is not None and 0 <= place < len(rows.classes) else None


def _write(path: Path, rows: Rows, *, scale: bool) -> None:
    """Write an ARFF file: names are numbers, for some columns' names would need quotes."""
    change = inputs(rows, scale=scale, categories="nominal")
    places = {
        name: {value: f"v{n}" for n, value in enumerate(rows.values(name))}
        for name in rows.categories
    }
    names = (*rows.numbers, *rows.categories)
    labels = {label: f"c{n}" for n, label in enumerate(rows.classes)}
    with path.open("w", encoding="ascii") as file:
        file.write("@relation stream\n")
        for n, name in enumerate(names):
            kind = f"{{{','.join(places[name].values())}}}" if name in places else "numeric"
            file.write(f"@attribute a{n} {kind}\n")
        file.write(f"@attribute y {{{','.join(labels.values())}}}\n" if labels else "")
        file.write("" if labels else "@attribute y numeric\n")
        file.write("@data\n")
        for source, y in zip(rows.x, rows.y, strict=True):
            row: Row = change(source)
            if y is None:
                continue
            cells = [
                places[name][row[name]] if name in places else repr(row[name]) for name in names
            ]
            file.write(",".join([*cells, labels[y] if labels else repr(float(y))]) + "\n")

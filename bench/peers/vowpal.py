"""Vowpal Wabbit: one workspace, one example at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from vowpalwabbit import Workspace

from .inputs import Scaler, TargetScaler
from .rows import Row, Rows

_UNSAFE = re.compile(r"[\s:|]+")


def make(peer: str, settings: dict[str, Any], rows: Rows) -> Callable[[], list[Any]]:
    """Make a workspace, and give what predicts and learns the rows with it.

    Settings: `arguments` always, `classify_two`, `classify_many`, `regress` and `text` where they
    apply. Categories are features by name, numbers features with a value, brought to mean 0 and
    deviation 1 beforehand: VW evens out scales by itself, not means, and products need both.
    """
    kind = "regress" if not rows.classes else f"classify_{'two' if _two(rows) else 'many'}"
    asked = [settings["arguments"], settings[kind].format(classes=len(rows.classes))]
    asked.append(settings["text"] if rows.texts else settings["table"])
    workspace = Workspace(" ".join(asked))
    return lambda: _loop(workspace, rows)


def _loop(workspace: Any, rows: Rows) -> list[Any]:
    """Learn each example; what VW says of it then is from before it was learned."""
    said: list[Any] = []
    scaler, target = Scaler(), TargetScaler()
    for source, y in zip(rows.x, rows.y, strict=True):
        x = source | scaler({name: source[name] for name in rows.numbers})
        label = ""
        if y is not None and rows.classes:
            at = rows.classes.index(y)
            label = str(2 * at - 1 if _two(rows) else at + 1)
        example = workspace.parse(f"{label} {_text(rows, x)}") if rows.classes else None
        if rows.classes:
            (workspace.learn if label else workspace.predict)(example)
            said.append(_class(rows, example))
            workspace.finish_example(example)
            continue
        features = _text(rows, x)
        found = float(workspace.predict(f" {features}"))
        said.append(target.restore(found))
        if y is not None:
            workspace.learn(f"{target.learn(y)} {features}")
    workspace.finish()
    return said


def _two(rows: Rows) -> bool:
    return len(rows.classes) == 2


def _class(rows: Rows, example: Any) -> str:
    if _two(rows):
        return rows.classes[int(example.get_simplelabel_prediction() > 0)]
    return rows.classes[int(example.get_multiclass_prediction()) - 1]


def _text(rows: Rows, x: Row) -> str:
    """Write a row: namespace f for numbers and categories, t for texts."""
    cells = [f"{_safe(name)}:{x[name]!r}" for name in rows.numbers if x[name]]
    cells += [f"{_safe(name)}={_safe(x[name])}" for name in rows.categories]
    words = " ".join(_UNSAFE.sub(" ", x[name].lower()) for name in rows.texts)
    return f"|f {' '.join(cells)}" + (f" |t {words}" if words else "")


def _safe(name: str) -> str:
    return _UNSAFE.sub("_", name)

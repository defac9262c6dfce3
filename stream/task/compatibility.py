"""Which networks and losses go with which tasks, and which rungs with each other."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.model.spec import CLASS_LOSSES, NUMBER_LOSSES, WINDOWED, Spec
from headrace.stream.task.part import Mistake


def misfits(spec: Spec) -> Iterator[Mistake]:
    """Yield the settings of a model that do not go with a task, and what was expected."""
    kind, losses = ("classify", CLASS_LOSSES) if spec.classes else ("regress", NUMBER_LOSSES)
    if spec.objective not in losses:
        told = f"not for target.kind = {kind!r}; expected {' or '.join(losses)}"
        yield Mistake(("model", "loss"), told)
    needs: list[tuple[object, str]] = []
    if spec.network in WINDOWED:
        needs.append((spec.numeric, "a window of numbers: expected a number among features"))
        needs.append((spec.numeric_lags, "a window of rows: expected lags.rows = 1 or more"))
    if spec.network == "textbag":
        needs.append((spec.bags, "a text: expected one among features"))
    if spec.network == "textcnn":
        needs.append((spec.words, "a text: expected one among features"))
    if spec.network in (*WINDOWED, "textcnn"):
        needs.append((spec.hidden, "with as many units as model.hidden begins with, not []"))
    if spec.network == "cnn2d":
        needs.append((spec.pixels, "an image: expected one among features"))
    for met, need in needs:
        if not met:
            yield Mistake(("model", "network"), f"it reads {need}")
    above = [rung for rung in spec.ladder if rung in ("restore", "rollback")]
    if above and "challenger" not in spec.ladder:
        told = f"{above[0]} is a step above challenger: expected both"
        yield Mistake(("drift", "ladder"), told)

"""Which networks and losses go with which tasks, and which rungs with each other."""

from __future__ import annotations

from headrace.model.spec import CLASS_LOSSES, NUMBER_LOSSES, WINDOWED, Spec


def misfit(spec: Spec) -> str | None:
    """Return which setting of a model does not go with a task, and what was expected."""
    kind, losses = ("classify", CLASS_LOSSES) if spec.classes else ("regress", NUMBER_LOSSES)
    if spec.objective not in losses:
        return (
            f"model.loss = {spec.loss!r}: not for target.kind = {kind!r}; "
            f"expected {' or '.join(losses)}"
        )
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
    above = [rung for rung in spec.ladder if rung in ("restore", "rollback")]
    if above and "challenger" not in spec.ladder:
        return f"drift.ladder: {above[0]} is a step above challenger: expected both"
    missing = [need for met, need in needs if not met]
    return f"model.network = {spec.network!r}: it reads {missing[0]}" if missing else None

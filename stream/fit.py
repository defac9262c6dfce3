"""Which losses go with which tasks."""

from __future__ import annotations

from model.spec import CLASS_LOSSES, NUMBER_LOSSES, Spec


def misfit(spec: Spec) -> str | None:
    """Say which setting of the model does not go with the rest of a task, and what was expected."""
    kind, losses = ("classify", CLASS_LOSSES) if spec.classes else ("regress", NUMBER_LOSSES)
    if spec.objective not in losses:
        return (
            f"model.loss = {spec.loss!r}: not for target.kind = {kind!r}; "
            f"expected {' or '.join(losses)}"
        )
    return None

"""What is told of a learner's scores, and of how it stands."""

from __future__ import annotations

from typing import Any

from headrace.model import counter, late_scores, mixture, plasticity, pool
from headrace.model.metrics import classification_report, regression_report, report
from headrace.model.spec import Spec
from headrace.model.state import State
from headrace.stream.rows.classes import Classes
from headrace.stream.task.target import MOST_NAMED

Measured = tuple[Any, ...]


def measured(state: State) -> Measured:
    """Return the parts of a state that `scores` are made of."""
    return state.metrics, state.further, state.late, state.champion.mixture


def scores(spec: Spec, found: Measured, unit: float) -> dict[str, Any]:
    """Return metrics, their baselines and the members' weights; waits for the state.

    Args:
        unit: of labels, where they are numbers.
    """
    metrics, further, late, mixed = found
    told = classification_report(metrics) if spec.classes else regression_report(metrics, unit)
    if further:
        told["further"] = report(further, unit)
    if late:
        told |= late_scores.report(spec, late, unit)
    weights = mixture.total(mixed).astype(float).round(4)
    return told | {"members": dict(zip(pool.names(spec), weights.tolist(), strict=True))}


def standing(spec: Spec, state: State, unit: float, classes: Classes) -> dict[str, Any]:
    """Return `scores`, and what was mended or let go of; waits for the state."""
    found = scores(spec, measured(state), unit) | {
        "refused_updates": int(counter.value(state.refused).sum()),
        "plasticity": plasticity.plasticity(state.champion, state.active)
        | {"revived_units": int(counter.value(state.revived))},
        "resets": int(counter.value(state.resets).sum()),
        "entities_left": int(counter.value(state.memory.left)),
    }
    if spec.classes:
        per_class = found.pop("per_class")
        if spec.classes <= MOST_NAMED:
            found["per_class"] = {
                scope: dict(zip(classes, lines, strict=False)) for scope, lines in per_class.items()
            }
    return found

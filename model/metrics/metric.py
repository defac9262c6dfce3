"""Metrics from elsewhere, which measure the same scored events as ours do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from headrace.model.fold import Fold
from headrace.model.registry import Registry, told
from headrace.model.spec import METRIC_BYTES, Spec


def _as_it_is(state: Any, convert: Callable[..., Any]) -> Any:
    return state


class Metric(NamedTuple):
    """Hold what a metric is made of.

    Attributes:
        make: makes of a spec a fold over blocks of `ScoredClass`, where it has classes, else of
            `ScoredNumber`; these hold what baselines said, too. It is compiled into the loop.
        report: makes of a state, as numpy arrays, a number, None where it is not defined, or a
            dictionary of these. Beside the state it is given the unit that numbers are counted in.
        convert: maps a state to one whose numbers went through a function, `to(numbers, power)`,
            by the power of the label's unit that they have. Numbers are counted in another unit
            now, and from another origin: a metric keeps what does not depend on that, as errors.
    """

    make: Callable[[Spec], Fold[Any, Any, None]]
    report: Callable[[Any, float], Any]
    convert: Callable[[Any, Callable[..., Any]], Any] = _as_it_is


METRICS: Registry[Metric] = Registry("metric", Metric, "a headrace.model.metrics.Metric", {})

register = METRICS.register


def report(states: Mapping[str, Any], unit: float = 1.0) -> dict[str, Any]:
    """Return what metrics say, by name, in plain numbers; of one that fails, the error.

    One that says more than METRIC_BYTES, or what is no text, has failed.

    A metric is no part of what is predicted: nothing ends for its sake.
    """
    found: dict[str, Any] = {}
    for name, state in states.items():
        try:
            said = _plain(METRICS[name].report(jax.tree.map(np.asarray, state), unit))
            size = len(_text(said).encode())
            if size > METRIC_BYTES:
                raise ValueError(f"its report has {size} bytes, expected {METRIC_BYTES} at most")
            found[name] = said
        except Exception as error:  # whatever a stranger's function does
            found[name] = {"error": told(error)}
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _text(value: Any) -> str:
    """Return about the JSON of plain numbers."""
    if isinstance(value, Mapping):
        return "".join(f'"{name}":{_text(each)},' for name, each in value.items())
    return str(value)

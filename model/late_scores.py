"""Scores of rows whose labels come by themselves, by other clocks than that of labels.

As of event time: an event's weight fades with the events that were predicted after it, whenever its
label comes; so late labels count as old. And of events that are held out, by their labels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from headrace.model.metrics import tally
from headrace.model.spec import Spec
from headrace.model.xla import pack

LABEL, HELD_OUT, AGAIN, UNASKED = 1, 2, 4, 8
"""What a line is, added up; 0 is an event.

A label comes AGAIN for a row that has one; UNASKED it answers none, and is the entity's last known
label all the same.
"""
_LIMIT = 1e15  # of an error
SUMS = ("by_event", "held_out")
"""Of labels, scored ones, their misses, those with a last label, the misses of repeating it."""
UNITS = np.array([0, 0, 1, 0, 1])
"""The power of the label's unit in each of them."""


class LateScores(NamedTuple):
    """Count events, and hold fading sums."""

    events: Array  # u32[]  that were predicted
    newest: Array  # u32[]  number of the newest one that has a label
    by_event: Array  # f32[5]
    held_out: Array  # f32[5]


def init(spec: Spec) -> dict[str, Any]:
    """Start with no events, by the names of LateScores; {} if no label comes by itself."""
    if not spec.waiting:
        return {}
    number, sums = jnp.uint32(0), jnp.zeros(len(UNITS))
    return LateScores(number, number, sums, sums)._asdict()


def count(scores: dict[str, Any]) -> dict[str, Any]:
    """Count an event."""
    return scores | {"events": scores["events"] + 1}


class Late(NamedTuple):
    """Hold a label, and what is known of the event that it belongs to."""

    label: Array  # f32[]  class index or value
    said: Array  # f32[]  the class or the value that was published, NaN = none
    no_change: Array  # f32[]  the last known label then, NaN = none
    number: Array  # u32[]  of the event
    kind: Array  # i32[]  of the line


def score(spec: Spec, scores: dict[str, Any], late: Late) -> dict[str, Any]:
    """Score an event: its first label alone counts."""
    before, fade = LateScores(**scores), tally.fading_factor(spec.window)
    first, found = (late.kind & (AGAIN | UNASKED)) == 0, _terms(spec, late)
    ahead = (late.number - before.newest).astype(jnp.int32)
    ahead = jnp.where(before.by_event[0] == 0.0, 1, ahead)
    faded = fade ** jnp.abs(ahead).astype(jnp.float32)
    by_event = jnp.where(
        ahead > 0, faded * before.by_event + found, before.by_event + faded * found
    )
    held = first & ((late.kind & HELD_OUT) > 0)
    after = before._replace(
        newest=jnp.where(first & (ahead > 0), late.number, before.newest),
        by_event=jnp.where(first, by_event, before.by_event),
        held_out=jnp.where(held, fade * before.held_out + found, before.held_out),
    )
    return after._asdict()


def _terms(spec: Spec, late: Late) -> Array:
    """Return what an event adds to sums, f32[5]."""

    def terms(said: Array) -> tuple[Array, Array]:
        known = ~jnp.isnan(said)
        miss = (said != late.label) if spec.classes else jnp.abs(late.label - said)
        return known.astype(jnp.float32), jnp.where(known, jnp.clip(miss, 0.0, _LIMIT), 0.0)

    return pack(jnp.float32(1.0), *terms(late.said), *terms(late.no_change))


def report(spec: Spec, scores: dict[str, Any], unit: float = 1.0) -> dict[str, Any]:
    """Return plain numbers, None where undefined; labels were counted in a `unit`.

    Of `event_time` and of `held_out` events: accuracy or mae, the same of repeating the last known
    label, and how many events that is of. `labelled` is the share of the window's events whose
    label came; the window ends `behind` events before the newest one.
    """
    found = LateScores(**scores)
    fade = tally.fading_factor(spec.window)
    met = int(found.newest) + 1
    events = met if fade == 1.0 else (1.0 - fade**met) / (1.0 - fade)
    of_events = _report(spec, found.by_event, unit)
    labels = float(found.by_event[0])
    of_events |= {
        "labelled": min(labels / events, 1.0) if labels else 0.0,
        "behind": (int(found.events) - met) % 2**32 if labels else int(found.events),
    }
    return {"event_time": of_events, "held_out": _report(spec, found.held_out, unit)}


def _report(spec: Spec, sums: Any, unit: float) -> dict[str, Any]:
    _, scored, misses, repeated, others = (float(number) for number in sums)

    def told(missed: float, events: float) -> float | None:
        if events <= 0.0:
            return None
        return 1.0 - missed / events if spec.classes else missed / events * unit

    name = "accuracy" if spec.classes else "mae"
    return {name: told(misses, scored), "no_change": told(others, repeated), "events": scored}

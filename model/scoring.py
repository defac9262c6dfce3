"""What is said about a row, and what became of what was said before."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from model import memory, scale, target
from model.batch import EVIDENCE, Outcome
from model.metrics import ScoredClass, ScoredNumber
from model.spec import Spec
from model.state import Parts, State
from model.sums import pack


def score(parts: Parts, state: State, at: Array, output: Array) -> tuple[State, Array]:
    """Score what was said about the label that row `at` brought; then say the next thing.

    Returns the state, and what is told about the row as one line for `read_lines`.
    """
    spec, chunk = parts.spec, state.chunk
    label, slot, turn = chunk.label[at], chunk.slot[at], chunk.turn[at]
    no_change, known = chunk.no_change[at], ~jnp.isnan(label)
    published = said = publish(spec, state, output, no_change)
    if spec.horizon:
        kept = state.memory
        ring = jnp.where(turn >= 0, turn, -1 - turn)
        known = known & (turn >= 0)
        said = lax.cond(
            known, lambda: kept.published[slot, ring], lambda: jnp.zeros(spec.published)
        )
        no_change = chunk.due_no_change[at]
        after = memory.after(said, slot)
        kept = kept._replace(published=kept.published.at[after, ring].set(published))
        state = state._replace(memory=kept)
    if spec.classes:
        truth = jnp.where(known, label, 0.0).astype(jnp.int32)
        last = jnp.where(jnp.isnan(no_change), -1.0, no_change).astype(jnp.int32)
        scored: Any = ScoredClass(truth, said, last, known)
        error = (jnp.argmax(said) != truth).astype(jnp.float32)
        interval = state.interval
    else:
        truth = jnp.where(known, label, 0.0)
        scored = ScoredNumber(truth, said[0], said[1], said[2], no_change, known)
        miss = jnp.abs(truth - said[0])
        error = miss / (miss + scale.deviation(state.target.rest)[0])
        tracked = known & (spec.objective != "pinball")
        interval = jnp.where(tracked, track(spec, state.interval, miss), state.interval)
    block = jax.tree.map(lambda x: x[None], scored)  # of one row
    measured = parts.metrics.update(state.metrics, block)[0]
    watched = [
        fold.update(watching, (error, known))
        for fold, watching in zip(parts.detectors, state.detectors, strict=True)
    ]
    step = lax.bitcast_convert_type(state.step, jnp.float32)
    evidence = [getattr(alarm, name) for _, alarm in watched for name in EVIDENCE]
    told = pack(step, *(number.astype(jnp.float32) for number in evidence))
    line = jnp.concatenate([published, told])
    state = state._replace(
        metrics=measured, detectors=tuple(moved for moved, _ in watched), interval=interval
    )
    return state, line


def line_width(spec: Spec) -> int:
    """Count the numbers that `score` puts into a line: one array is written for each row."""
    return spec.published + 1 + len(spec.detectors) * len(EVIDENCE)


def read_lines(spec: Spec, lines: Array) -> Outcome:
    """Take the lines f32[B, W] apart."""
    published, step, alarms = jnp.split(lines, [spec.published, spec.published + 1], axis=1)
    return Outcome(
        published=published,
        step=lax.bitcast_convert_type(step[:, 0], jnp.int32),
        alarms=alarms.reshape(len(lines), len(spec.detectors), len(EVIDENCE)),
    )


def publish(spec: Spec, state: State, output: Array, last: Array) -> Array:
    """Turn one network output f32[O] into the published numbers f32[P].

    Quantiles that cross are put in order, which never makes them worse (Chernozhukov,
    Fernández-Val & Galichon 2010, "Quantile and probability curves without crossing").
    """
    if spec.classes:
        return jax.nn.softmax(output)
    if spec.objective == "pinball":
        low, value, high = jnp.sort(target.value(state.target, output, last))
        return jnp.stack([value, low, high])
    value = target.value(state.target, output[0], last)
    return jnp.stack([value, value - state.interval[0], value + state.interval[0]])


def track(spec: Spec, interval: Array, miss: Array) -> Array:
    """Move the half-width towards the wanted quantile of the absolute error.

    The quantile tracker of Angelopoulos, Candès & Tibshirani (2023), "Conformal PID control
    for time series prediction", with steps of 5 % of the running mean absolute error.
    """
    typical = interval[1] + 0.01 * (miss - interval[1])
    outside = (miss > interval[0]).astype(jnp.float32)
    width = interval[0] + 0.05 * typical * (outside - (1.0 - spec.coverage))
    return jnp.stack([jnp.maximum(width, 0.0), typical])

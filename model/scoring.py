"""What is said about a row, and what became of what was said before."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from headrace.model import decision, ladder, scale, target
from headrace.model.batch import EVIDENCE, Outcome
from headrace.model.drift import shift
from headrace.model.metrics import ScoredClass, ScoredNumber
from headrace.model.spec import Spec
from headrace.model.state import Parts, State, weights
from headrace.model.xla import order_after, pack

STEP = 0.05  # of the half-width, in typical errors, at each event outside
PACE = 0.02  # at which what is typical follows
SURPRISE = 8.0
MOST_MOVED = 3  # columns that an alarm names
MOVED = 3 * MOST_MOVED  # numbers that tell of them
STEP_HALVES = 2  # of the count of optimizer steps
LOST = 1  # number that tells who began anew: a sum of 2^place
_ENDS = ladder.AT_ONCE + ladder.LATER + LOST + MOVED  # of rows where something happened


def score(
    parts: Parts, state: State, at: Array, output: Array, middle: Array
) -> tuple[State, Array]:
    """Score what was said about the label that row `at` brought; then say the next thing.

    The baselines know the `middle` of the labels before it, f32[].

    Returns the state, and what is told about the row as one line for `read_lines`.
    """
    spec, chunk = parts.spec, state.chunk
    label, slot, turn = chunk.label[at], chunk.slot[at], chunk.turn[at]
    no_change, known = chunk.past[at, 0], ~jnp.isnan(label)
    published = said = publish(spec, state, output, no_change)
    if spec.horizon:
        kept = state.memory
        ring = jnp.where(turn >= 0, turn, -1 - turn)
        known = known & (turn >= 0)
        said = lax.cond(
            known, lambda: kept.published[slot, ring], lambda: jnp.zeros(spec.published)
        )
        no_change = chunk.due_past[at, 0]
        after = order_after(said, slot)
        kept = kept._replace(published=kept.published.at[after, ring].set(published))
        state = state._replace(memory=kept)
    state, told = judge(parts, state, at, Answered(label, said, no_change, known), middle)
    line = jnp.concatenate([published, told, jnp.zeros(_ENDS)])
    chunk = chunk._replace(said=chunk.said.at[at].set(newest(spec, published)))
    return state._replace(chunk=chunk), line


class Answered(NamedTuple):
    """Hold a label, and what was said before it was known."""

    label: Array  # f32[]
    said: Array  # f32[P]  what was published
    no_change: Array  # f32[]  the entity's last known label then
    known: Array  # bool[]  whether something was said, and there is a label


def newest(spec: Spec, published: Array) -> Array:
    """Return the class or the value of what is published, f32[]."""
    return read(spec, published)[1].astype(jnp.float32) if spec.classes else published[0]


def said_any(spec: Spec, published: Array) -> Array:
    """Return whether anything is said by what is published, bool[]."""
    return published[: spec.classes].max() > 0.0 if spec.classes else ~jnp.isnan(published[0])


def judge(
    parts: Parts, state: State, at: Array, answered: Answered, middle: Array
) -> tuple[State, Array]:
    """Score what was said about the label at place `at` of the open chunk.

    Returns:
        the state, and what is told of it: the steps so far and the evidence of detectors.
    """
    spec, chunk = parts.spec, state.chunk
    label, said, no_change, known = answered
    taught, weight = label, weights(spec, chunk)
    if weight is not None:
        taught = jnp.where(weight[at] > 0.0, label, jnp.nan)
    if spec.classes:
        chances, answer = read(spec, said)
        known = known & (chances.max() > 0.0)  # before the first class nothing is said
        truth = jnp.where(known, label, 0.0).astype(jnp.int32)
        last = jnp.where(jnp.isnan(no_change), -1.0, no_change).astype(jnp.int32)
        scored: Any = ScoredClass(truth, chances, last, known, answer)
        error = (answer != truth).astype(jnp.float32)
        interval = state.interval
        if spec.open_classes:
            came = jnp.where(jnp.isnan(chunk.label[at]), -1.0, chunk.label[at]).astype(jnp.int32)
            state = state._replace(met=jnp.maximum(state.met, came + 1))
    else:
        said = jnp.where(known, said, jnp.nan)
        size = jnp.abs(label + state.zero)
        value, low, high = said
        scored = ScoredNumber(label, value, low, high, no_change, middle, size, ~jnp.isnan(label))
        known = known & ~jnp.isnan(said[0])
        miss = jnp.where(known, jnp.abs(label - said[0]), 0.0)
        width = scale.deviation(state.target.rest)[0]
        error = miss / (miss + width)
        tracked = known & (spec.objective != "pinball")
        if weight is not None:
            tracked = tracked & ~jnp.isnan(taught)
        interval = jnp.where(tracked, track(spec, state.interval, miss, width), state.interval)
    block = jax.tree.map(lambda x: x[None], scored)  # of one row
    measured = parts.metrics.update(state.metrics, block)[0]
    further = {
        name: fold.update(state.further[name], block)[0] for name, fold in parts.further.items()
    }
    watched = [
        fold.update(watching, (error, known))
        for fold, watching in zip(parts.detectors, state.detectors, strict=True)
    ]
    step = lax.bitcast_convert_type(state.step, jnp.float32)
    evidence = [getattr(alarm, name) for _, alarm in watched for name in EVIDENCE]
    told = pack(*step, *(number.astype(jnp.float32) for number in evidence))
    alarmed = [alarm.fired for _, alarm in watched]
    state = state._replace(
        metrics=measured,
        further=further,
        counts=decision.count(spec, state.counts, taught),
        alarmed=state.alarmed | jnp.stack(alarmed).any() if alarmed else state.alarmed,
        detectors=tuple(moved for moved, _ in watched),
        ladder=ladder.on_alarms(state.ladder, [alarm for _, alarm in watched]),
        interval=interval,
    )
    return state, told


def tell_of_row(spec: Spec, state: State, published: Array) -> Array:
    """Return the line of a row whose label comes by itself: nothing was judged."""
    step = pack(*lax.bitcast_convert_type(state.step, jnp.float32))
    return jnp.concatenate([published, step, jnp.zeros(line_width(spec) - len(published) - 2)])


def tell_of_label(spec: Spec, told: Array, climbed: Array) -> Array:
    """Return the line of a label that came by itself: what `judge` and the ladder told."""
    blank = jnp.zeros(_ENDS - len(climbed))
    return jnp.concatenate([jnp.full(spec.published, jnp.nan), told, climbed, blank])


def line_width(spec: Spec) -> int:
    """Count the numbers of a line: one array is written for each row."""
    return spec.published + STEP_HALVES + len(spec.detectors) * len(EVIDENCE) + _ENDS


def tell_at_once(spec: Spec, lines: Array, row: Array, told: Array) -> Array:
    """Put what the ladder did at once into a row's line."""
    return lax.dynamic_update_slice(lines, told[None], (row, jnp.int32(line_width(spec) - _ENDS)))


def tell_later(spec: Spec, lines: Array, row: Array, told: Array) -> Array:
    """Put what the ladder did then into a row's line; beyond the last one it is dropped."""
    first = line_width(spec) - MOVED - LOST - ladder.LATER
    return lines.at[row, first : first + ladder.LATER].set(told, mode="drop")


def tell_lost(spec: Spec, lines: Array, row: Array, lost: Array) -> Array:
    """Put who began anew into a row's line, bool[L]; beyond the last one it is dropped."""
    told = (lost * 2.0 ** np.arange(len(lost))).sum()
    return lines.at[row, line_width(spec) - MOVED - LOST].set(told, mode="drop")


def name_moved(
    spec: Spec, state: State, lines: Array, first: Array, end: Array
) -> tuple[State, Array]:
    """Put the columns that moved into the lines of the last rows, if there was an alarm."""
    if not spec.detectors:
        return state, lines
    moved = lax.cond(state.alarmed, most_moved, lambda _: jnp.zeros((1, MOVED)), state.shift)
    place = jnp.int32(line_width(spec) - MOVED)
    lines = lax.fori_loop(
        jnp.where(state.alarmed, first, end),
        end,
        lambda row, lines: lax.dynamic_update_slice(lines, moved, (row, place)),
        lines,
    )
    anew = shift.restart(state.shift, state.alarmed)
    return state._replace(alarmed=jnp.bool_(False), shift=anew), lines


def note(spec: Spec, state: State) -> State:
    """Take the rows of the chunk before into the watch for shifts, as a new one begins."""
    if not spec.detectors:
        return state
    chunk, begins = state.chunk, (state.chunk.filled == 0) & state.begun

    def one(row: Array, rows: shift.Rows) -> shift.Rows:
        return shift.note(rows, jnp.append(chunk.numeric[row], chunk.said[row]))

    count = jnp.where(begins, spec.chunk, 0)
    return state._replace(shift=lax.fori_loop(0, count, one, state.shift))


def most_moved(rows: shift.Rows) -> Array:
    """Name the columns that moved, those that moved most first, f32[1, MOVED].

    Each takes three numbers: its place counted from 1, 0 for none, its index, and its statistic.
    """
    found = shift.compare(rows)

    def name(place: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        left, told = carry
        at = jnp.argmax(left)
        numbers = pack(at + 1.0, found.psi[at], found.ks[at])
        told = told.at[place].set(jnp.where(left[at] >= 0, numbers, 0.0))
        return left.at[at].set(-1.0), told

    carry = jnp.where(found.moved, found.psi, -1.0), jnp.zeros((MOST_MOVED, 3))
    told: Array = lax.fori_loop(0, MOST_MOVED, name, carry)[1]
    return told.reshape(1, MOVED)


def read_lines(spec: Spec, lines: Array, unloaded: Array) -> Outcome:
    """Take the lines f32[B, W] apart, beside rows that are wanted."""
    evidence = len(spec.detectors) * len(EVIDENCE)
    widths = [spec.published, STEP_HALVES, evidence, ladder.AT_ONCE + ladder.LATER, LOST]
    parts = jnp.split(lines, np.cumsum(widths), axis=1)
    published, step, alarms, rungs, lost, moved = parts
    return Outcome(
        published=published,
        step=lax.bitcast_convert_type(step, jnp.uint32),
        alarms=alarms.reshape(len(lines), len(spec.detectors), len(EVIDENCE)),
        rungs=rungs,
        lost=lost[:, 0],
        moved=moved.reshape(len(lines), MOST_MOVED, 3),
        unloaded=unloaded,
    )


def publish(spec: Spec, state: State, output: Array, last: Array) -> Array:
    """Turn one network output f32[O] into the published numbers f32[P].

    A class that was not met is as unlikely as can be; before the first one, all are. Before the
    first label a number is NaN, and an interval's ends are before the first rest is known.

    Quantiles that cross are put in order, which never makes them worse (Chernozhukov,
    Fernández-Val & Galichon 2010, "Quantile and probability curves without crossing").
    """
    if spec.classes:
        chances = _chances(state.met, output) if spec.open_classes else jax.nn.softmax(output)
        chances = ladder.to_external_order(spec, state.ladder, chances)
        if spec.sampled:
            chances = _of_all(chances, *spec.sampled)
        if not spec.decides:
            return chances
        return jnp.append(chances, decision.decide(spec, state.counts, chances))
    if spec.objective == "pinball":
        low, value, high = jnp.sort(target.value(state.target, output, last))
        wide = state.target.rest.seen[0] > 0.0
        low, high = jnp.where(wide, low, jnp.nan), jnp.where(wide, high, jnp.nan)
    else:
        value = target.value(state.target, output[0], last)
        half = state.interval[0] * state.interval[1]
        low, high = value - half, value + half
    known = (state.target.level.seen[0] > 0.0) | ~jnp.isnan(last)
    return jnp.where(known, jnp.stack([value, low, high]), jnp.nan)


def read(spec: Spec, published: Array) -> tuple[Array, Array]:
    """Take what is published of classes apart: probabilities f32[C], and the prediction i32[]."""
    if not spec.decides:
        return published, jnp.argmax(published).astype(jnp.int32)
    return published[:-1], published[-1].astype(jnp.int32)


def _chances(met: Array, output: Array) -> Array:
    """Share all chances among the classes that were met."""
    known = jnp.arange(len(output)) < met
    return jnp.where(known, jax.nn.softmax(jnp.where(known, output, -jnp.inf)), 0.0)


def _of_all(chances: Array, sampled: int, share: float) -> Array:
    """Correct probabilities f32[C] that were learned of a sample of one class.

    Its odds are divided by the share of it that was learned (King & Zeng 2001, "Logistic regression
    in rare events data", prior correction; He et al. 2014, "Practical lessons from predicting
    clicks on ads at Facebook").
    """
    scaled = jnp.where(jnp.arange(len(chances)) == sampled, chances / share, chances)
    return scaled / jnp.maximum(scaled.sum(), 1e-30)


def track(spec: Spec, interval: Array, miss: Array, width: Array) -> Array:
    """Move the half-width towards the wanted quantile of the absolute error.

    The quantile tracker of Angelopoulos, Candès & Tibshirani (2023), "Conformal PID control for
    time series prediction", in units of a typical error: the geometric mean of the newest ones,
    each within SURPRISE times what is typical, so that none counts for more than others. It is a
    thousandth of the `width` at least, the deviation of what is learned. The first error is the
    first half-width.
    """
    share, typical = interval
    outside = (miss > share * typical).astype(jnp.float32)
    surprise = jnp.clip(miss / typical, 1.0 / SURPRISE, SURPRISE)
    moved = jnp.stack(
        [
            jnp.maximum(share + STEP * (outside - (1.0 - spec.coverage)), 0.0),
            jnp.maximum(typical * surprise**PACE, 1e-3 * width),
        ]
    )
    return jnp.where(jnp.isnan(typical), jnp.stack([1.0, jnp.maximum(miss, 1e-3 * width)]), moved)

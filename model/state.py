"""The state of a learner, and the parts that move it on."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from headrace.model import (
    counter,
    decision,
    drift,
    embed,
    ladder,
    late_scores,
    members,
    memory,
    pool,
    scale,
    target,
    waiting,
)
from headrace.model.drift import Alarm, Observed, shift
from headrace.model.fold import Fold
from headrace.model.metrics import (
    METRICS,
    make_classification_metrics,
    make_regression_metrics,
)
from headrace.model.networks import Network, make_network
from headrace.model.plasticity import Units
from headrace.model.pool import Contender
from headrace.model.spec import Spec

_MEMBERS, _FURTHER = map(jax.tree_util.GetAttrKey, ("members", "further"))


class Chunk(NamedTuple):
    """Hold the open chunk: the rows met since the last optimizer step."""

    filled: Array  # i32[]
    image: Array  # u8[k, H, W, C]  as received
    numeric: Array  # f32[k, N]  as received
    inputs: Array  # f32[k, I]  rows to predict
    ids: Array  # u32[k, S]
    label: Array  # f32[k]  what came with the row, NaN = none
    said: Array  # f32[k]  the class or the value that was published
    past: Array  # f32[k, P]  the entity's last known labels, newest first
    weight: Array  # f32[k, Q]  how much the row teaches; Q is 1 if rows have a weight, else 0
    slot: Array  # i32[k]  of the entity
    turn: Array  # i32[k]  place r in the entity's ring of open predictions; -1 - r if it was free
    due_inputs: Array  # f32[k, I]  earlier rows that the labels belong to; none if they never do
    due_ids: Array  # u32[k, S]
    due_past: Array  # f32[k, P]
    due_weight: Array  # f32[k, Q]


class State(NamedTuple):
    """Hold everything that is learned or measured; a checkpoint is this and nothing else."""

    begun: Array  # bool[]  whether a row was met
    step: Array  # u32[2]  optimizer steps: a `counter`
    met: Array  # i32[]  classes that may be predicted: the first ones
    champion: Contender  # who predicts
    refused: Array  # u32[M, 2]  updates of each network that were not finite: counters
    active: Units  # f32  share of the newest rows in which a hidden unit was not 0
    lost: Array  # bool[L]  who has to begin anew, of `pool.resettable`
    resets: Array  # u32[L, 2]  how often they did: counters
    revived: Array  # u32[2]  hidden units that began anew: a counter
    ladder: ladder.LadderState
    members: dict[str, Any]  # that are no networks, by name
    table: embed.TableState
    inputs: scale.ScaleState
    pixels: scale.ScaleState  # of the image's channels
    target: target.TargetState
    memory: memory.MemoryState
    waiting: dict[str, Any]  # rows whose label comes by itself: those of `waiting`, by name
    late: dict[str, Any]  # scores of such rows: those of `late_scores`, by name
    chunk: Chunk
    counts: Array  # f32[C] of labels by class, fading; none unless classes are balanced
    interval: Array  # f32[2]  half-width over a typical error, and that; NaN before there is one
    zero: Array  # f32[]  what a regression's labels are counted from, in their unit
    metrics: Any
    further: dict[str, Any]  # of metrics from elsewhere, by name
    detectors: tuple[Any, ...]
    alarmed: Array  # bool[]  whether one fired and `shift` was not asked yet
    shift: shift.Rows  # of the numeric columns and of what was said


def named(state: State) -> list[tuple[str, Any]]:
    """List the arrays of a state, by names that stay: a checkpoint goes by them.

    Those of our own members are named as if they were fields of the state.
    """
    found = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        name = jax.tree_util.keystr(path).removeprefix(".")
        if path[0] in (_MEMBERS, _FURTHER):
            key, rest = path[1].key, jax.tree_util.keystr(path[2:])
            own = path[0] == _MEMBERS and key in members.OWN
            name = f"{key}{rest}" if own else f"{path[0].name}.{key}{rest}"
        found.append((name, leaf))
    return found


class Parts(NamedTuple):
    """Hold the pure functions that a spec is made of."""

    spec: Spec
    network: Network
    metrics: Fold[Any, Any, None]
    further: dict[str, Fold[Any, Any, None]]  # metrics from elsewhere
    detectors: tuple[Fold[Any, Observed, Alarm], ...]


def weights(spec: Spec, chunk: Chunk) -> Array | None:
    """Return how much the labels of a chunk teach, f32[k]; None where rows do not say."""
    if not spec.weighted:
        return None
    return (chunk.due_weight if spec.late else chunk.weight)[:, 0]


def make_parts(spec: Spec) -> Parts:
    """Make the parts of a learner."""
    return Parts(
        spec=spec,
        network=make_network(spec),
        metrics=make_classification_metrics(spec.classes, spec.window)
        if spec.classes
        else make_regression_metrics(spec.window),
        further={name: METRICS[name].make(spec) for name in spec.metrics},
        detectors=tuple(drift.DETECTORS[name](spec) for name in spec.detectors),
    )


def init(parts: Parts) -> State:
    """Make the state of a learner that has met nothing."""
    spec = parts.spec
    fresh = pool.contender(spec, parts.network)
    return State(
        begun=jnp.bool_(False),
        step=counter.zero(),
        met=jnp.int32(spec.classes - spec.open_classes),
        champion=fresh,
        refused=counter.zero(spec.networks),
        active=tuple(jnp.ones((spec.networks, width)) for width in parts.network.widths),
        lost=jnp.zeros(len(pool.resettable(spec)), bool),
        resets=counter.zero(len(pool.resettable(spec))),
        revived=counter.zero(),
        ladder=ladder.init(spec, fresh),
        members=members.init(spec),
        table=embed.init(spec),
        inputs=scale.init(spec.numeric),
        pixels=scale.init(spec.image[2]),
        target=target.init(),
        memory=memory.init(spec),
        waiting=waiting.init(spec),
        late=late_scores.init(spec),
        chunk=empty_chunk(spec),
        counts=decision.init(spec),
        interval=jnp.full(2, jnp.nan),
        zero=jnp.float32(0.0),
        metrics=parts.metrics.init(),
        further={name: fold.init() for name, fold in parts.further.items()},
        detectors=tuple(fold.init() for fold in parts.detectors),
        alarmed=jnp.bool_(False),
        shift=shift.init(spec.numeric + 1),
    )


def empty_chunk(spec: Spec) -> Chunk:
    """Return an open chunk that holds no row yet."""
    k = spec.chunk
    due = k if spec.late else 0
    return Chunk(
        filled=jnp.int32(0),
        image=jnp.zeros((k, *spec.image), jnp.uint8),
        numeric=jnp.full((k, spec.numeric), jnp.nan),
        inputs=jnp.zeros((k, spec.inputs)),
        ids=jnp.zeros((k, spec.ids), jnp.uint32),
        label=jnp.full(k, jnp.nan),
        said=jnp.zeros(k),
        past=jnp.full((k, spec.past_labels), jnp.nan),
        weight=jnp.ones((k, int(spec.weighted))),
        slot=jnp.zeros(k, jnp.int32),
        turn=jnp.full(k, -1, jnp.int32),
        due_inputs=jnp.zeros((due, spec.inputs)),
        due_ids=jnp.zeros((due, spec.ids), jnp.uint32),
        due_past=jnp.full((due, spec.past_labels), jnp.nan),
        due_weight=jnp.ones((due, int(spec.weighted))),
    )

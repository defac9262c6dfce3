"""The learner: one compiled loop that predicts each row, scores it, and learns from it.

Rows are grouped into chunks of `spec.chunk` consecutive events. The networks' lower layers and the
table of hashed ids are those from before a chunk for all of its rows, and learn when it is full;
all else learns from each row before the next one is predicted. With a horizon, a label belongs to
an earlier row, so without chunks it is even learned before the row that brought it is predicted.
Chunk boundaries belong to the count of events, never to micro-batches: an open chunk is carried
in the state, so state and predictions are the same bits however a stream is cut into batches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from headrace.model import counter, ladder, members, plasticity, pool, waiting
from headrace.model.batch import Batch, Outcome, empty_batch
from headrace.model.inputs import load_row
from headrace.model.late_labels import answer_event, learn_label
from headrace.model.members import median
from headrace.model.open_chunk import answers_late, close, predict, train
from headrace.model.optimizer import each, scheduled
from headrace.model.pool import Contender
from headrace.model.scoring import (
    STEP_HALVES,
    line_width,
    name_moved,
    note,
    read_lines,
    score,
    tell_at_once,
    tell_later,
    tell_lost,
)
from headrace.model.spec import Spec
from headrace.model.state import Parts, State, init, make_parts
from headrace.model.xla import order_after

MOST_TURNS = 1 << 16  # of fresh units, which come again then
TABLES = {"memory", "table", "waiting"}  # parts of a state that grow with what is remembered
KEPT = 8  # learners: a service needs one or two, and each holds some 50 MB of programs


class Learner(NamedTuple):
    """Hold the pure functions of one spec, and with them their compiled programs.

    `run(state, batch, count)` donates `state`, compiles once per capacity, and returns the new
    state with an Outcome of B lines, of which the first `count` mean something.
    `ask(state, batch, count)` gives what `run` would publish of each row if it came next, by the
    same bits, f32[B, P], and the steps so far, u32[B, 2]; it compiles when it is called first.
    `copy` copies a state, or parts of one, on its device.
    """

    spec: Spec
    init: Callable[[], State]
    run: Callable[[State, Batch, Any], tuple[State, Outcome]]
    ask: Callable[[State, Batch, Any], tuple[Array, Array]]
    copy: Callable[[Any], Any]


@lru_cache(KEPT)
def make_learner(spec: Spec) -> Learner:
    """Make the learner of a spec; the same one for equal specs, so each is traced once.

    Of the KEPT last ones, that is; XLA lets go of the programs of one that nobody holds any more.
    """
    parts, k = make_parts(spec), spec.chunk

    def repeat(count: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        """Loop over the new rows of a chunk; a chunk of one needs no loop."""
        return body(0, carry) if k == 1 else lax.fori_loop(0, count, body, carry)

    def take(state: State, lines: Array, batch: Batch, row: Array, new: Any) -> tuple[State, Array]:
        """Take new rows of one chunk; what is said of them goes into their lines."""
        opened = 0 if k == 1 else state.chunk.filled
        state = repeat(new, lambda j, s: load_row(spec, s, batch, row + j, opened + j), state)
        state = state._replace(chunk=state.chunk._replace(filled=jnp.int32(opened + new)))
        outputs, trained = train(parts, state)
        middle = median.middle(state.members["middle"])
        if answers_late(spec):
            state, told = close(parts, state, trained)
            outputs = predict(parts, state)

        def tell(j: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
            state, lines = carry
            state, line = score(parts, state, opened + j, outputs[opened + j], middle)
            return state, lines.at[row + j].set(line, mode="promise_in_bounds")

        state, lines = repeat(new, tell, (state, lines))
        if not answers_late(spec):
            state, told = close(parts, state, trained)
        return state, tell_at_once(spec, lines, row + new - 1, told)

    @jax.jit(donate_argnums=0)
    def loop(state: State, batch: Batch, count: Array, fresh: Contender) -> tuple[State, Outcome]:
        capacity = batch.label.shape[0]

        def segment(carry: tuple[State, Array, Array, Array]) -> tuple[State, Array, Array, Array]:
            state, lines, _, row = carry
            state = note(spec, state)
            new = 1 if k == 1 else jnp.minimum(k - state.chunk.filled, count - row)
            state, lines = take(state, lines, batch, row, new)
            return state, lines, row, row + new

        def step(carry: tuple[State, Array, Array, Array]) -> tuple[State, Array, Array, Array]:
            """Take an event or a label: in loops, since branches would copy the state."""
            state, lines, _, row = carry
            is_label = jnp.minimum(batch.line[row, 0], 1)

            def taking(one_of: Callable[..., tuple[State, Array]]) -> Callable[..., Any]:
                def one(_: Any, carry: tuple[State, Array]) -> tuple[State, Array]:
                    state, line = one_of(parts, carry[0], batch, row)
                    return state, carry[1].at[row].set(line, mode="promise_in_bounds")

                return one

            carried = lax.fori_loop(0, 1 - is_label, taking(answer_event), (state, lines))
            carried = lax.fori_loop(0, is_label, taking(learn_label), carried)
            return *carried, row, row + 1

        def stretch(carry: tuple[State, Array, Array, Array]) -> tuple[State, Array, Array, Array]:
            """Go on to the end, or to a row that calls for what the inner loop leaves to others.

            The inner loop is one compiled function. It must be small, and nothing in it may sort.
            """
            state, lines, first, row = lax.while_loop(
                lambda c: (c[3] < count) & ~calls(spec, c[0]),
                step if spec.waiting else segment,
                carry,
            )
            state, lines = name_moved(spec, state, lines, first, row)
            state, lines = run_trials(parts, state, lines, row)
            state, lines = begin_anew(spec, state, lines, row, fresh)
            state = revive(parts, state, fresh)
            return state, lines, row, row

        blank = jnp.zeros((capacity, line_width(spec)))
        carry = (state, blank, jnp.int32(0), jnp.int32(0))
        state, lines, _, _ = lax.while_loop(lambda c: c[3] < count, stretch, carry)
        unloaded = waiting.pack(spec, state.waiting, batch.unloaded)
        return state, read_lines(spec, lines, unloaded)

    @jax.jit
    def ask(state: State, batch: Batch, count: Array) -> tuple[Array, Array]:
        """Take each row the whole way from the same state, so that nothing is rounded otherwise.

        XLA drops what nobody wants, puts the rest together in another way, and that moves last
        bits: so what a row would leave behind, but for tables, is computed and waited for.
        """

        def say(row: Array, carry: tuple[Array, Any]) -> tuple[Array, Any]:
            lines = carry[0]
            if spec.waiting:
                after, line = answer_event(parts, state, batch, row)
                lines = lines.at[row].set(line, mode="promise_in_bounds")
            else:
                new = 1 if k == 1 else jnp.minimum(1, count - row)
                after, lines = take(note(spec, state), lines, batch, row, new)
            left = after._asdict()
            return lines, {name: left[name] for name in left.keys() - TABLES}

        size, width = batch.label.shape[0], line_width(spec)
        blank = jnp.zeros((size + 1, width))
        left = jax.eval_shape(lambda: say(jnp.int32(0), (blank, ())))[1]
        left = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), left)
        lines, left = lax.fori_loop(0, count, say, (blank, left))
        first = jnp.int32(0)
        for leaf in jax.tree.leaves(left):
            first = order_after(leaf, first) if leaf.size else first
        lines = lax.dynamic_slice(lines, (first, jnp.int32(0)), (size, width))
        published, step, _ = jnp.split(lines, [spec.published, spec.published + STEP_HALVES], 1)
        return published, lax.bitcast_convert_type(step, jnp.uint32)

    def first() -> State:
        """Make the first state, of the types that later ones have: else XLA compiles twice."""
        state: State = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), init(parts))
        return state

    def copy(state: Any) -> Any:
        return jax.tree.map(jnp.copy, state)

    # it runs but a few times: XLA would take seconds to make it no faster
    begin = jax.jit(first, compiler_options={"xla_backend_optimization_level": 1})
    fresh = lru_cache(1)(lambda: begin().champion)

    def run(state: State, batch: Batch, count: Any) -> tuple[State, Outcome]:
        after: tuple[State, Outcome] = loop(state, batch, count, fresh())
        return after

    return Learner(spec, begin, run, ask, jax.jit(copy))


def warm_up(learner: Learner, capacity: int) -> State:
    """Compile for `capacity` and give a fresh state: nothing is left to compile on live events."""
    state, _ = learner.run(learner.init(), empty_batch(learner.spec, capacity), np.int32(0))
    jax.block_until_ready(state)  # type: ignore[no-untyped-call]
    return learner.init()


def run_trials(parts: Parts, state: State, lines: Array, row: Array) -> tuple[State, Array]:
    """Go up the ladder if it is time; what happened is told with the row before `row`."""
    spec = parts.spec
    if not ladder.challenges(spec):
        return state, lines
    rates = scheduled(spec.schedule, counter.clipped(state.step)) * pool.rates(spec)
    waits = ladder.waits(spec, state.ladder)
    champion, rungs, told = lax.cond(
        waits,
        lambda champion, rungs: ladder.run_trials(spec, parts.network, champion, rungs, rates),
        lambda champion, rungs: (champion, rungs, jnp.zeros(ladder.LATER)),
        state.champion,
        state.ladder,
    )
    lines = tell_later(spec, lines, jnp.where(waits, row - 1, len(lines)), told)
    return state._replace(champion=champion, ladder=rungs), lines


def calls(spec: Spec, state: State) -> Array:
    """Return whether a row calls for what the inner loop leaves to others, bool[]."""
    worn = plasticity.count(plasticity.worn(state.active))
    return state.alarmed | ladder.waits(spec, state.ladder) | state.lost.any() | (worn > 0)


def begin_anew(
    spec: Spec, state: State, lines: Array, row: Array, fresh: Contender
) -> tuple[State, Array]:
    """Put fresh ones in place of members that are lost; it is told with the row before `row`."""
    lost, networks = state.lost, spec.networks
    resetting = members.resetting(spec)

    def anew(_: Any, carry: Any) -> Any:
        champion, known = carry
        gone = lost[:networks]

        def chosen(gone: Array, old: Any, new: Any) -> Any:
            return jax.tree.map(lambda o, n: jnp.where(each(gone, o), n, o), old, new)

        params, optimizer = chosen(
            gone, (champion.params, champion.optimizer), (fresh.params, fresh.optimizer)
        )
        mean = chosen(gone[pool.averaged(spec)], champion.mean.params, fresh.mean.params)
        mean = champion.mean._replace(params=mean)
        known = {
            name: _choose(lost[at], member.init(spec), known[name])
            for at, (name, member) in enumerate(resetting.items(), networks)
        }
        return champion._replace(params=params, optimizer=optimizer, mean=mean), known

    known = {name: state.members[name] for name in resetting}
    champion, known = lax.fori_loop(0, lost.any().astype(jnp.int32), anew, (state.champion, known))
    lines = tell_lost(spec, lines, jnp.where(lost.any(), row - 1, len(lines)), lost)
    state = state._replace(
        champion=champion,
        active=plasticity.put(state.active, (lost[:networks, None],) * len(state.active)),
        members=state.members | known,
        lost=jnp.zeros_like(lost),
        resets=counter.add(state.resets, lost),
    )
    return state, lines


def revive(parts: Parts, state: State, fresh: Contender) -> State:
    """Begin hidden units anew that are worn."""
    worn, turn = plasticity.worn(state.active), (state.revived[0] % MOST_TURNS).astype(jnp.int32)

    def anew(_: Any, champion: Contender) -> Contender:
        return plasticity.revive(champion, fresh, worn, turn)

    if not worn:
        return state
    count = plasticity.count(worn)
    return state._replace(
        champion=lax.fori_loop(0, jnp.minimum(count, 1), anew, state.champion),
        active=plasticity.put(state.active, worn),
        revived=counter.add(state.revived, count),
    )


def _choose(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda one, other: jnp.where(condition, one, other), yes, no)

"""What is done about drift, rung by rung, each with its evidence.

* **relabel**: two classes have changed places where exchanging them would have explained the last
  labels far better. That is a likelihood ratio in Page's cumulative sum (Page 1954; Lorden 1971,
  "Procedures for reacting to a change in distribution": with a threshold of h false alarms are at
  least exp(h) events apart). Probabilities are believed within the share of labels that were missed
  lately, and MARGIN: where half are missed, they say nothing. The learner then goes on with the two
  exchanged on the way in and on the way out, and knows all that it knew.
* **boost**: a detector that warns of a risen error, or an alarm at one, raises the learning rates.
* **challenger**: an alarm also begins a trial, in which fresh networks learn beside the champion.
* **restore**: the champions of earlier alarms are in the trial too, as they were: what was learned
  for a world that comes back is not lost.
* **rollback**: whoever had to leave learns on beside the new champion for as long as a trial takes,
  and comes back if it was the better one after all.

A rival is promoted when it is better beyond doubt: when a confidence sequence for the mean gain
over the champion, which stays valid however often it is looked at (`confidence.bounded`), is above
zero. For one rival that happens by mistake with a chance of 1 in 40.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from headrace.model import chunk_training, confidence, mixture, pool
from headrace.model.chunk_training import LabelledChunk
from headrace.model.confidence import Gains
from headrace.model.drift import Alarm
from headrace.model.networks import Network
from headrace.model.pool import Contender
from headrace.model.spec import Rival, Spec, Step
from headrace.model.xla import pack

BOOST = 2.0  # times the learning rates
BOOST_STEPS = 500  # until they are back at their own size, evenly
LEARNING = 200  # labels that a fresh challenger learns from before it is compared
PATIENCE = 1000  # labels until a trial or a probation is over
LOOK = 32  # labels from one look at the gains to the next
MOST_CLASSES = 64  # that are watched for exchanges: the sums take the square of it
EXCHANGED = 16.0  # logarithm of a likelihood ratio: 8,000,000 events between false alarms
MARGIN = 0.05  # above the share of labels that were missed
LATELY = 500.0  # labels that this share fades over

CALM, TRIAL, PROBATION = 0, 1, 2  # phases
WARNED, ALARMED = 1, 2  # what detectors did
RIVALS: tuple[Rival, ...] = ("fresh", "earlier", "earlier", "earlier")  # in a trial
SHELF = RIVALS.count("earlier")
BESIDE = 0  # the rival that learns: fresh in a trial, the champion before in a probation
SEED = len(RIVALS)  # networks that have learned nothing
STEPS: tuple[Step, ...] = (
    "relabel",
    "boost",
    "challenge",
    "promotion",
    "rollback",
    "dismissal",
)
PROVED: tuple[Step, ...] = ("promotion", "rollback", "dismissal")
AT_ONCE = 4  # told with each chunk: sum of 2^place of the steps, two classes, a statistic
LATER = (
    6  # told by `run_trials`: the same sum, a rival, its labels, mean gain, and the bounds of that
)


class LadderState(NamedTuple):
    """Hold what is under way."""

    order: Array  # i32[C]  what the learner takes each class for
    exchanges: Array  # f32[C, C]  cumulative sums of two classes having changed places
    missed: Array  # f32[]  share of the last labels
    raised: Array  # i32[]  what detectors did since the last step of the optimizer
    boosted: Array  # i32[]  steps of higher rates to come
    phase: Array  # i32[]
    age: Array  # i32[]  labels since the phase began
    shelved: Array  # i32[]  earlier champions met, less multiples of SHELF beyond 3 SHELF
    called: Array  # bool[]  whether there was an alarm that `run_trials` does not know of
    heard: Array  # i32[]  chunks that wait for the rivals
    chunks: LabelledChunk  # with a leading axis
    rivals: Array  # u32[R, P]  `pool.bits` of RIVALS and SEED; P is 0 where nobody is challenged
    gains: Gains  # of each rival over the champion, f32[R]


def init(spec: Spec, fresh: Contender) -> LadderState:
    """Start calm."""
    challenged = challenges(spec)
    watched = spec.classes if relabels(spec) else 0
    held = chunk_training.no_chunk(spec)
    return LadderState(
        order=jnp.arange(watched),
        exchanges=jnp.zeros((watched, watched)),
        missed=jnp.float32(0.5),
        raised=jnp.int32(0),
        boosted=jnp.int32(0),
        phase=jnp.int32(CALM),
        age=jnp.int32(0),
        shelved=jnp.int32(0),
        called=jnp.bool_(False),
        heard=jnp.int32(0),
        chunks=_repeat(held, together(spec) if challenged else 0),
        rivals=_repeat(pool.bits(fresh) if challenged else jnp.zeros(0, jnp.uint32), SEED + 1),
        gains=Gains(*(jnp.zeros(len(RIVALS)) for _ in Gains._fields)),
    )


def together(spec: Spec) -> int:
    """Count the chunks after which rivals are compared."""
    return max(LOOK // spec.chunk, 1)


def relabels(spec: Spec) -> bool:
    """Return whether classes can be exchanged."""
    return "relabel" in spec.ladder and 0 < spec.classes <= MOST_CLASSES


def challenges(spec: Spec) -> bool:
    """Return whether there can be a trial."""
    return "challenger" in spec.ladder and bool(spec.detectors)


def to_internal_labels(spec: Spec, state: LadderState, labels: Array) -> Array:
    """Turn labels of the world, NaN = none, into what the learner takes them for."""
    if not relabels(spec):
        return labels
    known = ~jnp.isnan(labels)
    places = jnp.where(known, labels, 0.0).astype(jnp.int32)
    return jnp.where(known, state.order[places].astype(jnp.float32), jnp.nan)


def to_external_order(spec: Spec, state: LadderState, probabilities: Array) -> Array:
    """Put probabilities f32[C] into the order of the world's classes."""
    return probabilities[state.order] if relabels(spec) else probabilities


def on_alarms(state: LadderState, alarms: list[Alarm]) -> LadderState:
    """Hear what detectors say of a row; an error that fell is no trouble."""
    raised = state.raised
    for alarm in alarms:
        rose = alarm.after > alarm.before
        raised = jnp.maximum(raised, jnp.where(alarm.warning & rose, WARNED, 0))
        raised = jnp.maximum(raised, jnp.where(alarm.fired & rose, ALARMED, 0))
    return state._replace(raised=raised)


def boost(state: LadderState) -> Array:
    """Return by how much learning rates are multiplied now, f32[] in [1, BOOST]."""
    return 1.0 + (BOOST - 1.0) * state.boosted.astype(jnp.float32) / BOOST_STEPS


def on_chunk(
    spec: Spec, state: LadderState, heard: LabelledChunk, slow: Array, apply: Array
) -> tuple[LadderState, Array]:
    """Do what has to be done at once about a chunk that may `apply`; keep it for the rivals.

    `slow` is what the mixture's slow pace said about its rows, f32[K, O].

    Returns:
        the ladder, and what happened, f32[AT_ONCE], zeros if nothing did.
    """
    exchange, steps = jnp.zeros(3), jnp.float32(0.0)
    if relabels(spec):
        state, exchange = _exchange(spec, state, heard.label, slow, apply)
        steps = 1.0 * (exchange[2] > 0)
    if "boost" in spec.ladder and spec.detectors:
        starts = apply & (state.raised >= WARNED)
        steps = steps + 2.0 * (starts & (state.boosted == 0))
        left = jnp.maximum(state.boosted - apply, 0)
        state = state._replace(boosted=jnp.where(starts, BOOST_STEPS, left))
    if challenges(spec):
        hears = apply & (state.phase != CALM)

        def keep(_: Any, chunks: LabelledChunk) -> LabelledChunk:
            kept: LabelledChunk = _put(chunks, state.heard, heard)
            return kept

        calls = apply & (state.raised == ALARMED) & (state.phase != TRIAL)
        state = state._replace(
            called=state.called | calls,
            heard=state.heard + hears,
            chunks=lax.fori_loop(0, hears.astype(jnp.int32), keep, state.chunks),
        )
    state = state._replace(raised=jnp.where(apply, 0, state.raised))
    return state, jnp.append(steps, exchange)


def waits(spec: Spec, state: LadderState) -> Array:
    """Return whether `run_trials` has something to do, bool[]."""
    return state.called | (state.heard == together(spec))


def run_trials(
    spec: Spec,
    network: Network,
    champion: Contender,
    state: LadderState,
    rates: Array,
) -> tuple[Contender, LadderState, Array]:
    """Let the rivals have what was heard, judge them, begin a trial: what can wait for a moment.

    Returns:
        the champion from now on, the ladder, and what happened, f32[LATER], zeros if nothing did.
    """
    state = _compare(spec, network, champion, state, rates)
    champion, state, told = _judge(spec, champion, state)
    state, begins = _challenge(champion, state)
    return champion, state, told.at[0].add(4.0 * begins)


def _exchange(
    spec: Spec, state: LadderState, labels: Array, slow: Array, apply: Array
) -> tuple[LadderState, Array]:
    """Exchange the two classes, if any, that have changed places.

    The witness is the mixture at the slow pace: trust and fast weights leave the wrong at once.
    """
    known = ~jnp.isnan(labels)
    label = jnp.where(known, labels, 0.0).astype(jnp.int32)
    hot = (label[:, None] == jnp.arange(spec.classes)) & known[:, None]
    doubt = jnp.minimum(state.missed + MARGIN, 0.5)
    likely = jnp.log(jnp.clip(jax.nn.softmax(slow), doubt, 1.0 - doubt))
    ahead = jnp.where(known[:, None], likely - (likely * hot).sum(1, keepdims=True), 0.0)
    misses = known & (jnp.argmax(slow, 1) != label)
    share = jnp.where(apply, known.sum() / LATELY, 0.0)
    missed = misses.sum() / jnp.maximum(known.sum(), 1) - state.missed
    gained = jnp.einsum("ka,kb->ab", hot.astype(jnp.float32), ahead)
    sums = jnp.maximum(state.exchanges + jnp.where(apply, gained + gained.T, 0.0), 0.0)
    rows = sums.max(1)
    one = jnp.argmax(rows)
    other, statistic = jnp.argmax(sums[one]), rows[one]
    pairs = spec.classes * (spec.classes - 1) / 2  # which together cry wolf no more often
    found = statistic >= EXCHANGED + math.log(pairs)
    order = state.order
    swapped = jnp.where(order == one, other, jnp.where(order == other, one, order))
    told = pack(
        jnp.argmax(order == one).astype(jnp.float32),
        jnp.argmax(order == other).astype(jnp.float32),
        statistic,
    )
    state = state._replace(
        order=jnp.where(found, swapped, order).astype(order.dtype),
        exchanges=jnp.where(found, 0.0, sums),
        missed=jnp.where(found, state.missed, state.missed + share * missed),
    )
    return state, jnp.where(found, told, 0.0)


def _compare(
    spec: Spec, network: Network, champion: Contender, state: LadderState, rates: Array
) -> LadderState:
    """Let the rivals say what they think of the rows heard; let the one that learns learn."""
    trial = state.phase == TRIAL

    def compare(which: Array, carry: tuple[Array, Gains]) -> tuple[Array, Gains]:
        rivals, gains = carry
        learns = which == BESIDE

        def one(at: Array, carry: tuple[Contender, Array, Array]) -> tuple[Contender, Array, Array]:
            rival, sums, age = carry
            question, label, said, weight = jax.tree.map(lambda leaf: leaf[at], state.chunks)
            learned = chunk_training.train_chunk(
                spec, network, rival, question, label, rates, learns=learns, weight=weight
            )
            learnable = ~jnp.isnan(label)
            goal = jnp.where(learnable, label, 0.0)
            counts = learnable & (~learns | ~trial | (age >= LEARNING))
            ahead = errors(spec, said, goal) - errors(spec, learned.said, goal)
            ahead = jnp.where(counts, ahead, 0.0)
            terms = (counts, ahead, ahead**2, jnp.abs(ahead) ** 3)
            sums = sums + pack(*(jnp.sum(each, dtype=jnp.float32) for each in terms))
            return learned.after, sums, age + learnable.sum()

        rival = pool.read_bits(rivals[which], champion)
        before = jnp.stack([values[which] for values in gains])
        rival, sums, _ = lax.fori_loop(0, state.heard, one, (rival, before, state.age))
        return _put(rivals, which, pool.bits(rival)), _put(gains, which, Gains(*sums))

    # the last one shelved is the champion when the trial began
    earlier = jnp.minimum(state.shelved - 1, SHELF) if "restore" in spec.ladder else 0
    count = 1 + jnp.where(trial, earlier, 0)
    rivals, gains = lax.fori_loop(0, count, compare, (state.rivals, state.gains))
    there = jnp.arange(len(state.chunks.label)) < state.heard
    labels = there[:, None] & ~jnp.isnan(state.chunks.label)
    return state._replace(
        rivals=rivals, gains=gains, age=state.age + labels.sum(), heard=jnp.int32(0)
    )


def _judge(
    spec: Spec, champion: Contender, state: LadderState
) -> tuple[Contender, LadderState, Array]:
    """Promote the best of those that are better beyond doubt; end what has gone on long enough."""
    met, busy = state.gains.events > 0, state.phase != CALM
    low, high = confidence.bounded(state.gains)
    low, high = jnp.where(met, low, -1.0), jnp.where(met, high, 1.0)
    chosen = jnp.argmax(low)
    wins = busy & (low[chosen] > 0.0)
    waiting = ~met & (jnp.arange(len(RIVALS)) == BESIDE)
    hopeless = ((high < 0.0) | (~met & ~waiting)).all()
    over = busy & ~wins & (hopeless | (state.age >= LEARNING + PATIENCE))
    promoted, back = wins & (state.phase == TRIAL), wins & (state.phase == PROBATION)
    now = pool.bits(champion)
    best = jnp.where(wins, state.rivals[chosen], now)
    beside = jnp.where(wins, now, state.rivals[BESIDE])
    after = PROBATION if "rollback" in spec.ladder else CALM
    steps = 8.0 * promoted + 16.0 * back + 32.0 * (over & (state.phase == TRIAL))
    events = state.gains.events[chosen]
    mean = state.gains.total[chosen] / jnp.maximum(events, 1.0)
    told = pack(steps, chosen.astype(jnp.float32), events, mean, low[chosen], high[chosen])
    ended = wins | over
    state = state._replace(
        phase=jnp.where(promoted, after, jnp.where(back | over, CALM, state.phase)),
        age=jnp.where(ended, 0, state.age),
        rivals=_put(state.rivals, BESIDE, beside),
        gains=jax.tree.map(lambda gain: jnp.where(ended, 0.0, gain), state.gains),
    )
    return pool.read_bits(best, champion), state, jnp.where(steps > 0, told, 0.0)


def _challenge(champion: Contender, state: LadderState) -> tuple[LadderState, Array]:
    """Begin a trial at an alarm, and keep the champion as it is now for later ones.

    Whom it trusts now is not kept: it was found while the world moved away.
    """
    begins = state.called & (state.phase != TRIAL)
    kept = pool.bits(champion._replace(mixture=mixture.unbiased(champion.mixture)))
    begun = _put(_put(state.rivals, BESIDE, state.rivals[SEED]), 1 + state.shelved % SHELF, kept)
    state = state._replace(
        rivals=jnp.where(begins, begun, state.rivals),
        phase=jnp.where(begins, TRIAL, state.phase),
        age=jnp.where(begins, 0, state.age),
        shelved=jnp.where(state.shelved + begins < 3 * SHELF, state.shelved + begins, 2 * SHELF),
        gains=jax.tree.map(lambda gain: jnp.where(begins, 0.0, gain), state.gains),
        called=jnp.bool_(False),
    )
    return state, begins


def _repeat(tree: Any, times: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.repeat(leaf[None], times, 0), tree)


def _put(tree: Any, place: Any, one: Any) -> Any:
    return jax.tree.map(lambda leaf, new: leaf.at[place].set(new), tree, one)


def errors(spec: Spec, mixed: Array, goal: Array) -> Array:
    """Measure what was said, f32[K, O], between 0 and 1: a wrong class is 1, a miss m m / (1 + m).

    Misses are in standard deviations of what the anchor leaves over.
    """
    if spec.classes:
        return (jnp.argmax(mixed, 1) != goal).astype(jnp.float32)
    value = jnp.sort(mixed, 1)[:, 1] if spec.objective == "pinball" else mixed[:, 0]
    miss = jnp.abs(value - goal)
    return miss / (1.0 + miss)

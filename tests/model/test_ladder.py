from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.model import ladder, pool
from headrace.model.batch import empty_batch
from headrace.model.learner import make_learner, warm_up
from headrace.model.spec import Rung, Spec

# Adagrad's steps shrink for ever: what it has learned for long, it hardly unlearns. And with one
# column there are no pairs, which would.
STUCK = Spec(
    numeric=1,
    classes=2,
    label_lags=0,
    hidden=(8,),
    optimizer="adagrad",
    rates=(0.05,),
    detectors=("adwin",),
    ladder=("boost", "challenger", "restore", "rollback"),
)
N = 4000


def world(concepts: str, n: int = N, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw rows whose label depends on the sign of a column, or on its size."""
    rng = np.random.default_rng(seed)
    numeric = rng.normal(size=(n * len(concepts), 1)).astype(np.float32)
    which = np.repeat([concept == "b" for concept in concepts], n)
    label = np.where(which, abs(numeric[:, 0]) > 1.0, numeric[:, 0] > 0.0)
    return numeric, (label ^ (rng.random(len(label)) < 0.05)).astype(np.float32)


def run(
    spec: Spec,
    rows: tuple[NDArray[Any], NDArray[Any]],
    cuts: tuple[int, ...] = (),
    state: Any = None,
) -> tuple[Any, NDArray[Any], NDArray[Any]]:
    """Return the state, whether each prediction was right, and what the ladder told."""
    learner, (numeric, label) = make_learner(spec), rows
    borders = [0, *cuts, len(label)]
    capacity = max(b - a for a, b in pairwise(borders))
    fresh = warm_up(learner, capacity)
    state, outcomes = state or fresh, []
    for start, end in pairwise(borders):
        batch = empty_batch(spec, capacity)
        batch.numeric[: end - start], batch.label[: end - start] = (
            numeric[start:end],
            label[start:end],
        )
        state, outcome = learner.run(state, batch, np.int32(end - start))
        outcomes.append(jax.tree.map(lambda leaf, n=end - start: np.asarray(leaf)[:n], outcome))
    published, *told = (
        np.concatenate([getattr(outcome, name) for outcome in outcomes])
        for name in ("published", "rungs", "moved", "alarms")
    )
    lines = np.concatenate([part.reshape(len(label), -1) for part in told], axis=1)
    return jax.device_get(state), published.argmax(1) == label, lines


def steps(told: NDArray[Any]) -> list[tuple[int, str]]:
    """List where the ladder did what."""
    bits = (told[:, 0] + told[:, ladder.AT_ONCE]).astype(int)
    return [
        (int(at), name)
        for at in np.flatnonzero(bits)
        for place, name in enumerate(ladder.STEPS)
        if bits[at] >> place & 1
    ]


def proof(told: NDArray[Any], at: int) -> tuple[str, list[float]]:
    """Return the rival, and its labels, mean gain and the bounds of that."""
    rival, *numbers = told[at, ladder.AT_ONCE + 1 : ladder.AT_ONCE + ladder.LATER].tolist()
    return ladder.RIVALS[int(rival)], numbers


def test_a_challenger_is_promoted_with_proof_where_the_champion_is_stuck() -> None:
    rows = world("ab")
    _, right, told = run(STUCK, rows)
    _, alone, _ = run(replace(STUCK, ladder=("boost",)), rows)
    done = [(at, name) for at, name in steps(told) if at >= N]
    assert [name for _, name in done][:3] == ["boost", "challenge", "promotion"]
    at = done[2][0]
    rival, (events, gain, low, high) = proof(told, at)
    assert rival == "fresh"
    assert 0 < low < gain < high <= 1
    assert events <= at - done[1][0] - ladder.LEARNING
    later = slice(at + 1, at + 1001)
    assert right[later].mean() > alone[later].mean() + 0.01


def test_who_was_champion_comes_back_with_the_world_it_knew() -> None:
    _, _, told = run(STUCK, world("aba"))
    back = [at for at, name in steps(told) if name == "promotion" and at >= 2 * N]
    assert proof(told, back[0])[0] == "earlier"
    assert back[0] < 2 * N + 300
    _, _, told = run(replace(STUCK, ladder=("boost", "challenger")), world("aba"))
    who = {proof(told, at)[0] for at, name in steps(told) if name == "promotion"}
    assert who <= {"fresh"}


def test_a_promotion_that_was_wrong_is_rolled_back() -> None:
    rows = world("a")
    quiet = replace(STUCK, detectors=("page_hinkley",), page_hinkley_threshold=1e9)
    learned, _, _ = run(quiet, rows)
    fresh = jax.device_get(make_learner(quiet).init())

    before = np.asarray(pool.bits(learned.champion))
    probation = learned.ladder._replace(
        phase=np.int32(ladder.PROBATION),
        rivals=np.concatenate([before[None], learned.ladder.rivals[1:]]),
    )
    wrong = learned._replace(champion=fresh.champion, ladder=probation)
    slow = replace(quiet, rates=(1e-6,))
    state, _, told = run(slow, rows, state=jax.device_put(wrong))
    (rolled,) = steps(told)
    assert rolled[1] == "rollback"
    events, gain, low, _ = proof(told, rolled[0])[1]
    assert events == rolled[0] + 1
    assert 0 < low < gain
    assert state.ladder.phase == ladder.CALM


@pytest.mark.parametrize("chunk", [1, 8])
def test_micro_batches_never_change_what_the_ladder_does(chunk: int) -> None:
    spec, rows = replace(STUCK, chunk=chunk), world("aba")
    whole, right, told = run(spec, rows)
    assert "promotion" in {name for _, name in steps(told)}
    cuts = np.sort(np.random.default_rng(1).choice(np.arange(1, 3 * N), 80, replace=False))
    state, cut_right, cut_told = run(spec, rows, tuple(int(cut) for cut in cuts))
    assert cut_told.tobytes() == told.tobytes()
    assert cut_right.tobytes() == right.tobytes()
    same = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), state, whole)
    assert all(jax.tree.leaves(same))


def test_nobody_is_promoted_by_chance() -> None:
    """On a world that stays as it is, with a detector that cries wolf all the time."""
    spec = replace(
        STUCK,
        optimizer="adam",
        rates=(0.005,),
        detectors=("page_hinkley",),
        page_hinkley_threshold=3.0,
    )
    done: list[str] = []
    for seed in range(5):
        _, _, told = run(spec, world("aaa", seed=seed))
        done += [name for _, name in steps(told)]
    assert done.count("challenge") >= 10
    assert "promotion" not in done


@pytest.mark.parametrize("rung", ["boost", "challenger"])
def test_rungs_can_be_left_out(rung: Rung) -> None:
    step: dict[Rung, str] = {"boost": "boost", "challenger": "challenge"}
    kept = tuple(name for name in step if name != rung)
    _, _, told = run(replace(STUCK, ladder=kept), world("ab", 2000))
    done = {name for _, name in steps(told)}
    assert step[rung] not in done
    assert step[kept[0]] in done


@pytest.mark.parametrize("chunk", [1, 16])
@pytest.mark.parametrize("classes", [2, 4])
def test_classes_that_change_places_are_exchanged_at_once(classes: int, chunk: int) -> None:
    rng = np.random.default_rng(0)
    numeric = rng.normal(size=(8000, 1)).astype(np.float32)
    label = np.digitize(numeric[:, 0], [-0.7, 0.0, 0.7][: classes - 1]).astype(np.float32)
    other = numeric[:, 0] + rng.normal(0, 0.05, len(label)) > 0
    label = label if classes > 2 else other.astype(np.float32)
    after = label.copy()
    after[4000:] = np.choose(label[4000:].astype(int), [1, 0, 2, 3][:classes])
    spec = replace(
        STUCK, classes=classes, optimizer="adam", rates=(0.005,), chunk=chunk, ladder=("relabel",)
    )
    _, right, told = run(spec, (numeric, after))
    ((at, _),) = [step for step in steps(told) if step[1] == "relabel"]
    assert 4000 <= at < 4000 + 20 * classes + chunk
    one, two, statistic = told[at, 1 : ladder.AT_ONCE]
    assert {one, two} == {0, 1}
    assert statistic >= ladder.EXCHANGED
    assert right[at + 1 : at + 401].mean() > right[3000:4000].mean() - 0.04
    _, slow, _ = run(replace(spec, ladder=()), (numeric, after))
    assert right[4000:5000].sum() > slow[4000:5000].sum()


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("size", [0.0, 1.0, 8.0], ids=["undecided", "noise", "overconfident noise"])
def test_on_noise_no_classes_change_places(classes: int, size: float) -> None:
    """Whatever the probabilities: the threshold promises 8,000,000 events between two."""
    n, rng = 1_000_000, np.random.default_rng(0)
    spec = Spec(numeric=1, classes=classes)
    labels = rng.integers(0, classes, n).astype(np.float32)
    said = (size * rng.normal(size=(n, classes))).astype(np.float32)
    assert exchanges(spec, labels, said) == 0


@pytest.mark.parametrize("share", [0.6, 0.9])
def test_overconfidence_is_no_exchange(share: float) -> None:
    n, rng = 1_000_000, np.random.default_rng(0)
    right = rng.integers(0, 2, n)
    labels = np.where(rng.random(n) < share, right, 1 - right).astype(np.float32)
    said = np.where(right[:, None] == np.arange(2), 5.0, -5.0).astype(np.float32)
    spec = Spec(numeric=1, classes=2)
    assert exchanges(spec, labels, said) == 0
    labels[n // 2 :] = 1 - labels[n // 2 :]
    assert (exchanges(spec, labels, said) > 0) == (share == 0.9)  # which leaves no doubt


def exchanges(spec: Spec, labels: NDArray[Any], said: NDArray[Any]) -> int:
    def one(state: Any, row: Any) -> Any:
        return ladder._exchange(spec, state, row[0][None], row[1][None], jnp.bool_(True))

    @jax.jit
    def run(labels: Any, said: Any) -> Any:
        nobody = cast("pool.Contender", ())
        return jax.lax.scan(one, ladder.init(spec, nobody), (labels, said))[1]

    return int((np.asarray(run(labels, said))[:, 2] > 0).sum())

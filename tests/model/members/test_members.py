"""One more member of the pool: what it takes, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from numpy.typing import NDArray

from headrace.model import members, mixture, pool
from headrace.model.batch import Batch, empty_batch
from headrace.model.learner import Learner, make_learner, warm_up
from headrace.model.members import Asked, Labels, Member, by_row
from headrace.model.spec import Spec
from headrace.model.state import State, named
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task, parse
from headrace.stream.training.snapshot import digest, shapes_of
from headrace.stream.training.trainer import Trainer

N = 400
PLAIN = Spec(numeric=1, classes=2, label_lags=0, hidden=(4,), rates=(1e-3,), detectors=())
OURS = ("two ago",)
SPEC = replace(PLAIN, members=OURS)
TASK = """
name = "toy"
[input]
topic = "raw"
[target]
field = "y"
kind = "classify"
classes = ["no", "yes"]
[features]
a = { kind = "number" }
"""


def names(spec: Spec) -> list[str]:
    return ["the label of two rows ago"] if spec.classes else []


def init(spec: Spec) -> Array:
    return jnp.full(2, jnp.nan)


def predict(spec: Spec, newest: Array, asked: Asked) -> Array:
    """Be nearly sure of it, and say nothing before."""
    known = ~jnp.isnan(newest[1])
    sure = jnp.where(jnp.arange(spec.classes) == newest[1], 0.99, 0.01)
    said = jnp.where(known, jnp.log(sure), jnp.nan)
    return jnp.broadcast_to(said, (1, len(asked.past), spec.classes))


def update(spec: Spec, newest: Array, row: Asked, labels: Labels) -> Array:
    pushed = jnp.stack([labels.label, newest[0]])
    return jnp.where(jnp.isnan(labels.label), newest, pushed)


TOY = by_row(names, init, predict, update)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    members.register("two ago", TOY)
    yield
    del members.MEMBERS["two ago"]


def stream() -> Batch:
    """Make a label most often that of two rows ago; the last one tells nothing of it."""
    rng, batch = np.random.default_rng(0), empty_batch(SPEC, N)
    batch.numeric[:, 0] = rng.normal(size=N)
    turns = rng.random((N // 2, 2)) < 0.04
    batch.label[:] = turns.cumsum(0).reshape(-1) % 2
    return batch


def first_rows(n: int) -> Rows:
    return Rows(
        id=list(range(n)),
        key=[None] * n,
        partition=[0] * n,
        offset=list(range(n)),
        time_ms=np.zeros(n, np.int64),
        numeric=np.zeros((n, 1)),
        ids=np.zeros((n, 0), np.uint32),
        entity=np.zeros((n, 2), np.uint32),
        label=stream().label[:n].astype(float),
        new_class=[None] * n,
        image=np.zeros((n, 0, 0, 0), np.uint8),
        weight=np.zeros((n, 0)),
        arrived_ms=np.zeros(n, np.int64),
    )


def run(spec: Spec, batch: Batch, cuts: list[int]) -> tuple[State, NDArray[Any]]:
    learner: Learner = make_learner(spec)
    state, published = warm_up(learner, N), []
    for first, end in zip([0, *cuts], [*cuts, N], strict=True):
        part = Batch(*(np.roll(column, -first, 0) for column in batch))
        state, outcome = learner.run(state, part, np.int32(end - first))
        published.append(np.asarray(outcome.published)[: end - first])
    return state, np.concatenate(published)


def test_it_is_named_weighs_and_learns() -> None:
    assert pool.names(SPEC) == [*pool.names(PLAIN), "the label of two rows ago"]
    batch = stream()
    state, said = run(SPEC, batch, [])
    weights = dict(zip(pool.names(SPEC), mixture.total(state.champion.mixture), strict=True))
    assert max(weights, key=lambda name: weights[name]) == "the label of two rows ago"
    assert state.members["two ago"].tolist() == batch.label[-2:][::-1].tolist()
    late = slice(N // 2, None)
    right, without = (
        (found.argmax(1) == batch.label)[late].mean() for found in (said, run(PLAIN, batch, [])[1])
    )
    assert right > 0.9
    assert without < 0.8


def test_a_trainer_reports_its_weight_and_restores_its_state(monkeypatch: Any) -> None:
    made: Any = Task.spec
    monkeypatch.setattr(Task, "spec", property(lambda task: replace(made.fget(task), members=OURS)))
    task = parse(TASK, "t")
    trainer, rows = Trainer(task, 50), first_rows(50)
    trainer.collect(trainer.submit(rows))
    assert 0 < trainer.report()["members"]["the label of two rows ago"] < 1
    snapshot = trainer.snapshot()
    tensors = snapshot.tensors()
    assert tensors["members.two ago"].tolist() == rows.label[[-1, -2]].tolist()
    assert {name: leaf.shape for name, leaf in tensors.items() if name != "recent"} == {
        name: shape for name, (_, shape) in shapes_of(task).items() if name != "recent"
    }
    other = Trainer(task, 50)
    other.restore(tensors, snapshot.learned)
    assert digest(other.snapshot().tensors()) == digest(tensors)


@pytest.mark.parametrize("chunk", [1, 8])
@pytest.mark.parametrize("horizon", [0, 1])
def test_how_a_stream_is_cut_changes_no_bit(chunk: int, horizon: int) -> None:
    spec, batch = replace(SPEC, chunk=chunk, horizon=horizon), stream()
    whole, cut = run(spec, batch, []), run(spec, batch, [3, 4, 130, 133])
    jax.tree.map(np.testing.assert_array_equal, whole, cut)


def test_those_heard_alone_come_last() -> None:
    """So that weights in sums are those of the first members."""
    numbers = by_row(lambda spec: ["nothing"], init, lambda *_: jnp.zeros((1, 1, 1)), update)
    members.register("nothing", numbers)
    try:
        spec = Spec(numeric=1, members=("nothing",), detectors=())
        assert pool.names(spec)[-3:] == ["nothing", "median", "entity's median"]
        assert pool.alone(spec) == 2
    finally:
        del members.MEMBERS["nothing"]


def test_a_state_that_is_not_finite_begins_anew() -> None:
    def spoil(spec: Spec, known: Array, row: Asked, labels: Labels) -> Array:
        return jnp.where(known == 9.0, jnp.nan, known + 1.0)

    always = by_row(
        lambda spec: ["ten at most"],
        lambda spec: jnp.zeros(()),
        lambda spec, known, asked: jnp.zeros((1, len(asked.past), 2)),
        spoil,
        resets=True,
    )
    members.register("ten at most", always)
    try:
        spec = replace(PLAIN, members=("ten at most",))
        assert pool.resettable(spec)[-1] == "ten at most"
        state, _ = run(spec, stream(), [])
        assert state.resets[-1, 0] == N // 10
        assert state.resets[:-1].sum() == 0
    finally:
        del members.MEMBERS["ten at most"]


def test_our_own_keep_their_names_in_a_checkpoint_and_others_collide_with_none() -> None:
    found = [name for name, _ in named(jax.eval_shape(make_learner(SPEC).init))]
    assert len(found) == len({*found})
    assert "members.two ago" in found
    assert {"cells", "followed", "neighbours.columns", "middle.seen", "steps.spread"} <= {*found}


def test_what_is_not_registered_or_twice_is_refused() -> None:
    members.register("two ago", TOY)  # the same one: nothing changes
    with pytest.raises(ValueError, match="'two ago': expected a name that no other member has"):
        members.register("two ago", TOY._replace(alone=True))
    with pytest.raises(ValueError, match=r"member 'three ago': expected one of \['two ago'\]"):
        members.of(replace(PLAIN, members=("three ago",)))
    with pytest.raises(ValueError, match="'cells'"):
        members.of(replace(PLAIN, members=("cells",)))


def test_every_member_is_a_fold_of_bounded_state() -> None:
    """Of no shape that a row could change, of any spec: checked without running it."""
    for spec in (SPEC, Spec(numeric=2, categories=1, neighbours=9), replace(SPEC, chunk=4)):
        state = jax.eval_shape(make_learner(spec).init)
        for name, member in members.of(spec).items():
            assert isinstance(member, Member)
            again = jax.eval_shape(lambda member=member, spec=spec: member.init(spec))
            shapes = [leaf.shape for leaf in jax.tree.leaves(again)]
            assert shapes == [leaf.shape for leaf in jax.tree.leaves(state.members[name])]

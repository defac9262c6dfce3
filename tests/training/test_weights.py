"""How much events teach: `input.weight`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.model import chunk_training, ladder, mixture, pool
from headrace.model.chunk_training import LabelledChunk, no_chunk, train_chunk
from headrace.model.members import neighbours, pairs
from headrace.model.networks import make_network
from headrace.model.spec import RUNGS, Spec
from headrace.stream.errors import UsageError
from headrace.stream.evaluation.evaluate import evaluate
from headrace.stream.task import Task, parse
from headrace.stream.training.learned import Learned
from headrace.stream.training.trainer import Trainer
from tests.support.json_rows import TWO_NUMBERS, learn, normalised

N = 1600
KINDS = {"classify": 'target.classes = ["no", "yes"]', "regress": ""}


def task(kind: str = "classify", more: str = "") -> Task:
    return parse(
        f"""
        name = "weighed"
        input = {{ topic = "t", entity = "who", weight = "w" }}
        target.field = "y"
        target.kind = "{kind}"
        {KINDS[kind]}
        {TWO_NUMBERS}
        {more}
        """,
        "test",
    )


def numbers(n: int = N) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(n, 2))


def events(rows: NDArray[np.float64], labels: list[Any], **more: list[Any]) -> list[dict[str, Any]]:
    """Return events of two entities by turns."""
    lines = [
        {"id": at, "who": at % 2, "a": a, "b": b, "y": label}
        for at, ((a, b), label) in enumerate(zip(rows.tolist(), labels, strict=True))
    ]
    for name, column in more.items():
        for line, value in zip(lines, column, strict=True):
            line[name] = value
    return lines


def wrong(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which labels are wrong: a third of all, and most where a > 0.3."""
    found: NDArray[np.bool_] = (rows[:, 0] > 0.3) & (
        np.random.default_rng(1).random(len(rows)) < 0.9
    )
    assert 0.3 < found.mean() < 0.37
    return found


def said(kind: str, truth: NDArray[np.bool_]) -> list[Any]:
    return [("no", "yes")[yes] if kind == "classify" else 10.0 * yes for yes in truth.tolist()]


def right(learned: Learned, kind: str, truth: NDArray[np.bool_], until: int | None = None) -> float:
    """Return the share of right answers in the last half."""
    half = slice(len(truth) // 2, until)
    yes = learned.answer > (0.5 if kind == "classify" else 5.0)
    return float((yes == truth)[half].mean())


def test_a_weight_that_is_not_said_is_one() -> None:
    rows = numbers(300)
    lines = events(rows, said("classify", rows[:, 0] > rows[:, 1]), w=[1, 1.0, 1] * 100)
    told = learn(task(), lines)[1].published
    for line in lines[::2]:
        del line["w"]
    for line in lines[1::4]:
        line["w"] = None
    assert learn(task(), lines)[1].published.tobytes() == told.tobytes()
    lines[100]["w"] = 2
    assert learn(task(), lines)[1].published.tobytes() != told.tobytes()


@pytest.mark.parametrize(
    ("weight", "code", "detail"),
    [
        ("-0.5", "number", "weight -0.5: expected a number from 0 to 1000"),
        ("1001", "number", "weight 1001.0: expected a number from 0 to 1000"),
        ("1e300", "number", "weight 1e+300: expected"),
        ('"NaN"', "schema", "number or null"),
        ('"1"', "schema", "number or null"),
        ("true", "schema", "number or null"),
        ("NaN", "json", ""),
    ],
)
def test_what_is_no_weight_is_refused(weight: str, code: str, detail: str) -> None:
    raws = [b'{"id": %d, "who": 1, "a": 1, "b": 1, "y": "no", "w": %s}' for _ in range(3)]
    told = ["0", weight, "1000"]
    raws = [
        raw % (at, text.encode()) for at, (raw, text) in enumerate(zip(raws, told, strict=True))
    ]
    rows, letters = normalised(task(), raws)
    assert rows.weight.tolist() == [[0.0], [1000.0]]
    assert [(letter.code, letter.offset) for letter in letters] == [(code, 1)]
    assert detail in letters[0].detail


def test_a_weight_may_be_anywhere_in_the_event_and_a_feature_too() -> None:
    text = task().model_dump(mode="json")
    text["input"] |= {"weight": "/how/much", "format": "cloudevents"}
    text["features"]["a"]["field"] = "/how/much"
    nested = Task.model_validate(text)
    event = {"specversion": "1.0", "id": 1, "data": {"who": 1, "y": "no", "how": {"much": 2.5}}}
    rows, letters = normalised(nested, [event])
    assert not letters
    assert rows.weight.tolist() == [[2.5]]
    assert rows.numeric[0, 0] == 2.5
    plain = nested.model_copy(update={"input": nested.input.model_copy(update={"weight": None})})
    assert normalised(plain, [event])[0].weight.shape == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_labels_without_weight_are_scored_and_teach_nothing(kind: str) -> None:
    rows = numbers()
    truth, bad = rows[:, 0] + 0.5 * rows[:, 1] > 0, wrong(rows)
    labels = said(kind, truth ^ bad)
    trainer, weighed = learn(task(kind), events(rows, labels, w=(1 - bad).tolist()))
    known = [None if missing else label for missing, label in zip(bad, labels, strict=True)]
    without = right(learn(task(kind), events(rows, known))[1], kind, truth)
    blind = right(learn(task(kind), events(rows, labels))[1], kind, truth)
    assert right(weighed, kind, truth) > without - 0.02
    assert right(weighed, kind, truth) > blind + 0.2
    assert trainer.report()["all"]["events"] == N - (kind == "regress")


@pytest.mark.parametrize("kind", KINDS)
def test_events_that_all_weigh_nothing_leave_a_learner_as_fresh(kind: str) -> None:
    rows = numbers(40)
    made = task(kind, 'features.c = { kind = "category", field = "a" }\nmodel.table_bits = 8')
    fresh = Trainer(made, 40).snapshot().tensors()
    trainer, learned = learn(made, events(rows, said(kind, rows[:, 0] > 0), w=[0] * 40))
    assert learned.step.max() == 0
    tensors = trainer.snapshot().tensors()
    parts = ("champion", "table", "cells", "neighbours", "followed", "steps", "target", "interval")
    held = [name for name in tensors if name.startswith(parts)]
    assert {name.split(".")[0].split("[")[0] for name in held} == {*parts}
    taught = [name for name in held if tensors[name].tobytes() != fresh[name].tobytes()]
    assert [name for name in taught if name not in ("neighbours.columns", "neighbours.ids")] == []


@pytest.mark.parametrize("chunk", [1, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_heavier_labels_win_where_labels_conflict(kind: str, chunk: int) -> None:
    rows, yes = numbers(), np.random.default_rng(2).random(N) < 0.4
    labels, more = said(kind, yes), f"model.chunk = {chunk}\nlags.labels = 0"
    heavy = events(rows, labels, w=np.where(yes, 3, 1).tolist())
    weighed = learn(task(kind, more), heavy)[1]
    plain = learn(task(kind, more), events(rows, labels))[1]
    always = np.ones(N, bool)
    assert right(weighed, kind, always) > (0.9 if kind == "classify" else 0.65)
    assert right(plain, kind, always) < 0.2


@pytest.mark.parametrize("chunk", [1, 8])
def test_an_event_ahead_the_weight_is_that_of_the_row_that_was_predicted(chunk: int) -> None:
    rows = numbers()
    truth, bad = rows[:, 0] + 0.5 * rows[:, 1] > 0, wrong(rows)
    labels = [None, None, *said("classify", truth ^ bad)[:-2]]  # two entities by turns
    ahead, weights = task("classify", f"target.horizon = 1\nmodel.chunk = {chunk}"), 1 - bad
    weighed = learn(ahead, events(rows, labels, w=weights.tolist()))[1]
    late = learn(ahead, events(rows, labels, w=[1, 1, *weights[:-2].tolist()]))[1]
    assert right(weighed, "classify", truth) > right(late, "classify", truth) + 0.2
    assert right(weighed, "classify", truth) > 0.85


def test_a_weight_of_zero_neither_widens_an_interval_nor_makes_a_class_frequent() -> None:
    rows = numbers(400)
    wild = (np.arange(400) % 3 == 0).tolist()
    labels = [50.0 if far else a for far, a in zip(wild, rows[:, 0].tolist(), strict=True)]
    trainer, learned = learn(
        task("regress"), events(rows, labels, w=[float(not far) for far in wild])
    )
    low, high = learned.published[-1, 1:]
    assert 0 < high - low < 1
    balanced = task("classify", 'target.class_weight = "balanced"')
    labels = ["yes" if far else "no" for far in wild]
    trainer, _ = learn(balanced, events(rows, labels, w=[float(not far) for far in wild]))
    counts = trainer.snapshot().tensors()["counts"]
    assert counts[1] == 0.0
    assert counts[0] > 200


def test_a_file_has_a_column_of_weights(tmp_path: Path) -> None:
    rows = numbers(60)
    file = tmp_path / "in.csv"
    lines = [
        f"{a},{b},{'yes' if a > 0 else 'no'},{('', '0', '7.5')[at % 3]},x"
        for at, (a, b) in enumerate(rows)
    ]
    file.write_text("\n".join(["a,b,y,w,who", *lines, "1,1,no,much,x"]))
    found = evaluate(task(), file)
    assert (found.events, found.codes, found.metrics["all"]["events"]) == (61, {"schema": 1}, 60)
    file.write_text("\n".join(["a,b,y,v,who", *lines]))
    with pytest.raises(UsageError, match=r"no column 'w' for input\.weight"):
        evaluate(task(), file)


def test_training_multiplies_every_slope_once() -> None:
    spec = Spec(
        numeric=2,
        classes=2,
        tokens=2,
        label_lags=0,
        hidden=(5,),
        rates=(0.01,),
        chunk=4,
        optimizer="sgd",
        weighted=True,
        detectors=(),
    )
    network = make_network(spec)
    own, heard = pool.contender(spec, network), no_chunk(spec)
    rows = heard.question.rows._replace(
        inputs=jnp.asarray(np.random.default_rng(0).normal(size=(4, spec.inputs)), jnp.float32),
        ids=jnp.ones((4, 2), jnp.uint32),
    )
    question = heard.question._replace(rows=rows)
    label = jnp.full(4, jnp.nan).at[1].set(1.0)

    def moved(weight: Any) -> Any:
        learned = train_chunk(spec, network, own, question, label, jnp.array([0.01]), weight=weight)
        steps = jax.tree.map(lambda new, old: new - old, learned.after.params, own.params)
        return steps, learned.gradient

    once, plain = moved(jnp.ones(4)), moved(None)
    jax.tree.map(np.testing.assert_array_equal, once, plain)
    thrice = moved(jnp.full(4, 9.0).at[1].set(3.0))
    for one, three in zip(jax.tree.leaves(once), jax.tree.leaves(thrice), strict=True):
        assert np.abs(one).max() > 0
        np.testing.assert_allclose(three, 3 * np.asarray(one), rtol=1e-2, atol=1e-6)


def test_voices_cells_and_the_mixture_count_a_row_by_its_weight() -> None:
    spec = Spec(numeric=2, classes=2, neighbours=5, weighted=True)
    row, ids = jnp.ones((1, 2)), jnp.zeros((1, 0), jnp.uint32)
    label = jnp.ones(1)
    weight = jnp.array([3.0])
    window = neighbours.remember(spec, neighbours.init(spec), row, ids, label, weight)
    assert window.voices[:, 0].tolist() == [0.0, 3.0]
    numbers = neighbours.remember(
        Spec(numeric=2), neighbours.init(Spec(numeric=2)), row, ids, label, weight
    )
    assert numbers.voices[:, 0].tolist() == [3.0, 3.0]

    cells = pairs.look_up(spec, pairs.init(spec), jnp.ones((1, spec.inputs)), ids, jnp.bool_(True))
    one, three = (
        pairs.descend(spec, pairs.init(spec), cells, label, jnp.bool_(True), weight)
        for weight in (None, weight)
    )
    np.testing.assert_allclose(three[:, 2:], 9 * one[:, 2:], rtol=1e-6)
    assert np.asarray(one[:, 2:]).any()

    said = jnp.log(jnp.array([[[0.9, 0.1]], [[0.4, 0.6]]]))
    state = mixture.init(2)
    each = mixture.mix(spec, state, said).per_rate

    def learned(weight: Any) -> mixture.Mixture:
        return mixture.learn(spec, state, said, each, label, 1.0, True, weight)

    plain, heavy = learned(None), learned(weight)
    pull = (plain.weights - state.weights, heavy.weights - state.weights)
    np.testing.assert_allclose(pull[1], 3 * pull[0], rtol=1e-2)
    assert heavy.trust[-1] > plain.trust[-1] > state.trust[-1]
    most, more = learned(jnp.array([mixture.HEAVIEST])), learned(jnp.array([1000.0]))
    jax.tree.map(np.testing.assert_array_equal, most, more)
    assert most.trust[-1] > heavy.trust[-1]


def test_a_rival_learns_by_the_weights_that_the_champion_learned_by() -> None:
    spec = Spec(
        numeric=2,
        classes=2,
        hidden=(3,),
        rates=(0.01,),
        chunk=16,
        weighted=True,
        ladder=(*RUNGS, "challenger"),
    )
    network = make_network(spec)
    fresh, rates = pool.contender(spec, network), jnp.array([0.01])
    blank, rng = no_chunk(spec), np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(16, spec.inputs)), jnp.float32)
    question = blank.question._replace(rows=blank.question.rows._replace(inputs=inputs))
    weight = jnp.asarray(rng.choice([0.1, 5.0], 16), jnp.float32)
    heard = LabelledChunk(question, jnp.asarray(inputs[:, 0] > 0, jnp.float32), blank.said, weight)
    state = ladder.init(spec, fresh)._replace(phase=jnp.int32(ladder.TRIAL))
    state, _ = ladder.on_chunk(spec, state, heard, blank.said, jnp.bool_(True))
    assert state.heard == 1
    after = ladder._compare(spec, network, fresh, state, rates)
    rival = pool.read_bits(after.rivals[ladder.BESIDE], fresh)
    learned = chunk_training.train_chunk(
        spec, network, fresh, question, heard.label, rates, weight=weight
    ).after
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), rival, learned)
    plain = chunk_training.train_chunk(spec, network, fresh, question, heard.label, rates).after
    assert not np.allclose(plain.mixture.trust, learned.mixture.trust, atol=1e-4)

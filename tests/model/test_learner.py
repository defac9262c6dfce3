from __future__ import annotations

import gc
import hashlib
import re
from collections import defaultdict
from typing import Any, get_args

import jax
import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.model import counter
from headrace.model.batch import EVIDENCE, empty_batch
from headrace.model.learner import KEPT, make_learner, warm_up
from headrace.model.members.pairs import ALONE, RATE, TOGETHER
from headrace.model.members.pairs import KEPT as REMEMBERED
from headrace.model.spec import Detector, Spec
from tests.support.columns import Columns, feed, softmax

N = 400

SPECS = {
    "per event": Spec(numeric=4, classes=2, traces=(4, 32), neighbours=50, detectors=()),
    "chunks, ids, many classes": Spec(
        numeric=4, classes=3, chunk=8, categories=2, tokens=5, neighbours=100
    ),
    "an hour ahead, entities": Spec(
        numeric=4, horizon=1, numeric_lags=2, entities=8, categories=1, neighbours=64
    ),
    "two ahead in chunks": Spec(
        numeric=4,
        horizon=2,
        label_lags=3,
        entities=8,
        chunk=7,
        traces=(8,),
        neighbours=30,
        detectors=(),
    ),
    "images": Spec(
        numeric=2,
        classes=3,
        image=(5, 4, 1),
        network="cnn2d",
        neighbours=20,
        rates=(0.003,),
        detectors=(),
    ),
    "images in chunks, an event ahead": Spec(
        numeric=2,
        horizon=1,
        image=(3, 4, 3),
        network="cnn2d",
        chunk=7,
        entities=8,
        neighbours=20,
        rates=(0.003,),
        detectors=(),
    ),
    "convolved rows in chunks": Spec(
        numeric=4,
        numeric_lags=4,
        entities=8,
        chunk=3,
        network="cnn1d",
        hidden=(8,),
        loss="pinball",
        rates=(0.003,),
        detectors=(),
    ),
    "recurrent, two ahead": Spec(
        numeric=4,
        classes=2,
        numeric_lags=3,
        horizon=2,
        entities=8,
        network="gru",
        hidden=(8, 4),
        rates=(0.003,),
        detectors=(),
    ),
    "phrases of two texts": Spec(
        numeric=4,
        classes=3,
        tokens=6,
        words=(4, 2),
        network="textcnn",
        hidden=(8,),
        loss="bce",
        rates=(0.003,),
        detectors=(),
    ),
    "weighted": Spec(
        numeric=4, classes=2, weighted=True, categories=1, traces=(4,), neighbours=50, detectors=()
    ),
    "weighted in chunks": Spec(
        numeric=4, classes=3, weighted=True, chunk=8, tokens=5, neighbours=50, detectors=()
    ),
    "weighted, two ahead in chunks": Spec(
        numeric=4,
        weighted=True,
        horizon=2,
        entities=8,
        chunk=7,
        neighbours=30,
        detectors=(),
    ),
    "a bag": Spec(numeric=4, classes=2, tokens=6, network="textbag", rates=(0.003,), detectors=()),
}


def stream(spec: Spec, n: int = N, seed: int = 0) -> Columns:
    """Make rows with missing values, missing labels, and more entities than there is room for."""
    rng = np.random.default_rng(seed)
    numeric = rng.normal(size=(n, spec.numeric)).astype(np.float32)
    ids = (rng.integers(0, 50, (n, spec.ids)) * 7919).astype(np.uint32)
    entity = (rng.integers(1, 14, (n, 1)) * np.array([[2654435761, 40503]])).astype(np.uint32)
    label = numeric[:, 0] - numeric[:, 1]
    if spec.classes:
        label = np.digitize(label, [0.0, 1.0][: spec.classes - 1]).astype(np.float32)
    numeric[rng.random(numeric.shape) < 0.1] = np.nan
    label[rng.random(n) < 0.2] = np.nan
    image = rng.integers(0, 256, (n, *spec.image)).astype(np.uint8)
    weight = rng.choice([0.0, 0.3, 1.0, 20.0], (n, int(spec.weighted))).astype(np.float32)
    return numeric, ids, entity, label, image, weight


def digest(tree: Any) -> str:
    leaves = jax.tree.leaves(tree)
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


def executables() -> set[Any]:
    """Return what is compiled and not yet let go."""
    return {*jax.local_devices()[0].client.live_executables()}


@pytest.mark.parametrize("name", SPECS)
def test_micro_batches_never_change_state_or_predictions(name: str) -> None:
    spec = SPECS[name]
    learner, columns = make_learner(spec), stream(spec)
    whole, said = feed(learner, columns, [], N)
    nothing = np.isnan(said)  # before a label, or an error, is known, and never after
    assert np.isfinite(said[~nothing]).all()
    assert not nothing[40:].any()
    rng = np.random.default_rng(1)
    capacity = 24
    cuts, at = [], 0
    while (at := at + int(rng.integers(1, capacity + 1))) < N:
        cuts.append(at)
    state, published = feed(learner, columns, cuts, capacity)
    assert published.tobytes() == said.tobytes()
    assert digest(state) == digest(whole)


def test_one_program_serves_every_count() -> None:
    spec = Spec(
        numeric=4, classes=2, seed=75, detectors=()
    )  # no other test's: equal specs share a learner
    learner = make_learner(spec)
    feed(learner, stream(spec), [64, 128, 192, 256, 320, 384], 64)
    compiled: list[str] = []

    def count(event: str, duration_secs: float, **_: str | int) -> None:
        compiled.extend([event] if "backend_compile" in event else [])

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        feed(learner, stream(spec), [1, 2, 60, 100, 101, 160, 200, 260, 300, 360], 64)
        assert compiled == []
        jax.block_until_ready(jax.jit(lambda x: x + 1)(75.0))  # type: ignore[no-untyped-call]
        assert compiled != []  # so a program would be noticed
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


def test_a_process_that_meets_many_specs_keeps_the_programs_of_the_last_ones() -> None:
    """XLA's own list of what is compiled is the witness."""

    def programs() -> int:
        gc.collect()
        return len(executables())

    def meet_others() -> None:
        for seed in range(KEPT):  # not run, so not compiled
            make_learner(Spec(numeric=1, seed=1000 + seed))

    meet_others()
    before = programs()
    for seed in range(2):
        spec = Spec(numeric=1, hidden=(2,), rates=(0.01,), detectors=(), seed=seed)
        learner = make_learner(spec)
        state = learner.copy(warm_up(learner, 2))
        assert make_learner(spec) is learner
        assert programs() == before + 3
        del learner, state
        meet_others()
        assert programs() == before


def copied(spec: Spec) -> list[set[str]]:
    """Return the sizes of each array that the compiled loop of a spec copies."""
    learner, before = make_learner(spec), executables()
    warm_up(learner, 4)
    modules = [made.hlo_modules()[0] for made in executables() - before]
    (program,) = [module.to_string() for module in modules if module.name == "jit_loop"]
    copies = re.findall(r"(\[[\d,]*\])\S* copy\(", program)
    assert copies
    return [set(re.findall(r"\d+", shape)) for shape in copies]


@pytest.mark.parametrize("horizon", [0, 1])
def test_what_is_remembered_is_not_copied_for_an_event(horizon: int) -> None:
    """Window, entities and table of words are moved on in place, however large they are."""
    spec = Spec(
        numeric=3,
        classes=2,
        horizon=horizon,
        categories=1,
        neighbours=333,
        entities=444,
        table_bits=9,
    )
    assert not [size for size in copied(spec) if size & {"333", "444", "512"} and "0" not in size]


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**63 - 1])
def test_each_seed_of_a_task_draws_each_network_weights_of_its_own(seed: int) -> None:
    champion = make_learner(Spec(numeric=2, classes=2, seed=seed)).init().champion
    for weights in jax.tree.leaves(champion.params):
        drawn = np.asarray(weights).reshape(len(weights), -1)
        assert np.isfinite(drawn).all()
        assert len(np.unique(drawn, axis=0)) == len(drawn)


def test_each_row_is_predicted_before_its_label_is_learned() -> None:
    spec = Spec(numeric=4, classes=2, detectors=())
    learner, columns = make_learner(spec), stream(spec, 100)
    columns[3][:] = np.nan_to_num(columns[3])
    _, said = feed(learner, columns, [], 100)
    columns[3][50] = 1 - columns[3][50]
    _, other = feed(learner, columns, [], 100)
    assert other[:51].tobytes() == said[:51].tobytes()
    assert (other[51] != said[51]).any()


def test_an_hour_ahead_learns_from_the_next_label_of_the_same_entity() -> None:
    spec = Spec(numeric=1, horizon=1, entities=4, label_lags=1, rates=(3e-3,), detectors=())
    rng = np.random.default_rng(0)
    n = 3000
    numeric = rng.normal(size=(n, 1)).astype(np.float32)
    entity = np.tile(np.array([[1, 1], [2, 2]], np.uint32), (n // 2, 1))
    label = np.zeros(n, np.float32)
    label[2:] = 10 * numeric[:-2, 0] + np.tile([100, -100], n // 2)[2:]
    columns = (numeric, np.zeros((n, 0), np.uint32), entity, label)
    _, said = feed(make_learner(spec), columns, [], n)
    miss = np.abs(said[:-2, 0] - label[2:])  # row t is about the entity's event t + 2
    assert miss[-1000:].mean() < 3.0  # a learner that does not see the row misses by 8
    inside = (said[:-2, 1] <= label[2:]) & (label[2:] <= said[:-2, 2])
    assert 0.87 < inside.mean() < 0.93


def test_every_detector_that_is_named_tells_of_swapped_labels_and_why() -> None:
    names = get_args(Detector)
    spec = Spec(
        numeric=2,
        classes=2,
        hidden=(8,),
        rates=(1e-3,),  # so slow that the error stays high for a while
        detectors=names,
        page_hinkley_threshold=10.0,
        ladder=(),
    )
    rng = np.random.default_rng(0)
    n = 4000
    numeric = rng.normal(size=(n, 2)).astype(np.float32)
    label = ((numeric[:, 0] > 0) ^ (np.arange(n) >= n // 2)).astype(np.float32)
    learner, batch = make_learner(spec), empty_batch(spec, n)
    batch.numeric[:], batch.label[:] = numeric, label
    _, outcome = learner.run(warm_up(learner, n), batch, np.int32(n))
    for at, name in enumerate(spec.detectors):
        told = np.asarray(outcome.alarms)[:, at]
        fired = np.flatnonzero(told[:, 0])
        after = fired[fired >= n // 2]
        assert len(after), name
        assert after[0] < n // 2 + 400, name
        evidence = dict(zip(EVIDENCE, told[after[0]].tolist(), strict=True))
        assert evidence["after"] > evidence["before"], name
        assert evidence["statistic"] >= evidence["threshold"], name
        assert evidence["window"] > 0, name


def test_events_without_label_are_predicted_and_teach_nothing() -> None:
    spec = Spec(numeric=4, classes=2, tokens=2, detectors=())
    learner, columns = make_learner(spec), stream(spec, 50)
    columns[3][:] = np.nan
    fresh = jax.device_get(learner.init())
    state, said = feed(learner, columns, [], 50)
    assert digest((state.champion, state.table)) == digest((fresh.champion, fresh.table))
    assert counter.value(state.step) == 0
    assert np.allclose(said.sum(1), 1)


@pytest.mark.parametrize("chunk", [1, 4])
def test_the_loop_equals_a_plain_numpy_pool(chunk: int) -> None:
    """Inputs, networks, votes, mixture and Adam: written again in float64, row by row.

    Only how inputs are scaled waits for the end of a chunk: these networks have no hidden layers.
    """
    rates, memory, window = (0.01, 0.003), 5.0, 20
    spec = Spec(
        numeric=3,
        classes=2,
        hidden=(),
        rates=rates,
        traces=(memory,),
        neighbours=window,
        detectors=(),
        chunk=chunk,
    )
    rng = np.random.default_rng(3)
    n = 300
    numeric = rng.normal(5, 3, (n, 3)).astype(np.float32)
    label = (numeric[:, 0] > numeric[:, 1]).astype(np.float32)
    columns = (numeric, np.zeros((n, 0), np.uint32), np.zeros((n, 2), np.uint32), label)
    learner = make_learner(spec)
    params = jax.device_get(learner.init().champion.params)
    networks = np.asarray(params.last, float).swapaxes(1, 2)
    assert networks.shape == (4, 6 + 3 + 2 + 1, 2)  # values, flags; distances, lag; always 1
    _, said = feed(learner, columns, [], n)

    second, weights = np.zeros_like(networks), np.full((2, 11), 1 / 11)
    shares, means = np.array([0.45] * 2 + [0.1 / 11] * 11), networks[1::2].copy()
    trust = shares
    cells: dict[Any, Any] = defaultdict(lambda: (np.zeros(2), np.zeros(2)))
    taught: list[Any] = []
    past: list[tuple[NDArray[Any], NDArray[Any]]] = []
    lag, pairs, fading = np.zeros(2), np.zeros((3, 2)), numeric[0].astype(float)
    for t in range(n):
        opened = t - t % chunk
        seen, x = numeric[:opened].astype(float), numeric[t].astype(float)
        spread = seen.std(0) if opened > 1 else np.ones(3)
        z = np.clip((x - seen.mean(0)) / spread, -8, 8) if opened > 1 else np.zeros(3)
        far = np.clip((x - fading) / spread, -8, 8) if opened > 1 else np.zeros(3)
        row, before = np.concatenate([z, np.zeros(3)]), np.concatenate([far, lag])
        inputs = [np.concatenate([row, seen, [1.0]]) for seen in (0 * before, before)]
        sights = np.repeat(inputs, 2, axis=0)
        opinions = [softmax(x @ w) for x, w in zip(sights, networks, strict=True)]
        opinions += [softmax(x @ w) for x, w in zip(sights[1::2], means, strict=True)]
        alone, together = np.searchsorted(ALONE, z), np.searchsorted(TOGETHER, z)
        fell = [
            *enumerate(alone),
            *(((a, b), *together[[a, b]]) for a, b in ((0, 1), (0, 2), (1, 2))),
        ]
        opinions.append(softmax(sum(cells[cell][0] for cell in fell)))
        taught.append((fell, opinions[-1] - np.eye(2)[int(label[t])]))
        last = int(label[t - 1]) if t else 2
        opinions.append((pairs[last] + 0.5) / (pairs[last] + 0.5).sum())
        opinions += votes(past[-(window + t - opened) :], z)
        logs = np.maximum(np.log(opinions), -7.0)
        each = [softmax(w @ logs) for w in weights]
        heard = np.array([*each, *(softmax(said) for said in logs)])
        p = trust @ heard
        assert np.allclose(p, said[t], atol=1e-3), t
        one_hot = np.eye(2)[int(label[t])]
        if len(taught) == chunk:
            for cell, slope in ((cell, slope / chunk) for fell, slope in taught for cell in fell):
                weight, square = cells[cell]
                square = REMEMBERED * square + slope**2
                cells[cell] = weight - RATE * slope / (np.sqrt(square) + 1e-6), square
            taught = []
        trust = 0.999 * (right := trust * (heard @ one_hot)) / right.sum() + 0.001 * shares
        for pace, said_at in zip((0, 1), each, strict=True):
            weights[pace] -= (0.001, 0.005)[pace] * logs @ (said_at - one_hot)
        for at, (seen, rate) in enumerate(zip(sights, rates * 2, strict=True)):
            gradient = np.outer(seen, opinions[at] - one_hot)
            second[at] += 0.001 * (gradient**2 - second[at])
            networks[at] -= rate * gradient / (np.sqrt(second[at] / (1 - 0.999 ** (t + 1))) + 1e-8)
        if t + 1 == opened + chunk and (t + 1) % max(8, chunk) == 0:
            share = min(1, max(8, chunk) * max(1 / 500, 2 / (opened + 1)))
            means += share * (networks[1::2] - means)
        pairs[last] = 0.99 * pairs[last] + one_hot
        past.append((z, one_hot))
        lag, fading = one_hot, fading + (x - fading) / memory


def votes(past: list[tuple[NDArray[Any], NDArray[Any]]], z: NDArray[Any]) -> list[NDArray[Any]]:
    """Ask the rows met before, as `neighbours` documents it."""
    if not past:
        return [np.full(2, 0.5)] * 3
    apart = np.array([np.square(z - row).mean() for row, _ in past])
    wide = np.maximum(1 - (apart - apart.min()) / 0.03 / 64, 0) ** 64
    kernels = [wide, wide**3]
    kernels.append(((apart.min() + 1e-7) / (apart + 1e-7)) ** 4)
    voices = [weights @ np.array([label for _, label in past]) + 0.005 for weights in kernels]
    return [voice / voice.sum() for voice in voices]


def test_a_full_memory_forgets_the_entity_met_longest_ago() -> None:
    spec = Spec(numeric=1, entities=4, label_lags=1, detectors=())
    learner = make_learner(spec)
    n = 5
    entity = np.array([[0, e] for e in (1, 2, 3, 4, 5)], np.uint32)
    label = np.arange(1.0, 6.0, dtype=np.float32)
    columns = (np.zeros((n, 1), np.float32), np.zeros((n, 0), np.uint32), entity, label)
    state, _ = feed(learner, columns, [], n)
    assert sorted(state.memory.key.tolist()) == [2, 3, 4, 5]
    assert counter.value(state.memory.left) == 1
    assert sorted(state.memory.slots.labels[:, 0].tolist()) == [2.0, 3.0, 4.0, 5.0]

"""Each network is what the textbook says, and learns what a simpler one cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.typing import NDArray

from headrace.model import pool
from headrace.model.batch import empty_batch
from headrace.model.embed import Embedded
from headrace.model.learner import make_learner
from headrace.model.networks import Network, Params, Seen, answer, make_network
from headrace.model.spec import NetworkName, Spec
from tests.support.columns import Columns, feed, softmax

N = 4000
VOCABULARY = 30
Floats = NDArray[Any]


def window_spec(network: NetworkName) -> Spec:
    """Read a short window of two sensors; nobody but the one network knows anything."""
    return Spec(
        numeric=2,
        classes=2,
        numeric_lags=3,
        entities=4,
        label_lags=0,
        network=network,
        hidden=(12,),
        rates=(0.005,),
        detectors=(),
    )


def text_spec(network: NetworkName) -> Spec:
    """Read two texts: seven words in order, and one that is often shorter than a filter."""
    words = (7, 3) if network == "textcnn" else ()
    return Spec(
        numeric=0,
        classes=2,
        tokens=10,
        words=words,
        label_lags=0,
        network=network,
        hidden=(12,),
        rates=(0.005,),
        embedding=4,
        table_bits=10,
        detectors=(),
    )


def window_stream() -> Columns:
    """Ask whether the signs of an entity's present row and of the row before the last agree."""
    rng = np.random.default_rng(0)
    numeric = rng.normal(size=(N, 2)).astype(np.float32)
    label = np.zeros(N, np.float32)
    label[4:] = numeric[4:, 0] * numeric[:-4, 0] > 0  # of two entities that take turns
    numeric[rng.random(N) < 0.02, 1] = np.nan
    entity = np.tile(np.array([[1, 1], [2, 2]], np.uint32), (N // 2, 1))
    return numeric, np.zeros((N, 0), np.uint32), entity, label


def text_stream(spec: Spec) -> Columns:
    """Ask whether word 1 stands right before word 2, or after it; both are always there."""
    rng = np.random.default_rng(0)
    words = rng.integers(3, VOCABULARY, (N, 7)).astype(np.uint32)
    label = rng.integers(0, 2, N).astype(np.float32)
    at = rng.integers(0, 6, N)
    row = np.arange(N)
    words[row, at], words[row, at + 1] = np.where(label, [[1], [2]], [[2], [1]])
    length = rng.integers(0, 4, (N, 1))
    short = np.where(np.arange(3) < length, rng.integers(3, VOCABULARY, (N, 3)), 0)
    tokens = np.zeros((N, 10), np.uint32)
    for bag, said in zip(tokens, np.concatenate([words, short], 1), strict=True):
        distinct = np.unique(said[said > 0])
        bag[: len(distinct)] = distinct
    ordered = np.concatenate([words, short], 1)[:, : sum(spec.words)]
    ids = np.concatenate([tokens, ordered], 1).astype(np.uint32)
    return np.zeros((N, 0), np.float32), ids, np.zeros((N, 2), np.uint32), label


def accuracy(spec: Spec, columns: Columns) -> float:
    """Return the share of right predictions among the last thousand."""
    _, said = feed(make_learner(spec), columns, [], N)
    return float((said.argmax(1) == columns[3])[-1000:].mean())


@pytest.mark.parametrize("network", ["cnn1d", "gru"])
def test_a_pattern_in_the_window_is_learned(network: NetworkName) -> None:
    assert accuracy(window_spec(network), window_stream()) > 0.85


def test_a_linear_model_cannot_learn_the_pattern() -> None:
    assert accuracy(window_spec("linear"), window_stream()) < 0.6


def test_the_order_of_words_is_learned() -> None:
    spec = text_spec("textcnn")
    assert accuracy(spec, text_stream(spec)) > 0.9


def test_a_bag_cannot_learn_the_order() -> None:
    spec = text_spec("textbag")
    assert accuracy(spec, text_stream(spec)) < 0.6


def test_the_vectors_of_a_bag_are_learned() -> None:
    """The network alone, without what the words say beside it, knows who speaks for what."""
    spec = text_spec("textbag")
    columns = text_stream(spec)
    columns[3][:] = (columns[1] % 3 == 0).sum(1) > 3
    state, _ = feed(make_learner(spec), columns, [], N)
    vectors = state.table.rows[:, : spec.embedding]
    rows, label = columns[1][-500:], columns[3][-500:]
    present = (rows > 0)[..., None]
    bag = (vectors[rows] * present).sum(1) / np.sqrt(present.sum(1))
    last = state.champion.params.last[0].T
    said = bag @ last[:-1] + last[-1]
    assert (said.argmax(1) == label).mean() > 0.85


def published(spec: Spec, columns: Columns, params: Any, n: int) -> Floats:
    """Predict n rows that teach nothing, by given parameters of the one network."""
    learner = make_learner(spec)
    fresh = learner.init()
    own = fresh.champion._replace(params=jax.tree.map(lambda leaf: leaf[None], params))
    batch = empty_batch(spec, N)
    for into, column in zip(batch, columns, strict=False):
        into[:n] = column[:n]
    batch.label[:] = np.nan
    _, outcome = learner.run(fresh._replace(champion=own), batch, np.int32(n))
    return np.asarray(outcome.published)[:n]


def drawn(spec: Spec, seed: int, spread: float = 0.5) -> Any:
    """Draw parameters that are large enough for outputs to be told apart."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: make_network(spec).init(jax.random.key(0)))
    return jax.tree.map(lambda leaf: rng.normal(0, spread, leaf.shape).astype(np.float32), shapes)


def mixture(spec: Spec, output: Floats) -> Floats:
    """Mix what the one network says with members that know nothing: all weigh the same."""
    members, alone = len(pool.names(spec)), softmax(np.maximum(np.log(softmax(output)), -7))
    mixed = softmax(np.log(alone) / members)
    return 0.9 * mixed + 0.1 * (alone + (members - 1) / spec.classes) / members


def asked(network: Network, params: Params, seen: Seen) -> Any:
    """Ask a network."""
    return answer(params.last, network.features(params.below, seen).seen)


def head(params: Params, rows: Floats) -> Floats:
    """Return the outputs of dense layers with a linear path past them."""
    ones = np.ones((len(rows), 1))
    direct = deep = np.concatenate([rows, ones], 1)
    layers = params.below.get("head", {}).get("layers", {})
    for at in range(len(layers)):
        deep = np.concatenate([np.maximum(deep @ layers[at]["kernel"], 0), ones], 1)
    last = np.concatenate([deep[:, :-1], direct], 1) if layers else direct
    return np.asarray(last @ params.last.T)


def convolution(kernel: Floats, width: int, padding: Any) -> Callable[[Any], Any]:
    """Make flax's convolution of a kernel whose last row is the bias."""
    layer = nnx.Conv(
        (len(kernel) - 1) // width, kernel.shape[1], (width,), padding=padding, rngs=nnx.Rngs(0)
    )
    layer.kernel[...] = jnp.asarray(kernel[:-1].reshape(width, -1, kernel.shape[1]))
    assert layer.bias is not None
    layer.bias[...] = jnp.asarray(kernel[-1])
    return layer


def recurrence(params: Any, units: int, width: int) -> Callable[[Any], Any]:
    """Run flax's cell over windows."""
    cell = nnx.GRUCell(width, units, rngs=nnx.Rngs(0))
    cell.dense_i.kernel[...] = jnp.asarray(params["read"]["kernel"][:-1])
    assert cell.dense_i.bias is not None
    cell.dense_i.bias[...] = jnp.asarray(params["read"]["kernel"][-1])
    cell.dense_h.kernel[...] = jnp.asarray(params["keep"]["kernel"])

    def run(rows: Any) -> Any:
        state = jnp.zeros((len(rows), units))
        for at in range(rows.shape[1]):
            state, _ = cell(state, rows[:, at])
        return state

    return run


@pytest.mark.parametrize("network", ["cnn1d", "gru"])
def test_the_window_is_read_as_it_happened(network: NetworkName) -> None:
    spec, n = window_spec(network), 40
    columns = window_stream()
    params = drawn(spec, 2)
    numeric = columns[0][:n].astype(float)
    rows = np.zeros((n, 4, 4))
    for t in range(n):
        seen = numeric[:t]
        mean = np.nanmean(seen, 0) if t else np.zeros(2)
        spread = np.nanstd(seen, 0) if t > 1 else np.ones(2)
        for back in range(4):  # the entity's rows: every other
            row = numeric[t - 2 * back] if t >= 2 * back else np.full(2, np.nan)
            scaled = np.nan_to_num(np.clip((row - mean) / spread, -8, 8)) if t > 1 else np.zeros(2)
            rows[t, 3 - back] = np.concatenate([scaled, np.isnan(row)])
    if network == "cnn1d":
        answers = convolution(params.below["filters"]["kernel"], 3, "VALID")(jnp.asarray(rows))
        first = np.maximum(np.asarray(answers), 0).reshape(n, -1)
    else:
        first = np.asarray(recurrence(params.below, 12, 4)(jnp.asarray(rows)))
    outputs = head(params, np.concatenate([first, rows[:, -1]], 1))
    said = published(spec, columns, params, n)
    wanted = [mixture(spec, row) for row in outputs]
    assert np.ptp(said[:, 0]) > 0.3
    assert np.allclose(said, wanted, atol=2e-3)


def test_phrases_are_found_as_kim_does() -> None:
    spec, n = text_spec("textcnn"), 40
    columns, params = text_stream(spec), drawn(spec, 5, spread=2.0)
    columns[1][7, :] = 0  # no words at all
    learner = make_learner(spec)
    table = np.asarray(learner.init().table.rows)[:, : spec.embedding]
    found = np.zeros((n, 3, 12))
    for t in range(n):
        words = columns[1][t, 10:]
        for at, width in enumerate((2, 3, 4)):
            kernel = params.below["filters"][at]["kernel"]
            layer = convolution(kernel, width, [(0, width - 1)])
            answers = [
                np.asarray(layer(jnp.asarray(table[text[text > 0]][None])))[0]
                for text in (words[:7], words[7:])
                if (text > 0).any()
            ]
            every = np.maximum(np.concatenate(answers), 0) if answers else np.full((1, 12), -1.0)
            found[t, at] = every.max(0)
    outputs = head(params, found.reshape(n, -1))
    said = published(spec, columns, params, n)
    wanted = [mixture(spec, row) for row in outputs]
    assert np.ptp(said[:, 0]) > 0.1
    assert np.allclose(said, wanted, atol=1e-4)


def seen(rows: Floats, ids: Floats | None = None) -> Seen:
    """Show a network dense inputs, and vectors of categories if there are any."""
    nothing = jnp.zeros((len(rows), 0))
    beside = nothing if ids is None else jnp.asarray(ids)
    no_words = jnp.zeros((len(rows), 0, 8)), jnp.zeros((len(rows), 0), bool)
    return Seen(jnp.asarray(rows), Embedded(beside, nothing, *no_words))


def test_linear_is_linear_and_sees_no_vectors() -> None:
    spec = Spec(numeric=3, classes=2, categories=1, label_lags=0, network="linear", detectors=())
    params = drawn(spec, 4)
    rng = np.random.default_rng(0)
    rows, ids = rng.normal(size=(20, 6)), rng.normal(size=(20, 8))
    said = asked(make_network(spec), params, seen(rows, ids))
    kernel = params.last.T
    assert kernel.shape == (7, 2)
    assert np.allclose(said, rows @ kernel[:-1] + kernel[-1], atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "bend"),
    [
        ("tanh", np.tanh),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        ("gelu", lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
        ("relu", lambda x: np.maximum(x, 0)),
    ],
)
def test_hidden_layers_bend_as_they_are_told(activation: Any, bend: Any) -> None:
    spec = Spec(
        numeric=3, classes=2, label_lags=0, hidden=(5,), activation=activation, detectors=()
    )
    params = drawn(spec, 3)
    rows = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    said = asked(make_network(spec), params, seen(rows))
    first, last = params.below["head"]["layers"][0]["kernel"], params.last.T
    with_one = np.concatenate([rows, np.ones((20, 1))], 1)
    wanted = np.concatenate([bend(with_one @ first), with_one], 1) @ last
    assert np.allclose(said, wanted, atol=1e-4)

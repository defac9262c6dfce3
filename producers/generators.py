"""Seeded streams whose concept changes when you say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.producers.sources import DATA, Event
from headrace.stream.errors import UsageError
from headrace.stream.formats import files

Array = NDArray[np.float64]
Shape = Literal["abrupt", "gradual", "incremental", "recurring"]

_START = datetime(2020, 1, 1, tzinfo=UTC)
_START_MS = int(_START.timestamp() * 1000)
_BLOCK = 1024
_DECIMALS = 4  # features are rounded before they are labelled, so the wire tells the whole truth


@dataclass(frozen=True, slots=True)
class Drift:
    """When the first concept gives way to the second, in events counted from 0.

    abrupt: at `at`. gradual: from `at` to `at + width` each event belongs to the second with a
    probability that rises from 0 to 1. incremental: the concept itself moves, likewise.
    recurring: they alternate, `at` events each.
    """

    kind: Shape
    at: int
    width: int = 0

    @classmethod
    def parse(cls, text: str) -> Drift:
        """Read "abrupt@5000", "gradual@5000:1000", "incremental@5000:1000" or "recurring@2000".

        Raises:
            UsageError: anything else.
        """
        kind, _, when = text.strip().partition("@")
        at, colon, width = when.partition(":")
        wide = kind in ("gradual", "incremental")
        numbers = [at, width] if wide else [at]
        known = wide or kind in ("abrupt", "recurring")
        if (
            not known
            or bool(colon) != wide
            or not all(n.isascii() and n.isdigit() for n in numbers)
        ):
            raise UsageError(
                f"drift {text!r}: expected abrupt@5000, gradual@5000:1000, incremental@5000:1000"
                " or recurring@2000"
            )
        if int(numbers[-1]) < 1:
            raise UsageError(f"drift {text!r}: expected at least 1 event in {numbers[-1]!r}")
        return cls(cast(Shape, kind), int(at), int(width or 0))

    def blend(self, index: NDArray[np.int64], chance: Array) -> Array:
        """Return how much of the second concept is in each event: f64[n] in [0, 1].

        `index` i64[n] are the events' numbers, `chance` f64[n] in [0, 1) decides where they mix.
        """
        if self.kind == "recurring":
            return ((index // self.at) % 2).astype(np.float64)
        if self.kind == "abrupt":
            return (index >= self.at).astype(np.float64)
        progress = np.clip((index - self.at) / self.width, 0.0, 1.0)
        return progress if self.kind == "incremental" else (chance < progress).astype(np.float64)


def sea(*, seed: int = 1, drift: Drift | None = None, noise: float = 0.1) -> Iterator[Event]:
    """Yield f0, f1, f2 in [0, 10] and label 1 where f0 + f1 > theta; f2 tells nothing.

    Theta is 7, after the drift 9.5; a share `noise` of the labels is flipped.

    Source: Street & Kim, "A streaming ensemble algorithm (SEA) for large-scale classification",
    KDD 2001.
    """

    def block(rng: np.random.Generator, blend: Array) -> tuple[Array, list[Any]]:
        features = _rounded(rng.uniform(0, 10, (_BLOCK, 3)))
        label = features[:, 0] + features[:, 1] > 7.0 + 2.5 * blend
        return features, (label ^ (rng.random(_BLOCK) < noise)).astype(int).tolist()

    return _numeric("sea", "label", seed, drift, block)


def hyperplane(
    *, seed: int = 1, drift: Drift | None = None, noise: float = 0.05, features: int = 10
) -> Iterator[Event]:
    """Yield f0.. in [0, 1] and label 1 on the upper side of a plane through the cube's centre.

    Label 1 where sum(w * f) >= sum(w) / 2. The weights w are drawn from [0, 1], others after the
    drift; an incremental drift turns the plane from the one to the other.

    Source: Hulten, Spencer & Domingos, "Mining time-changing data streams", KDD 2001.
    """
    first, second = hyperplane_weights(seed, features)

    def block(rng: np.random.Generator, blend: Array) -> tuple[Array, list[Any]]:
        points = _rounded(rng.random((_BLOCK, features)))
        weights = first + blend[:, None] * (second - first)
        label = ((points - 0.5) * weights).sum(axis=1) >= 0
        return points, (label ^ (rng.random(_BLOCK) < noise)).astype(int).tolist()

    return _numeric("hyperplane", "label", seed, drift, block)


def hyperplane_weights(seed: int, features: int = 10) -> tuple[Array, Array]:
    """Return the weights of `hyperplane` before and after the drift: f64[features] each."""
    first, second = np.random.default_rng([seed, 1]).random((2, features))
    return first, second


def friedman(*, seed: int = 1, drift: Drift | None = None, noise: float = 1.0) -> Iterator[Event]:
    """Yield f0..f9 in [0, 1] and a target that depends on five of them.

    target = 10 sin(pi f0 f1) + 20 (f2 - 0.5)^2 + 10 f3 + 5 f4 + N(0, noise^2); after the drift
    f5..f9 take the places of f0..f4.

    Source: Friedman, "Multivariate adaptive regression splines", Annals of Statistics 19, 1991.
    """

    def surface(x: Array) -> Array:
        wave = 10 * np.sin(np.pi * x[:, 0] * x[:, 1])
        return wave + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]

    def block(rng: np.random.Generator, blend: Array) -> tuple[Array, list[Any]]:
        features = _rounded(rng.random((_BLOCK, 10)))
        target = (1 - blend) * surface(features[:, :5]) + blend * surface(features[:, 5:])
        return features, _rounded(target + noise * rng.standard_normal(_BLOCK)).tolist()

    return _numeric("friedman", "target", seed, drift, block)


_COMMON_WORDS = "a and at for from in is it new of on the this to was what with you"
_TOPIC_WORDS = {  # before and after the drift
    "sport": ("goal match team coach league", "marathon cyclist sprint medal record"),
    "money": ("bank share market profit loan", "crypto wallet token mining ledger"),
}
_TEXT_WORDS = 12


def topics(*, seed: int = 1, drift: Drift | None = None, noise: float = 0.0) -> Iterator[Event]:
    """Yield a text of 12 words and its label, "sport" or "money", evenly.

    About a third of the words belong to the topic, the rest to any text. After the drift a topic
    has new words and those that were the other's: what a model knew is wrong. A share `noise` of
    the labels is flipped. The word lists are this project's own.
    """
    names = list(_TOPIC_WORDS)
    lexicon = [[words.split() for words in _TOPIC_WORDS[name]] for name in names]
    for own, other in (lexicon, lexicon[::-1]):
        own[1] += other[0]
    common = _COMMON_WORDS.split()

    def bodies(rng: np.random.Generator, blend: Array) -> Iterator[dict[str, Any]]:
        topic = rng.integers(0, 2, _BLOCK)
        label = topic ^ (rng.random(_BLOCK) < noise)
        size = (_BLOCK, _TEXT_WORDS)
        second = (rng.random(size) < blend[:, None]).tolist()
        about = rng.random(size) < 1 / 3
        about[np.arange(_BLOCK), rng.integers(0, _TEXT_WORDS, _BLOCK)] = True
        pick = rng.random(size).tolist()
        for row, topical in enumerate(about.tolist()):
            speech = lexicon[topic[row]]
            pools = [
                speech[new] if own else common
                for own, new in zip(topical, second[row], strict=True)
            ]
            words = [pool[int(p * len(pool))] for pool, p in zip(pools, pick[row], strict=True)]
            yield {"text": " ".join(words), "label": names[label[row]]}

    return _events("topics", seed, drift, bodies)


def image(*, seed: int = 1, drift: Drift | None = None) -> Iterator[Event]:
    """Yield handwritten digits, 8 x 8 grey pixels in base64, and the number each stands for.

    All 1,797 that are bundled, again and again, each time in another order. After the drift each
    digit goes by the name of another one.

    Source: Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning
    Repository, 1998.
    """
    digits = list(map(msgspec.json.decode, files.read(DATA / "image.csv.gz", {"image": "string"})))
    circle = np.random.default_rng([seed, 1]).permutation(10)
    other = dict(zip(circle.tolist(), np.roll(circle, 1).tolist(), strict=True))

    def passes() -> Iterator[int]:
        rng = np.random.default_rng([seed, 2])
        while True:
            yield from rng.permutation(len(digits)).tolist()

    order = passes()

    def bodies(rng: np.random.Generator, blend: Array) -> Iterator[dict[str, Any]]:
        for renamed in rng.random(_BLOCK) < blend:
            digit = digits[next(order)]
            yield digit | {"label": other[digit["label"]]} if renamed else digit

    return _events("image", seed, drift, bodies)


GENERATORS: dict[str, Callable[..., Iterator[Event]]] = {
    "sea": sea,
    "hyperplane": hyperplane,
    "friedman": friedman,
    "topics": topics,
    "image": image,
}


def _rounded(values: Array) -> Array:
    return np.round(values, _DECIMALS)


def _numeric(
    name: str,
    target: str,
    seed: int,
    drift: Drift | None,
    block: Callable[[np.random.Generator, Array], tuple[Array, list[Any]]],
) -> Iterator[Event]:
    def bodies(rng: np.random.Generator, blend: Array) -> Iterator[dict[str, Any]]:
        features, labels = block(rng, blend)
        names = [f"f{i}" for i in range(features.shape[1])]
        for row, label in zip(features.tolist(), labels, strict=True):
            yield {**dict(zip(names, row, strict=True)), target: label}

    return _events(name, seed, drift, bodies)


def _events(
    name: str,
    seed: int,
    drift: Drift | None,
    bodies: Callable[[np.random.Generator, Array], Iterator[dict[str, Any]]],
) -> Iterator[Event]:
    """Yield events for ever, one a second from 2020-01-01 UTC, drawn a block at a time."""
    rng = np.random.default_rng([seed, 0])
    encode = msgspec.json.Encoder().encode
    for start in count(0, _BLOCK):
        index = np.arange(start, start + _BLOCK)
        chance = rng.random(_BLOCK)
        blend = drift.blend(index, chance) if drift else np.zeros(_BLOCK)
        for i, body in enumerate(bodies(rng, blend), start):
            event_id = f"{name}-{seed}-{i}"
            moment = (_START + timedelta(seconds=i)).strftime("%Y-%m-%dT%H:%M:%SZ")
            value = encode({"id": event_id, "time": moment, **body})
            yield Event(event_id, None, _START_MS + i * 1000, value)

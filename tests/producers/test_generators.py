from __future__ import annotations

import base64
import math
import re
from collections import Counter
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_digits

from headrace.producers.generators import (
    GENERATORS,
    Drift,
    friedman,
    hyperplane,
    hyperplane_weights,
    image,
    sea,
)
from headrace.producers.generators import topics as topic_texts
from headrace.stream.errors import UsageError

Row = dict[str, Any]


def rows(source: Any, n: int) -> list[Row]:
    return [msgspec.json.decode(event.value) for event in islice(source, n)]


def sea_label(row: Row, theta: float) -> int:
    return int(row["f0"] + row["f1"] > theta)


def friedman_target(row: Row, first: int) -> float:
    a, b, c, d, e = (row[f"f{first + i}"] for i in range(5))
    return float(10 * math.sin(math.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e)


def plane_label(row: Row, weights: Any) -> int:
    total = sum(float(w) * (row[f"f{i}"] - 0.5) for i, w in enumerate(weights))
    return int(total >= 0)


@pytest.mark.parametrize("name", GENERATORS)
def test_same_seed_same_bytes_and_another_seed_others(name: str) -> None:
    make, drift = GENERATORS[name], Drift.parse("gradual@1000:500")
    first = list(islice(make(seed=3, drift=drift), 2_500))
    assert first == list(islice(make(seed=3, drift=drift), 2_500))
    other = islice(make(seed=4, drift=drift), 2_500)
    assert all(a.value != b.value for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", GENERATORS)
def test_a_drift_that_is_yet_to_come_changes_nothing(name: str) -> None:
    make = GENERATORS[name]
    drifting = islice(make(seed=2, drift=Drift("abrupt", 1_500)), 1_500)
    assert list(drifting) == list(islice(make(seed=2), 1_500))


@pytest.mark.parametrize("name", GENERATORS)
def test_ids_and_times_count_up_by_one(name: str) -> None:
    for i, event in enumerate(islice(GENERATORS[name](seed=5), 1_100)):
        assert event.id == f"{name}-5-{i}"
        assert event.time_ms == 1_577_836_800_000 + i * 1_000
        body = msgspec.json.decode(event.value)
        assert body["id"] == event.id
        assert body["time"].startswith("2020-01-01T00:") and body["time"].endswith("Z")


@pytest.mark.parametrize(("name", "share"), [("sea", 0.755), ("hyperplane", 0.5), ("topics", 0.5)])
def test_classes_are_balanced_as_stated(name: str, share: float) -> None:
    # For SEA: P(f0 + f1 > 7) on a square of 10 x 10 is 1 - 24.5 / 100.
    labels = [row["label"] for row in rows(GENERATORS[name](noise=0.0), 20_000)]
    assert sum(label in (1, "sport") for label in labels) / 20_000 == pytest.approx(
        share, abs=0.015
    )


def test_sea_follows_the_published_rule_on_both_sides_of_the_drift() -> None:
    got = rows(sea(drift=Drift("abrupt", 1_500), noise=0.0), 3_000)
    assert all(row["label"] == sea_label(row, 7.0) for row in got[:1_500])
    assert all(row["label"] == sea_label(row, 9.5) for row in got[1_500:])
    wrong = sum(row["label"] != sea_label(row, 7.0) for row in got[1_500:])
    assert wrong / 1_500 == pytest.approx((9.5**2 - 7**2) / 200, abs=0.03)


def test_noise_flips_its_share_of_labels() -> None:
    got = rows(sea(noise=0.1), 20_000)
    flipped = sum(row["label"] != sea_label(row, 7.0) for row in got)
    assert flipped / 20_000 == pytest.approx(0.1, abs=0.01)


def test_incremental_drift_moves_the_rule_itself() -> None:
    got = rows(sea(drift=Drift("incremental", 1_000, 1_000), noise=0.0), 3_000)
    for i, row in enumerate(got):
        assert row["label"] == sea_label(row, 7.0 + 2.5 * min(max(i - 1_000, 0) / 1_000, 1.0))


def test_gradual_drift_mixes_two_rules() -> None:
    got = rows(sea(drift=Drift("gradual", 1_000, 8_000), noise=0.0), 10_000)
    between = [(i, row) for i, row in enumerate(got) if 7.0 < row["f0"] + row["f1"] <= 9.5]
    second = np.array([[i, row["label"] == 0] for i, row in between])
    assert not second[second[:, 0] < 1_000, 1].any()
    assert second[second[:, 0] >= 9_000, 1].all()
    for start in range(1_000, 9_000, 2_000):
        inside = (second[:, 0] >= start) & (second[:, 0] < start + 2_000)
        assert second[inside, 1].mean() == pytest.approx(start / 8_000, abs=0.08)


def test_recurring_drift_comes_back() -> None:
    got = rows(sea(drift=Drift("recurring", 700), noise=0.0), 2_800)
    for i, row in enumerate(got):
        assert row["label"] == sea_label(row, 9.5 if (i // 700) % 2 else 7.0)


def test_hyperplane_follows_its_weights_on_both_sides_of_the_drift() -> None:
    before, after = hyperplane_weights(1)
    got = rows(hyperplane(drift=Drift("abrupt", 1_500), noise=0.0), 3_000)
    assert all(row["label"] == plane_label(row, before) for row in got[:1_500])
    assert all(row["label"] == plane_label(row, after) for row in got[1_500:])
    wrong = sum(row["label"] != plane_label(row, before) for row in got[1_500:])
    assert wrong > 150


def test_friedman_follows_the_published_formula_on_both_sides_of_the_drift() -> None:
    got = rows(friedman(drift=Drift("abrupt", 1_500), noise=0.0), 3_000)
    for i, row in enumerate(got):
        expected = friedman_target(row, 0 if i < 1_500 else 5)
        assert row["target"] == pytest.approx(expected, abs=1e-4)


def test_friedman_noise_has_the_stated_spread() -> None:
    errors = [row["target"] - friedman_target(row, 0) for row in rows(friedman(noise=2.0), 10_000)]
    assert np.mean(errors) == pytest.approx(0.0, abs=0.08)
    assert np.std(errors) == pytest.approx(2.0, abs=0.08)


def test_topics_exchange_words_when_they_drift() -> None:
    got = rows(topic_texts(drift=Drift("abrupt", 3_000)), 6_000)

    def count(part: list[Row], label: str) -> Counter[str]:
        return Counter(w for row in part if row["label"] == label for w in row["text"].split())

    for old, new in ((got[:3_000], got[3_000:]),):
        assert count(old, "sport")["goal"] > 500 > 0 == count(old, "money")["goal"]
        assert count(new, "money")["goal"] > 200 > 0 == count(new, "sport")["goal"]
        assert count(new, "sport")["medal"] > 200 > 0 == count(old, "sport")["medal"]
    assert all(len(row["text"].split()) == 12 for row in got)


def test_digits_come_all_in_each_pass_and_change_names_when_they_drift() -> None:
    known = load_digits()
    drawn = [np.rint(digit * 255 / 16).astype(np.uint8).tobytes() for digit in known.images]
    truth, n = dict(zip(drawn, known.target.tolist(), strict=True)), len(drawn)
    got = rows(image(drift=Drift("abrupt", n)), 2 * n)
    pixels = [base64.b64decode(row["image"]) for row in got]
    for one in (pixels[:n], pixels[n:]):
        assert Counter(one) == Counter(drawn)
    assert pixels[:n] != pixels[n:]
    labels = [truth[p] for p in pixels]
    assert [row["label"] for row in got[:n]] == labels[:n]
    names = set(zip(labels[n:], (row["label"] for row in got[n:]), strict=True))
    assert len(names) == 10
    assert all(old != new for old, new in names)
    assert {new for _, new in names} == set(range(10))


@pytest.mark.parametrize(
    ("text", "drift"),
    [
        ("abrupt@5000", Drift("abrupt", 5_000)),
        ("gradual@5000:1000", Drift("gradual", 5_000, 1_000)),
        ("incremental@0:7", Drift("incremental", 0, 7)),
        (" recurring@2000 ", Drift("recurring", 2_000)),
    ],
)
def test_parse_drift_reads_a_schedule(text: str, drift: Drift) -> None:
    assert Drift.parse(text) == drift


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abrupt",
        "abrupt@",
        "abrupt@x",
        "abrupt@-5",
        "abrupt@0",
        "abrupt@5:3",
        "abrupt@²",
        "sudden@5",
        "gradual@5",
        "gradual@5:0",
        "gradual@5:",
        "recurring@0",
        "recurring@5:5",
    ],
)
def test_parse_drift_refuses_the_rest(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(text))):
        Drift.parse(text)

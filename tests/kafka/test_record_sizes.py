"""Every record that a task can make fits the topics that are made for it."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model import encoders
from headrace.model.spec import METRIC_BYTES
from headrace.stream.errors import TaskError
from headrace.stream.events import (
    LETTER_BYTES,
    DriftAlarm,
    LadderStep,
    Moved,
    Records,
    Reject,
    dead_letter,
)
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task, validate
from headrace.stream.task.features import LONGEST_NAME
from headrace.stream.task.schema import LONGEST_ID, LONGEST_KEY
from headrace.stream.task.target import LONGEST_CLASS
from headrace.stream.training.trainer import Trainer

WORST = "\x01"  # six bytes in JSON, one in UTF-8
sized = st.integers(0, 1 << 24).map(lambda size: b"\xff" * size) | st.binary(max_size=100)


@settings(max_examples=60, deadline=None)
@given(raw=st.none() | sized, key=st.none() | sized, detail=st.text(max_size=2000))
def test_a_letter_is_bounded_and_says_what_it_left_out(
    raw: bytes | None, key: bytes | None, detail: str
) -> None:
    letter = dead_letter(Reject("json", detail), "t" * 249, 2**31, 2**63, key, raw)
    text = msgspec.json.encode(letter)
    assert len(text) + len(letter.key or b"") <= LETTER_BYTES
    found = msgspec.json.decode(text)
    for name, data in (("key", key), ("raw", raw)):
        held = None if found[name] is None else base64.b64decode(found[name])
        if held == data:
            assert f"{name}_bytes" not in found
        else:
            assert data is not None
            assert held == data[: len(held or b"")]
            assert len(held or b"") >= 4_096
            said = (found[f"{name}_bytes"], found[f"{name}_sha256"])
            assert said == (len(data), sha256(data).hexdigest())


def task(classes: int) -> Task:
    """Make a task with names as long as they may be."""
    features: dict[str, Any] = {
        f"{at}".ljust(LONGEST_NAME, WORST): {"kind": "number"} for at in range(40)
    }
    features |= {f"{at}".ljust(LONGEST_NAME, "w"): {"kind": "text"} for at in range(4)}
    names = [f"{at}".ljust(LONGEST_CLASS, WORST) for at in range(classes)]
    target = {"field": "y", "kind": "classify", "classes": names}
    return validate(
        {
            "name": "n" * 100,
            "input": {"topic": "t" * 249, "entity": "e", "max_bytes": 1 << 20},
            "target": target if classes else {"field": "y", "kind": "regress"},
            "features": features,
            "model": {"hidden": [4], "neighbours": 0, "embedding": 2, "table_bits": 4},
        },
        "t",
    )


@pytest.mark.parametrize("classes", [0, 2, 100, 1000])
def test_the_longest_records_fit(classes: int) -> None:
    made = task(classes)
    limits = {
        spec.name.removeprefix(f"{made.name}."): spec.record_bytes for spec in topic_specs(made)
    }
    label = made.target.classes[-1] if classes else 1e15
    longest = WORST * LONGEST_ID
    event = {"id": longest, "e": "x", "y": label}
    event |= {name: "one two " * 900 for name in made.features if name.endswith("w")}
    event |= {name: -1.2345678901234e-14 for name in made.features if name.endswith(WORST)}
    raw, key = msgspec.json.encode(event), b"k" * LONGEST_KEY
    records = Records(
        made.input.topic, [raw, raw], [key, key + b"k"], [9, 9], [2**40, 2**40 + 1], [0, 0]
    )
    normalizer = Normalizer(made)
    rows, letters = normalizer.normalize(records)
    assert [letter.code for letter in letters] == ["too_large"]
    assert "a key of 65537 bytes, expected at most 65536" in letters[0].detail
    features, _ = normalizer.features(records)
    assert len(msgspec.msgpack.encode(features[0])) + len(key) <= limits["features"]

    trainer = Trainer(made, 1)
    learned = trainer.collect(trainer.submit(rows))
    (prediction,) = trainer.predictions(learned)
    wide = msgspec.structs.replace(
        prediction,
        prediction=label,
        probabilities=[1.2345678901234567e-300] * classes or None,
        interval=None if classes else [-1.2345678901234567e-300] * 2,
    )
    assert len(msgspec.json.encode(wide)) + len(key) <= limits["predictions"]
    assert len(msgspec.json.encode(trainer.report())) + 2_000 <= limits["metrics"]

    where = (longest, 2**31, 2**50, 2**31, 2**62)
    number = 1.2345678901234567e-300
    moved = [Moved(WORST * LONGEST_NAME, number, number)] * 3
    alarm = DriftAlarm("page_hinkley", *where, number, number, number, number, number, moved)
    names = [WORST * LONGEST_CLASS] * 2
    step = LadderStep("relabel", *where, exchanged=names, statistic=number)
    assert max(len(msgspec.json.encode(each)) for each in (alarm, step)) <= limits["drift"]


def test_the_numbers_of_encoders_fit(registries: None) -> None:
    encoders.register("wide", lambda values: [[0.5] * 4096] * len(values))
    features = {
        f"e{at}": {"kind": "encoded", "field": "e", "encoder": "wide", "width": 4096}
        for at in range(31)
    }
    table = {"name": "wide", "input": {"topic": "t"}, "target": {"field": "y", "kind": "regress"}}
    made = validate(table | {"features": features}, "t")
    records = Records("t", [b'{"id": 1, "e": 1, "y": 1}'], [None], [0], [0], [0])
    (feature,), _ = Normalizer(made).features(records)
    (limit,) = (each for each in topic_specs(made) if each.name == made.output("features"))
    assert len(msgspec.msgpack.encode(feature)) + LONGEST_KEY <= limit.record_bytes
    assert limit.max_message_bytes == limit.record_bytes  # more than Kafka's own
    features["e31"] = features["e32"] = features["e0"]
    with pytest.raises(TaskError, match="expected 1048576 at most"):
        validate(table | {"features": features}, "t")


def test_what_metrics_say_fits() -> None:
    table = {"name": "wide", "input": {"topic": "t"}, "target": {"field": "y", "kind": "regress"}}
    few, many = (
        validate(table | {"features": {"x": {"kind": "number"}}, "metrics": names}, "t")
        for names in ([], [f"m{at}" for at in range(16)])
    )
    limits = [
        {spec.name: spec.record_bytes for spec in topic_specs(made)}[made.output("metrics")]
        for made in (few, many)
    ]
    assert limits[1] - limits[0] >= 16 * METRIC_BYTES


def test_rows_that_would_fill_the_memory_are_refused() -> None:
    table = {"name": "wide", "input": {"topic": "t"}, "target": {"field": "y", "kind": "regress"}}
    texts = {f"t{at}": {"kind": "text", "max_tokens": 4096} for at in range(65)}
    with pytest.raises(TaskError, match=r"a row takes 1064968 bytes, expected 1048576 at most"):
        validate(table | {"features": texts}, "t")


def test_a_name_too_long_for_records_is_refused() -> None:
    table = {"name": "wide", "input": {"topic": "t"}, "target": {"field": "y", "kind": "regress"}}
    with pytest.raises(TaskError, match="more than 200 characters"):
        validate(table | {"features": {"x" * 201: {"kind": "number"}}}, "t")


def test_no_event_is_normalised_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad label, time or number used to have the whole micro-batch normalised again."""
    made, normalizer = task(2), Normalizer(task(2))
    taken: list[int] = []
    tokens = normalizer._hasher.tokens

    def counted(*args: Any) -> Any:
        taken.append(1)
        return tokens(*args)

    monkeypatch.setattr(normalizer._hasher, "tokens", counted)
    texts = {name: "one" for name in made.features if name.endswith("w")}
    labels = [made.target.classes[0], "unknown", made.target.classes[1], "none"]
    raws: list[bytes | None] = [
        msgspec.json.encode({"id": at, "e": 1, "y": label} | texts)
        for at, label in enumerate(labels)
    ]
    records = Records("t", raws, [None] * 4, [0] * 4, [*range(4)], [0] * 4)
    rows, letters = normalizer.normalize(records)
    assert (rows.offset, [letter.offset for letter in letters]) == ([0, 2], [1, 3])
    assert np.isfinite(rows.label).all()
    assert len(taken) == 4 * len(texts)

"""The table `[labels]`: each mistake in it is told in one line, with its place."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from headrace.stream.errors import TaskError
from headrace.stream.task import parse

TARGETS = {
    "closed": 'kind = "classify"\nclasses = ["low", "high"]',
    "numbers": 'kind = "classify"\nclasses = ["0", "1"]',
    "open": 'kind = "classify"\nmax_classes = 4\nclasses = ["low"]',
    "balanced": 'kind = "classify"\nclasses = ["low", "high"]\nclass_weight = "balanced"',
    "regress": 'kind = "regress"\nhorizon = 0',
}
SCALAR = "expected a number or text that is not empty or true or false"
CLOSED = "expected one of target.classes = ['low', 'high']"
NUMBER = "expected a number, |x| <= 1e+300, as target.kind = 'regress' has"


def text(target: str, *lines: str, topic: str = "t.labels") -> str:
    return "\n".join(
        [
            'name = "t"',
            '[input]\ntopic = "t.events"',
            '[features]\nx = { kind = "number" }',
            f'[target]\nfield = "label"\n{TARGETS[target]}',  # two lines or three
            f'[labels]\ntopic = "{topic}"',
            *lines,
        ]
    )


@pytest.mark.parametrize(
    ("target", "line", "told"),
    [
        ("closed", "labell = 'x'", "labels.labell: no such key; did you mean 'label'?"),
        ("closed", "id = ''", "labels.id = '': expected text that is not empty"),
        ("closed", "label = 3", "labels.label = 3: expected text that is not empty"),
        ("closed", "time = ''", "labels.time = '': expected text that is not empty"),
        ("closed", "max_pending = 0", "= 0: expected a whole number from 1 to 100,000,000"),
        ("closed", "max_pending = true", "= true: expected a whole number from 1"),
        ("closed", "ttl_hours = 0", "labels.ttl_hours = 0: expected a number above 0"),
        ("closed", "ttl_hours = nan", "labels.ttl_hours = nan: expected a finite number"),
        ("closed", "policy = 'ignor'", "'rescore' or 'relearn'; did you mean 'ignore'?"),
        ("closed", "sample_negatives = 0.1", "expected on_expiry, which names them"),
        ("closed", "sample_negatives = 1.0", "labels.sample_negatives = 1.0: expected a number"),
        ("closed", "holdout = 0.6", "labels.holdout = 0.6: expected a number from 0 to 0.5"),
        ("closed", "on_expiry = 'hihg'", f"'hihg': {CLOSED}; did you mean 'high'?"),
        ("closed", "on_expiry = ''", f"labels.on_expiry = '': {SCALAR}"),
        ("closed", "on_expiry = ['low']", f"labels.on_expiry = ['low']: {SCALAR}"),
        ("closed", "on_expiry = {}", f"labels.on_expiry = {{}}: {SCALAR}"),
        ("closed", "on_expiry = 2024-05-01", f"labels.on_expiry = 2024-05-01: {SCALAR}"),
        ("closed", "on_expiry = true", f"labels.on_expiry = true: {CLOSED}"),
        ("closed", "on_expiry = nan", "labels.on_expiry = nan: expected a finite number"),
        ("numbers", "on_expiry = '1.0'", "expected one of target.classes = ['0', '1']"),
        ("numbers", "on_expiry = true", "expected one of target.classes = ['0', '1']"),
        ("open", f"on_expiry = '{'é' * 128}'", "expected 255 bytes at most, as a class's name has"),
        ("regress", "on_expiry = 'low'", f"labels.on_expiry = 'low': {NUMBER}"),
        ("regress", "on_expiry = true", f"labels.on_expiry = true: {NUMBER}"),
        ("regress", "on_expiry = 1e301", f"labels.on_expiry = 1e+301: {NUMBER}"),
        ("regress", f"on_expiry = 1{'0' * 400}", f"labels.on_expiry: {SCALAR}"),
        ("regress", "on_expiry = -inf", "labels.on_expiry = -inf: expected a finite number"),
    ],
)
def test_each_mistake_is_told(target: str, line: str, told: str) -> None:
    with pytest.raises(TaskError) as caught:
        parse(text(target, line), "t.toml")
    (only,) = caught.value.args
    row = text(target).count("\n") + 2
    assert only.startswith(f"t.toml:{row}:1: labels.")
    assert told in only


@pytest.mark.parametrize("topic", ["t.events", "t.predictions", "t.expired", "t.ledger"])
def test_labels_have_a_topic_of_their_own(topic: str) -> None:
    with pytest.raises(TaskError, match=r"labels\.topic = 't\..*alone, which others write"):
        parse(text("closed", topic=topic), "t.toml")


def test_more_events_wait_than_a_label_looks_back() -> None:
    """Else each prediction expires before its label can come."""
    told = r"labels\.max_pending = 5: .* expected more than target\.horizon$"
    for enough in (False, True):
        lines = text("closed", f"max_pending = {5 + enough}")
        lines = lines.replace("[labels]", "horizon = 5\n[labels]")
        with nullcontext() if enough else pytest.raises(TaskError, match=told):
            parse(lines, "t")


def test_a_topic_is_missing() -> None:
    wrong = text("closed").replace('topic = "t.labels"', "")
    with pytest.raises(TaskError, match=r"labels\.topic: missing; expected the topic of labels"):
        parse(wrong, "t.toml")


def test_chunks_do_not_go_with_late_labels() -> None:
    told = r"model\.chunk = 8: late labels are learned one by one: expected 1"
    with pytest.raises(TaskError, match=told):
        parse(text("regress", "[model]\nchunk = 8"), "t.toml")


@pytest.mark.parametrize(
    ("target", "implied", "told"),
    [
        ("regress", "0", "a sample of a class: expected target.kind = 'classify'"),
        ("open", '"high"', "on_expiry is no class from the start: expected it in target.classes"),
        ("balanced", '"low"', "evens classes out, too: expected one of both"),
    ],
)
def test_a_sample_is_of_a_class_that_is_there(target: str, implied: str, told: str) -> None:
    wrong = text(target, f"on_expiry = {implied}", "sample_negatives = 0.1")
    with pytest.raises(TaskError) as caught:
        parse(wrong, "t.toml")
    assert "labels.sample_negatives = 0.1: " in str(caught.value)
    assert told in str(caught.value)

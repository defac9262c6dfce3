"""What ends a stream midway loses nothing of what was learned before."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import headrace
from headrace.stream.task import validate
from headrace.stream.training.snapshot import digest
from headrace.stream.training.trainer import Trainer

ROWS = 300
TASK: dict[str, Any] = {
    "name": "t",
    "input": {"topic": "t"},
    "target": {"field": "y", "kind": "regress"},
    "features": {"x": {"kind": "number"}},
    "model": {"hidden": [4], "neighbours": 20},
}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("headrace.learner.CAPACITY", 64)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job has none
    yield
    signal.signal(signal.SIGINT, before)


def learner() -> headrace.Learner:
    return headrace.Learner(validate(TASK, "t"))


def events() -> list[dict[str, Any]]:
    """Return events whose labels grow wild, so that there is an alarm."""
    xs = np.random.default_rng(0).normal(size=ROWS).tolist()
    return [{"x": x, "y": x * (0.01 if at < 40 else 1e3), "id": at} for at, x in enumerate(xs)]


class GivenUpError(Exception):
    pass


def give_up() -> Any:
    raise GivenUpError


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def broken_off(at: int, end: Callable[[], Any]) -> Iterator[dict[str, Any]]:
    yield from events()[:at]
    end()


def state(learner: headrace.Learner) -> Any:
    return digest(learner._trainer.snapshot().tensors()), learner.events, learner.drift


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (give_up, GivenUpError),
        (ctrl_c, KeyboardInterrupt),
        (lambda: next(iter(())), RuntimeError),  # as of a generator whose own iterator ends
    ],
)
@pytest.mark.parametrize("at", [0, 7, 64, 299])
def test_a_stream_that_breaks_off_is_learned_so_far(
    end: Callable[[], Any], kind: type[BaseException], at: int
) -> None:
    ours, plain = learner(), learner()
    with pytest.raises(kind) as caught:
        ours.predict_then_learn(broken_off(at, end))
    said = plain.predict_then_learn(events()[:at])
    found: Any = caught.value
    assert found.said.equals(said)
    assert found.__notes__ == [f"headrace took {at} rows before it: see its `said`"]
    assert state(ours) == state(plain)
    assert bool(ours.drift) == (at > 192)
    rest = ours.predict_then_learn(events()[at:])
    assert rest.equals(plain.predict_then_learn(events()[at:]))
    assert state(ours) == state(plain)


def test_a_row_that_cannot_be_read_ends_a_stream_behind_those_before() -> None:
    rows = events()
    ours, plain = learner(), learner()
    with pytest.raises(headrace.EventError) as caught:
        ours.predict_then_learn([*rows[:70], {"x": object()}, *rows[70:]])
    found: Any = caught.value
    assert found.said.equals(plain.predict_then_learn(rows[:70]))
    assert state(ours) == state(plain)


@pytest.mark.parametrize("step", ["admit", "submit", "collect"])
def test_ctrl_c_never_comes_between_what_belongs_together(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it is pressed, each row is learned wholly or not at all, and none is lost."""
    ours, plain, real = learner(), learner(), getattr(Trainer, step)
    calls = 0

    def pressed(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            ctrl_c()
        return real(*given)

    monkeypatch.setattr(Trainer, step, pressed)
    with pytest.raises(KeyboardInterrupt) as caught:
        ours.predict_then_learn(events())
    monkeypatch.undo()
    monkeypatch.setattr("headrace.learner.CAPACITY", 64)
    found: Any = caught.value
    taken = found.said.num_rows
    assert 0 < taken == ours.events < ROWS
    assert found.said["rejected"].null_count == taken
    said = pa.concat_tables([found.said, ours.predict_then_learn(events()[taken:])])
    assert said.equals(plain.predict_then_learn(events()))
    assert state(ours) == state(plain)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("step", ["foresee", "accept", "submit"])
def test_ctrl_c_while_one_event_is_learned(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, plain, real = learner(), learner(), getattr(Trainer, step)
    for each in (ours, plain):
        each.predict_then_learn(events()[:70])
    event = events()[70]

    def pressed(*given: Any) -> Any:
        ctrl_c()
        return real(*given)

    if step == "accept":
        ours.predict_one(event)
    monkeypatch.setattr(Trainer, step, pressed)
    with pytest.raises(KeyboardInterrupt):
        (ours.predict_one if step == "foresee" else ours.learn_one)(event)
    monkeypatch.undo()
    if step != "foresee":
        plain.learn_one(event)
    assert state(ours) == state(plain)
    assert ours.predict_one(events()[71]) == plain.predict_one(events()[71])


@pytest.mark.parametrize("ask", ["predict_one", "learn_one"])
def test_an_event_that_raises_changes_nothing(ask: str) -> None:
    ours, plain = learner(), learner()
    for each in (ours, plain):
        each.predict_then_learn(events()[:70])
    for event in ({"x": object()}, {"x": "much", "id": 70}, {"id": 70, "y": "?"}):
        with pytest.raises(headrace.EventError):
            getattr(ours, ask)(event)
    ours.events = plain.events  # a refused event counts as taken
    assert state(ours) == state(plain)
    assert ours.learn_one(events()[70]) == plain.learn_one(events()[70])

"""Labels that come by themselves, after other events: the same row learns, the same words count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.model import waiting
from headrace.model.learner import make_learner
from headrace.model.members import neighbours
from headrace.model.metrics import classification_report
from headrace.model.spec import Spec
from tests.model.test_learner import copied, digest, stream
from tests.support.columns import Columns, feed

N = 240
WAITING = 64
CLASSES = Spec(numeric=4, classes=3, categories=2, tokens=3, neighbours=50, entities=8, traces=(4,))
NUMBERS = Spec(numeric=4, numeric_lags=1, neighbours=50, entities=8, weighted=True)
SPECS = {"classes": CLASSES, "numbers": NUMBERS}
IMAGES = Spec(numeric=2, classes=3, image=(5, 4, 1), network="cnn2d", neighbours=20, rates=(0.003,))


def late(columns: Columns, delay: int) -> tuple[Columns, NDArray[np.bool_]]:
    """Put the label of each event before the event that comes `delay` later, 0: right behind it.

    Returns:
        columns of all lines, and which are events.
    """
    n, lines = len(columns[3]), list[tuple[int, int]]()
    for at in range(n + delay):
        due = at - delay
        if delay and due >= 0 and columns[3][due] == columns[3][due]:
            lines.append((1, due))
        if at < n:
            lines.append((0, at))
            if not delay and columns[3][at] == columns[3][at]:
                lines.append((1, at))
    is_label, source = (np.array(each) for each in zip(*lines, strict=True))
    taken = [column[source].copy() for column in columns]
    for place in (0, 1, 2, 4, 5):  # a label has nothing of its event but the id, so the slot
        taken[place][is_label == 1] = {0: np.nan, 5: 1}.get(place, 0)
    taken[3][is_label == 0] = np.nan
    time = np.zeros((len(lines), 0), np.int32)
    line = np.column_stack([is_label, source % WAITING]).astype(np.int32)
    return (*taken, time, line), is_label == 0


@pytest.fixture
def one_tie(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let rows be as near as the nearest alike, whether labels come late or not."""
    monkeypatch.setattr(neighbours, "LATE_TIE", neighbours.TIE)
    make_learner.cache_clear()
    yield
    make_learner.cache_clear()


@pytest.mark.parametrize("spec", [*SPECS.values(), IMAGES], ids=[*SPECS, "images"])
def test_a_label_at_once_teaches_what_one_in_the_event_does(spec: Spec, one_tie: None) -> None:
    columns = stream(spec, N)
    columns[3][:] = np.nan_to_num(columns[3])
    _, said = feed(make_learner(spec), columns, [], N)
    lines, events = late(columns, 0)
    _, published = feed(make_learner(replace(spec, waiting=WAITING)), lines, [], len(events))
    np.testing.assert_allclose(published[events], said, rtol=1e-5, atol=1e-5)
    assert np.isfinite(said[-1]).all()


def test_a_label_weighs_as_much_as_its_event_would() -> None:
    spec = replace(NUMBERS, waiting=WAITING)
    lines, events = late(stream(spec, N), 3)
    lines[5][events] = 1
    heavy = [*lines]
    heavy[5] = lines[5].copy()
    heavy[5][~events] = 4
    within = [*lines]
    within[5] = np.where(events[:, None], 4, 1).astype(np.float32)
    (_, said), (_, same), (_, unlike) = (
        feed(make_learner(spec), tuple(each), [], len(events)) for each in (heavy, within, lines)
    )
    np.testing.assert_array_equal(said[events], same[events])
    assert not np.array_equal(said[events], unlike[events], equal_nan=True)


def test_a_label_some_events_later_teaches_what_a_horizon_s_does(one_tie: None) -> None:
    """Of one entity, and before alarms: a horizon's row is scored when its label is learned."""
    spec = replace(CLASSES, entities=0, detectors=())
    columns, horizon = stream(spec, N), 5
    columns[3][:] = np.nan_to_num(columns[3])
    ahead = [*columns]
    ahead[3] = np.concatenate([np.full(horizon, np.nan), columns[3][:-horizon]]).astype(np.float32)
    _, said = feed(make_learner(replace(spec, horizon=horizon)), tuple(ahead), [], N)
    lines, events = late(columns, horizon)
    _, published = feed(make_learner(replace(spec, waiting=WAITING)), lines, [], len(events))
    np.testing.assert_allclose(published[events], said, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("cuts", [[1, 2, 3, 100], list(range(7, 400, 7)), [200]])
def test_cuts_between_events_and_labels_change_no_bit(name: str, cuts: list[int]) -> None:
    spec = replace(SPECS[name], waiting=WAITING)
    lines, events = late(stream(spec, N), 48)
    state, said = feed(make_learner(spec), lines, [], len(events))
    cuts = [cut for cut in cuts if cut < len(events)]
    other, again = feed(make_learner(spec), lines, cuts, len(events))
    assert said.tobytes() == again.tobytes()
    assert digest(state) == digest(other)


def test_what_was_published_is_what_a_late_label_scores() -> None:
    spec = replace(CLASSES, waiting=WAITING)
    columns = stream(spec, N)
    lines, events = late(columns, 48)
    state, said = feed(make_learner(spec), lines, [], len(events))
    label, chances = columns[3], said[events]
    known = ~np.isnan(label)
    right = chances.argmax(1)[known] == label[known]
    found: dict[str, Any] = classification_report(state.metrics)["all"]
    assert found["events"] == known.sum()
    assert found["accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    assert np.isnan(said[~events]).all()


def test_rows_that_wait_are_not_copied_for_a_line() -> None:
    spec = Spec(numeric=3, classes=2, categories=1, neighbours=333, entities=444, waiting=777)
    assert not [size for size in copied(spec) if size & {"333", "444", "777"} and "0" not in size]


@pytest.mark.parametrize(("horizon", "chunk"), [(1, 1), (0, 2)])
def test_a_horizon_or_chunks_beside_it_are_refused(horizon: int, chunk: int) -> None:
    with pytest.raises(ValueError, match="waiting: expected horizon 0 and chunk 1"):
        Spec(numeric=1, waiting=1, horizon=horizon, chunk=chunk)


@pytest.mark.parametrize("spec", [*SPECS.values(), IMAGES], ids=[*SPECS, "images"])
def test_a_row_waits_as_it_was_predicted_flag_by_flag(spec: Spec) -> None:
    """Flags take a bit each in a slot; numbers and flags come out as they went in."""
    spec = replace(spec, waiting=WAITING, numeric_lags=2, label_lags=3)
    lines, events = late(stream(spec, N), 3)
    state, _ = feed(make_learner(spec), lines, [], len(events))
    flags = spec.flags
    met = np.asarray(state.chunk.inputs)[0]
    assert set(met[flags]) == {0.0, 1.0}  # of a missing number, too
    assert len(set(met)) > 4
    others = {
        name: jnp.asarray(values[7])
        for name, values in state.waiting.items()
        if name not in ("inputs", "flags")
    }
    inputs, none = jnp.asarray(met), jnp.zeros(0, jnp.uint32)
    row = waiting.WaitingRow(inputs=inputs, flags=none, **others)
    held = {name: jnp.asarray(values) for name, values in state.waiting.items()}
    slots = waiting.put(spec, held, jnp.int32(5), row)
    taken = waiting.take(spec, slots, jnp.int32(5), jnp.zeros(0, jnp.uint32))
    for name, value in row._asdict().items():
        assert np.asarray(getattr(taken, name)).tobytes() == np.asarray(value).tobytes(), name
    stored = sum(values.nbytes for values in slots.values())
    assert stored == WAITING * waiting.row_bytes(spec)

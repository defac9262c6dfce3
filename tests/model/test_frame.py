from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from headrace.model.frame import CHECKED, NEWEST, Frame
from headrace.model.spec import Spec
from headrace.stream.rows.rows import Rows
from headrace.stream.task import parse
from headrace.stream.training.trainer import Trainer

TASK = """
name = "numbers"
[input]
topic = "raw"
id = "id"
[target]
field = "y"
kind = "regress"
horizon = {horizon}
[lags]
rows = {lags}
[model]
neighbours = 50
hidden = [8]
[features]
a = {{ kind = "number" }}
b = {{ kind = "number" }}
"""
Floats = NDArray[np.float64]
SPEC = Spec(numeric=2)  # three columns: two numbers and the label


def rows_of(values: Floats, first: int = 0) -> Rows:
    n = len(values)
    return Rows(
        id=list(range(first, first + n)),
        key=[None] * n,
        partition=[0] * n,
        offset=list(range(first, first + n)),
        time_ms=np.zeros(n, np.int64),
        numeric=values[:, :-1],
        ids=np.zeros((n, 0), np.uint32),
        entity=np.zeros((n, 2), np.uint32),
        label=values[:, -1],
        new_class=[None] * n,
        image=np.zeros((n, 0, 0, 0), np.uint8),
        weight=np.zeros((n, 0)),
        arrived_ms=np.zeros(n, np.int64),
    )


def learn(
    values: Floats, batch: int = 500, horizon: int = 0, lags: int = 0
) -> tuple[Trainer, Floats]:
    """Return a trainer that learned rows, and what it published of each: value, low, high."""
    trainer = Trainer(parse(TASK.format(horizon=horizon, lags=lags), "t"), 500)
    said = [
        trainer.collect(trainer.submit(rows_of(values[at : at + batch], at))).published
        for at in range(0, len(values), batch)
    ]
    return trainer, np.concatenate(said)


def stream(n: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(n, 2))
    label = numbers @ [2.0, -1.0] + 0.3 * rng.normal(size=n)
    return np.column_stack([numbers, label])


def walked(values: Floats, cuts: list[int]) -> tuple[Floats, list[Floats]]:
    """Return the frame after rows, and in what each row went into the core."""
    frame, inward = Frame(SPEC), list[Floats]()
    for first, end in zip([0, *cuts], [*cuts, len(values)], strict=True):
        piece = values[first:end]
        for start, stop, change in frame.stretches(piece):
            anew = change.anew if change else np.zeros(len(frame.origin), bool)
            inward.extend(
                np.array([frame.origin, frame.unit, row, anew & (at == 0)])
                for at, row in enumerate(frame.to_internal(piece[start:stop]))
            )
    return frame.as_array(), inward


NUMBERS = st.sampled_from([0.0, 1.0, 0.1, -3.0, 1e9, 1e9 + 0.25, 1e15, 1e30, -1e-30, np.nan])


@settings(max_examples=200, deadline=None)
@given(
    values=arrays(np.float64, st.tuples(st.integers(1, 40), st.just(3)), elements=NUMBERS),
    data=st.data(),
)
def test_a_frame_does_not_depend_on_cuts(values: Floats, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=5)))
    for one, other in zip(walked(values, []), walked(values, cuts), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", range(5))
def test_first_values_far_apart_are_found_however_they_are_cut(seed: int) -> None:
    values = np.random.default_rng(seed).pareto(0.4, (400, 3))
    whole = walked(values, [])
    for cuts in ([1, 3, 64, 100], list(range(1, 400, 7)), [63, 65]):
        for one, other in zip(whole, walked(values, cuts), strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_moves_in_steps_is_not_converted_at_each() -> None:
    """A date, and a reading that stays for long: each conversion waits for the whole state."""
    days = np.repeat(0.1 + 0.000442 * np.arange(40), 1_000)
    values = np.column_stack([days, 1e9 + 0.25 * (np.arange(40_000) // 5_000), days])
    frame = Frame(SPEC)
    changes = [change for _, _, change in frame.stretches(values) if change]
    assert len({change.before.origin[0] for change in changes}) <= 2  # 0, and the first value
    here, there = frame.to_internal(values[[-1, -1]] + [[0.0, 0.0, 0.0], [0.0, 0.25, 0.0]])[:, 1]
    assert there - here == 0.25 / frame.unit[1]


def test_checks_go_on_for_ever() -> None:
    values = np.column_stack([np.zeros((3 * CHECKED, 2)), 0.25 * np.arange(3.0 * CHECKED)])
    values[2 * CHECKED :, 2] += 1e12 + 0.3
    whole, inward = walked(values, [])
    cut, other = walked(values, [1, CHECKED - 1, CHECKED, 2 * CHECKED + 5])
    np.testing.assert_array_equal(whole, cut)
    np.testing.assert_array_equal(inward, other)
    assert whole[0, 2] == pytest.approx(1e12, rel=1e-3)
    np.testing.assert_array_equal(whole[-NEWEST:, 2], values[: -NEWEST - 1 : -1, 2])


@pytest.mark.parametrize(
    ("factor", "offset"),
    [(1.0, 1e9), (0.01, 1.7e9), (1.0, -1e12), (1e30, 0.0), (1e-25, 0.0), (1e200, 0.0)],
)
@pytest.mark.parametrize("horizon", [0, 2])
def test_offset_and_scale_of_numbers_cost_nothing(
    factor: float, offset: float, horizon: int
) -> None:
    plain = stream(1500)
    moved = plain * factor + offset
    by_plain, _ = learn(plain, horizon=horizon, lags=1)
    by_moved, said = learn(moved, horizon=horizon, lags=1)
    known, due = moved[horizon:, 2], said[: len(said) - horizon, 0]
    there = ~np.isnan(due)
    assert there.sum() >= 1500 - 2 * horizon - 1
    score, expected = by_moved.report()["all"], by_plain.report()["all"]
    mae = np.abs(known - due)[there].mean()
    assert score["mae"] == pytest.approx(mae, rel=1e-4)
    assert score["mae"] == pytest.approx(expected["mae"] * factor, rel=0.02)
    assert score["r2"] == pytest.approx(expected["r2"], abs=0.01)
    assert score["coverage"] == pytest.approx(expected["coverage"], abs=0.02)
    mape = np.mean(np.abs(known - due)[there] / np.abs(known[there]))
    assert score["mape"] == pytest.approx(mape, rel=1e-3)


@pytest.mark.parametrize("wild", [1e14, -1e30, 1e300])
@pytest.mark.parametrize("at", [0, 700])
def test_one_wild_number_spoils_nothing_for_long(wild: float, at: int) -> None:
    plain = stream(3000)
    spoiled = plain.copy()
    spoiled[at] = wild
    (_, said), (_, expected) = learn(spoiled), learn(plain)
    late = slice(2500, None)
    miss = np.abs(said[late, 0] - plain[late, 2]).mean()
    assert miss < 1.1 * np.abs(expected[late, 0] - plain[late, 2]).mean()


def test_a_level_that_leaves_for_far_away_is_followed() -> None:
    values = stream(3 * CHECKED)
    values[CHECKED:] += 1e12
    _, said = learn(values)
    assert np.abs(said[-1000:, 0] - values[-1000:, 2]).mean() < 0.5


def test_predictions_are_the_same_bits_however_a_stream_is_cut() -> None:
    values = stream(600) * 0.01 + 1e9
    values[300:] *= 1e10
    values[::7, 0] = np.nan
    values[5::9, 2] = np.nan
    (one, said), (other, again) = learn(values), learn(values, batch=13)
    np.testing.assert_array_equal(said, again)
    tensors, expected = (each.snapshot().tensors() for each in (other, one))
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensors[name], tensor, name)


def test_a_restored_trainer_goes_on_the_same() -> None:
    values = stream(600) * 0.01 + 1e9
    trainer, _ = learn(values[:300])
    held = trainer.snapshot().tensors()
    heir = Trainer(parse(TASK.format(horizon=0, lags=0), "t"), 500)
    heir.restore(held, 300)
    rest = rows_of(values[300:], 300)
    ours, theirs = (each.collect(each.submit(rest)).published for each in (trainer, heir))
    np.testing.assert_array_equal(ours, theirs)


def test_nothing_is_said_before_a_label_is_known() -> None:
    values = stream(20) + 1e7
    values[:3, 2] = np.nan
    trainer, said = learn(values)
    assert np.isnan(said[:4]).all()  # the fourth label is the first, and comes after its prediction
    assert said[4, 0] == values[3, 2]
    assert np.isnan(said[4, 1:]).all()
    assert np.isfinite(said[5:]).all()
    report = msgspec.json.decode(msgspec.json.encode(trainer.report()))  # as it is published
    assert report["all"]["events"] == 16
    assert report["all"]["mae"] == pytest.approx(
        np.abs(said[4:, 0] - values[4:, 2]).mean(), rel=1e-5
    )
    means = np.cumsum(values[3:, 2])[:-1] / np.arange(1, 17)
    mean = report["baselines"]["mean"]["all"]["mae"]
    assert mean == pytest.approx(np.abs(values[4:, 2] - means).mean(), rel=1e-5)
    named = trainer.collect(trainer.submit(rows_of(stream(1), 20)))
    assert trainer.predictions(named)[0].interval is not None

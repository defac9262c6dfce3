"""Attributions beside Shapley's value of every coalition, on functions that are small enough."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headrace.model.attributions import ROWS, Walks, draw_walks, walks_of

Function = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def sum_of_all(rows: NDArray[np.float64]) -> Any:
    return rows @ np.arange(1.0, rows.shape[-1] + 1)


def with_interactions(rows: NDArray[np.float64]) -> Any:
    return rows[..., 0] * rows[..., 1] + np.sin(rows[..., 2]) * rows[..., -1] + 2 * rows[..., 0]


def exact(function: Function, row: NDArray[np.float64], before: NDArray[np.float64]) -> Any:
    """Return the value by its definition: the mean gain over all coalitions (Shapley 1953)."""
    inputs, found = len(row), np.zeros(len(row))

    def worth(own: set[int]) -> float:
        taken = [at in own for at in range(inputs)]
        return float(function(np.where(taken, row, before)).mean())

    for one in range(inputs):
        others = [at for at in range(inputs) if at != one]
        for size in range(inputs):
            for own in combinations(others, size):
                gain = worth({*own, one}) - worth({*own})
                found[one] += gain / (inputs * comb(inputs - 1, size))
    return found


def drawn(
    function: Function, row: NDArray[np.float64], before: NDArray[np.float64], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    count = walks_of(len(row))
    walks, of = draw_walks(len(row), count, random), random.integers(0, len(before), count)
    mixed = np.where(walks.own, row, before[of[walks.origin]])
    return walks.steps.astype(np.float64) @ function(mixed), of


@given(st.integers(1, 40), st.integers(0, 1000))
def test_parts_add_up_to_what_is_predicted_less_the_mean_before(inputs: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    row, before = random.normal(size=inputs), random.normal(size=(10, inputs))
    # numpy's own lines of `sin` may differ with the place: the sum is what counts here
    parts, of = drawn(lambda rows: np.cos(sum_of_all(rows)), row, before, seed)
    said = np.cos(sum_of_all(row)) - np.cos(sum_of_all(before[of])).mean()
    assert parts.sum() == pytest.approx(said, abs=1e-5)


@given(st.integers(1, 40), st.integers(0, 1000))
def test_inputs_that_do_not_depend_on_each_other_have_their_exact_part(
    inputs: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    row, before = random.normal(size=inputs), random.normal(size=(10, inputs))
    parts, of = drawn(sum_of_all, row, before, seed)
    gains = (row - before[of].mean(0)) * np.arange(1.0, inputs + 1)
    assert parts == pytest.approx(gains, abs=1e-4)


@pytest.mark.parametrize("inputs", [3, 4, 5])
def test_the_mean_of_many_is_shapleys_value(inputs: int) -> None:
    random = np.random.default_rng(inputs)
    row, before = random.normal(size=inputs), random.normal(size=(6, inputs))
    found = np.array([drawn(with_interactions, row, before, seed)[0] for seed in range(3000)])
    error = found.std(0) / np.sqrt(len(found))
    assert np.abs(found.mean(0) - exact(with_interactions, row, before)) == pytest.approx(
        np.zeros(inputs), abs=4.5 * error.max()
    )
    assert error.max() < 0.03  # so that the line above says something


@given(st.integers(1, 300))
def test_walks_are_even_and_no_more_than_need_be(inputs: int) -> None:
    count = walks_of(inputs)
    assert count % 2 == 0
    assert count == 2 or count * inputs < ROWS
    walks: Walks = draw_walks(inputs, count, np.random.default_rng(0))
    assert walks.own.shape == (1 + count * inputs, inputs)
    assert walks.own[0].all()
    assert not walks.own[1 : 1 + count].any()

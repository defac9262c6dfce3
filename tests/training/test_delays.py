from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.stream.training.delays import Delays

SHARES = (0.5, 0.9, 0.99)
YEARS_MS = 300 * 366 * 86_400_000  # as far apart as two times in a stream may be


@given(st.lists(st.one_of(st.integers(-5, 70), st.integers(0, YEARS_MS)), min_size=1))
def test_quantiles_are_exact_to_a_sixteenth(delays: list[int]) -> None:
    counted = Delays()
    counted.add(delays[:3])
    counted.add([])
    counted.add(delays[3:])
    came = np.maximum(delays, 0)
    for share in SHARES:
        exact = int(np.quantile(came, share, method="inverted_cdf"))
        found = counted.quantile(share)
        assert found is not None
        assert exact <= found <= exact + exact / 16
        if exact < 32:
            assert found == exact


def test_they_are_reported_in_milliseconds() -> None:
    assert Delays().report() == {"p50_ms": None, "p90_ms": None, "p99_ms": None}
    counted = Delays()
    counted.add([-3, 7, 7, 7, 7, 7, 7, 7, 7, 31])
    assert counted.report() == {"p50_ms": 7, "p90_ms": 7, "p99_ms": 31}


def test_counting_goes_on_from_a_copy_and_leaves_it_as_it_is() -> None:
    first = Delays()
    first.add([20])
    kept = first.counts.copy()
    other = Delays(first.counts)
    other.add([10])
    assert (first.counts == kept).all()
    assert [other.quantile(share) for share in (0.5, 0.9)] == [10, 20]


@pytest.mark.parametrize("delay", [1 << 62, (1 << 63) - 1, 1 << 70])
def test_no_delay_is_too_long(delay: int) -> None:
    counted = Delays()
    counted.add([delay])
    assert counted.quantile(0.5)

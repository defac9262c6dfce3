"""No stream breaks the default learner, nor makes it worse than what costs nothing to say."""

from __future__ import annotations

import pytest

from bench.torture.run import FIRST, Kind, learn
from bench.torture.streams import STREAMS, draw

ROWS = [10_000, pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]


def share_lost(kind: Kind, ours: float, best: float) -> float:
    """Return how much worse ours is: in accuracy, or as a share of the error."""
    if kind == "classify":
        return best - ours
    return ours / best - 1.0 if best > 0.0 else float(ours > 1e-6)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", ["classify", "regress"])
@pytest.mark.parametrize("name", STREAMS)
def test_it_lives_and_is_no_worse_than_a_baseline(name: str, kind: Kind, rows: int) -> None:
    stream = draw(name, rows)
    tried = learn(stream, kind)
    assert tried.endless == 0
    assert tried.silent <= FIRST  # before the first label or error, and after wild first labels
    allowed = 0.01 if kind == "classify" else 0.05
    best = tried.baselines[tried.best]
    assert share_lost(kind, tried.score, best) <= allowed
    if stream.still:
        by_chance = 4.0 / (rows / 10) ** 0.5  # more than three deviations, of a tenth's errors
        if kind == "classify":
            assert tried.last.ours <= tried.second.ours + by_chance / 2
        elif tried.last.typical > tried.second.typical * (1.0 + by_chance) + 1e-9:
            # A heavy tail hides what is typical: then beside the baseline, tail and all.
            late, early = (tenth.ours / tenth.best for tenth in (tried.last, tried.second))
            assert late <= early * (1.0 + allowed)

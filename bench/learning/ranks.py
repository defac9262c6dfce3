"""Who is better over many streams: average ranks, wins and losses, and what chance would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Scores = Mapping[str, Mapping[str, float]]  # stream -> contestant -> score, greater is better
LEVEL = 0.05


@dataclass(frozen=True)
class Ranking:
    """Hold average ranks over the streams, best first, and the test of them.

    Two contestants differ, at 5 %, if their ranks are farther apart than `critical_difference`.
    `p` is the chance of ranks as far apart as these if all were alike.
    """

    ranks: dict[str, float]
    streams: int
    p: float | None
    critical_difference: float | None


@dataclass(frozen=True)
class Duel:
    """Hold how one contestant fared against another, stream by stream."""

    wins: int
    losses: int
    ties: int
    p: float | None  # Wilcoxon's signed ranks, two-sided


def ranking(scores: Scores) -> Ranking:
    """Rank contestants on each stream and test the average ranks.

    Friedman's test with the F of Iman and Davenport, then Nemenyi's critical difference. Equal
    scores share their ranks. Every stream needs a score of every contestant.

    Example:
        >>> ranking({"a": {"x": 0.9, "y": 0.8}, "b": {"x": 0.7, "y": 0.7}}).ranks
        {'x': 1.25, 'y': 1.75}

    References:
        Demšar 2006, Statistical comparisons of classifiers over multiple data sets, JMLR 7.
    """
    from scipy.stats import f, rankdata, studentized_range

    names = list(next(iter(scores.values()), {}))
    n, k = len(scores), len(names)
    if not n or not k:
        return Ranking({}, n, None, None)
    placed = np.array([rankdata([-row[name] for name in names]) for row in scores.values()])
    mean = placed.mean(0)
    ranks = dict(sorted(zip(names, mean.tolist(), strict=True), key=lambda each: each[1]))
    if n < 2 or k < 2:
        return Ranking(ranks, n, None, None)
    chi2 = 12 * n / (k * (k + 1)) * float(((mean - (k + 1) / 2) ** 2).sum())
    rest = n * (k - 1) - chi2
    p = float(f.sf((n - 1) * chi2 / rest, k - 1, (k - 1) * (n - 1))) if rest > 1e-9 else 0.0
    width = float(studentized_range.ppf(1 - LEVEL, k, np.inf)) / 2**0.5
    return Ranking(ranks, n, p, width * (k * (k + 1) / (6 * n)) ** 0.5)


def duels(scores: Scores, hero: str) -> dict[str, Duel]:
    """Set one contestant against each other one, over the streams where both have a score."""
    others = dict.fromkeys(name for row in scores.values() for name in row if name != hero)
    return {
        name: _duel([row[hero] - row[name] for row in scores.values() if {hero, name} <= {*row}])
        for name in others
    }


def _duel(gaps: Sequence[float]) -> Duel:
    """Count signs and test them with their sizes.

    References:
        Wilcoxon 1945, Individual comparisons by ranking methods, Biometrics Bulletin 1.
    """
    from scipy.stats import wilcoxon

    wins, losses = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    p = float(wilcoxon(gaps).pvalue) if wins + losses >= 5 else None
    return Duel(wins, losses, len(gaps) - wins - losses, p)

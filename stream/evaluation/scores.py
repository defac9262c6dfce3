"""The scores that people ask for first, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADLINES = ("accuracy", "macro_f1", "kappa", "log_loss", "mae", "rmse", "r2", "coverage")


def score_cells(lines: Mapping[str, Any]) -> list[list[str]]:
    """Return a table of the metrics of each line, over all events and in the window, as cells.

    Args:
        lines: `all` and `window` by the line's name.

    Returns:
        the names of the metrics, after an empty cell; then the lines, each after its name.
    """
    first = next(iter(lines.values()))
    metrics = [name for name in HEADLINES if name in first["all"]]
    cells = [["", *metrics]]
    for scope, words in (("all", ""), ("window", ", last 1,000")):
        for name, scopes in lines.items():
            told = [shown(scopes[scope].get(metric)) for metric in metrics]
            cells.append([f"{name}{words}", *told])
    return cells


def shown(value: float | None) -> str:
    """Write a metric; a dash where it is not defined, an exponent where it is tiny or huge."""
    if value is None:
        return "-"
    size = abs(value)
    if value and (size < 5e-4 or size >= 1e7):
        return f"{value:.3e}"
    return f"{value:.4f}" if size < 100 else f"{value:,.1f}"


def counted(count: int, what: str) -> str:
    """Write how many there are: `1 event`, `2,000 events`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"

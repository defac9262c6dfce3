"""What `python -m bench torture` prints: each stream beside the best baseline, as Markdown."""

from __future__ import annotations

from typing import Any

from bench.learning.table import markdown
from bench.torture.run import Kind, Tried

_TITLES: dict[Kind, str] = {"classify": "Classes: accuracy", "regress": "Numbers: MAE"}
_HEAD = ["rows", "headrace", "best baseline", "", "difference", "without a number", "resets"]


def as_json(found: dict[Kind, dict[str, Tried]]) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        kind: {name: tried._asdict() | {"best": tried.best} for name, tried in streams.items()}
        for kind, streams in found.items()
    }


def table(found: dict[Kind, dict[str, Tried]]) -> str:
    """Write a table for each kind of label."""
    return "\n\n".join(
        f"### {_TITLES[kind]}\n\n"
        + markdown(["stream", *_HEAD], [_line(kind, *each) for each in streams.items()])
        for kind, streams in found.items()
    )


def _line(kind: Kind, name: str, tried: Tried) -> list[str]:
    best = tried.baselines[tried.best]
    if kind == "classify":
        shown = f"{tried.score:.4f}", tried.best, f"{best:.4f}", f"{tried.score - best:+.4f}"
    else:
        apart = f"{100 * (tried.score / best - 1):+.1f} %" if best else "0"
        shown = f"{tried.score:.4g}", tried.best, f"{best:.4g}", apart
    counts = (tried.silent, tried.resets)
    return [name, f"{tried.rows:,}", *shown, *map(str, counts)]

"""Which input is blamed for a drift, where it is known which one broke; beside CapyMOA's ABCD.

Eight inputs, of four hidden factors and noise of their own; the class goes by four of them. At a
row one of these four breaks: it is noise of the same distribution, shifted, or stuck. ABCD watches
the inputs alone, so it finds breaks that cost nothing, too, and none where only labels change.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.learning import environment
from bench.learning.table import markdown
from headrace.stream.evaluation.blame import blame
from headrace.stream.task import parse

BEFORE, AFTER, INPUTS, USED = 4000, 2000, 8, 4
KINDS = ("noise", "shift", "stuck")
_TASK = """name = "blaming"
[input]
topic = "blaming"
[target]
field = "y"
kind = "classify"
classes = ["0", "1"]
"""


def blaming(
    seeds: int, *, peers: bool, on_progress: Callable[[str], None] = lambda note: None
) -> dict[str, Any]:
    """Break an input in each of so many streams of each kind, and ask which one it was.

    Returns:
        by kind and by who was asked: `named`, the share of streams in which the first one that is
        named is the one; `found`, in which a rise of the error, or a change, was found after the
        break; `rows`, the median of rows from the break to the alarm; `since`, of how far off its
        place was told.
    """
    task = parse(
        _TASK + "".join(f'[features.x{at}]\nkind = "number"\n' for at in range(INPUTS)), ""
    )
    found: dict[str, Any] = {}
    with TemporaryDirectory() as place:
        for kind in KINDS:
            ours, paths = [], []
            for seed in range(seeds):
                inputs, labels, broken = _stream(kind, seed)
                path = Path(place, f"{kind}-{seed}.csv")
                lines = [",".join([*(f"x{at}" for at in range(INPUTS)), "y"])]
                lines += [
                    f"{','.join(map(repr, row))},{label}"
                    for row, label in zip(inputs.tolist(), labels.tolist(), strict=True)
                ]
                path.write_text("\n".join(lines) + "\n")
                rises = [each for each in blame(task, str(path)) if each.after > each.before]
                late = [each for each in rises if each.at >= BEFORE]
                ours.append(
                    [
                        (each.at, each.since, max(each.inputs, key=each.inputs.__getitem__))
                        for each in late[:1]
                    ]
                )
                np.save(path.with_suffix(".npy"), inputs)
                paths.append(str(path.with_suffix(".npy")))
                on_progress(f"{kind} {seed}: x{broken}, {ours[-1]}")
            found[kind] = {"headrace blame": _summary(kind, ours)}
            if peers:
                told = json.loads(environment.run("capymoa", "abcd", {"streams": paths}))
                found[kind]["ABCD"] = _summary(kind, [_first(each) for each in told])
                on_progress(f"{kind}: ABCD {found[kind]['ABCD']}")
    return found


def table(found: dict[str, Any]) -> str:
    """Write what was found as Markdown."""
    lines = [
        [
            kind,
            name,
            f"{told['named']:.0%}",
            f"{told['found']:.0%}",
            *map(_shown, (told["rows"], told["since"])),
        ]
        for kind, names in found.items()
        for name, told in names.items()
    ]
    head = ["break", "", "names the input", "finds a change", "rows to the alarm", "place off by"]
    return markdown(head, lines)


def _stream(kind: str, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Return inputs in [0, 1], classes, and which input breaks."""
    rng, count = np.random.default_rng([seed, KINDS.index(kind)]), BEFORE + AFTER
    factors = rng.normal(size=(count, 4)) @ rng.normal(size=(4, INPUTS)) / 2
    inputs = factors + rng.normal(size=(count, INPUTS)) / 2
    weights = rng.choice([-1, 1], USED) * rng.uniform(0.7, 1.3, USED)
    level = inputs[:, :USED] @ weights
    labels = (level + level.std() * rng.normal(size=count) / 4 > 0).astype(int)
    broken, late = int(rng.integers(USED)), slice(BEFORE, None)
    column = inputs[:, broken]
    if kind == "noise":
        column[late] = rng.permutation(column[late])
    elif kind == "shift":
        column[late] += 2 * column.std()
    else:
        column[late] = column[BEFORE - 1]
    low, high = inputs[:BEFORE].min(0), inputs[:BEFORE].max(0)
    return ((inputs - low) / (high - low)).clip(0, 1).round(6), labels, broken


def _first(changes: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    """Return the first change after the break."""
    late = [each for each in changes if each["at"] >= BEFORE]
    return [(each["at"], each["since"], f"x{each['inputs'][0]}") for each in late[:1]]


def _summary(kind: str, told: list[list[tuple[int, int, str]]]) -> dict[str, Any]:
    broken = [f"x{_stream(kind, seed)[2]}" for seed in range(len(told))]
    first = [(each[0], name) for each, name in zip(told, broken, strict=True) if each]
    return {
        "named": sum(change[2] == name for change, name in first) / len(told),
        "found": len(first) / len(told),
        "rows": statistics.median([change[0] - BEFORE for change, _ in first]) if first else None,
        "since": statistics.median([abs(change[1] - BEFORE) for change, _ in first])
        if first
        else None,
    }


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:,.0f}"

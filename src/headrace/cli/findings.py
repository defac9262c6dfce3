"""Print what an evaluation found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headrace.cli.console import score_table, tell_comparison
from headrace.stream.errors import HeadraceError
from headrace.stream.evaluation.scores import counted, shown
from headrace.stream.process.terminal import say, visible

if TYPE_CHECKING:
    from headrace.stream.evaluation.evaluation import Evaluation


def tell_found(found: Evaluation, names: tuple[str, str], *, as_json: bool) -> None:
    """Print an evaluation for a person, or as JSON.

    Args:
        names: of the task, and of the one that it is compared with.

    Raises:
        HeadraceError: nothing was learned.
    """
    if as_json:
        say(found.as_json())
    else:
        _tell_all(found, names)
    if found.failure:
        raise HeadraceError(found.failure)


def refuse_doubts(lines: Sequence[str]) -> None:
    """Fail if anything was told that --strict does not let pass.

    Raises:
        HeadraceError: there is a line.
    """
    if lines:
        told = "1 line says" if len(lines) == 1 else f"{len(lines)} lines say"
        raise HeadraceError(f"--strict: {told} what is left out, refused or not sure")


def _tell_all(found: Evaluation, names: tuple[str, str]) -> None:
    """Print an evaluation for a person."""
    if found.comparison and not found.failure:
        tell_comparison(names, found.metrics, found.comparison, found.baselines)
    elif not found.failure:
        score_table({"headrace": found.metrics} | found.baselines)
        _tell_rarest(found.per_class.get("all", {}))
    for line in found.told_further():
        say(line)
    _tell(found.as_json())
    for line in found.told_rows():
        say(line)


def _done(steps: list[dict[str, Any]]) -> str:
    """Count what was done about drift."""
    counts = Counter(step["action"] for step in steps)
    told = ", ".join(counted(n, action) for action, n in counts.items())
    return f" ({told})" if told else ""


def _tell_rarest(classes: dict[str, dict[str, Any]]) -> None:
    """Print how the rarest class is found, if one label in ten at most is of it."""
    there = {name: line for name, line in classes.items() if line["support"] > 0}
    events = sum(line["support"] for line in there.values())
    name, line = min(there.items(), key=lambda each: each[1]["support"], default=("", {}))
    if len(there) < 2 or line["support"] > events / 10:
        return
    scores = ", ".join(f"{key} {shown(line[key])}" for key in ("recall", "precision", "f1"))
    area = line.get("pr_auc")
    more = f", pr_auc {shown(area)} (by chance {shown(line['support'] / events)})" if area else ""
    say(f"{visible(name)}, {line['support']:,.0f} of {events:,.0f}: {scores}{more}")


def _tell(found: dict[str, Any]) -> None:
    """Print for a person what became of the rows, and what it took."""
    codes = ", ".join(f"{code} {n}" for code, n in found["reject_codes"].items())
    say(
        f"{counted(found['events'], 'event')}, {found['learned']:,} learned, "
        f"{found['rejected']:,} rejected{f' ({codes})' if codes else ''}, "
        f"{counted(len(found['drifts']), 'drift alarm')}"
        f"{_done(found['ladder'])}; "
        f"{found['seconds']:.1f} s, {found['events_per_second']:,.0f} events/s, "
        f"{found['peak_rss_mb']:.0f} MB"
    )

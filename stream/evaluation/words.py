"""What a drawing of how learning went shows, in words and values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from headrace.stream.evaluation.scores import counted, shown
from headrace.stream.process.terminal import visible
from headrace.stream.task import Task


class Series(NamedTuple):
    """Hold the values of one line of a drawing, NaN where there is none."""

    name: str
    values: Sequence[float]


class Told(NamedTuple):
    """Say what a drawing shows: its title, a sentence or two, and the values with their scope."""

    title: str
    about: str
    scope: str
    events: list[int]
    series: list[Series]

    @classmethod
    def of(
        cls,
        task: Task,
        points: Sequence[tuple[int, dict[str, Any], dict[str, Any] | None]],
        names: tuple[str, str],
        alarms: Sequence[tuple[str, int]] | None,
    ) -> Told:
        """Describe points: the events so far, the report of a task, and that of its rival."""
        metric = "accuracy" if task.spec.classes else "mae"
        what = "accuracy" if task.spec.classes else "mean absolute error"
        events, last, other = points[-1]
        lines = [(names[0], last, [report for _, report, _ in points])]
        if other:
            lines.append((names[1], other, [report or {} for _, _, report in points]))
        for name, whole in best_first(last["baselines"], metric):
            of_all = [report["baselines"][name] for _, report, _ in points]
            lines.append((name.replace("_", " "), whole, of_all))
        field = visible(task.target.field, keep="")
        scores = [" ".join(label_of(name, whole, metric).split()) for name, whole, _ in lines]
        over = f"{what.capitalize()} of {field} over {counted(events, 'event')}"
        about = f"{over}: {', '.join(scores)}."
        if alarms is not None:
            done = Counter(name.replace("_", " ") for name, _ in alarms)
            told = ", ".join(f"{name} {count:,}" for name, count in done.items()) or "none"
            about += f" Drift alarms, and what was done: {told}."
        return cls(
            f"{task.name}: {what}",
            about,
            f"{what} of {field} in a fading window of {task.spec.window:,} events",
            [count for count, _, _ in points],
            [Series(name, values_of(reports, metric)) for name, _, reports in lines],
        )


def best_first(baselines: dict[str, Any], metric: str) -> list[tuple[str, Any]]:
    sign = -1 if metric == "accuracy" else 1
    return sorted(baselines.items(), key=lambda line: sign * (line[1]["all"].get(metric) or 0.0))


def values_of(reports: Iterable[dict[str, Any]], metric: str) -> list[float]:
    found = [report.get("window", {}).get(metric) for report in reports]
    return [math.nan if value is None else value for value in found]


def label_of(name: str, report: dict[str, Any], metric: str) -> str:
    value = report.get("all", {}).get(metric)
    return name + ("" if value is None else f"  {shown(value)}")

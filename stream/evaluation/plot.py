"""Draw how learning went: the headline metric beside its baselines, alarms, the pool, a rival."""

from __future__ import annotations

import io
import math
import os
import stat
import warnings
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headrace.model.confidence import CONFIDENCE
from headrace.model.ladder import STEPS
from headrace.stream.errors import UsageError
from headrace.stream.evaluation.compare import Lead, Rival
from headrace.stream.process.terminal import visible
from headrace.stream.task import Task
from headrace.stream.training.trainer import Trainer

SUFFIXES = (".png", ".svg", ".html")
POINTS = 150  # enough for a curve that is looked at
MOST_MEMBERS = 8  # of which each has a colour

# Okabe & Ito 2008, "Color universal design": told apart by the colour-blind too
_OURS, _RIVAL, _QUIET = "#0072B2", "#D55E00", "#8A8A8A"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B5A642")
_DASHES = ((0, (5, 2)), (0, (1, 1.5)))
_BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
_STYLE: dict[Any, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "text.parse_math": False,  # a user's own words are no formulas
    "svg.hashsalt": "headrace",
}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body{{margin:2em auto;max-width:70em;padding:0 1em}}svg{{width:100%;height:auto}}</style>
{svg}</html>
"""


class Point(NamedTuple):
    """Hold the metrics after so many events; of a comparison, the rival's, and its lead, too."""

    events: int
    report: Any  # what `Trainer.report` gives; or a `Trainer.sketch`, before it is drawn
    other: dict[str, Any] | None = None
    lead: Lead | None = None


def measure(events: int, trainer: Trainer, rival: Rival | None) -> Point:
    """Measure after so many events; both must stand there."""
    if rival is None:
        return Point(events, trainer.report())
    return Point(events, trainer.report(), rival.trainer.report(), rival.lead())


class Curve:
    """Keep points of a run whose length is not known: `most` at most, evenly spaced, or half.

    A point belongs after each `stride` events.
    """

    def __init__(self, most: int = 2 * POINTS, stride: int = 64) -> None:
        self.points: list[Point] = []
        self.stride, self._most = stride, most

    def add(self, point: Point) -> None:
        """Keep a point; of too many, every other one."""
        self.points.append(point)
        if len(self.points) == self._most:
            self.points = self.points[1::2]
            self.stride *= 2


def check_plot(path: Path | None) -> None:
    """Make sure that a plot can be drawn to a file, before hours are spent for it.

    Raises:
        UsageError: matplotlib is not installed, or it is no .png, .svg or .html to be written.
    """
    if path and path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {path}: expected a name that ends with {', '.join(SUFFIXES)}")
    if path:
        check_place("--plot", path)
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError("--plot needs matplotlib: pip install headrace[plot]") from error


def check_place(option: str, path: Path) -> None:
    """Make sure that a file can be written where an option names it.

    Raises:
        UsageError: there is no such directory, it may not be written, or a directory has the name.
    """
    place = path.absolute().parent
    if not os.path.isdir(place):
        raise UsageError(f"{option} {path}: there is no directory {place}")
    try:
        taken = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        taken = False
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written: {error.strerror}") from error
    if taken or not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {path}: cannot be written; name a file in a place of your own")


def draw(
    task: Task,
    points: Sequence[Point],
    path: Path | None,
    *,
    names: tuple[str, str],
    alarms: Sequence[tuple[str, int]] | None = None,
) -> Any:
    """Draw accuracy, or the mean absolute error, in the fading window over the events.

    Under it stand the alarms and the weights of the pool's members; or, of a comparison, how far
    the rival is ahead.

    Args:
        points: at least one.
        path: its suffix says what is written: PNG, SVG, or HTML that needs nothing else.
        names: of the task and its rival.
        alarms: detector, or what the ladder did, and event of each; None where they are not known.

    Returns:
        matplotlib's Figure.

    Raises:
        UsageError: it cannot be written.
    """
    import matplotlib

    marker = "o" if len(points) == 1 else "None"
    with matplotlib.rc_context(_STYLE | {"lines.marker": marker}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph ")  # what the font lacks is drawn as a box
        figure = _figure(
            task, points, (visible(names[0], keep=""), visible(names[1], keep="")), alarms
        )
        if path:
            _write(figure, path, task.name)
    return figure


def _write(figure: Any, path: Path, title: str) -> None:
    drawn, png = io.BytesIO(), path.suffix.lower() == ".png"
    form = "png" if png else "svg"
    figure.savefig(drawn, format=form, dpi=150, metadata={} if png else _NO_METADATA)
    data = drawn.getvalue()
    if path.suffix.lower() == ".html":
        svg = data[data.index(b"<svg") :].decode()
        data = _PAGE.format(title=escape(title), svg=svg).encode()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"--plot {path}: cannot be written: {error.strerror}") from error


def _figure(
    task: Task,
    points: Sequence[Point],
    names: tuple[str, str],
    alarms: Sequence[tuple[str, int]] | None,
) -> Any:
    """Lay the panels out, and draw each."""
    from matplotlib.figure import Figure

    rivalry = points[-1].lead is not None
    done = {name for name, _ in alarms or ()}
    watching = dict.fromkeys([*task.drift.detectors, *(step for step in STEPS if step in done)])
    detectors = list(watching) if alarms is not None and not rivalry else []
    members = len(points[-1].report["members"]) > 1
    panels: list[tuple[float, Any]] = [(3.2, lambda axes: _scores(axes, task, points, names))]
    if rivalry:
        panels.append((2.4, lambda axes: _lead(axes, task, points, names)))
    if detectors:
        height = 0.15 + 0.22 * len(detectors)
        panels.append((height, lambda axes: _alarms(axes, detectors, alarms or ())))
    if members and not rivalry:
        panels.append((2.2, lambda axes: _members(axes, points)))
    heights = [height for height, _ in panels]
    figure = Figure(figsize=(10, 1.3 + 1.1 * sum(heights)), layout="constrained")
    every = figure.subplots(
        len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for axes, (_, panel) in zip(every, panels, strict=True):
        panel(axes)
    every[-1].set_xlabel("events")
    every[-1].set_xlim(0, points[-1].events)
    every[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return figure


def _scores(axes: Any, task: Task, points: Sequence[Point], names: tuple[str, str]) -> None:
    """Draw the metric of the task, of its rival and of the baselines."""
    metric = "accuracy" if task.spec.classes else "mae"
    last, x = points[-1], [point.events for point in points]
    ours = [(names[0], last.report, [p.report for p in points], _OURS)]
    if last.other:
        ours.append((names[1], last.other, [p.other or {} for p in points], _RIVAL))
    seen: list[float] = []
    for name, whole, reports, colour in ours:
        values = _values(reports, metric)
        seen += [value for value in values if not math.isnan(value)]
        axes.plot(x, values, color=colour, linewidth=1.7, label=_label(name, whole, metric))
    top = math.inf
    if metric == "mae" and seen:  # a baseline far off must not flatten what matters
        room = 0.4 * (max(seen) - min(seen)) or 1.0
        top = max(seen) + room
        axes.set_ylim(max(min(seen) - room, 0.0), top)
    baselines = _best_first(last.report["baselines"], metric)[: 1 if last.other else 2]
    for dashes, (name, whole) in zip(_DASHES, baselines, strict=False):
        values = _values((p.report["baselines"][name] for p in points), metric)
        label = _label(name.replace("_", " "), whole, metric)
        label += ", off the scale" if all(value > top for value in values) else ""
        axes.plot(x, values, color=_QUIET, linewidth=1.2, linestyle=dashes, label=label, zorder=1)
    what = "accuracy" if metric == "accuracy" else "mean absolute error"
    field = visible(task.target.field, keep="")
    axes.set_ylabel(what if metric == "accuracy" else f"{what} of {field}")
    axes.set_title(
        f"{task.name}: {what} in a fading window of {task.spec.window:,} events", fontweight="bold"
    )
    axes.legend(title="over all events", title_fontsize=8.5, **_BESIDE)


def _lead(axes: Any, task: Task, points: Sequence[Point], names: tuple[str, str]) -> None:
    """Draw how far the rival is ahead, with what bounds it at all times."""
    scale = 100.0 if task.spec.classes else -1.0  # a gain is an error that is lower
    leads = [(p.events, p.lead) for p in points if p.lead and p.lead.pairs]
    if not leads:
        return
    x = [events for events, _ in leads]
    middle, low, high = (
        np.array([math.nan if v is None else scale * v for v in column], float)
        for column in zip(*((lead.gain, lead.low, lead.high) for _, lead in leads), strict=True)
    )
    axes.axhline(0, color="black", linewidth=0.8)
    band = f"{CONFIDENCE:.0%} confidence, at all times together"
    axes.fill_between(x, low, high, color=_RIVAL, alpha=0.18, linewidth=0, label=band)
    axes.plot(x, middle, color=_RIVAL, linewidth=1.7, label="mean of the pairs so far")
    settled = slice(len(x) // 10, None)  # the band begins far wider than what is learned from it
    ends = np.concatenate([low[settled], high[settled], middle[settled], [0.0]])
    ends = ends[np.isfinite(ends)]
    margin = 0.05 * (ends.max() - ends.min()) or 1.0
    axes.set_ylim(ends.min() - margin, ends.max() + margin)
    what = "accuracy, points" if task.spec.classes else "absolute error"
    axes.set_ylabel(f"difference in {what}")
    axes.set_title(f"{names[1]} less {names[0]}: {middle[-1]:+.4g}, {leads[-1][1].verdict}")
    axes.legend(**_BESIDE)


def _alarms(axes: Any, detectors: Sequence[str], alarms: Sequence[tuple[str, int]]) -> None:
    """Draw a line of ticks for each detector, and for each step of the ladder."""
    at = {name: [event for who, event in alarms if who == name] for name in detectors}
    colours = [_COLOURS[place % len(_COLOURS)] for place in range(len(detectors))]
    axes.eventplot(list(at.values()), colors=colours, linelengths=0.7, linewidths=1.4)
    axes.set_yticks(
        range(len(detectors)),
        [f"{name.replace('_', ' ')} ({len(events):,})" for name, events in at.items()],
    )
    axes.set_ylim(len(detectors) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_title("drift alarms, and what was done")


def _members(axes: Any, points: Sequence[Point]) -> None:
    """Draw the weights of the pool: the heaviest members in colours, the others in grey."""
    names = list(points[-1].report["members"])
    weights = np.array([[p.report["members"][name] for name in names] for p in points])
    heaviest = np.argsort(-np.abs(weights).max(0), kind="stable")[:MOST_MEMBERS]
    x = [point.events for point in points]
    quiet = [place for place in range(len(names)) if place not in heaviest]
    if quiet:
        lines = axes.plot(x, weights[:, quiet], color=_QUIET, linewidth=0.8, alpha=0.5)
        lines[0].set_label(f"{len(quiet)} others")
    ranked = sorted(heaviest, key=lambda place: -weights[-1, place])
    for colour, place in zip(_COLOURS, ranked, strict=False):
        label = f"{names[place]} ({weights[-1, place]:+.2f})"
        axes.plot(x, weights[:, place], color=colour, linewidth=1.4, label=label)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylabel("weight in the mixture")
    axes.set_title("what the members of the pool weigh")
    axes.legend(**_BESIDE)


def _best_first(baselines: dict[str, Any], metric: str) -> list[tuple[str, Any]]:
    sign = -1 if metric == "accuracy" else 1
    return sorted(baselines.items(), key=lambda line: sign * (line[1]["all"].get(metric) or 0.0))


def _values(reports: Iterable[dict[str, Any]], metric: str) -> list[float]:
    found = [report.get("window", {}).get(metric) for report in reports]
    return [math.nan if value is None else value for value in found]


def _label(name: str, report: dict[str, Any], metric: str) -> str:
    value = report.get("all", {}).get(metric)
    return name + ("" if value is None else f"  {value:,.4g}")

"""Draw how learning went: the headline metric beside its baselines, alarms, the pool, a rival."""

from __future__ import annotations

import io
import math
import os
import stat
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headrace.model.confidence import CONFIDENCE
from headrace.model.ladder import STEPS
from headrace.stream.errors import UsageError
from headrace.stream.evaluation.compare import Lead, Rival
from headrace.stream.evaluation.page import page
from headrace.stream.evaluation.words import Told, best_first, label_of, values_of
from headrace.stream.process.terminal import visible
from headrace.stream.task import Task
from headrace.stream.training.trainer import Trainer

SUFFIXES = (".png", ".svg", ".html")
POINTS = 150  # enough for a curve that is looked at
MOST_MEMBERS = 3  # of which each has a colour

# Okabe & Ito 2008, "Color universal design": told apart by the colour-blind too
# and each has one meaning: the task, its rival, baselines, alarms, the three heaviest members.
_OURS, _RIVAL, _QUIET, _ALARM = "#0072B2", "#D55E00", "#8A8A8A", "#000000"
_OF_MEMBERS, _OF_OTHERS = ("#009E73", "#CC79A7", "#E69F00"), "#C4C4C4"
_DASHES = ((0, (5, 2)), (0, (1, 1.5)))
_LINE_PT, _MOST_IN_LINE = 13.5, 94  # of a legend: how high its lines are; characters
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
_PAD = 0.18  # inches around a drawing, and between its panels
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


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
    source: str = "",
) -> Any:
    """Draw accuracy, or the mean absolute error, in the fading window over the events.

    Under it stand the alarms and the weights of the pool's members; or, of a comparison, how far
    the rival is ahead.

    Args:
        points: at least one.
        path: its suffix says what is written: PNG, SVG, or HTML that needs nothing else.
        names: of the task and its rival.
        alarms: detector, or what the ladder did, and event of each; None where they are not known.
        source: what the events were read from, for HTML.

    Returns:
        matplotlib's Figure.

    Raises:
        UsageError: it cannot be written.
    """
    import matplotlib

    marker = "o" if len(points) == 1 else "None"
    with matplotlib.rc_context(_STYLE | {"lines.marker": marker}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph ")  # what the font lacks is drawn as a box
        told = visible(names[0], keep=""), visible(names[1], keep="")
        figure = _figure(task, points, told, alarms)
        if path:
            _write(
                figure,
                path,
                Told.of(task, [(p.events, p.report, p.other) for p in points], told, alarms),
                source,
            )
    return figure


def _write(figure: Any, path: Path, told: Told, source: str) -> None:
    import matplotlib

    drawn, form = io.BytesIO(), path.suffix.lower().removeprefix(".")
    words = {"Title": told.title, "Description": told.about}
    if form == "html":  # texts are texts, which can be read aloud; a screen has its own paper
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            figure.savefig(drawn, format="svg", metadata=_NO_METADATA, transparent=True)
        data = page(figure, drawn.getvalue().decode(), source=source, **told._asdict())
    else:
        metadata = words if form == "png" else _NO_METADATA | words
        figure.savefig(drawn, format=form, dpi=150, metadata=metadata)
        data = drawn.getvalue()
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
    from matplotlib.layout_engine import ConstrainedLayoutEngine

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
    figure = Figure(
        figsize=(8, 1.5 + 1.1 * sum(heights)),
        layout=ConstrainedLayoutEngine(w_pad=_PAD, h_pad=_PAD),
    )
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
    ours = [(names[0], last.report, [p.report for p in points], _OURS, 2.6 if last.other else 1.8)]
    if last.other:  # it is thinner, so that where both are one both are seen
        ours.append((names[1], last.other, [p.other or {} for p in points], _RIVAL, 1.3))
    seen: list[float] = []  # but the first, which say what was not learned yet
    for name, whole, reports, colour, width in ours:
        values = values_of(reports, metric)
        seen += [value for value in values[len(values) // 10 :] if not math.isnan(value)]
        label = label_of(_short(name), whole, metric)
        axes.plot(x, values, color=colour, linewidth=width, label=label, clip_on=len(x) > 1)
    top = math.inf
    if metric == "mae" and seen:  # a baseline far off must not flatten what matters
        room = 0.4 * (max(seen) - min(seen)) or 1.0
        top = max(seen) + room
        axes.set_ylim(max(min(seen) - room, 0.0), top)
    baselines = best_first(last.report["baselines"], metric)[: 1 if last.other else 2]
    for dashes, (name, whole) in zip(_DASHES, baselines, strict=False):
        values = values_of((p.report["baselines"][name] for p in points), metric)
        label = label_of(name.replace("_", " "), whole, metric)
        far = all(value > top for value in values)
        label += ", off the scale" if far else ""
        quiet = {"color": _QUIET, "linewidth": 1.2, "linestyle": dashes, "zorder": 1}
        axes.plot(x, values, label=label, clip_on=far or len(x) > 1, **quiet)
    what = "accuracy" if metric == "accuracy" else "mean absolute error"
    field = _short(visible(task.target.field, keep=""), 24)
    axes.set_ylabel(what if metric == "accuracy" else f"{what} of {field}")
    title = f"{task.name}: {what} in a fading window of {task.spec.window:,} events"
    _head(axes, title, "over all events", fontweight="bold")


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
    first, second = (_short(name) for name in names)
    _head(axes, f"{second} less {first}: {middle[-1]:+.4g}, {leads[-1][1].verdict}")


def _alarms(axes: Any, detectors: Sequence[str], alarms: Sequence[tuple[str, int]]) -> None:
    """Draw a line of ticks for each detector, and for each step of the ladder."""
    at = {name: [event for who, event in alarms if who == name] for name in detectors}
    axes.eventplot(list(at.values()), colors=_ALARM, linelengths=0.7, linewidths=1.4)
    axes.set_yticks(
        range(len(detectors)),
        [f"{name.replace('_', ' ')} ({len(events):,})" for name, events in at.items()],
    )
    axes.set_ylim(len(detectors) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    _head(axes, "drift alarms, and what was done")


def _members(axes: Any, points: Sequence[Point]) -> None:
    """Stack the shares of the pool's weights: the heaviest members, and all the others in grey."""
    names = list(points[-1].report["members"])
    weights = np.array([[p.report["members"][name] for name in names] for p in points], float)
    sizes = np.abs(weights)
    shares = sizes / np.maximum(sizes.sum(1, keepdims=True), 1e-12)
    ranked = np.argsort(-shares.mean(0), kind="stable")
    heaviest, others = ranked[:MOST_MEMBERS], ranked[MOST_MEMBERS:]
    stack = [shares[:, place] for place in heaviest]
    labels = [f"{_short(names[place])} ({weights[-1, place]:+.2f})" for place in heaviest]
    colours = list(_OF_MEMBERS[: len(heaviest)])
    if len(others):
        stack.append(shares[:, others].sum(1))
        labels.append(f"{len(others)} others ({weights[-1, others].sum():+.2f})")
        colours.append(_OF_OTHERS)
    x = [point.events for point in points]
    if len(x) == 1:  # an area needs two
        x, stack = [0, *x], [np.repeat(share, 2) for share in stack]
    axes.stackplot(x, stack, labels=labels, colors=colours, linewidth=0)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylabel("share of all weights")
    _head(axes, "what the members of the pool weigh, by size; in brackets the last weights")


def _head(axes: Any, title: str, legend: str = "", **style: Any) -> None:
    """Write a title, and between it and the drawing the legend, which may have a title, too."""
    lines, named = textwrap.fill(title, _MOST_IN_LINE), axes.get_legend_handles_labels()[1]
    rows = 0
    if named:
        wide = [len(name) + 6 for name in named]
        columns = len(wide) if sum(wide) <= _MOST_IN_LINE else _MOST_IN_LINE // max(wide)
        rows = math.ceil(len(named) / columns) + bool(legend)
        axes.legend(
            title=legend or None,
            title_fontsize=8.5,
            alignment="left",
            ncols=columns,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            borderaxespad=0.2,
            borderpad=0.2,
            labelspacing=0.35,
        )
    axes.set_title(lines, pad=6 + _LINE_PT * rows, **style)


def _short(name: str, most: int = 48) -> str:
    """Leave out the middle of a name that is too long for a legend."""
    half = most // 2
    return name if len(name) <= most else f"{name[: half - 1]}…{name[-half:]}"

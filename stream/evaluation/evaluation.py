"""What came of an evaluation: as numbers, as a table, as a plot."""

from __future__ import annotations

import resource
import sys
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from headrace.stream.errors import UsageError
from headrace.stream.evaluation.compare import Comparison
from headrace.stream.evaluation.plot import Curve, Point, check_plot, draw
from headrace.stream.evaluation.scores import score_cells, shown
from headrace.stream.process.terminal import visible
from headrace.stream.rows.refusals import Refusal, literals_told, nothing_learned
from headrace.stream.task import Task


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Report a test-then-train run; printed, or as a notebook's output, it is a table of scores.

    Attributes:
        events: rows that were read.
        learned: labels among them.
        rejected: rows that were refused; `codes` counts them by the reason.
        non_finite: NaN and Infinity that are no JSON, and were read as missing.
        seconds: from the first row on, compilation excluded.
        metrics: scores over `all` events and in the fading `window`, by their names.
        baselines: the same by baseline: of no-change, and majority or mean and median.
        per_class: the same by class; {} for numbers.
        drifts: alarms, each with the row (`at`) and its `detector`.
        ladder: what was done about them.
        comparison: with the other task, if there is one.
        further: what metrics from other packages say, by their names.
        late: with late labels, scores by event time, and of events held out, by their names.
        refusals: why rows were refused: for each code the first of them.
        warnings: lines to know before the scores are believed.
    """

    events: int
    learned: int
    rejected: int
    seconds: float
    metrics: dict[str, Any]
    baselines: dict[str, Any]
    per_class: dict[str, Any]
    drifts: list[dict[str, Any]]
    ladder: list[dict[str, Any]]
    codes: dict[str, int]
    comparison: Comparison | None
    further: dict[str, Any] = field(default_factory=dict)
    late: dict[str, Any] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()
    non_finite: int = 0
    names: tuple[str, str] = ("headrace", "")
    curve: Curve | None = field(default=None, compare=False)
    task: Task | None = field(default=None, compare=False)

    @property
    def failure(self) -> str | None:
        """Say why nothing was learned or scored, if so."""
        if self.learned and self.metrics["all"].get("events") == 0:
            return (
                f"nothing was scored: of {self.learned:,} labels none came target.horizon events "
                "of its entity after a prediction"
            )
        if self.comparison and self.learned and not self.comparison.pairs:
            return "nothing is compared: no row was scored by both tasks"
        return nothing_learned(self.events, self.learned, self.refusals)

    def plot(self, path: str | Path | None = None, *, source: str = "") -> Any:
        """Draw how learning went: the headline metric beside its baselines, alarms, the pool.

        Args:
            path: write it there, too: .png, .svg or .html, which needs nothing else.
            source: what the events were read from, for HTML.

        Returns:
            matplotlib's Figure.

        Raises:
            UsageError: matplotlib is not installed (extra `plot`), or it cannot be written.
        """
        place = None if path is None else Path(path)
        check_plot(place)
        if not self.task or not self.curve or not self.curve.points:
            raise UsageError("there is nothing to plot: no row was read")
        points = _measured(self.curve)
        alarms = [(drift["detector"], drift["at"]) for drift in self.drifts]
        alarms += [(step["action"], step["at"]) for step in self.ladder]
        return draw(self.task, points, place, names=self.names, alarms=alarms, source=source)

    def __getstate__(self) -> dict[str, Any]:
        """Let copies be made, and processes pass it on: what was noted on the way is measured."""
        if self.curve:
            self.curve.points = _measured(self.curve)
        return self.__dict__

    def _table(self) -> list[list[str]]:
        """Return the headline metrics as lines of cells, the names first."""
        lines = {self.names[0]: self.metrics}
        if self.comparison:
            lines |= {self.names[1]: self.comparison.metrics}
        cells = score_cells(lines | self.baselines)
        return [[visible(cell, keep="") for cell in line] for line in cells]

    def told_further(self) -> list[str]:
        """Return a line for each metric from another package."""
        return [visible(f"{name}: {_told(value)}", keep="") for name, value in self.further.items()]

    def told_rows(self) -> list[str]:
        """Return a line for each code of refusals, and each warning."""
        lines = [*map(str, self.refusals), *literals_told(self.non_finite)]
        if self.comparison:
            lines += [f"{self.names[1]}: {each}" for each in self.comparison.refusals]
        lines += [f"warning: {each}" for each in self.warnings]
        return [visible(line, keep="") for line in lines]

    def _below(self) -> list[str]:
        """Return the lines below the table."""
        end = [self.failure] if self.failure else []
        return [*self.told_further(), self._sum(), *self.told_rows(), *end]

    def _sum(self) -> str:
        codes = ", ".join(f"{code} {count:,}" for code, count in self.codes.items())
        alarms = len(self.drifts)
        return (
            f"{self.events:,} events, {self.learned:,} learned, {self.rejected:,} rejected"
            f"{f' ({codes})' if codes else ''}, {alarms:,} drift alarm{'s'[: alarms != 1]}"
        )

    def __repr__(self) -> str:
        cells = self._table()
        first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
        lines = [
            line[0].ljust(first)
            + "".join(f"  {c:>{w}}" for c, w in zip(line[1:], widths, strict=True))
            for line in cells
        ]
        return "\n".join([*lines, *self._below()])

    def _repr_html_(self) -> str:
        head, *body = self._table()
        rows = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
        rows += [
            f"<th>{escape(name)}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in told)
            for name, *told in body
        ]
        lines = "".join(f"<tr>{row}</tr>" for row in rows)
        told = "<br>".join(map(escape, self._below()))
        return f"<table>{lines}</table><p>{told}</p>"

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "events": self.events,
            "learned": self.learned,
            "rejected": self.rejected,
            "non_finite": self.non_finite,
            "seconds": round(self.seconds, 3),
            "events_per_second": round(self.events / max(self.seconds, 1e-9), 1),
            "peak_rss_mb": round(peak / (1 << 20 if sys.platform == "darwin" else 1024), 1),
            "metrics": self.metrics,
            "baselines": self.baselines,
            "per_class": self.per_class,
            "drifts": self.drifts,
            "ladder": self.ladder,
            "reject_codes": self.codes,
            "refusals": [asdict(each) for each in self.refusals],
            "warnings": [*self.warnings],
            "comparison": asdict(self.comparison) if self.comparison else None,
            **self.late,
        } | ({"further": self.further} if self.further else {})


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(each)}" for name, each in value.items())
    return value if isinstance(value, str) else shown(value)


def _measured(curve: Curve) -> list[Point]:
    return [
        each._replace(report=each.report()) if callable(each.report) else each
        for each in curve.points
    ]

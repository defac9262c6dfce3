"""What a person sees of the demo: a live view on a terminal, plain lines elsewhere, a summary."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from headrace.demo.state import Demo
from headrace.demo.tally import LATEST, Line, TaskStatus
from headrace.stream.evaluation.scores import counted
from headrace.stream.process.terminal import Terminal, note, say, visible

ABOUT = {
    "pm25": "PM2.5 an hour ahead",
    "hackernews": "will a post do well?",
    "spam": "is a message spam?",
}
FRAMES_PER_S = 4
PLAIN_EVERY_S = 2.0
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
BLOCKS = "▁▂▃▄▅▆▇█"
TREND = 10
FIXED_LINES = 18  # all but the lines of the latest predictions
MEASURED = 10_000  # columns, more than anything here takes
HEADS = (("online learning on a real Kafka", " at {}"), ("Kafka", " at {}"), ("", "{}"), ("", ""))


@contextmanager
def show(demo: Demo, *, quiet: bool) -> Iterator[None]:
    """Show a demo for the length of a `with` block."""
    console = Terminal()
    if quiet:
        yield
    elif console.is_terminal:
        with Live(
            console=console,
            screen=True,
            refresh_per_second=FRAMES_PER_S,
            get_renderable=lambda: render(demo, time.monotonic(), console.height),
        ):
            yield
    else:
        with _lines(demo):
            yield


def summarize(demo: Demo, *, quiet: bool) -> None:
    """Print the last statuses as a table on standard output, and the errors on standard error."""
    if demo.statuses and not quiet:
        Terminal().print(summary(demo.statuses))
        if demo.first_prediction_s is not None:
            say(f"first prediction after {demo.first_prediction_s:.1f} s")
    for error in demo.errors:
        note(f"headrace: {error}")


def render(demo: Demo, now_s: float, height: int) -> RenderableType:
    """Draw everything as of a moment of the monotonic clock; 100 columns by 30 lines show all.

    Where there is less room, names and scores stay whole; sparklines and latencies go first.
    """
    statuses = demo.monitor.statuses() if demo.monitor else []
    first_s = demo.first_prediction_s
    body: list[RenderableType] = [Roomy([_head(demo, now_s, *parts) for parts in HEADS])]
    if first_s is None:
        body.append(_stages(demo, now_s))
    else:
        body.append(_tasks(statuses, now_s))
        each = min((height - FIXED_LINES) // max(len(statuses), 1), LATEST)
        if each > 0:
            body.append(_latest(statuses, each))
    ending = f"  {_spinner(now_s)} {demo.ending}" if demo.ending else ""
    page = f"  {demo.page}" if demo.page else ""  # a click opens it
    keys = ("Ctrl-C stops everything", "reverse")
    body.append(Text.assemble(keys, (page, "blue"), (ending, "yellow"), no_wrap=True))
    return Group(*body)


def summary(statuses: Sequence[TaskStatus]) -> RenderableType:
    """Make the table that stays on the screen at the end: whole columns, as many as have room."""
    columns = [
        Column("task", [Text(s.name) for s in statuses]),
        Column("score", [Text(f"{s.metric} {number(s.value)}") for s in statuses]),
        Column(
            "best baseline", [Text(f"{s.baseline_name} {number(s.baseline)}") for s in statuses], 1
        ),
        Column("events", [Text(f"{s.events:,}") for s in statuses], 3, right=True),
        Column("predicted", [Text(f"{s.predictions:,}") for s in statuses], 2, right=True),
        Column("dead", [Text(f"{s.dead_letters:,}") for s in statuses], 4, right=True),
        Column(
            "p50, p99 ms",
            [Text(f"{_ms(s.p50_ms)}, {_ms(s.p99_ms)}") for s in statuses],
            6,
            right=True,
        ),
        Column("drift", [Text(f"{s.drifts}") for s in statuses], 5, right=True),
    ]

    def table(kept: Sequence[Column]) -> RenderableType:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
        for column in kept:
            side: Literal["left", "right"] = "right" if column.right else "left"
            made.add_column(column.title, no_wrap=True, justify=side, overflow="ellipsis")
        for row in zip(*(column.cells for column in kept), strict=True):
            made.add_row(*row)
        return made

    return Roomy([table(kept) for kept in fewer(columns)])


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw the last `width` values as blocks, lowest to highest."""
    shown = values[-width:]
    if not shown:
        return ""
    low, span = min(shown), max(shown) - min(shown)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((v - low) / span * top) if span else top // 2] for v in shown)


def number(value: float | None) -> str:
    """Write a score with four digits."""
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def clock(seconds: float) -> str:
    """Write a duration as minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Column(NamedTuple):
    """Hold a column of a table; where there is no room for all, the highest `rank` goes first."""

    title: str
    cells: list[Text]
    rank: int = 0  # 0 stays
    right: bool = False
    width: int = 0  # at least


def fewer(columns: Sequence[Column]) -> Iterator[Sequence[Column]]:
    """Yield columns, and then each time without the one of the highest rank."""
    yield columns
    for rank in sorted({column.rank for column in columns if column.rank}, reverse=True):
        yield [column for column in columns if column.rank < rank]


class Roomy:
    """Draw the first of several drawings that is not wider than the room there is, or the last."""

    def __init__(self, drawings: Sequence[RenderableType]) -> None:
        self._drawings = drawings

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Choose, and draw."""
        wide = options.update(max_width=MEASURED)
        for drawing in self._drawings:
            if console.measure(drawing, options=wide).maximum <= options.max_width:
                break
        yield drawing

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Take all the room there is."""
        return Measurement(1, options.max_width)


def _head(demo: Demo, now_s: float, what: str, at: str) -> Text:
    first_s = demo.first_prediction_s
    return Text.assemble(
        ("headrace", "bold cyan"),
        f"  {what}{at.format(demo.bootstrap) if demo.bootstrap else ''}".rstrip(),
        (f"   {clock(now_s - demo.started_s)}", "bold"),
        (f"   first prediction after {first_s:.1f} s" if first_s else "", "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )


def _stages(demo: Demo, now_s: float) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    words = {"Kafka": "starting Kafka", "topics": "making topics", "normaliser": "starting Faust"}
    words["producers"] = "producers"
    for stage in demo.stages:
        doing = words.get(stage.name, f"compiling learner {stage.name}")
        if stage.state == "ready":
            table.add_row(Text("✓", "green"), Text(doing), Text(stage.note, "dim"))
        elif stage.state == "starts":
            table.add_row(
                Text(_spinner(now_s), "cyan"), Text(doing, "bold"), Text(stage.note, "dim")
            )
        else:
            table.add_row(Text("·", "dim"), Text(doing, "dim"), Text(""))
    return Panel(table, title="starting", title_align="left", border_style="cyan", padding=(1, 2))


def _tasks(statuses: Sequence[TaskStatus], now_s: float) -> RenderableType:
    columns = [
        Column("events", [_two(f"{s.events:,}", _dead(s)) for s in statuses], 3, width=9),
        Column("pace", [_two(f"{s.per_second:,.0f}/s", f"{s.open:,} wait") for s in statuses], 4),
        Column("score", [_score(s) for s in statuses], width=16),
        Column(
            "over time",
            [Text(sparkline(s.history, TREND), "cyan") for s in statuses],
            6,
            width=TREND,
        ),
        Column(
            "latency",
            [_two(f"p50 {_ms(s.p50_ms)} ms", f"p99 {_ms(s.p99_ms)} ms", "") for s in statuses],
            5,
            width=12,
        ),
        Column("drift alarms", [_drift(s, now_s) for s in statuses], 2, width=15),
    ]
    short = Column("task", [Text(s.name, "bold") for s in statuses])
    long = Column("task", [_two(s.name, ABOUT.get(s.name, ""), first="bold") for s in statuses])

    def table(kept: Sequence[Column]) -> RenderableType:
        made = Table.grid(expand=True, padding=(0, 1))
        for at, column in enumerate(kept):
            made.add_column(no_wrap=True, min_width=column.width or None, ratio=None if at else 1)
        made.add_row(*(Text(f"{column.title}\n", "dim") for column in kept))
        for row in zip(*(column.cells for column in kept), strict=True):
            made.add_row(*row)
        return made

    drawings = [table([long, *kept]) for kept in fewer(columns)]
    drawings.append(table([short, *(column for column in columns if not column.rank)]))
    return Panel(
        Roomy(drawings), title="learning", title_align="left", border_style="cyan", padding=(0, 1)
    )


def _two(above: str, below: str, second: str = "dim", *, first: str = "") -> Text:
    return Text.assemble((above, first), (f"\n{below}\n", second))


def _dead(s: TaskStatus) -> str:
    return f"{s.dead_letters:,} dead" if s.dead_letters else ""


def _score(s: TaskStatus) -> Text:
    shown = Text.assemble((f"{s.metric} {number(s.value)}", "bold"))
    if s.value is not None and s.baseline is not None:
        wins = s.value >= s.baseline if s.metric == "accuracy" else s.value <= s.baseline
        shown.stylize("green" if wins else "yellow")
    return shown.append(f"\n{s.baseline_name} {number(s.baseline)}", "dim not bold")


def _drift(s: TaskStatus, now_s: float) -> Text:
    if s.last_drift is None:
        return Text("none", "dim")
    detector = s.last_drift.detector.replace("_", "-")
    ago = f"\n{clock(now_s - s.last_drift_s)} ago"
    return Text.assemble((f"{s.drifts}", "bold magenta"), f" {detector}", (ago, "dim"))


def _latest(statuses: Sequence[TaskStatus], each: int) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(no_wrap=True, style="dim", width=12)
    table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column(no_wrap=True, justify="right", width=14)
    table.add_column(no_wrap=True, width=14)
    for s in statuses:
        for line in s.latest[-each:]:
            said = line.prediction if isinstance(line.prediction, str) else number(line.prediction)
            sure = f" {line.probability:.0%}" if line.probability is not None else ""
            row = (line.id, " ".join(line.text.split()), f"{said}{sure}")
            table.add_row(*(Text(visible(cell, keep="")) for cell in row), _truth(line))
    return Panel(
        table,
        title="latest predictions, each made before its label was seen",
        title_align="left",
        border_style="cyan",
        padding=(0, 1),
    )


def _truth(line: Line) -> Text:
    if line.truth is None:
        return Text("not yet known", "dim")
    if isinstance(line.truth, str):
        right = line.truth == line.prediction
        truth = visible(line.truth, keep="")
        return Text(f"{'✓' if right else '✗'} {truth}", "green" if right else "red")
    return Text(f"was {number(line.truth)}")


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _spinner(now_s: float) -> str:
    return SPINNER[int(now_s * 10) % len(SPINNER)]


@contextmanager
def _lines(demo: Demo) -> Iterator[None]:
    """Write what changes as plain lines on standard error."""
    ended = threading.Event()

    def write() -> None:
        told: set[tuple[str, str]] = set()
        page = ""
        while not ended.wait(0.1):
            for stage in list(demo.stages):
                if stage.state != "waits" and (key := (stage.name, stage.state)) not in told:
                    told.add(key)
                    note(f"{clock(time.monotonic() - demo.started_s)} {' '.join(key)}")
            if demo.page != page:
                page = demo.page
                note(f"to be seen at {page}")
            if demo.first_prediction_s is not None and demo.monitor:
                for status in demo.monitor.statuses():
                    note(_as_line(status))
                ended.wait(PLAIN_EVERY_S)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _as_line(s: TaskStatus) -> str:
    return (
        f"{s.name:<12}{s.events:>9,} events {s.per_second:>7,.0f}/s  "
        f"{s.metric} {number(s.value)} ({s.baseline_name} {number(s.baseline)})  "
        f"p50 {_ms(s.p50_ms)} ms  p99 {_ms(s.p99_ms)} ms  {counted(s.drifts, 'drift alarm')}"
    )

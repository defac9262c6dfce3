"""What a person sees of the demo: a live view on a terminal, plain lines elsewhere, a summary."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from headrace.demo.state import Demo
from headrace.demo.tally import LATEST, Line, TaskStatus
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
    """Draw everything as of a moment of the monotonic clock; 100 columns by 30 lines show all."""
    statuses = demo.monitor.statuses() if demo.monitor else []
    first_s = demo.first_prediction_s
    head = Text.assemble(
        ("headrace", "bold cyan"),
        f"  online learning on a real Kafka{f' at {demo.bootstrap}' if demo.bootstrap else ''}",
        (f"   {clock(now_s - demo.started_s)}", "bold"),
        (f"   first prediction after {first_s:.1f} s" if first_s else "", "dim"),
    )
    body: list[RenderableType] = [head]
    if first_s is None:
        body.append(_stages(demo, now_s))
    else:
        body.append(_tasks(statuses, now_s))
        each = min((height - FIXED_LINES) // max(len(statuses), 1), LATEST)
        if each > 0:
            body.append(_latest(statuses, each))
    ending = f"  {_spinner(now_s)} {demo.ending}" if demo.ending else ""
    body.append(
        Text.assemble(("Ctrl-C stops everything", "reverse"), (ending, "yellow"), no_wrap=True)
    )
    return Group(*body)


def summary(statuses: Sequence[TaskStatus]) -> Table:
    """Make the table that stays on the screen at the end."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for column in ("task", "score", "best baseline"):
        table.add_column(column, no_wrap=True)
    for column in ("events", "predicted", "dead", "p50, p99 ms", "drift"):
        table.add_column(column, no_wrap=True, justify="right")
    for s in statuses:
        table.add_row(
            s.name,
            f"{s.metric} {number(s.value)}",
            f"{s.baseline_name} {number(s.baseline)}",
            f"{s.events:,}",
            f"{s.predictions:,}",
            f"{s.dead_letters:,}",
            f"{_ms(s.p50_ms)}, {_ms(s.p99_ms)}",
            f"{s.drifts}",
        )
    return table


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
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(no_wrap=True, ratio=1)
    for width in (9, 8, 16, TREND, 12, 15):  # events, pace, score, trend, latency, drift
        table.add_column(no_wrap=True, width=width)
    titles = ("task", "events", "pace", "score", "over time", "latency", "drift alarms")
    table.add_row(*(Text(f"{title}\n", "dim") for title in titles))
    for s in statuses:
        dead = f"{s.dead_letters:,} dead" if s.dead_letters else ""
        table.add_row(
            Text.assemble((s.name, "bold"), (f"\n{ABOUT.get(s.name, '')}\n", "dim")),
            Text.assemble(f"{s.events:,}", (f"\n{dead}", "dim")),
            Text.assemble(f"{s.per_second:,.0f}/s", (f"\n{s.open:,} wait", "dim")),
            _score(s),
            Text(sparkline(s.history, TREND), "cyan"),
            Text(f"p50 {_ms(s.p50_ms)} ms\np99 {_ms(s.p99_ms)} ms"),
            _drift(s, now_s),
        )
    return Panel(table, title="learning", title_align="left", border_style="cyan", padding=(0, 1))


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
        while not ended.wait(0.1):
            for stage in list(demo.stages):
                if stage.state != "waits" and (key := (stage.name, stage.state)) not in told:
                    told.add(key)
                    note(f"{clock(time.monotonic() - demo.started_s)} {' '.join(key)}")
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
        f"p50 {_ms(s.p50_ms)} ms  p99 {_ms(s.p99_ms)} ms  {s.drifts} drift alarms"
    )

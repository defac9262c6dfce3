"""What the commands share: options, output, and a polite end."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as ProgressTask
from rich.table import Table
from rich.text import Text

from headrace.stream.errors import UsageError, no_broker
from headrace.stream.evaluation.scores import score_cells
from headrace.stream.process.signals import ENDING
from headrace.stream.process.terminal import Terminal, say, visible

if TYPE_CHECKING:
    from headrace.stream.evaluation.compare import Comparison
    from headrace.stream.kafka.connection import KafkaConnection
    from headrace.stream.task import Task
    from headrace.stream.training.snapshot import SavedState

Bootstrap = Annotated[
    str | None,
    typer.Option(
        "--bootstrap",
        "-b",
        envvar="KAFKA_BOOTSTRAP",
        show_envvar=True,
        help="Kafka's address, host:port[,host:port].",
        metavar="HOST:PORT",
    ),
]
KafkaConfig = Annotated[
    Path | None,
    typer.Option(
        "--kafka-config",
        envvar="HEADRACE_KAFKA_CONFIG",
        show_envvar=True,
        help="A file with librdkafka's properties: security, and servers unless they are named.",
        metavar="FILE",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
TaskFile = Annotated[str, typer.Argument(help="The task file (TOML), or its URL.", metavar="TASK")]
TaskFiles = Annotated[
    list[str], typer.Argument(help="Task files (TOML), or their URLs.", metavar="TASK...")
]
State = Annotated[
    str | None,
    typer.Option(
        envvar="HEADRACE_STATE",
        show_envvar=True,
        help="Directory or URL of the checkpoints; default: your data directory.",
        metavar="DIR|URL",
    ),
]
StateKey = Annotated[
    Path | None,
    typer.Option(
        envvar="HEADRACE_STATE_KEY",
        show_envvar=True,
        help="A file whose bytes sign the checkpoints (HMAC-SHA256).",
        metavar="FILE",
    ),
]
StartFrom = Annotated[
    str | None,
    typer.Option(
        help="The saved learner that the run began with, if it did: see `headrace learn`.",
        metavar="FILE|DIR|URL",
    ),
]

DEFAULT_PORT = 9092
MOST_KEY_BYTES = 65_536
WIDE = 100  # columns of a terminal that have room for a bar beside its numbers
LONGEST, BAR = 30, 24  # characters of a name, and of a bar
_ADDRESS = re.compile(
    r"(?:[A-Za-z_]+://)?(?:\[[0-9A-Fa-f:.%]+\]|[^\s:,/\[\]]+)(?::(\d{1,5}))?"
).fullmatch


def named_connection(option: str | None, config: Path | None) -> KafkaConnection | None:
    """Return a connection to the Kafka that the user names, by option, environment or file.

    Raises:
        UsageError: what is named is no list of addresses, or the file cannot be used.
        AccessError: a Kafka with security does not let us in, or we do not trust it.
        BrokerError: it does not answer.
    """
    from headrace.stream.broker.embedded import bootstrap_servers
    from headrace.stream.kafka.connection import connect

    kafka = connect(bootstrap_servers(option), config)
    for part in kafka.servers.split(",") if kafka.servers else ():
        port = _ADDRESS(part.strip())
        if not port or not 0 < int(port[1] or DEFAULT_PORT) < 65_536:
            raise UsageError(f"{part!r} is no address of a Kafka: expected host:port")
    if not kafka.servers:
        return None
    if kafka.properties:
        from headrace.stream.kafka.diagnosis import check

        check(kafka)
    return kafka


def connection_of(option: str | None, config: Path | None) -> KafkaConnection:
    """Return a connection to the Kafka that is named, or to what `headrace up` starts.

    Raises:
        UsageError: what is named is no list of addresses, or the file cannot be used.
        BrokerError: nothing is named and nothing listens where `headrace up` would.
    """
    from headrace.stream.kafka.connection import connect

    if named := named_connection(option, config):
        return named
    import socket

    try:
        socket.create_connection(("127.0.0.1", DEFAULT_PORT), 0.5).close()
    except OSError as error:
        raise no_broker(f"127.0.0.1:{DEFAULT_PORT}", error.strerror or error) from error
    return connect(f"127.0.0.1:{DEFAULT_PORT}", config)


def load_task(path: str) -> Task:
    """Load a task file; late, for what it imports takes longer than any `--help`.

    Raises:
        TaskError: it is none.
    """
    from headrace.stream.task import load

    return load(path)


def read_key(path: Path | None, option: str = "--state-key") -> bytes | None:
    """Read a secret, such as the key that signs checkpoints.

    Raises:
        UsageError: the file cannot be read, or has not 16 bytes, or more than 65,536.
    """
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            key = file.read(MOST_KEY_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read: {error.strerror}") from error
    if len(key) > MOST_KEY_BYTES:
        raise UsageError(f"{option} {path}: expected {MOST_KEY_BYTES:,} bytes at most")
    if len(key.strip()) < 16:
        raise UsageError(f"{option} {path}: {len(key.strip())} bytes, expected 16 or more")
    return key.strip()


def read_start(place: str | None, task: Task, key: bytes | None = None) -> SavedState | None:
    """Read the saved learner that a run begins with.

    Raises:
        UsageError: there is none, or it is of another task.
        RecoveryError: it is broken, or was saved by other code than this.
    """
    from headrace.saved import open_start

    return None if place is None else open_start(place, key, task)


class Stop:
    """Turn the first signal that asks for the end into a flag; a second one interrupts at once.

    Args:
        begun: whether there is something to end in order; else `begin` says so later, and until
            then the first one interrupts, too.
    """

    def __init__(self, *, begun: bool = True) -> None:
        self._asked = False
        if begun:
            self.begin()

    def begin(self) -> None:
        """From now on there is something to end in order."""
        for number in ENDING:
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        return self._asked

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True


class _Count(ProgressColumn):
    """Say how many are done, and of how many."""

    def render(self, task: ProgressTask) -> Text:
        """Write it down."""
        total = task.total
        of = "" if total is None else f" of {task.fields['about']}{total:,.0f}"
        return Text(f"{task.completed:,.0f}{of}", "progress.download")


@contextmanager
def bar(
    label: str,
    total: int | None,
    *,
    quiet: bool,
    unit: str = "rows",
    estimated: bool = False,
    first_note: str = "",
) -> Iterator[Any]:
    """Show a progress bar on standard error; `update(done, note)` moves it.

    A note that takes time to make may be a function: it is called only if there is a bar. Where
    the total is known, or estimated, the bar tells the share and the time that is left.
    """
    console = Terminal(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda done, note="": None
        return
    wide = console.width >= WIDE  # else the numbers would break into lines
    columns = (
        TextColumn("{task.description}", markup=False),
        *([BarColumn()] if wide else []),
        *([TaskProgressColumn()] if total else []),
        DownloadColumn() if unit == "bytes" else _Count(),
        *([TimeElapsedColumn()] if wide or not total else []),
        *([TextColumn("left"), TimeRemainingColumn()] if total else []),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        about = "about " if estimated else ""
        row = progress.add_task(visible(label), total=total, note=first_note, about=about)

        def update(done: int, note: str | Callable[[], str] = "") -> None:
            shown = note() if callable(note) else note
            if estimated and total and done > total:
                progress.update(row, total=done)
            progress.update(row, completed=done, note=visible(shown))

        yield update


@contextmanager
def status_line(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show one line that changes in place on a terminal's standard error; elsewhere nothing."""
    console = Terminal(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda text: None
        return
    with Live(console=console, transient=True) as live:
        yield lambda text: live.update(
            Text(visible(text, keep=""), no_wrap=True, overflow="ellipsis")
        )


@contextmanager
def local_broker(
    directory: Path, port: int, *, heap_mb: int, secured: bool = False
) -> Iterator[Any]:
    """Run the embedded broker, with a bar while Kafka is fetched the first time."""
    from headrace.stream.broker.embedded import embedded

    with ExitStack() as stack:
        with bar("fetching Apache Kafka", None, quiet=False, unit="bytes") as update:

            def on_progress(done: int, total: int) -> None:
                update(done, f"of {total / 1e6:.0f} MB")

            broker = stack.enter_context(
                embedded(
                    directory,
                    port=port,
                    heap_mb=heap_mb,
                    secured=secured,
                    on_progress=on_progress,
                )
            )
        yield broker


def score_table(lines: dict[str, Any]) -> None:
    """Print the metrics people ask for first, of each line over all events and in the window."""
    (_, *metrics), *body = score_cells(lines)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for line in body:
        table.add_row(*line)
    Terminal().print(table)


def tell_comparison(
    names: tuple[str, str],
    metrics: dict[str, Any],
    other: Comparison,
    baselines: dict[str, Any] | None = None,
) -> None:
    """Print for a person how another task did on the same events, and how sure that is."""
    most = 6
    more = [f"and {len(other.changes) - most:,} more"] if len(other.changes) > most else []
    say(f"{names[1]}: {'; '.join([*other.changes[:most], *more]) or 'the same task'}")
    lines: dict[str, Any] = {names[0]: metrics, names[1]: other.metrics}
    score_table(lines | {"difference": other.differences} | (baselines or {}))
    what, scale, form = (
        ("accuracy {} points", 100.0, "+.2f")
        if "accuracy" in metrics["all"]
        else ("absolute error {}", -1.0, "+.4g")  # a gain is an error that is lower
    )
    ends = sorted((other.low, other.high), key=lambda end: scale * (end or 0.0))
    shift, low, high = (
        "no bound" if value is None else format(scale * value, form)
        for value in (other.gain, *ends)
    )
    alone = f" ({other.alone:,} more were scored by one alone)" if other.alone else ""
    say(
        f"{other.verdict}: {what.format(shift)}, between {low} and {high} with 95 % confidence, "
        f"over {other.pairs:,} events of both{alone}"
    )


def bars(parts: Mapping[str, float], noise: Mapping[str, float] | None = None) -> Iterator[str]:
    """Draw numbers with their sign, a line for each, the largest first.

    Args:
        noise: their standard errors, of those that have one.
    """
    ranked = sorted(parts.items(), key=lambda part: -abs(part[1]))
    most = max((abs(size) for _, size in ranked), default=0.0) or 1.0
    names = {name: visible(name, keep="")[:LONGEST] for name, _ in ranked}
    width = max(map(len, names.values()), default=0)
    for name, size in ranked:
        error = (noise or {}).get(name, float("nan"))
        told = f"{size:+.4g}" + (f" ±{error:.2g}" if error == error else "")
        yield f"  {names[name]:{width}}  {told:19} " + "█" * round(BAR * abs(size) / most)

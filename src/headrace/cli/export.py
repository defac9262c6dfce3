"""The command `export`: what a service has learned, as a file for other runtimes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.console import (
    AsJson,
    Bootstrap,
    KafkaConfig,
    StartFrom,
    State,
    StateKey,
    TaskFile,
    bar,
    connection_of,
    load_task,
    read_key,
    read_start,
)
from headrace.cli.replay import MOMENT, Archive, shown_by
from headrace.stream.errors import UsageError
from headrace.stream.process.terminal import say

if TYPE_CHECKING:
    from headrace.stream.audit.replay_range import LedgerPosition
    from headrace.stream.kafka.connection import KafkaConnection
    from headrace.stream.task import Task
    from headrace.stream.training.snapshot import SavedState


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(no_args_is_help=True)(export)


def export(
    task: TaskFile,
    to: Annotated[
        str, typer.Option(help="The format.", metavar="onnx|stablehlo|tf|tflite|torch|keras")
    ] = "onnx",
    file: Annotated[
        Path | None,
        typer.Option(help="Where it goes (tf and stablehlo: a folder); default: by the task."),
    ] = None,
    learner: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="A saved learner (`Learner.save`), or the directory of a service's checkpoints; "
            "default: those in your data directory.",
            metavar="FILE|DIR|URL",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(help="Learn it again up to this moment of its past.", metavar=MOMENT),
    ] = None,
    archive: Archive = None,
    start_from: StartFrom = None,
    state: State = None,
    state_key: StateKey = None,
    licence: Annotated[str, typer.Option(help="For the model card.")] = "",
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Write what a service would predict next as a file that needs no headrace.

    It is the newest checkpoint's state, so a service is not disturbed; with --at that of a moment,
    as in `headrace state`. torch and keras get one network of the pool, all others the whole
    predictor; with a horizon, only stablehlo learns the label that an event brings before it
    predicts the event. Beside the file comes a model card (FILE.md): what it takes and gives,
    how good it was beside baselines, what it does not do.

        headrace export power.toml --to onnx

        headrace export power.toml --to tf --file power-model --from power.hr

        headrace export power.toml --at 2026-03-01T12:00:00Z --licence CC-BY-4.0
    """
    from headrace.export import FORMATS
    from headrace.learner import Learner
    from headrace.saved import check_task

    if to not in FORMATS:
        raise UsageError(f"--to {to}: expected one of {', '.join(FORMATS)}")
    if at and learner:
        raise UsageError("--at: learns again what a service learned, so it goes without --from")
    loaded, key = load_task(task), read_key(state_key)
    suffix = FORMATS[to].suffix
    place = file or Path(f"{loaded.name}{suffix}" if suffix else f"{loaded.name}-{to}")
    with TemporaryDirectory(prefix="headrace-") as folder:
        if at:
            from headrace.stream.audit.replay_range import parse_position

            moment = parse_position(at)
            kafka = connection_of(bootstrap, kafka_config)
            start = read_start(start_from, loaded, key)
            _learn_again(loaded, kafka, moment, folder, archive, start, as_json)
            learner, key = folder, None
        from_place = learner or _checkpoints(state, loaded)
        found = Learner.load(from_place, key=key)
        check_task(found.task, loaded, from_place)
    card = found.export(place, to, licence=licence)
    if as_json:
        say({"file": str(place), "card": asdict(card)})
        return
    say(f"written to {place}, for {card.reader}; its model card is {place}.md")
    say(f"  state: {card.state}")
    for what, value in card.origin.items():
        say(f"  {what}: {value}")
    for limit in card.limits:
        say(f"- {limit}")


def _checkpoints(state: str | None, task: Task) -> str:
    """Return where a service has the checkpoints of a task."""
    from headrace.stream.process.paths import data_dir

    place = f"{(state or str(data_dir('state'))).rstrip('/')}/{task.name}"
    if "://" not in place and not Path(place).is_dir():
        raise UsageError(
            f"{place}: no checkpoint of a service lies there: name where it has them by --state, "
            "or a saved learner by --from"
        )
    return place


def _learn_again(
    task: Task,
    kafka: KafkaConnection,
    moment: LedgerPosition,
    folder: str,
    archive: str | None,
    start: SavedState | None,
    quiet: bool,
) -> None:
    from headrace.stream.audit import replay as replays

    with bar("rebuilding", None, quiet=quiet, unit="events") as update:
        replays.state(
            task, kafka, moment, folder, archive=archive, start=start, on_progress=shown_by(update)
        )

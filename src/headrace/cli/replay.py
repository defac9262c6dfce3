"""The commands `replay` and `state`: run history again, exactly or otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.console import (
    AsJson,
    Bootstrap,
    KafkaConfig,
    StartFrom,
    StateKey,
    Stop,
    TaskFile,
    bar,
    connection_of,
    load_task,
    read_key,
    read_start,
    score_table,
    tell_comparison,
)
from headrace.stream.errors import UsageError
from headrace.stream.process.terminal import note, say, visible

if TYPE_CHECKING:
    from headrace.stream.audit.replayed import Replayed

Archive = Annotated[
    str | None,
    typer.Option(
        help="Read raw events from this archive (`headrace archive`) instead of the topic.",
        metavar="DIR|URL",
    ),
]
MOMENT = "OFFSET|TIME|#RECORD"
AS_IT_WAS = ("as it was", "changed")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (replay, state):
        app.command(no_args_is_help=True)(command)


def replay(
    task: TaskFile,
    begin: Annotated[
        str | None,
        typer.Option("--from", help="Begin here, with a fresh model: not proven.", metavar=MOMENT),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="End here; default: what is learned now.", metavar=MOMENT)
    ] = None,
    speed: Annotated[
        str, typer.Option(help="max, or so much faster than event time.", metavar="max|100x")
    ] = "max",
    to_topic: Annotated[
        str | None,
        typer.Option(help="Publish the predictions to this new topic.", metavar="TOPIC"),
    ] = None,
    archive: Archive = None,
    start_from: StartFrom = None,
    state_key: StateKey = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Learn it otherwise too, and compare.", metavar="KEY=VALUE"),
    ] = None,
    label_delay: Annotated[
        str | None,
        typer.Option(
            help="Learn it otherwise too, with labels so much later than their events.",
            metavar="0|500|10m|'exp(1d)'",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the metrics: .png, .svg or .html.", metavar="FILE"),
    ] = None,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Learn again what the ledger says was learned, in its order, and prove it bit for bit.

    It reads alone, so it runs beside the live learner. A TIME (RFC 3339, UTC) is when it was
    learned; an OFFSET is of a raw event (PARTITION:OFFSET where there are several partitions),
    which is the last one learned, or with --from the first; #RECORD is a record of the ledger.
    Exit code 8: history comes out otherwise than the ledger says, from the record that is named.

    With --set the same events are learned a second time with a changed task, and the two are
    compared event by event; the verdict holds with 95 % confidence however often you look.
    --to-topic then gets the predictions of the changed task. --label-delay 0 does so with labels
    that come at once: what would that have been worth?

        headrace replay power.toml

        headrace replay power.toml --until 2026-03-01T12:00:00Z --archive s3://history/kafka

        headrace replay power.toml --set model.learning_rate=0.01 --plot rates.png

        headrace replay power.toml --set 'input.exclude=["sensor-7"]' --json

        headrace replay power.toml --from '#812' --speed 100x --to-topic power.replayed
    """
    from headrace.stream.audit import replay as replays
    from headrace.stream.audit.replay_range import parse_position
    from headrace.stream.evaluation import compare
    from headrace.stream.evaluation.plot import POINTS, check_plot, draw
    from headrace.stream.process.garbage import tune_memory
    from headrace.stream.rows.label_delay import parse

    loaded = load_task(task)
    factor = _factor(speed)
    moments = [None if text is None else parse_position(text) for text in (begin, until)]
    changed = compare.changed_task(loaded, settings) if settings else None
    for line in compare.without_effect(loaded, settings or ()):
        note(visible(line, keep=""))
    if plot:
        check_plot(plot)
    kafka, stop = connection_of(bootstrap, kafka_config), Stop()
    tune_memory()
    with bar("replaying", None, quiet=as_json, unit="events") as update:
        found = replays.replay(
            loaded,
            kafka,
            begin=moments[0],
            until=moments[1],
            archive=archive,
            start=read_start(start_from, loaded, read_key(state_key)),
            changed=changed,
            label_delay=parse(label_delay) if label_delay else None,
            to_topic=to_topic,
            speed=factor,
            points=POINTS if plot else 0,
            stop=stop,
            on_progress=shown_by(update),
        )
    if plot and found.curve:
        draw(loaded, found.curve, plot, names=AS_IT_WAS, source=loaded.input.topic)
    if as_json:
        say(found.as_json())
        return
    _tell(found)
    if found.comparison:
        tell_comparison(AS_IT_WAS, found.metrics, found.comparison)
        if start_from:
            say(
                f"{AS_IT_WAS[0]}: begins with the saved learner, whose events its metrics count, "
                "and the changed task with nothing; to begin both with nothing, leave --start-from "
                "out and say --from"
            )


def state(
    task: TaskFile,
    at: Annotated[str, typer.Option(help="The moment.", metavar=MOMENT)],
    to: Annotated[str, typer.Option(help="Where the checkpoint goes.", metavar="DIR|URL")],
    archive: Archive = None,
    start_from: StartFrom = None,
    state_key: StateKey = None,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Write the state that the learner had at a moment of its past, as a checkpoint.

    It is learned again from the beginning and proven like a replay, bit for bit. OFFSET, TIME and
    #RECORD are as in `headrace replay --until`. After a whole record, a learner that is given
    the directory goes on from there: headrace learn TASK --state DIR.

        headrace state power.toml --at '#812' --to /tmp/then

        headrace state power.toml --at 2026-03-01T12:00:00Z --to /tmp/then --archive /mnt/history
    """
    import msgspec

    from headrace.stream.audit import replay as replays
    from headrace.stream.audit.replay_range import parse_position

    loaded, key, moment = load_task(task), read_key(state_key), parse_position(at)
    with bar("rebuilding", None, quiet=as_json, unit="events") as update:
        kept = replays.state(
            loaded,
            connection_of(bootstrap, kafka_config),
            moment,
            to,
            archive=archive,
            start=read_start(start_from, loaded, key),
            key=key,
            on_progress=shown_by(update),
        )
    if as_json:
        say({"manifest": msgspec.to_builtins(kept.manifest), "replayed": kept.replayed.as_json()})
        return
    _tell(kept.replayed)
    say(f"written to {to} as a checkpoint:")
    for name in ("run", "seq", "positions", "counts", "state"):
        say(f"  {name}: {getattr(kept.manifest, name)}")


def _factor(text: str) -> float | None:
    """Read a speed: 100.0 for `100x`, None for `max`."""
    if text == "max":
        return None
    try:
        factor = float(text.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise UsageError(f"--speed {text}: expected max, or a factor above 0, such as 100x")
    return factor


def shown_by(update: Callable[..., None]) -> Callable[[int, int], None]:
    """Return what tells a bar how many of how many events are done."""
    return lambda done, total: update(done, f"of {total:,}")


def _tell(found: Replayed) -> None:
    """Print for a person what was learned, how well, and what is proven."""
    from headrace.stream.rows.refusals import literals_told

    pace = (found.events + found.refused) / max(found.seconds, 1e-9)
    first, last = found.records
    say(
        f"run {found.run[:8]}, records #{first:,} to #{last:,}: {found.events:,} events, "
        f"{found.refused:,} refused, {found.seconds:.1f} s, {pace:,.0f} events/s"
    )
    if found.stopped:
        say("stopped before the end, as you said")
    say(f"state {found.state}")
    say(_proof(found))
    if found.published:
        say(f"{found.published:,} predictions published")
    score_table({"headrace": found.metrics} | found.baselines)
    warnings = (f"warning: {each}" for each in found.warnings)
    for line in (*map(str, found.refusals), *literals_told(found.non_finite), *warnings):
        say(visible(line, keep=""))


def _proof(found: Replayed) -> str:
    """Say how much of it is what was learned then."""
    said = f"equal to the ledger: {found.equal:,} of {found.batches:,} records"
    if found.checkpoints:
        said += f", and {found.checkpoints:,} states that it announces"
    if found.equal < found.batches:
        said += (
            "; the others cannot be compared: learning began later, or they were learned by other "
            "code"
        )
    if found.part is not None:
        said += f"; record #{found.part:,} was learned in part, which cannot be compared"
    return said

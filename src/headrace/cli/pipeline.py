"""Commands that move events: demo, produce, normalize, learn."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from headrace.cli.console import (
    AsJson,
    Bootstrap,
    KafkaConfig,
    State,
    StateKey,
    Stop,
    TaskFile,
    TaskFiles,
    bar,
    connection_of,
    load_task,
    named_connection,
    read_key,
    status_line,
)
from headrace.cli.ending import deadline
from headrace.stream.errors import DeliveryError, HeadraceError, UsageError
from headrace.stream.evaluation.scores import counted, shown
from headrace.stream.process.terminal import note, say


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (demo, learn, normalize, produce):
        app.command()(command)


def learn(
    task: TaskFile,
    origin: Annotated[
        Literal["features", "events"],
        typer.Option(
            "--from", help="Rows made by `headrace normalize`, or raw events normalised here."
        ),
    ] = "events",
    micro_batch: Annotated[
        int,
        typer.Option(
            help="Most events handled at a time; never changes a result.", min=1, max=262_144
        ),
    ] = 4096,
    release: Annotated[
        float,
        typer.Option(
            help="Seconds that the state may be old by which `headrace serve` answers; 0: none is "
            "released.",
            min=0.0,
            metavar="SECONDS",
        ),
    ] = 1.0,
    drain: Annotated[
        bool, typer.Option("--drain", help="Stop at what is now the end of the topic.")
    ] = False,
    state: State = None,
    state_key: StateKey = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say where it would go on, and change nothing.")
    ] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Forget what was learned: begin a new run.")
    ] = False,
    start_from: Annotated[
        str | None,
        typer.Option(
            help="A new run begins with this saved learner (`Learner.save`), or with a checkpoint.",
            metavar="FILE|DIR|URL",
        ),
    ] = None,
    accept_recompute: Annotated[
        bool,
        typer.Option(
            "--accept-recompute",
            help="Go on although history comes out otherwise with this code.",
        ),
    ] = False,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss", help="Go on although events were deleted before they were learned."
        ),
    ] = False,
    accept_new_topic: Annotated[
        bool,
        typer.Option(
            "--accept-new-topic",
            help="Go on with a raw topic that was deleted and made again, from its beginning.",
        ),
    ] = False,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Predict and learn a topic exactly once; publish predictions, metrics and drift alarms.

    Goes on where the task's ledger ends, with the same state bit for bit, however it was ended.
    Ctrl-C stops it when what was read is published. Exit code 5: a commit is in doubt, 6: another
    learner took over, 7: the state needs a decision of yours, 70: it hung; after 5 and 70 just
    start it again.
    """
    loaded, kafka, stop = load_task(task), connection_of(bootstrap, kafka_config), Stop(begun=False)
    from headrace.service import Service
    from headrace.stream.service.progress import Progress

    service = Service(
        loaded,
        kafka,
        origin=origin,
        state=state,
        key=read_key(state_key),
        start_from=start_from,
        micro_batch=micro_batch,
        release_s=release,
        from_scratch=from_scratch,
        accept_recompute=accept_recompute,
        accept_loss=accept_loss,
        accept_new_topic=accept_new_topic,
    )
    if dry_run:
        lines = service.plan()
        say({"plan": lines} if as_json else "\n".join(lines))
        return
    metric = "accuracy" if loaded.spec.classes else "mae"

    def on_progress(progress: Progress) -> None:
        if as_json:
            with suppress(BrokenPipeError):  # a service outlives whoever read its output
                say(asdict(progress))
            return
        score = shown(progress.report["all"][metric])
        refused = progress.rejected + progress.repeated
        waits = f", {progress.labels['pending']:,} wait" if progress.labels else ""
        told[:] = [
            f"{counted(progress.events, 'event')}, {metric} {score}, {refused:,} refused{waits}"
        ]
        update(f"{told[0]}, {progress.events_per_second:,.0f}/s, {progress.lag:,} behind")

    def on_ready() -> None:
        stop.begin()
        update("waiting for events")
        deadline.code, deadline.told = 5, "the last commit is in doubt, start again"
        say({"ready": loaded.name}) if as_json else note(f"{loaded.name}: ready")

    told: list[str] = []
    with status_line(quiet=as_json) as update:
        update("compiling…")
        done = service.run(
            drain=drain,
            stop=stop,
            on_ready=on_ready,
            on_progress=on_progress,
            on_note=lambda line: note(f"{loaded.name}: {line}"),
        )
    for line in told:
        note(f"{loaded.name}: {line}")
    refused = done.rejected + done.repeated
    if drain and refused and not done.events:
        raise HeadraceError(f"nothing is learned: all {refused:,} events are refused")
    if drain and done.events and not done.learned:
        came = f"no label in {counted(done.events, 'event')}"
        if done.labels and done.labels["held"]:
            came = (
                f"{done.labels['held']:,} labels name no event that came; are ids numbers in one "
                "topic, and texts in the other?"
            )
        raise HeadraceError(f"nothing is learned: {came}")


def normalize(
    task: TaskFiles,
    workers: Annotated[int, typer.Option(help="Processes that share the partitions.", min=1)] = 1,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Run Faust workers that turn the raw events of tasks into rows on their features topics."""
    from headrace.stream.engines.faust import run

    stop, paths = Stop(), [each if "://" in each else str(Path(each).absolute()) for each in task]

    def on_ready() -> None:
        say({"ready": "normalize"}) if as_json else note("normalize: ready")

    run(
        paths, connection_of(bootstrap, kafka_config), workers=workers, stop=stop, on_ready=on_ready
    )


def produce(
    source: Annotated[
        str,
        typer.Argument(
            help="sensor, social, text, file, sea, hyperplane, friedman, topics or image."
        ),
    ],
    path: Annotated[
        list[str] | None, typer.Argument(help="Files, with `file`; - is standard input.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Default: events.<source>.")] = None,
    rate: Annotated[float | None, typer.Option(help="Events per second.", min=0.001)] = None,
    speed: Annotated[
        str | None, typer.Option(help="Event time runs so much faster.", metavar="3600x")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after so many.", min=1)] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again, with new ids.")] = False,
    seed: Annotated[int, typer.Option(help="Of a generator.")] = 0,
    drift: Annotated[
        str | None,
        typer.Option(help="Of a generator: abrupt@5000, gradual@5000:1000, recurring@2000 ..."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Column with the message key.")] = None,
    time: Annotated[str | None, typer.Option(help="Column with event time, for --speed.")] = None,
    cloudevents: Annotated[
        bool, typer.Option("--cloudevents", help="Wrap events as CloudEvents 1.0.")
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(help="Whose topics they go to: a task file.", metavar="FILE|URL"),
    ] = None,
    label_delay: Annotated[
        str | None,
        typer.Option(
            help="With --task: send labels so much later, to its topic of labels.",
            metavar="500|10m|'exp(1d)'",
        ),
    ] = None,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Send events to Kafka: bundled real streams, your own file, or a seeded generator.

    Exit code 4 when an event was not acknowledged. Ctrl-C sends what is under way, and says so.

        headrace produce sensor --rate 100

        headrace produce file power.csv --topic events.power

        headrace produce file power.csv --time time --speed 3600x --loop

        headrace produce sea --drift abrupt@5000 --limit 10000 --seed 1

        headrace produce file power.csv --task power.toml --label-delay 500
    """
    from headrace.producers import events_of
    from headrace.producers.delivery import Progress
    from headrace.producers.late_labels import LateLabels
    from headrace.producers.pace import parse_speed
    from headrace.producers.publish import publish
    from headrace.stream.evaluation.infer import task_name
    from headrace.stream.formats.files import stem
    from headrace.stream.rows.label_delay import parse

    loaded = load_task(task) if task else None
    if label_delay and not loaded:
        raise UsageError("--label-delay: expected --task, whose topics events and labels go to")
    labels = LateLabels(loaded, parse(label_delay)) if loaded and label_delay else None
    if loaded and path and not time and label_delay:
        time = loaded.input.time
    stop = Stop()
    events = events_of(
        source,
        path or None,
        loop=loop,
        seed=seed,
        drift=drift,
        key=key,
        time=time,
        cloudevents=cloudevents or (loaded is not None and loaded.input.format == "cloudevents"),
    )
    default = f"events.{task_name(stem(path)) if path else source}"
    if loaded:
        default = loaded.input.topic
    with bar("producing", limit, quiet=as_json) as update:
        deadline.code, deadline.told = 4, "not all that was sent is acknowledged"

        def on_progress(progress: Progress) -> None:
            pace = progress.acknowledged / max(progress.seconds, 1e-9)
            update(progress.acknowledged, f"{pace:,.0f}/s acknowledged")

        done = publish(
            events,
            kafka=connection_of(bootstrap, kafka_config),
            topic=topic or default,
            rate=rate,
            speed=parse_speed(speed) if speed else None,
            limit=limit,
            labels=labels,
            on_progress=on_progress,
            stop=stop,
        )
    say(
        asdict(done)
        if as_json
        else f"{done.acknowledged:,} acknowledged, {done.failed:,} not, in {done.seconds:.1f} s"
    )
    if loaded and labels and done.sent and not labels.found:
        raise HeadraceError(
            f"no label was sent: none of {counted(done.sent, 'event')} has one in "
            f"{loaded.target.field!r}, the target.field of task {loaded.name}"
        )
    if done.failed:
        raise DeliveryError(f"{done.failed} not acknowledged: {'; '.join(done.first_errors)}")


def demo(
    seconds: Annotated[
        float | None, typer.Option("--for", help="Stop after so many seconds.", min=1)
    ] = None,
    rate: Annotated[float, typer.Option(help="Events per second of each stream.", min=1)] = 200,
    secure: Annotated[
        bool, typer.Option("--secure", help="On a Kafka with TLS, SCRAM, and a user for each part.")
    ] = False,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page that shows it in a browser.")
    ] = False,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Run it all on this machine: Kafka, producers, normaliser, learners, and a live view.

    On the terminal, and as a page in a browser, whose address stands there.

    Three real streams: PM2.5 an hour ahead, which Hacker News posts get popular, SMS spam.
    Exit code 0 only if every event sent was predicted or put aside as a dead letter.
    """
    from headrace.demo import run

    kafka = named_connection(bootstrap, kafka_config)
    code = run(
        seconds=seconds,
        rate=rate,
        kafka=kafka,
        secure=secure,
        open_page=open_page,
        as_json=as_json,
    )
    raise typer.Exit(code)

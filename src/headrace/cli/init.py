"""The command `init`: a start with a file or a topic of one's own, asked for or by options."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.console import Bootstrap, KafkaConfig, connection_of
from headrace.cli.guessing import Target, with_options
from headrace.stream.errors import UsageError, did_you_mean
from headrace.stream.evaluation.options import Options
from headrace.stream.process.terminal import answers, ask, note, say, visible

if TYPE_CHECKING:
    from headrace.stream.evaluation.infer import Inferred
    from headrace.stream.kafka.connection import KafkaConnection
    from headrace.stream.task import Task

MOST_LISTED = 40  # columns
LOCAL = ("127.", "localhost", "[::1]")

_HEAD = """\
# {what}: `docker compose up --wait`.
# The image is built in a checkout of headrace: docker build -t headrace .
{notes}name: {name}

x-headrace: &headrace
  image: ${{HEADRACE_IMAGE:-headrace}}
  working_dir: /tasks
  environment:
    KAFKA_BOOTSTRAP: {bootstrap}
    HEADRACE_STATE: /var/lib/headrace # where the learner keeps its checkpoints{more}
  init: true
  restart: unless-stopped
  stop_grace_period: 20s{network}

services:
"""
_KAFKA = """\
  kafka:
    image: apache/kafka:4.3.1
    environment:
      KAFKA_NODE_ID: 1
      KAFKA_PROCESS_ROLES: broker,controller
      KAFKA_LISTENERS: INTERNAL://:9092,CONTROLLER://:9093,HOST://:9094
      KAFKA_ADVERTISED_LISTENERS: INTERNAL://kafka:9092,HOST://127.0.0.1:${HEADRACE_PORT:-9094}
      KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,HOST:PLAINTEXT
      KAFKA_INTER_BROKER_LISTENER_NAME: INTERNAL
      KAFKA_CONTROLLER_LISTENER_NAMES: CONTROLLER
      KAFKA_CONTROLLER_QUORUM_VOTERS: 1@localhost:9093
      KAFKA_LOG_DIRS: /var/lib/kafka/data
      KAFKA_AUTO_CREATE_TOPICS_ENABLE: "false"
      KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: 1
      KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR: 1
      KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: 1
      KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR: 1
      KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR: 1
      KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS: 0
    ports:
      - 127.0.0.1:${HEADRACE_PORT:-9094}:9094
    volumes:
      - kafka-data:/var/lib/kafka/data
    restart: unless-stopped
    stop_grace_period: 30s
    healthcheck:
      test: >-
        KAFKA_HEAP_OPTS="-Xmx64m -XX:TieredStopAtLevel=1"
        /opt/kafka/bin/kafka-broker-api-versions.sh --bootstrap-server localhost:9092 >/dev/null
      interval: 10s
      timeout: 10s
      start_period: 1m
      retries: 6

"""
_PARTS = """\
  topics:
    <<: *headrace
    command: [topics, create, {file}]
    restart: on-failure:3
    volumes: [{mounts}]{after_kafka}

  learn:
    <<: *headrace
    command: [learn, {file}]
    volumes: [{mounts}, "state:/var/lib/headrace"]
    depends_on:
      topics:
        condition: service_completed_successfully

volumes:
  state:
"""
_AFTER_KAFKA = """
    depends_on:
      kafka:
        condition: service_healthy"""
_FROM_HERE = """\
# From this machine that Kafka is 127.0.0.1:9094 (HEADRACE_PORT says another port):
#   headrace produce file FILE --topic {topic} --bootstrap 127.0.0.1:9094
"""
_SECRETS = """\
# Containers are user 10001, who has to be able to read {config}
# and what it names: chown 10001 FILE, or name copies of theirs.
"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(init)


@with_options
def init(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A file, or a topic; default: the file with data in the folder.",
            metavar="[FILE|TOPIC]",
        ),
    ] = None,
    target: Target = None,
    *,
    options: Options,
    name: Annotated[
        str | None, typer.Option(help="Of the task; default: of the file or topic.")
    ] = None,
    to: Annotated[Path, typer.Option(help="Where the files are written.", metavar="DIR")] = Path(),
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing: take options and guesses.")
    ] = False,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
) -> None:
    """Begin with a file or a topic of yours: a task file, a compose.yaml, and what to do next.

    What is not said by options is asked on a terminal, and guessed elsewhere or with --yes. Nothing
    that is there is overwritten.

        headrace init

        headrace init power.csv --target price --yes

        headrace init events.power --target price --bootstrap kafka-1:9092
    """
    from headrace.stream.evaluation.infer import describe as describe_task
    from headrace.stream.evaluation.infer import guess_file, guess_topic, task_name
    from headrace.stream.formats.files import describe, form_of, names_files, sample

    asks = not yes and answers()
    if not to.is_dir():
        raise UsageError(f"--to {to}: there is no such directory")
    _refuse_taken([to / "compose.yaml"])  # before anything is asked
    source = source or _only_file(to, asks=asks)
    file = source if form_of(source) or names_files(source) else None
    kafka = None if file else connection_of(bootstrap, kafka_config)
    columns = list(dict.fromkeys(key for row in sample(file) for key in row)) if file else []
    if target is None and not asks:
        there = f"; {file} has {', '.join(columns[:MOST_LISTED])}" if columns else ""
        raise UsageError(f"--target: missing; name the column to predict{there}")
    target = target or _ask("Which column is to be predicted?", columns, needed=True)
    if columns and target not in columns and not target.startswith("/"):
        raise UsageError(
            f"{file}: no column {target!r}{did_you_mean(target, columns) or ';'} "
            f"it has {', '.join(columns[:MOST_LISTED])}"
        )

    def infer() -> Inferred:
        if kafka:
            return guess_topic(kafka, str(source), str(target), options)
        return guess_file(str(source), str(target), options)

    found = infer()
    for line in describe(file) if file else []:
        note(visible(line, keep=""))
    for line in (*describe_task(found.task), *found.lines(), *map(str, found.refusals)):
        note(visible(line, keep=""))
    task = found.task
    if asks:
        time = options.time or _ask("Column with the time of an event?", columns, task.input.time)
        entity = options.entity or _ask(
            "Column with the entity, such as a station (lags are per entity)?",
            columns,
            task.input.entity,
        )
        asked = replace(options, time=time, entity=entity)
        if asked != options:
            options = asked
            found = infer()
        name = name or _ask("What is the task called?", [], task.name)
        task = found.task
    if name:
        topic = str(source) if kafka else f"events.{task_name(name)}"
        source_of = task.input.model_copy(update={"topic": topic})
        task = task.model_copy(update={"name": task_name(name), "input": source_of})
    written = [to / f"{task.name}.toml", to / "compose.yaml"]
    texts = [replace(found, task=task).to_toml(), compose(task, kafka, written[0], kafka_config)]
    _refuse_taken(written)
    for path, text in zip(written, texts, strict=True):
        try:
            with path.open("x", encoding="utf-8") as out:
                out.write(text)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
        note(f"written: {path}")
    say("Next:")
    for line in _next(task, file, kafka, written[0], kafka_config):
        say(f"  {line}")


def _refuse_taken(places: Sequence[Path]) -> None:
    if taken := [path for path in places if path.exists() or path.is_symlink()]:
        other = "" if taken[-1].name == "compose.yaml" else ", --name another task"
        raise UsageError(
            f"{' and '.join(map(str, taken))}: there already, and nothing is overwritten; "
            f"--to names another folder{other}"
        )


def compose(
    task: Task, kafka: KafkaConnection | None, file: Path, config: Path | None = None
) -> str:
    """Return a compose.yaml that learns a task: with a Kafka of its own, or beside one there is.

    Args:
        config: the file that says how to reach that Kafka.
    """
    from headrace.stream.kafka import properties

    local = kafka is not None and kafka.servers.startswith(LOCAL)
    notes = "" if kafka else _FROM_HERE.format(topic=task.input.topic)
    mounts, more = [f"./{file.name}:/tasks/{file.name}:ro"], ""
    if config:
        place = str(config.absolute())
        notes += _SECRETS.format(config=visible(place, keep=""))
        more += f"\n    {properties.CONFIG}: {json.dumps(place)}"
        mounts.append(f"{place}:{place}:ro")
    for name, value in sorted(kafka.properties.items() if kafka else ()):
        if name.endswith(".location"):
            place = str(Path(value).absolute())
            mounts.append(f"{place}:{value if Path(value).is_absolute() else f'/tasks/{value}'}:ro")
        if properties.variable(name) in os.environ:
            more += f"\n    {properties.variable(name)}: # from whoever runs docker compose"
    head = _HEAD.format(
        what=f"{'A learner' if kafka else 'Kafka and a learner'} for {file.name}",
        notes=notes,
        name=json.dumps(f"headrace-{task.name}".lower()),
        bootstrap=json.dumps(kafka.servers if kafka else "kafka:9092"),
        more=more,
        network="\n  network_mode: host" if local else "",
    )
    parts = _PARTS.format(
        file=json.dumps(file.name),
        mounts=", ".join(map(json.dumps, mounts)),
        after_kafka="" if kafka else _AFTER_KAFKA,
    )
    return head + ("" if kafka else _KAFKA) + parts + ("" if kafka else "  kafka-data:\n")


def _next(
    task: Task, file: str | None, kafka: KafkaConnection | None, path: Path, config: Path | None
) -> list[str]:
    toml = shlex.quote(str(path))
    if kafka:
        at = f"--bootstrap {shlex.quote(kafka.servers)}"
        at += f" --kafka-config {shlex.quote(str(config))}" if config else ""
        return [
            f"headrace topics create {toml} {at}",
            f"headrace doctor {toml} {at}",
            f"headrace learn {toml} {at}",
        ]
    data = shlex.quote(str(file))
    return [
        f"headrace evaluate {toml} --input {data}",
        f"headrace up & headrace topics list --wait 120 && headrace topics create {toml}",
        f"headrace produce file {data} --topic {task.input.topic} && headrace learn {toml}",
    ]


def _only_file(place: Path, *, asks: bool) -> str:
    """Return the file with data in a folder; of several, the one that is chosen."""
    from headrace.stream.formats.files import form_of

    found = sorted(str(path) for path in place.iterdir() if form_of(path.name) and path.is_file())
    if len(found) == 1:
        return found[0]
    if asks:
        return str(
            _ask(
                "Which file, or which topic?",
                found,
                found[0] if found else None,
                free=True,
                needed=not found,
            )
        )
    more = f"several files: {', '.join(found[:10])}" if found else "no file with data"
    raise UsageError(f"{place.absolute()} has {more}; name a file, or a topic of Kafka")


def _ask(
    question: str,
    known: Sequence[str],
    guess: str | None = None,
    *,
    free: bool = False,
    needed: bool = False,
) -> Any:
    """Ask on the terminal until the answer is one that is known; an empty one takes the guess.

    Args:
        free: an answer that is not known will do, too.
        needed: no answer is none.
    """
    if known:
        note(f"  there is {', '.join(known[:MOST_LISTED])}")
    while True:
        line = ask(f"{question} {'' if needed else _bracket(guess)}")
        if not line:
            raise UsageError(f"no answer to: {question}")
        answer = line.strip() or guess
        if not answer:
            if not needed:
                return None
        elif not known or free or answer in known or answer.startswith("/"):
            return answer
        else:
            note(f"  there is no {answer!r}{did_you_mean(answer, known)}")


def _bracket(guess: str | None) -> str:
    return f"[{guess or 'none'}] "

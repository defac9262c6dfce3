"""A real Kafka for the tests, topics of their own, and nothing left running after any of them."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import pytest

with warnings.catch_warnings():
    # kafka-python 3.0.12 reads its schemas by a function that Python 3.11 calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka as kafka_python  # noqa: F401

from headrace.stream.broker.embedded import Broker
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.process.paths import cache_dir
from tests.support.hostile import Ran, Run

MakeTopic = Callable[..., str]

# The processes that tests start keep what they compile of modules, as users' processes do.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Nor is a program that one of them has compiled compiled again by another.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_dir("xla")))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"


def pytest_configure(config: pytest.Config) -> None:
    """Bear with what others warn of and we cannot mend.

    kafka-python never closes a socket that could not connect, or that TLS refused.
    JAX may read a compiled program that another process is about to write, and compiles it then.
    """
    for ignored in (
        r"ignore:Error reading persistent compilation cache entry:UserWarning",
        r"ignore:unclosed <ssl\.SSLSocket:ResourceWarning",
        r"ignore:unclosed <socket.*laddr=\('0\.0\.0\.0':ResourceWarning",
    ):
        config.addinivalue_line("filterwarnings", ignored)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test by its parameter where that is bytes, which may hold the time (gzip's do).

    Each of several workers collects the tests for itself, and all must find the same names.
    """
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is given a Kafka: `-m "not kafka"` leaves out all that needs a broker."""
    asked = {"long", "faults"} & set(re.findall(r"\w+", config.option.markexpr))
    for item in items:
        if item.get_closest_marker("long") and not asked:
            item.add_marker(pytest.mark.skip("long: run with -m long"))
        if {"kafka", "own_broker", "secured", "guarded"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker("kafka")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the figures that tests told by `tell`, whichever process they ran in."""
    reports = chain.from_iterable(terminalreporter.stats.values())
    properties = chain.from_iterable(
        report.user_properties for report in reports if getattr(report, "when", "") == "call"
    )
    if told := [line for name, line in properties if name == "told"]:
        terminalreporter.section("told")
        for line in told:
            terminalreporter.line(line)


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that puts a line of figures below the test run's results."""
    return lambda line: request.node.user_properties.append(("told", line))


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaConnection]:
    """Connect to a Kafka: yours by KAFKA_BOOTSTRAP, else one for this session."""
    from headrace.stream.broker.embedded import bootstrap_servers, embedded
    from headrace.stream.kafka.topics import list_topics

    if given := bootstrap_servers():
        list_topics(KafkaConnection(given))
        yield KafkaConnection(given)
    else:
        with embedded() as broker:
            yield broker.kafka


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield a broker that asks who one is, with its properties; see `tests.support.secured`."""
    from tests.support import secured

    with secured.secured(tmp_path_factory.mktemp("secured")) as broker:
        yield broker


@pytest.fixture(scope="session")
def guarded() -> Iterator[Broker]:
    """Yield the broker of `headrace up --secure`, for this session."""
    from headrace.stream.broker.embedded import embedded

    with embedded(secured=True) as broker:
        yield broker


@pytest.fixture
def topic(kafka: KafkaConnection, request: pytest.FixtureRequest) -> Iterator[MakeTopic]:
    """Yield a function that creates a topic and returns its name, unlike any other's.

    `topic("events", partitions=2, retention_ms=-1)`: settings as in `TopicSpec`.
    """
    from kafka import KafkaAdminClient

    from headrace.stream.kafka.topic_specs import TopicSpec
    from headrace.stream.kafka.topics import ensure

    test = re.sub(r"[^\w.-]", "-", request.node.name, flags=re.ASCII)[:80]
    made: list[str] = []

    def make(name: str = "topic", *, partitions: int = 1, retention_ms: int | None = None) -> str:
        made.append(f"{test}.{name}.{uuid.uuid4().hex[:8]}")
        ensure(kafka, [TopicSpec(made[-1], partitions, retention_ms)])
        return made[-1]

    yield make
    if made:
        with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
            admin.delete_topics(made)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Yield `hostile.headrace` within this process: nothing is imported or compiled twice.

    A first argument "bench" calls that command line instead.
    """
    from bench.commands import run as bench
    from headrace.cli.commands import run as headrace

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    owned = (sys, "excepthook"), (threading, "excepthook"), (logging, "lastResort")
    for place, name in (*owned, (warnings, "showwarning")):
        monkeypatch.setattr(place, name, getattr(place, name))
    monkeypatch.delenv("KAFKA_BOOTSTRAP", raising=False)

    def call(*arguments: str | Path, **env: str) -> Ran:
        command = bench if arguments[:1] == ("bench",) else headrace
        told = arguments if command is bench else ("headrace", *arguments)
        monkeypatch.setattr(sys, "argv", [*map(str, told)])
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        code = command()
        sys.stdout.flush()
        return Ran(code, *capfd.readouterr())

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def state_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep each test's checkpoints to itself."""
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """Fail a test that leaves child processes, or threads that would keep Python alive."""

    def running() -> set[object]:
        threads = {thread for thread in threading.enumerate() if not thread.daemon}
        return {*threads, *psutil.Process().children(recursive=True)}

    before = running()
    yield
    give_up = time.monotonic() + 30  # a busy machine may still compile
    while left := running() - before:
        assert time.monotonic() < give_up, f"left running: {left}"
        time.sleep(0.05)


@pytest.fixture
def registries() -> Iterator[None]:
    """Begin with our own parts alone, whatever tests before registered, and end as it was."""
    from headrace.model.learner import make_learner
    from headrace.stream.training.plugins import REGISTRIES

    before = [dict(registry) for registry in REGISTRIES]
    for registry in REGISTRIES:
        for name in registry.keys() - {*registry.own}:
            del registry[name]
    make_learner.cache_clear()
    yield
    make_learner.cache_clear()
    for registry, kept in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(kept)

"""What the fault tests share: a forge of learners, tasks of their own, and two sizes.

The quick size runs with everything else; `pytest -m faults` runs the thorough one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.stream.broker.embedded import Broker
from headrace.stream.broker.secure import client
from headrace.stream.kafka.acls import acls, grant
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.task import parse
from tests.faults.case import Case
from tests.faults.forge import Forge
from tests.support.events import TASK

SMALL = """
[model]
hidden = [8]
neighbours = 50
embedding = 4
table_bits = 10
"""
# More may wait than a backlog has: a row that has its label leaves first, and is not known again.
LATE = """
[labels]
topic = "labels.%s"
max_pending = 50000
in_memory = 20
"""


def _thorough(config: pytest.Config) -> bool:
    return "faults" in config.option.markexpr


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what lies here, and give it time where it is thorough."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("kafka")
            item.add_marker("faults")
            item.add_marker(pytest.mark.timeout(5400 if _thorough(config) else 900))


@pytest.fixture(scope="session")
def thorough(request: pytest.FixtureRequest) -> bool:
    """Return whether `-m faults` was asked for: large figures, and tests that are skipped else."""
    return _thorough(request.config)


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Yield the process that learners are forked from."""
    made = Forge(tmp_path_factory.mktemp("forge"))
    yield made
    made.close()


MakeCase = Callable[..., Case]


@pytest.fixture
def make_case(forge: Forge, tmp_path: Path) -> Iterator[MakeCase]:
    """Yield a function that makes a task with its topics on a broker; ends what it started.

    `late`: labels come later than their events, in a topic of their own.
    """

    from headrace.stream.kafka.topics import ensure

    def make(kafka: KafkaConnection, partitions: int = 4, late: bool = False) -> Case:
        name = f"fault-{uuid.uuid4().hex[:8]}"
        text = TASK.replace('"poisoned"', f'"{name}"').replace("events.poisoned", f"events.{name}")
        home = tmp_path / name
        home.mkdir(mode=0o700)
        path = home / "task.toml"
        labels = LATE % name if late else ""
        path.write_text(f"{text}{labels}{SMALL}[topics]\npartitions = {partitions}\n")
        task = parse(path.read_text(), str(path))
        ensure(kafka, topic_specs(task))
        return Case(task, path, kafka, home, forge)

    yield make
    forge.clear()


@pytest.fixture(params=["prompt", pytest.param("late", marks=pytest.mark.long)])
def late(request: pytest.FixtureRequest) -> bool:
    """Return whether labels come late: at length all is tried with such, too."""
    return str(request.param) == "late"


@pytest.fixture
def guarded_case(guarded: Broker, make_case: MakeCase, late: bool) -> Case:
    """Return a task on a secure broker, whose learners may do what they need and nothing else."""
    return _guarded(guarded, make_case, late)


@pytest.fixture(scope="session", params=["open", pytest.param("guarded", marks=pytest.mark.long)])
def each_broker(request: pytest.FixtureRequest) -> KafkaConnection | Broker:
    """Return the broker that all tests share, and at length the secure one, too."""
    found: KafkaConnection | Broker = request.getfixturevalue(
        "guarded" if request.param == "guarded" else "kafka"
    )
    return found


@pytest.fixture
def each_case(each_broker: KafkaConnection | Broker, make_case: MakeCase, late: bool) -> Case:
    """Return a task as `case`, and at length as `guarded_case`, too."""
    if isinstance(each_broker, Broker):
        return _guarded(each_broker, make_case, late)
    return make_case(each_broker, late=late)


def _guarded(broker: Broker, make_case: MakeCase, late: bool) -> Case:
    made = make_case(broker.kafka, late=late)
    grant(broker.kafka, acls([made.task]))
    return replace(made, config=client(broker.data_dir, "learner"))


@pytest.fixture
def case(kafka: KafkaConnection, make_case: MakeCase, late: bool) -> Case:
    """Return a task on the broker that all tests share."""
    return make_case(kafka, late=late)

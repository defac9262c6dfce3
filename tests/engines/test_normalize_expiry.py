"""`headrace normalize` whole, over tokens that expire: it goes on, or says why it does not."""

from __future__ import annotations

import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.task import Task, parse
from tests.faults.reading import Found, ends, read
from tests.faults.traffic import Feeder
from tests.support.commands import await_line, headrace
from tests.support.events import POISON, good, task_text
from tests.support.secured import Secured, connection

LIFE_S = 4
LIVES = 5
ENDS_S = 5.0  # after the last token that was good has expired
BUSY_S = 3.0  # that a busy machine takes for the same

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def event(number: int) -> bytes | None:
    """Make an event, every fiftieth of them a poison."""
    return good(number) if number % 50 else POISON["not JSON"][0]


@pytest.fixture
def short(secured: Secured) -> Iterator[Secured]:
    """Yield the broker, with tokens that live for LIFE_S."""
    secured.oidc.life_s = LIFE_S
    yield secured
    secured.oidc.life_s, secured.oidc.refuses = 300, False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "task.toml"
    made.write_text(task_text(f"expiry-{uuid.uuid4().hex[:6]}") + "[topics]\npartitions = 4\n")
    return made


@pytest.fixture
def task(secured: Secured, path: Path) -> Task:
    made = parse(path.read_text(), str(path))
    ensure(connection(secured.scram()), topic_specs(made))
    return made


def is_good(event: Found) -> bool:
    """Return whether an event is no poison."""
    return event.value != POISON["not JSON"][0]


def positions(kafka: KafkaConnection, topic: str, packed: bool) -> list[tuple[int, int]]:
    """Return of which events a topic tells, in order: partition and offset."""
    found: list[tuple[int, int]] = []
    for partition, records in read(kafka, topic).items():
        for _, value, _ in records:
            if packed:
                found.append((partition, msgspec.msgpack.decode(value or b"")[2]))
            else:
                found.append((partition, msgspec.json.decode(value or b"")["offset"]))
    return found


def test_it_goes_on_and_nothing_is_lost_or_double(
    short: Secured, task: Task, path: Path, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    kafka = connection(short.scram())
    config = short.write(tmp_path / "client.properties", short.oauth())
    raw, before = task.input.topic, short.oidc.asked
    with headrace("normalize", str(path), "--json", "--kafka-config", str(config)) as normaliser:
        await_line(normaliser, "ready")
        begun, slowest_s = short.oidc.asked, 0.0
        with Feeder(kafka, raw, tmp_path / "acks", rate=100, make=event) as feeder:
            end_s = time.monotonic() + LIVES * LIFE_S
            while time.monotonic() < end_s:
                slowest_s = max(slowest_s, keeps_up(kafka, task, normaliser))
        keeps_up(kafka, task, normaliser)
        asked = short.oidc.asked
        normaliser.send_signal(signal.SIGINT)
        assert normaliser.wait(20) == 0
    assert asked - begun >= LIVES - 1, (before, begun, asked)
    rows = positions(kafka, task.output("features"), packed=True)
    letters = positions(kafka, task.output("dead-letter"), packed=False)
    events = read(kafka, raw)
    wanted = [(p, each.offset) for p in sorted(events) for each in events[p]]
    poison = {(p, e.offset) for p, found in events.items() for e in found if not is_good(e)}
    assert len(wanted) == feeder.sent
    assert sorted(rows, key=lambda at: at[0]) == wanted  # in their order; a poison has one, too
    assert len(letters) == len(poison)
    assert {*letters} == poison
    tell(
        f"normalize over {asked - begun} tokens of {LIFE_S} s: {len(wanted)} events, none lost or "
        f"double; a row was never later than {slowest_s:.1f} s"
    )


def keeps_up(
    kafka: KafkaConnection, task: Task, normaliser: subprocess.Popen[str], late_s: float = 20.0
) -> float:
    """Wait until what is there now has its rows; return how long that took."""
    begun_s = time.monotonic()
    wanted = sum(ends(kafka, task.input.topic, committed=True).values())
    while sum(ends(kafka, task.output("features"), committed=True).values()) < wanted:
        assert normaliser.poll() is None
        assert time.monotonic() < begun_s + late_s, "it does not go on"
        time.sleep(0.1)
    return time.monotonic() - begun_s


@pytest.mark.parametrize(
    ("by", "rate", "words"),
    [
        ("provider", 50, "/token gives no token (HTTP 401): look at sasl.oauthbearer.client.id"),
        ("broker", 0, "the token for OAUTHBEARER has expired already: are clocks right?"),
    ],
)
def test_it_ends_in_words_when_it_is_let_in_no_more(
    short: Secured, task: Task, path: Path, tmp_path: Path, by: str, rate: float, words: str
) -> None:
    kafka = connection(short.scram())
    config = short.write(tmp_path / "client.properties", short.oauth())
    with headrace("normalize", str(path), "--json", "--kafka-config", str(config)) as normaliser:
        await_line(normaliser, "ready")
        with Feeder(kafka, task.input.topic, tmp_path / "acks", rate=rate, make=event):
            time.sleep(1.5 * LIFE_S)
            assert normaliser.poll() is None
            if by == "provider":
                short.oidc.refuses = True
            else:
                short.oidc.life_s = -60
            begun_s = time.monotonic()
            _, said = normaliser.communicate(timeout=60)
            took_s = time.monotonic() - begun_s
    assert normaliser.returncode == 2, said
    assert words in said
    assert "Traceback" not in said
    assert "canary" not in said
    assert took_s < LIFE_S + ENDS_S + BUSY_S, said

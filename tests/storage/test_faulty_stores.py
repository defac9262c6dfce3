"""Stores that have no time, fail, cut connections off or no longer know us: by a real proxy."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import headrace
from headrace.stream.audit.verify import verify
from headrace.stream.errors import StoreError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.storage import failures, open_store
from tests.support.checkpoints import RUN, SHAPES, everything, manifest, seq_of, state
from tests.support.events import good, task_text
from tests.support.faulty_proxy import Fault, FaultyProxy, Refuse, Request
from tests.support.s3_server import S3Server, ensure_jar
from tests.support.storage_servers import SERVERS, StorageServer, forget_connections, started
from tests.support.topics import read, send

TOKEN = "canary-token-4720"
TOLD = {
    "s3": f"<Error><Code>CODE</Code><Message>TEXT</Message><Token-0>{TOKEN}</Token-0></Error>",
    "abfs": "<?xml version='1.0'?><Error><Code>CODE</Code><Message>TEXT</Message></Error>",
    "gs": '{"error": {"code": STATUS, "message": "TEXT"}}',
    "webhdfs": '{"RemoteException": {"exception": "CODE", "message": "TEXT"}}',
}  # how each says what is wrong, by the scheme
EXPIRED = {
    "s3": (403, "ExpiredToken", "The provided token has expired."),
    "abfs": (401, "InvalidAuthenticationInfo", "Lifetime validation failed. It is expired."),
    "gs": (403, "", "Token has expired."),
    "webhdfs": (403, "SecretManager$InvalidToken", "token (alice, seq 7) is expired"),
}
FAULTS = ("throttled", "failing", "in the request", "in the answer", "before the answer")
ALL = [
    "s3",
    *(pytest.param(kind, marks=[pytest.mark.long, pytest.mark.timeout(900)]) for kind in SERVERS),
]
ATTEMPTS = 40  # more than any operation makes


@pytest.fixture(scope="module", params=ALL)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StorageServer]:
    def s3(home: Path) -> StorageServer:
        return S3Server(home, ensure_jar())

    running = started(SERVERS.get(request.param, s3), tmp_path_factory.mktemp(request.param))
    yield running
    running.kill()


@pytest.fixture
def proxy(server: StorageServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Yield a proxy before the server, which the settings of a user lead to."""
    with FaultyProxy(server.port) as running:
        for setting, value in server.environment.items():
            monkeypatch.setenv(setting, value.replace(str(server.port), str(running.port)))
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # of botocore; s3fs tries five times besides
        if server.scheme == "abfs":  # whose client waits for 15 s and more each time
            from azure.storage.blob._shared import policies_async

            monkeypatch.setattr(
                policies_async.ExponentialRetry, "get_backoff_time", lambda *_: 0.05
            )
        forget_connections(server)
        yield running
        running.hurts = lambda _: None
        forget_connections(server)


@pytest.fixture
def place(server: StorageServer, proxy: FaultyProxy, request: pytest.FixtureRequest) -> str:
    """Return an empty place behind the proxy."""
    there = server.place.replace(str(server.port), str(proxy.port))
    return f"{there}/{re.sub('[^a-z0-9]', '-', request.node.name)}"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after a second, where a test waits for just that."""
    monkeypatch.setattr(failures, "PATIENCE_S", 1.0)


def refusal(server: StorageServer, status: int, code: str, text: str) -> Refuse:
    """Return what the server would say."""
    body = TOLD[server.scheme].replace("CODE", code).replace("TEXT", text)
    kind = "application/json" if body.startswith("{") else "application/xml"
    # A server that asks for a day must not get it.
    headers = {"Retry-After": "86400", "Content-Type": kind, "x-ms-error-code": code}
    return Refuse(status, body.replace("STATUS", str(status)).encode(), headers)


def fault_of(name: str, server: StorageServer) -> Fault:
    if name == "throttled":
        return refusal(server, 503, "SlowDown", "Please reduce your request rate.")
    if name == "failing":
        return refusal(server, 500, "InternalError", "We encountered an internal error.")
    return name  # type: ignore[return-value]


class OneOf:
    """Hurt the one request of this number, from now on."""

    def __init__(self, number: int, fault: Fault) -> None:
        self.left, self.fault = number, fault

    def __call__(self, request: Request) -> Fault:
        self.left -= 1
        return None if self.left else self.fault


class OfFile:
    """Hurt what is asked of one file."""

    def __init__(self, file: str, fault: Fault) -> None:
        self.file, self.fault = file, fault

    def __call__(self, request: Request) -> Fault:
        return self.fault if self.file in request.target else None


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_at_any_request_of_an_operation_changes_nothing(
    server: StorageServer, proxy: FaultyProxy, place: str, name: str
) -> None:
    store, fault = open_store(place), fault_of(name, server)
    store.write("b/old", b"old" * 500)

    def listed() -> None:
        assert "b/old" in store.names()
        assert store.names("none/") == []

    def read() -> None:
        assert store.read("b/old") == b"old" * 500

    def written() -> None:
        data = b"%d" % number * 2000
        store.write("b/new", data)
        assert open_store(place).read("b/new") == data

    def created() -> None:
        data = b"%d" % number * 1000
        store.create(f"made-{number}", data)
        assert open_store(place).read(f"made-{number}") == data

    def refused() -> None:
        with pytest.raises(FileExistsError):
            store.create("b/old", b"our" * 500)
        assert store.read("b/old") == b"old" * 500

    def deleted() -> None:
        store.delete("b/new")
        assert "b/new" not in store.names()

    for operation in (listed, read, written, created, refused, deleted):
        for number in range(1, ATTEMPTS):
            proxy.hurts = hurts = OneOf(number, fault)
            operation()
            if hurts.left > 0:  # it makes fewer requests
                assert number > 1
                break
        else:
            pytest.fail(f"{operation.__name__} makes too many requests")


@pytest.mark.parametrize(
    ("status", "reason"),
    [(429, "throttled"), (503, "(throttled|unavailable)"), (500, "the server failed")],
)
def test_a_fault_that_lasts_is_told_and_all_goes_on_after_it(
    server: StorageServer, proxy: FaultyProxy, place: str, hasty: None, status: int, reason: str
) -> None:
    checkpoints = Checkpoints(place, run=RUN)
    checkpoints.save(manifest(1), state(1))
    store, began_s = open_store(place), time.monotonic()
    proxy.hurts = lambda _: refusal(server, status, "SlowDown", "Please reduce your request rate.")
    calls: dict[str, Callable[[], object]] = {
        "list": store.names,
        "read": lambda: store.read("file"),
        "write": lambda: store.write("file", b"data"),
        "delete": lambda: store.delete("file"),
        "(write|list) checkpoint": lambda: checkpoints.save(manifest(2), state(2)),
    }
    if server.scheme == "gs":  # whose client takes half a minute by itself, for each
        calls = {"list": store.names}
    for doing, call in calls.items():
        with pytest.raises(StoreError) as caught:
            call()
        words = rf"cannot {doing.split()[0]} {place}.*: {reason} \(HTTP {status}\).*; try again"
        assert re.fullmatch(words + " later", str(caught.value))
        assert TOKEN not in str(caught.value)
        assert caught.value.exit_code == 3
    assert time.monotonic() - began_s < 120
    proxy.hurts = lambda _: None
    assert seq_of(checkpoints) == 1
    checkpoints.save(manifest(2), state(2))
    assert seq_of(checkpoints) == 2
    assert checkpoints.problems == []


def test_a_checkpoint_that_cannot_be_read_now_is_not_taken_for_broken(
    server: StorageServer, proxy: FaultyProxy, place: str, hasty: None
) -> None:
    checkpoints = Checkpoints(place, run=RUN)
    for seq in (1, 2):
        checkpoints.save(manifest(seq), state(seq))
    for file in ("000000000002.json", "000000000002.safetensors"):
        proxy.hurts = OfFile(file, fault_of("throttled", server))
        with pytest.raises(StoreError, match=f"cannot read .*{file}: (throttled|unavailable)"):
            checkpoints.newest(SHAPES, accept=everything)
    proxy.hurts = lambda _: None
    assert seq_of(checkpoints) == 2


def test_credentials_that_have_expired_are_told_without_them(
    server: StorageServer, proxy: FaultyProxy, place: str, hasty: None
) -> None:
    store = open_store(place)
    store.write("file", b"data")
    proxy.hurts = lambda _: refusal(server, *EXPIRED[server.scheme])
    calls: dict[str, Callable[[], object]] = {
        "list": store.names,
        "read": lambda: store.read("file"),
        "write": lambda: store.write("file", b"new"),
    }
    for doing, call in calls.items():
        began_s = time.monotonic()
        with pytest.raises(StoreError) as caught:
            call()
        assert f"cannot {doing} {place}" in str(caught.value)
        bare = doing == "read" and server.scheme in ("s3", "abfs")  # for an answer to HEAD is
        assert ("refused (HTTP" if bare else "credentials expired: ") in str(caught.value)
        assert "\n" not in str(caught.value)
        assert TOKEN not in str(caught.value)
        assert time.monotonic() - began_s < 20  # in vain it is not tried again
    proxy.hurts = lambda _: None
    assert store.read("file") == b"data"


def test_new_credentials_are_found_by_who_runs(
    server: StorageServer,
    proxy: FaultyProxy,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not isinstance(server, S3Server):
        return  # the others' emulators take keys that do not expire
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)

    keys = server.environment
    path.write_text(
        f"[default]\naws_access_key_id={keys['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key={keys['AWS_SECRET_ACCESS_KEY']}\n"
    )
    now = path.read_text()
    path.write_text(f"{now}aws_session_token=old\n")
    forget_connections(server)
    store = open_store(place)
    expired = refusal(server, *EXPIRED["s3"])
    proxy.hurts = lambda request: (
        expired if b"-security-token: old" in request.head.lower() else None
    )
    with pytest.raises(StoreError, match="credentials expired"):
        store.write("file", b"data")
    path.write_text(now)
    store.write("file", b"data")
    assert store.read("file") == b"data"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_learner_goes_on_while_its_store_has_no_time_and_catches_up(
    server: StorageServer, proxy: FaultyProxy, place: str, kafka: KafkaConnection, tmp_path: Path
) -> None:
    path = tmp_path / "task.toml"
    path.write_text(
        task_text(f"busy-{server.scheme}") + "\n[model]\nhidden = [4]\nneighbours = 10\n"
    )
    task = headrace.Task.load(path)
    ensure(kafka, topic_specs(task))
    send(kafka, task.input.topic, [good(n) for n in range(300)])
    fault = fault_of("throttled", server)
    proxy.hurts = lambda request: None if request.method in ("GET", "HEAD") else fault
    command = [sys.executable, "-m", "headrace", "learn", str(path), "-b", kafka.servers]
    command += ["--state", place, "--json"]
    said, shown = tmp_path / "err", tmp_path / "out"

    def has_saved() -> bool:
        lines = shown.read_text().splitlines()[:-1]
        return any(json.loads(line).get("checkpoint_age_s") is not None for line in lines)

    with (
        said.open("w") as err,
        shown.open("w") as out,
        subprocess.Popen(command, stdout=out, stderr=err) as learner,
    ):
        try:
            wait_for(lambda: "was not written: cannot" in said.read_text())
            send(kafka, task.input.topic, [good(n) for n in range(300, 400)])
            wait_for(lambda: len(read(kafka, task.output("predictions"))) == 400)
            assert learner.poll() is None
            assert not has_saved()
            proxy.hurts = lambda _: None
            wait_for(has_saved)
        finally:
            learner.send_signal(signal.SIGKILL)
    (told,) = {line for line in said.read_text().splitlines() if "cannot" in line}
    assert re.search(r"cannot (write|list) .*: (throttled|unavailable) \(HTTP 503\)", told)
    proxy.hurts = lambda _: fault
    done = subprocess.run([*command, "--drain"], capture_output=True, text=True)
    assert done.returncode == 3
    assert re.search(r"cannot (read|list) .*(throttled|unavailable) \(HTTP 503\)", done.stderr)
    assert "Traceback" not in done.stderr
    proxy.hurts = lambda _: None
    done = subprocess.run([*command, "--drain"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert verify(task, kafka, deep=True).findings == []
    assert headrace.Learner.load(place).events == 400


def wait_for(condition: Callable[[], bool], at_most_s: float = 300.0) -> None:
    give_up_s = time.monotonic() + at_most_s
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.2)

"""`headrace up --secure`: each part of a task may do what it has to, and nothing else."""

from __future__ import annotations

import json
import signal
import ssl
import stat
import subprocess
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
from kafka import KafkaAdminClient, OffsetAndMetadata, TopicPartition
from kafka.admin import UserScramCredentialUpsertion
from kafka.errors import AuthorizationError, UnknownTopicOrPartitionError

from headrace.stream.broker import secure
from headrace.stream.broker.embedded import Broker, embedded
from headrace.stream.errors import AccessError, BrokerError
from headrace.stream.kafka.access import NO_PARTITION
from headrace.stream.kafka.acls import ROLES, Acl, Role, acls, grant, normalizer_group
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.properties import read
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure, list_topics
from headrace.stream.task import Task, parse
from tests.support.commands import await_line, headrace
from tests.support.events import good, task_text
from tests.support.hostile import Run

SMALL = "[model]\nhidden = [8]\nneighbours = 50\nembedding = 4\ntable_bits = 10\n"
PARTS = [role for role in ROLES if role != "admin"]
EVERY_OPERATION = {
    "READ",
    "WRITE",
    "CREATE",
    "DELETE",
    "ALTER",
    "DESCRIBE",
    "DESCRIBE_CONFIGS",
    "ALTER_CONFIGS",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("task") / "task.toml"
    made.write_text(task_text(f"guarded-{uuid.uuid4().hex[:6]}") + SMALL)
    return made


@pytest.fixture(scope="module")
def task(guarded: Broker, path: Path) -> Task:
    """Return a task whose topics are there, and whose parts are allowed what they need."""
    made = parse(path.read_text(), str(path))
    ensure(guarded.kafka, topic_specs(made))
    grant(guarded.kafka, acls([made]))
    return made


def admin_client(guarded: Broker, role: str) -> KafkaAdminClient:
    return KafkaAdminClient(**guarded.client(role).kafka_python())


def allowed(task: Task, role: Role, resource: str) -> dict[str, set[str]]:
    """Return which operations are to be allowed, by name."""
    found: dict[str, set[str]] = {}
    for acl in acls([task]):
        if (acl.role, acl.resource) == (role, resource):
            found.setdefault(acl.name, set()).add(acl.operation)
    return found


@pytest.mark.parametrize("role", PARTS)
def test_kafka_allows_on_topics_what_is_needed_and_nothing_else(
    guarded: Broker, task: Task, role: Role
) -> None:
    wanted = allowed(task, role, "topic")
    names = [spec.name for spec in topic_specs(task)]
    with admin_client(guarded, role) as admin:
        found = {topic["name"]: topic for topic in admin.describe_topics(names)}
    for name in names:
        operations = set(found[name]["authorized_operations"] or ())
        assert operations == wanted.get(name, set()), name
        assert operations < EVERY_OPERATION


@pytest.mark.parametrize("role", PARTS)
def test_each_operation_that_a_role_does_not_need_is_denied(
    guarded: Broker, task: Task, role: Role
) -> None:
    """Tried, on each topic: to read, to write, to delete, to grow, to change settings."""
    kafka, wanted = guarded.client(role), allowed(task, role, "topic")

    def read_topic(name: str) -> None:
        source = kafka.source(name)
        try:
            while not source.ended:
                source.poll(1, 2.0)
        finally:
            source.close()

    def write(name: str) -> None:
        sink = kafka.sink()
        sink.send(name, [b"forged"])
        sink.flush(5)

    for spec in topic_specs(task):
        operations = wanted.get(spec.name, set())
        if "READ" not in operations:
            with pytest.raises(AccessError):
                read_topic(spec.name)
        if "WRITE" not in operations:
            with pytest.raises(AccessError):
                write(spec.name)
        with admin_client(guarded, role) as admin:
            with pytest.raises(AuthorizationError):
                admin.delete_topics([spec.name])
            with pytest.raises(AuthorizationError):
                admin.create_partitions({spec.name: 9})
            unseen = UnknownTopicOrPartitionError  # to one who may not even describe it
            with pytest.raises((AuthorizationError, unseen)):
                admin.delete_records({TopicPartition(spec.name, 0): 0})


@pytest.mark.parametrize("role", PARTS)
def test_nothing_of_the_cluster_is_allowed(guarded: Broker, task: Task, role: Role) -> None:
    with pytest.raises(AccessError):
        grant(guarded.client(role), [Acl(role, "READ", "topic", task.output("ledger"))])
    with admin_client(guarded, role) as admin:
        with pytest.raises(AuthorizationError):
            admin.create_topics({f"of-{role}": {"num_partitions": 1}})
        stolen = UserScramCredentialUpsertion("admin", secure.MECHANISM, "mine now")
        answer = admin.alter_user_scram_credentials([stolen])
        assert "needs ALTER permission" in str(answer["admin"])
    assert list_topics(guarded.client("admin"))  # whose password is the same


@pytest.mark.parametrize("role", PARTS)
def test_transactions_and_groups_of_others_are_denied(
    guarded: Broker, task: Task, role: Role
) -> None:
    ids, groups = (allowed(task, role, each) for each in ("transactional-id", "group"))
    for name in (f"{task.name}.learn", "another.learn"):
        if name not in ids:
            with pytest.raises(AccessError, match="transactional-id"):
                guarded.client(role).transactions(name)
    nowhere = TopicPartition(task.input.topic, NO_PARTITION)
    for group in (normalizer_group([task.name]), f"{task.name}.mine", "another"):
        if not any(group.startswith(name) for name in groups):
            with (
                admin_client(guarded, role) as admin,
                pytest.raises(AuthorizationError),
            ):
                admin.alter_group_offsets(group, {nowhere: OffsetAndMetadata(0, "", -1)})


def test_every_part_does_its_work(
    guarded: Broker, task: Task, path: Path, tmp_path: Path, run: Run
) -> None:
    """The whole way of events, each command as the user who is meant for it."""
    assert guarded.clients

    def told(role: str) -> list[str]:
        return ["--kafka-config", str(secure.client(guarded.data_dir, role))]

    events = tmp_path / "events.jsonl"
    events.write_bytes(b"".join(good(at) + b"\n" for at in range(30)) + b'{"x": 1}\n')
    config = told("normaliser")
    with headrace("normalize", str(path), "--json", *config) as normaliser:
        await_line(normaliser, "ready")
        topic = ["--topic", task.input.topic]
        done = run("produce", "file", events, *topic, "--json", *told("producer"))
        assert (done.code, done.err) == (0, ""), done.err
        ends = guarded.kafka.ends
        for stage, count in (("features", 30), ("dead-letter", 1)):
            name = task.output(stage)
            while ends([name], committed=True)[name, 0] < count:
                assert normaliser.poll() is None
        normaliser.send_signal(signal.SIGINT)
        assert normaliser.wait(20) == 0
    done = run("learn", path, "--from", "features", "--drain", "--json", *told("learner"))
    assert done.code == 0, done.err
    assert done.values[-1]["events"] == 30
    for command in (
        ["tail", task.output("predictions"), "-n", "30"],
        ["verify", path, "--deep"],
        ["dead-letters", path],
        ["archive", task.input.topic, "--to", tmp_path / "kept"],
    ):
        done = run(*command, *told("reader"))
        assert done.code == 0, (command, done.err)
    done = run("learn", path, "--drain", *told("reader"))
    assert done.code == 2
    assert "User:reader lacks WRITE on topic" in done.err


def test_the_files_are_their_owner_s_alone_and_stay(tmp_path: Path) -> None:
    home = tmp_path / "data"
    home.mkdir(mode=0o755)
    with embedded(home, secured=True) as broker:
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert broker.clients == home / "clients"
        first = {role: read(secure.client(home, role)) for role in ROLES}
        assert len({each["sasl.password"] for each in first.values()}) == len(ROLES)
        for kept in home.rglob("*"):
            if {"clients", "tls"} & set(kept.relative_to(home).parts):
                wanted = 0o700 if kept.is_dir() else 0o600
                assert stat.S_IMODE(kept.stat().st_mode) == wanted, kept
        command_lines = str([each.cmdline() for each in _family()])
        log = broker.log.read_text()
        for each in first.values():
            assert each["sasl.password"] not in command_lines
            assert each["sasl.password"] not in log
    with pytest.raises(BrokerError, match="is a secure broker's"), embedded(home):
        pass
    with embedded(home, secured=True) as broker:
        again = {role: read(secure.client(home, role)) for role in ROLES}
        assert list_topics(broker.client("learner")) == []
    for role in ROLES:
        assert again[role].pop("bootstrap.servers") == broker.bootstrap
        assert first[role].pop("bootstrap.servers")
        assert again[role] == first[role]


def _family() -> list[Any]:
    import psutil

    found: list[Any] = psutil.Process().children(recursive=True)
    return found


def test_the_inner_doors_want_the_broker_s_own_certificate(guarded: Broker) -> None:
    text = (guarded.data_dir / "server.properties").read_text()
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    ports = {
        door.partition("://")[0]: int(door.rpartition(":")[2])
        for door in lines["listeners"].split(",")
    }
    assert set(ports) == {"CLIENT", "INTERNAL", "CONTROLLER"}
    trusting = ssl.create_default_context(cafile=guarded.data_dir / "tls" / "ca.pem")
    for door in ("INTERNAL", "CONTROLLER"):
        import socket

        with (
            socket.create_connection(("127.0.0.1", ports[door]), 5) as plain,
            pytest.raises((ssl.SSLError, OSError)) as caught,
            trusting.wrap_socket(plain, server_hostname="127.0.0.1") as opened,
        ):
            opened.sendall(b"\0\0\0\1x")
            if not opened.recv(1):
                raise ConnectionResetError
        assert "certificate required" in str(caught.value) or caught.type is ConnectionResetError


def test_what_is_printed_is_what_is_granted(path: Path, task: Task, run: Run) -> None:
    done = run("acls", path, "--json")
    assert [Acl(*[line[name] for name in Acl._fields]) for line in done.values] == acls([task])
    plain = run("acls", path).out
    assert f"User:learner     WRITE             transactional-id  {task.name}.learn" in plain
    assert set(get_args(Role)) == set(ROLES)


def test_certificates_are_for_all_the_names_and_stay(tmp_path: Path, run: Run) -> None:
    place, hosts = tmp_path / "tls", ("--host", "kafka", "--host", "127.0.0.1")
    done = run("certificates", place, *hosts)
    assert (done.code, done.out) == (0, f"made: {place}, for kafka, 127.0.0.1\n"), done.err
    kept = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    names = {"ca.pem", "broker/broker.crt", "broker/broker.key", "broker/broker.pem"}
    assert {str(path.relative_to(place)) for path in kept} == names
    openssl = ("openssl", "verify", "-CAfile", str(place / "ca.pem"), "-verify_hostname", "kafka")
    crt = str(place / "broker" / "broker.crt")
    assert (
        "OK" in subprocess.run([*openssl, crt], check=True, capture_output=True, text=True).stdout
    )
    trusting = ssl.create_default_context(cafile=place / "ca.pem")
    trusting.load_cert_chain(place / "broker" / "broker.pem")  # the key is the certificate's
    for path in kept:
        others = stat.S_IMODE(path.stat().st_mode) & 0o007
        assert others == (0o4 if path.name == "ca.pem" else 0), path
    again = run("certificates", place, *hosts)
    assert (again.code, again.out[:13]) == (0, "there already"), again.err
    other = run("certificates", place, "--host", "elsewhere")
    assert other.code == 3
    assert "is for kafka, 127.0.0.1, and not for elsewhere: delete the folder" in other.err
    assert {path: path.read_bytes() for path in kept} == kept


def test_users_are_made_in_a_kafka_that_is_there(
    guarded: Broker, path: Path, tmp_path: Path, run: Run
) -> None:
    files, guarded_file = (
        tmp_path / "{role}" / "made.properties",
        partial(secure.client, guarded.data_dir),
    )
    made = {role: Path(str(files).replace("{role}", role)) for role in ROLES}
    done = run("acls", path, "--users", files, "--kafka-config", guarded_file("admin"))
    assert done.code == 0, done.err
    try:
        for role, file in made.items():
            assert stat.S_IMODE(file.stat().st_mode) & 0o007 == 0
            found = read(file)
            assert found["sasl.username"] == role
            assert found["sasl.password"] not in done.out + done.err
            assert list_topics(KafkaConnection(guarded.bootstrap, found)) is not None
        at = ("-b", guarded.bootstrap)
        first = {role: file.read_bytes() for role, file in made.items()}
        again = run("acls", path, "--users", files, "--kafka-config", made["admin"], *at)
        assert again.code == 0, again.err
        assert {role: file.read_bytes() for role, file in made.items()} == first
        reader = ("--kafka-config", made["reader"], *at)
        refused = run("acls", path, "--users", tmp_path / "of-{role}", *reader)
        assert refused.code == 2
        assert "User:reader lacks ALTER on the cluster" in refused.err
        assert not [*tmp_path.glob("of-*")]
        assert run("acls", path, "--users", "users.properties").code == 2
    finally:  # others log in with the passwords that were before
        whole = KafkaConnection(guarded.bootstrap, read(made["admin"]))
        secure.add_users(whole, guarded_file, servers=guarded.bootstrap)


def test_up_says_how_to_log_in_and_grants_what_tasks_need(path: Path, tmp_path: Path) -> None:
    from headrace.stream.process.ports import free_port

    data, port = tmp_path / "data", str(free_port())
    check: Callable[..., Any] = json.loads
    with headrace("up", "--secure", str(path), "--port", port, "--data", str(data)) as up:
        await_line(up, f"log in by --kafka-config {data}/clients/<role>.properties")
        for role, code in (("learner", 2), ("admin", 0)):
            config = str(secure.client(data, role))
            with headrace("topics", "create", str(path), "--kafka-config", config) as create:
                _, said = create.communicate(timeout=60)
            assert create.returncode == code, said
            assert ("lacks CREATE on topic" in said) is (role == "learner"), said
        with headrace(
            "learn",
            str(path),
            "--drain",
            "--json",
            "--kafka-config",
            str(secure.client(data, "learner")),
        ) as learn:
            out, said = learn.communicate(timeout=120)
        assert learn.returncode == 0, said
        assert check(out.splitlines()[0])
        up.send_signal(signal.SIGINT)
        assert up.wait(20) == 0
    with headrace("up", str(path)) as up:
        _, said = up.communicate(timeout=30)
    assert up.returncode == 2
    assert "tasks are for --secure" in said

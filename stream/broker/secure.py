"""The secure broker: TLS for all, SCRAM for clients, nothing allowed that is not granted.

Only who holds the broker's own certificate, which is in its data directory, gets in by its inner
doors; the users' passwords are in `clients/` there. Both can be read by their owner alone.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from kafka.admin import UserScramCredentialUpsertion

from headrace.stream.broker.certificates import Authority, hosts_of
from headrace.stream.errors import BrokerError, UsageError
from headrace.stream.kafka.access import LacksError
from headrace.stream.kafka.acls import ROLES, Role
from headrace.stream.kafka.client_settings import ClientSettings
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.properties import read
from headrace.stream.kafka.topics import admin_of
from headrace.stream.process.ports import HOST

MECHANISM = "SCRAM-SHA-512"
ITERATIONS = 8192
TLS, CLIENTS = "tls", "clients"
CA, BROKER = "ca.pem", "broker"


def prepare(home: Path) -> None:
    """Make the certificates of a broker's data directory, once: clients keep trusting it.

    Raises:
        BrokerError: the extra `local` is not installed.
    """
    home.chmod(0o700)  # what users can do is in the broker's own log, too
    (home / TLS).mkdir(mode=0o700, exist_ok=True)
    make_certificates(home / TLS, (HOST, "localhost"))


def make_certificates(place: Path, hosts: Sequence[str], *, shared: bool = False) -> bool:
    """Write an authority's certificate and, in the folder `broker`, what it has signed for one.

    `ca.pem` is for everybody; `broker/broker.pem` is Kafka's key store, and `broker.crt` and
    `broker.key` have the same, to log in with as the broker itself. What is there stays.

    Args:
        hosts: names and addresses by which clients reach the broker.
        shared: what root writes can be read by its group, too: by services under other users.

    Returns:
        whether they were made now.

    Raises:
        BrokerError: the package cryptography is not installed; or those that are there are for
            other hosts.
    """
    inside = place / BROKER
    if (place / CA).exists():
        have = hosts_of((inside / "broker.crt").read_bytes())
        if missing := [host for host in hosts if host not in have]:
            raise BrokerError(
                f"the certificate in {place} is for {', '.join(have)}, and not for "
                f"{', '.join(missing)}: delete the folder to have a new one, which clients then "
                "have to trust"
            )
        return False
    authority = Authority("headrace broker")
    broker = authority.issue("broker", hosts=tuple(hosts))
    secret, whole = _mode(shared=shared), broker.key + broker.certificate + authority.certificate
    _write(inside / "broker.crt", broker.certificate, secret)
    _write(inside / "broker.key", broker.key, secret)
    _write(inside / "broker.pem", whole, secret)
    public = 0o644 if shared else secret
    _write(place / CA, authority.certificate, public)  # the last one: then all are there
    return True


def inner(home: Path, port: int) -> KafkaConnection:
    """Return the connection of the broker itself, which may do anything, to an inner door."""
    tls = home / TLS
    return KafkaConnection(
        f"{HOST}:{port}",
        {
            "security.protocol": "ssl",
            "ssl.ca.location": str(tls / CA),
            "ssl.certificate.location": str(tls / BROKER / "broker.crt"),
            "ssl.key.location": str(tls / BROKER / "broker.key"),
        },
    )


def add_users(
    kafka: ClientSettings,
    file: Callable[[Role], Path],
    *,
    servers: str = "",
    shared: bool = False,
) -> None:
    """Have a Kafka know a user for each role, and write for each what a client needs.

    A password that was given to a user before stays.

    Args:
        kafka: as somebody who may do so.
        file: says where that of a role is written.
        servers: where users log in; "": the files do not say.
        shared: what root writes can be read by its group, too: by services under other users.

    Raises:
        BrokerError: the broker does not take it.
        AccessError: this user may not do so.
    """
    passwords = {role: _password(file(role)) for role in ROLES}
    wanted = [
        UserScramCredentialUpsertion(role, MECHANISM, password, iterations=ITERATIONS)
        for role, password in passwords.items()
    ]
    with admin_of(kafka) as admin:
        answers = admin.alter_user_scram_credentials(wanted)
        if any("ALTER permission" in (error or "") for error in answers.values()):
            raise LacksError("ALTER", "the cluster")
    if failed := [f"{user}: {error}" for user, error in answers.items() if error]:
        raise BrokerError(f"{kafka} does not take its users: {'; '.join(failed)}")
    for role, password in passwords.items():
        properties = {
            "bootstrap.servers": servers,
            "security.protocol": "sasl_ssl" if kafka.tls else "sasl_plaintext",
            "sasl.mechanism": MECHANISM,
            "sasl.username": role,
            "sasl.password": password,
            "ssl.ca.location": kafka.properties.get("ssl.ca.location", ""),
        }
        text = "".join(f"{key}={value}\n" for key, value in properties.items() if value)
        _write(file(role), text.encode(), _mode(shared=shared))


def client(home: Path, role: str) -> Path:
    """Return the file with what a client in a role needs."""
    return home / CLIENTS / f"{role}.properties"


def _password(path: Path) -> str:
    try:
        return read(path)["sasl.password"]
    except (UsageError, KeyError):
        return secrets.token_urlsafe(24)


def _mode(*, shared: bool) -> int:
    """Return the mode of a file with a secret: 0600, or 0640 of what root writes for a group."""
    return 0o640 if shared and hasattr(os, "geteuid") and os.geteuid() == 0 else 0o600


def _write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file at once by one that has its mode from its first byte on."""
    path.parent.mkdir(mode=0o700 if mode == 0o600 else 0o755, parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.new")
    scratch.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(scratch, flags, mode), "wb") as file:
        file.write(data)
    scratch.replace(path)

"""The secure broker: TLS for all, SCRAM for clients, nothing allowed that is not granted.

Only who holds the broker's own certificate, which is in its data directory, gets in by its inner
doors; the users' passwords are in `clients/` there. Both can be read by their owner alone.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from kafka.admin import UserScramCredentialUpsertion

from headrace.stream.broker.certificates import Authority
from headrace.stream.errors import BrokerError, UsageError
from headrace.stream.kafka.acls import ROLES
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.properties import read
from headrace.stream.kafka.topics import admin_of
from headrace.stream.process.ports import HOST

MECHANISM = "SCRAM-SHA-512"
ITERATIONS = 8192
TLS, CLIENTS = "tls", "clients"


def prepare(home: Path) -> None:
    """Make the certificates of a broker's data directory, once: clients keep trusting it.

    Raises:
        BrokerError: the extra `local` is not installed.
    """
    home.chmod(0o700)  # what users can do is in the broker's own log, too
    made = home / TLS
    if made.exists():
        return
    authority = Authority("headrace broker")
    broker = authority.issue("broker", hosts=(HOST, "localhost"))
    scratch = home / f"{TLS}.new"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    _write(scratch / "ca.pem", authority.certificate)
    _write(scratch / "broker.crt", broker.certificate)
    _write(scratch / "broker.key", broker.key)
    _write(scratch / "broker.pem", broker.key + broker.certificate + authority.certificate)
    scratch.replace(made)


def inner(home: Path, port: int) -> KafkaConnection:
    """Return the connection of the broker itself, which may do anything, to an inner door."""
    tls = home / TLS
    return KafkaConnection(
        f"{HOST}:{port}",
        {
            "security.protocol": "ssl",
            "ssl.ca.location": str(tls / "ca.pem"),
            "ssl.certificate.location": str(tls / "broker.crt"),
            "ssl.key.location": str(tls / "broker.key"),
        },
    )


def add_users(home: Path, port: int, inner_port: int) -> None:
    """Have the broker know a user for each role, and write for each what a client needs.

    A password that was given to a user before stays.

    Raises:
        BrokerError: the broker does not take it.
    """
    clients = home / CLIENTS
    clients.mkdir(mode=0o700, exist_ok=True)
    passwords = {role: _password(clients / f"{role}.properties") for role in ROLES}
    with admin_of(inner(home, inner_port)) as admin:
        answers = admin.alter_user_scram_credentials(
            [
                UserScramCredentialUpsertion(role, MECHANISM, password, iterations=ITERATIONS)
                for role, password in passwords.items()
            ]
        )
    if failed := [f"{user}: {error}" for user, error in answers.items() if error]:
        raise BrokerError(f"the broker does not take its users: {'; '.join(failed)}")
    for role, password in passwords.items():
        text = (
            f"bootstrap.servers={HOST}:{port}\nsecurity.protocol=sasl_ssl\n"
            f"sasl.mechanism={MECHANISM}\nsasl.username={role}\nsasl.password={password}\n"
            f"ssl.ca.location={home / TLS / 'ca.pem'}\n"
        )
        _write(clients / f"{role}.properties", text.encode())


def client(home: Path, role: str) -> Path:
    """Return the file with what a client in a role needs."""
    return home / CLIENTS / f"{role}.properties"


def _password(path: Path) -> str:
    try:
        return read(path)["sasl.password"]
    except (UsageError, KeyError):
        return secrets.token_urlsafe(24)


def _write(path: Path, data: bytes) -> None:
    """Replace a file at once by one that its owner alone can read, from its first byte on."""
    scratch = path.with_name(f"{path.name}.new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    scratch.replace(path)

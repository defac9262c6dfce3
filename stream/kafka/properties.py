"""How a client reaches Kafka, and who it is, in librdkafka's own words: a file or the environment.

A file has lines `key=value`. A key such as `sasl.password` is `HEADRACE_KAFKA_SASL_PASSWORD` in the
environment, where it stands before the file's. Only what all three client libraries can honour
is accepted.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from headrace.stream.errors import UsageError
from headrace.stream.kafka.providers import IMPLIED, MSK, TOKENS, implied

PREFIX = "HEADRACE_KAFKA_"
CONFIG = f"{PREFIX}CONFIG"  # names the file
BOOTSTRAP = "KAFKA_BOOTSTRAP"  # names servers before anything else but an option
MOST_BYTES = 1 << 20

PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
TLS_KEYS = (
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
)
_OWN_CERTIFICATE = {*TLS_KEYS[1:]}
OIDC = "sasl.oauthbearer."
OIDC_KEYS = (
    f"{OIDC}client.id",
    f"{OIDC}client.secret",
    f"{OIDC}token.endpoint.url",
    f"{OIDC}scope",
    "https.ca.location",
)
KEYS = (
    "provider",
    "aws.region",
    "bootstrap.servers",
    "security.protocol",
    "sasl.mechanism",
    "sasl.username",
    "sasl.password",
    *TLS_KEYS,
    *OIDC_KEYS,
)
SECRETS = {"sasl.password", "ssl.key.password", f"{OIDC}client.secret"}
_KEY = re.compile(r"[a-z][a-z0-9_.-]*").fullmatch
_FIXED = {  # the one value that is kept, and no other accepted
    "ssl.endpoint.identification.algorithm": "https",
    "enable.ssl.certificate.verification": "true",
    f"{OIDC}method": "oidc",
}
_ALIASES = {"sasl.mechanisms": "sasl.mechanism"}
_JAVA = {  # how Java's clients call it
    "sasl.jaas.config": "sasl.username and sasl.password",
    "ssl.truststore.location": "ssl.ca.location (PEM)",
    "ssl.keystore.location": "ssl.certificate.location and ssl.key.location (PEM)",
    "ssl.keystore.password": "ssl.key.password",
    f"{OIDC}client.credentials.client.id": f"{OIDC}client.id",
    f"{OIDC}client.credentials.client.secret": f"{OIDC}client.secret",
}


def variable(key: str) -> str:
    """Return the environment variable of a key."""
    return PREFIX + key.upper().replace(".", "_")


def read(path: Path) -> dict[str, str]:
    """Return the properties of a file, checked.

    Raises:
        UsageError: it cannot be read, a line or key is wrong, or it holds a secret and others may
            read it.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{path}: cannot be read: {why}") from error
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not _KEY(key):  # not shown: it may be a secret
            raise UsageError(f"{path}, line {number}: expected key=value")
        if _ALIASES.get(key, key) in found:
            raise UsageError(f"{path}, line {number}: {key} is there twice")
        _add(found, key, value, f"{path}: {key}")
    if SECRETS & found.keys():
        refuse_readable(path)
    return found


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the properties that environment variables name, checked.

    Raises:
        UsageError: a variable that begins as ours is none, or its value is wrong.
    """
    known = {variable(key): key for key in (*KEYS, *_FIXED, *_ALIASES)}
    found: dict[str, str] = {}
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name == CONFIG:
            continue
        if name not in known:
            names = ", ".join(variable(key) for key in KEYS)
            raise UsageError(f"{name}: no setting of a connection; expected one of {names}")
        _add(found, known[name], environment[name], name)
    return found


def to_environment(properties: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a child process that has to connect in the same way."""
    ours = (PREFIX, BOOTSTRAP)
    foreign = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return foreign | {variable(key): value for key, value in properties.items()}


def check(properties: Mapping[str, str], *, has_tokens: bool = False) -> dict[str, str]:
    """Return properties in one form, after a look at what they mean together.

    Args:
        has_tokens: a program gives the tokens of OAUTHBEARER.

    Raises:
        UsageError: a key or value is unknown, missing, or without effect.
    """
    found: dict[str, str] = {}
    for key, value in properties.items():
        _add(found, key, value, key)
    found = implied(found)
    protocol = found.get("security.protocol", "plaintext")
    uses_sasl, uses_tls = protocol.startswith("sasl_"), protocol.endswith("ssl")
    mechanism = found.get("sasl.mechanism", "")
    provider = found.get("provider")
    oidc = mechanism == "OAUTHBEARER" and not has_tokens and provider not in TOKENS
    needed: list[str] = []
    if uses_sasl and not mechanism:
        needed = ["sasl.mechanism"]
    elif oidc:
        needed = [f"{OIDC}client.id", f"{OIDC}client.secret", f"{OIDC}token.endpoint.url"]
    elif uses_sasl and mechanism != "OAUTHBEARER":
        needed = ["sasl.username", "sasl.password"]
    if found.keys() & _OWN_CERTIFICATE:
        needed += ["ssl.certificate.location", "ssl.key.location"]
    for key in needed:
        if not found.get(key):
            raise UsageError(
                f"{key} is missing, and {mechanism or protocol} needs it "
                f"(in the file, or as {variable(key)})"
            )
    useless = {
        "aws.region": provider == MSK,
        "sasl.mechanism": uses_sasl,
        "sasl.username": uses_sasl and mechanism != "OAUTHBEARER",
        "sasl.password": uses_sasl and mechanism != "OAUTHBEARER",
        **dict.fromkeys(TLS_KEYS, uses_tls),
        **dict.fromkeys(OIDC_KEYS, oidc),
    }
    for key in found:
        if not useless.get(key, True):
            raise UsageError(
                f"{key} is given, and has no effect with security.protocol={protocol}"
                + (f" and sasl.mechanism={mechanism}" if uses_sasl else ": sasl_ssl is meant?")
                + (f" and provider={provider}" if provider else "")
            )
    return found


def refuse_readable(path: Path) -> None:
    """Refuse a file with a secret that others may read.

    As PostgreSQL does: 0600, or 0640 if it belongs to root, which is how Kubernetes mounts secrets.

    Raises:
        UsageError: others may read it.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    others = stat.S_IRWXO | (stat.S_IWGRP | stat.S_IXGRP if found.st_uid == 0 else stat.S_IRWXG)
    if found.st_mode & others:
        raise UsageError(
            f"{path} holds a secret, and others may read it (mode {found.st_mode & 0o777:04o}): "
            f"chmod 600 {path}"
        )


def _add(found: dict[str, str], key: str, value: str, where: str) -> None:
    """Put in a key and its value, if they are known; a value is named only where it is no secret.

    Raises:
        UsageError: they are not.
    """
    key = _ALIASES.get(key, key)
    if key in _FIXED:
        if value.lower() != _FIXED[key]:
            raise UsageError(f"{where}: {value}: only {_FIXED[key]!r} is accepted")
        return
    if key in _JAVA:
        raise UsageError(f"{where}: that is Java's; here it is {_JAVA[key]}")
    if key not in KEYS:
        raise UsageError(
            f"{where}: not one of the settings that all clients have: {', '.join(KEYS)}"
        )
    if not value or "\n" in value or "\0" in value:
        raise UsageError(f"{where}: expected one line that is not empty")
    if key == "provider":
        value = _one_of(value.lower(), tuple(IMPLIED), where)
    elif key == "security.protocol":
        value = _one_of(value.lower(), PROTOCOLS, where)
    elif key == "sasl.mechanism":
        value = _one_of(value.upper(), MECHANISMS, where)
    elif key == f"{OIDC}token.endpoint.url":
        _check_url(value, where)
    found[key] = value


def _one_of(value: str, known: tuple[str, ...], where: str) -> str:
    if value not in known:
        raise UsageError(f"{where}: {value!r}: expected one of {', '.join(known)}")
    return value


def _check_url(value: str, where: str) -> None:
    try:
        url = urlsplit(value)
        host = url.hostname
    except ValueError:
        host = None
    if not host or url.scheme not in ("http", "https") or url.password:
        raise UsageError(f"{where}: expected a URL, https://host/path")
    if url.scheme == "http" and host not in ("localhost", "127.0.0.1", "::1"):
        raise UsageError(f"{where}: expected https, because the client's secret is sent there")

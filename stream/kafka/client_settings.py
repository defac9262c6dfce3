"""How Kafka's clients are told where and who they are: the one place that knows."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from headrace.stream.errors import UsageError
from headrace.stream.kafka.properties import OIDC, check, refuse_readable, to_environment
from headrace.stream.kafka.providers import TOKENS, token_source
from headrace.stream.kafka.tokens import ClientCredentials, Kept, TokenSource

# kafka-python warns where a busy machine takes .1 s for a step, such as a TLS handshake.
logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)

OURS = (OIDC, "https.", "provider", "aws.")  # properties that are not for librdkafka


@dataclass
class ClientSettings:
    """Say how to reach a Kafka and who asks; each client library is told in its own words.

    Nothing that it shows, as text or in an error, has a secret in it.

    Attributes:
        servers: `host:port[,host:port]`, of any of its brokers.
        properties: librdkafka's, such as `security.protocol`; see `stream.kafka.properties`.
        tokens: gives the tokens for OAUTHBEARER, if not an OIDC provider does.

    Raises:
        UsageError: a property is unknown, missing or without effect, or a file of certificates
            cannot be used.
    """

    servers: str
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    tokens: TokenSource | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check it all now: later each library would say it in its own way, or nothing."""
        found = check(self.properties, has_tokens=self.tokens is not None)
        named = found.pop("bootstrap.servers", "")
        self.servers = self.servers or named
        self.properties = found
        self._given = self.tokens
        if self.mechanism == "OAUTHBEARER":
            self.tokens = Kept(self.tokens or _token_source(found, self.servers))
        self._tls = _tls(found) if self.protocol.endswith("SSL") else None

    def __str__(self) -> str:
        return self.servers

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker process have it: what was given, of which it makes its own."""
        return type(self), (self.servers, self.properties, self._given)

    @property
    def protocol(self) -> str:
        """Return PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
        return self.properties.get("security.protocol", "plaintext").upper()

    @property
    def mechanism(self) -> str:
        """Return PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER; "" without SASL."""
        return self.properties.get("sasl.mechanism", "")

    @property
    def tls(self) -> ssl.SSLContext | None:
        """Return whom we trust and what we show; None without TLS."""
        return self._tls

    @property
    def principal(self) -> str:
        """Return who Kafka takes us for, as far as that can be known here."""
        if tokens := self.tokens:
            subject = tokens().subject
            return f"User:{subject}" if subject else "the bearer of our token"
        if name := self.properties.get("sasl.username"):
            return f"User:{name}"
        if shown := self.properties.get("ssl.certificate.location"):
            return f"the owner of {shown}"
        return "User:ANONYMOUS"

    def forget_token(self) -> None:
        """Have the next token asked for anew: the last one was not accepted."""
        if isinstance(self.tokens, Kept):
            self.tokens.forget()

    def environment(self) -> dict[str, str]:
        """Return the environment for a child process that has to connect in the same way.

        Raises:
            UsageError: its tokens come from this program, which no other process can ask.
        """
        if self._given:
            raise UsageError("tokens from a program cannot be handed to its worker processes")
        return to_environment({**self.properties, "bootstrap.servers": self.servers})

    def confluent(self) -> dict[str, Any]:
        """Return what every client of confluent_kafka is given."""
        told: dict[str, Any] = {"bootstrap.servers": self.servers, "log_level": 0}
        for key, value in self.properties.items():
            if not key.startswith(OURS):
                told[key] = value
        if self.tls:
            told["ssl.endpoint.identification.algorithm"] = "https"
        if tokens := self.tokens:
            told["oauth_cb"] = partial(_token, tokens)
        return told

    def kafka_python(self) -> dict[str, Any]:
        """Return what every client of kafka-python is given."""
        told = {"bootstrap_servers": self.servers, **self._asyncio_like()}
        if self.tokens:
            told["sasl_oauth_token_provider"] = _provider(self.tokens)
        return told

    def _asyncio_like(self) -> dict[str, Any]:
        """Return what kafka-python and aiokafka call alike."""
        if self.protocol == "PLAINTEXT":
            return {}
        told: dict[str, Any] = {"security_protocol": self.protocol}
        if self.tls:
            told["ssl_context"] = self.tls
        if self.mechanism:
            told["sasl_mechanism"] = self.mechanism
        if "sasl.username" in self.properties:
            told["sasl_plain_username"] = self.properties["sasl.username"]
            told["sasl_plain_password"] = self.properties["sasl.password"]
        return told

    def faust(self) -> dict[str, Any]:
        """Return what a Faust application is given, but its credentials.

        These are Faust's own classes; see `stream.engines.credentials`.
        """
        return {"broker": ";".join(f"kafka://{server}" for server in self.servers.split(","))}


def _token(tokens: TokenSource, config: str) -> tuple[str, float]:
    """Be the `oauth_cb` of confluent_kafka."""
    value, expires_s = tokens()
    return value, expires_s


def _provider(tokens: TokenSource) -> Any:
    """Return the token provider of kafka-python."""
    from kafka.net.sasl.oauth import AbstractTokenProvider

    class Provider(AbstractTokenProvider):  # type: ignore[misc]
        def token(self) -> str:
            return tokens().value

    return Provider()


def _token_source(properties: Mapping[str, str], servers: str) -> TokenSource:
    if properties.get("provider") in TOKENS:
        return token_source(properties, servers)
    return ClientCredentials(
        properties[f"{OIDC}token.endpoint.url"],
        properties[f"{OIDC}client.id"],
        properties[f"{OIDC}client.secret"],
        scope=properties.get(f"{OIDC}scope", ""),
        ca=properties.get("https.ca.location", ""),
    )


def _tls(properties: Mapping[str, str]) -> ssl.SSLContext:
    """Load certificates and key; the name of a host is always checked.

    Raises:
        UsageError: a file cannot be read or is none of its kind, or a password is wrong.
    """
    ca = properties.get("ssl.ca.location", "")
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except OSError as error:
        why = error.strerror if not isinstance(error, ssl.SSLError) else "no PEM certificates there"
        raise UsageError(f"ssl.ca.location: {ca}: {why}") from error
    certificate = properties.get("ssl.certificate.location")
    if not certificate:
        return context
    key = properties["ssl.key.location"]
    refuse_readable(Path(key))
    try:
        context.load_cert_chain(certificate, key, properties.get("ssl.key.password", ""))
    except ssl.SSLError as error:
        raise UsageError(
            f"ssl.certificate.location {certificate}, ssl.key.location {key}: not a certificate "
            "and its key in PEM, or ssl.key.password is wrong or missing"
        ) from error
    except OSError as error:
        raise UsageError(f"ssl.certificate.location {certificate}: {error.strerror}") from error
    return context

"""Why a Kafka cannot be used, in words: the clients time out, and say little or nothing."""

from __future__ import annotations

import re
import socket
import ssl
import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from headrace.stream.errors import AccessError, BrokerError, HeadraceError, no_broker
from headrace.stream.kafka.client_settings import ClientSettings

CONNECT_S = 1.5
ASK_S = 3.0
TICK_S = 0.05
MOST_CLOSED = 3
PORT = 9092
_EXPIRED, _OTHER_HOST = {10}, {62, 64}  # OpenSSL's results of a verification
_REFUSED = {KafkaError._AUTHENTICATION, KafkaError._SSL}
_ALERTS = {
    "certificate required": "it wants a certificate of ours, one that it trusts: look at "
    "ssl.certificate.location and ssl.key.location",
    "certificate expired": "our certificate has expired: look at ssl.certificate.location",
    "alert": "it does not accept our certificate, which may have expired: look at "
    "ssl.certificate.location",
}


def check(kafka: ClientSettings) -> None:
    """Make sure, in less than five seconds, that a Kafka lets us in.

    Raises:
        AccessError: it does not trust us, or we do not trust it.
        BrokerError: it does not answer.
    """
    if wrong := _look(kafka):
        raise wrong


def explain(kafka: ClientSettings) -> HeadraceError | None:
    """Return why a Kafka does not let us in, or we do not let it; None if it is silent, or does.

    A token that was given before is not asked about, but a new one.
    """
    kafka.forget_token()
    wrong = _look(kafka)
    return None if isinstance(wrong, _SilentError) else wrong


class _SilentError(BrokerError):
    """Report that nobody answers."""


def _look(kafka: ClientSettings) -> HeadraceError | None:
    """Return what is wrong, if anything is: tokens, then each server, then the log-in."""
    try:
        if kafka.tokens and kafka.tokens().expires_s <= time.time():
            return AccessError("the token for OAUTHBEARER has expired already: are clocks right?")
    except HeadraceError as error:
        return error
    silent: list[BrokerError] = []
    for server in kafka.servers.split(","):
        wrong = _reach(kafka, server.strip())
        if isinstance(wrong, AccessError):
            return wrong
        silent += [wrong] if wrong else []
    if len(silent) == len(kafka.servers.split(",")):
        return silent[0]
    return _log_in(kafka)


def _reach(kafka: ClientSettings, server: str) -> BrokerError | None:
    """Connect to one server as it has to be, without Kafka's protocol; return what is wrong."""
    host, _, port = server.rpartition("://")[2].rpartition(":")
    host = (host or server).strip("[]")
    try:
        opened = socket.create_connection((host, int(port) if host != server else PORT), CONNECT_S)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        return _SilentError(*no_broker(server, why).args)
    with opened:
        if kafka.tls:
            return _shake_hands(kafka.tls, opened, host, server)
        try:
            anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
            with anyone.wrap_socket(opened, server_hostname=host):
                other = "sasl_ssl" if kafka.mechanism else "ssl"
                return AccessError(
                    f"{server} speaks TLS, and security.protocol is {kafka.protocol.lower()}: "
                    f"{other} is meant?"
                )
        except TimeoutError:
            return _SilentError(f"{server} takes connections, and does not answer")
        except OSError:  # it is not spoken, as it has to be
            return None


def _shake_hands(
    context: ssl.SSLContext, opened: socket.socket, host: str, server: str
) -> BrokerError | None:
    try:
        with context.wrap_socket(opened, server_hostname=host):
            return None
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _EXPIRED:
            return AccessError(f"{server}: the broker's certificate has expired")
        if error.verify_code in _OTHER_HOST:
            return AccessError(
                f"{server}: the broker's certificate is for another host than {host}: name the "
                "broker as its certificate does"
            )
        return AccessError(
            f"{server}: the broker's certificate is signed by nobody whom ssl.ca.location trusts "
            f"({error.verify_message})"
        )
    except (OSError, ValueError) as error:  # closed, or something else than TLS came back
        if isinstance(error, TimeoutError):
            return _SilentError(f"{server} takes connections, and does not answer")
        return AccessError(
            f"{server} does not speak TLS, and security.protocol wants it: is that another port?"
        )


def _log_in(kafka: ClientSettings) -> HeadraceError | None:
    """Say who we are, and return what the broker has against it."""
    said: list[Any] = []
    try:
        admin = AdminClient(kafka.confluent() | {"error_cb": said.append})
    except KafkaException as error:
        return AccessError(f"{kafka}: {error.args[0].str()}")
    give_up_s = time.monotonic() + ASK_S
    answer = admin.describe_cluster(request_timeout=ASK_S)
    while not answer.done() and time.monotonic() < give_up_s:
        admin.poll(TICK_S)
        for each in said:
            if words := _words(kafka, each):
                return words
        if _closed(said) > MOST_CLOSED:
            break
    if answer.done() and not answer.exception():
        return None
    if _closed(said):
        hint = "" if kafka.mechanism else ": does it ask for SASL (security.protocol=sasl_...)?"
        return BrokerError(f"{kafka} takes connections, and closes them{hint}")
    return _SilentError(f"{kafka} takes connections, and does not answer")


def _closed(said: list[Any]) -> int:
    """Count how often the last connection was closed."""
    return sum(each.code() == KafkaError._ALL_BROKERS_DOWN for each in said)


def _words(kafka: ClientSettings, error: Any) -> HeadraceError | None:
    """Return what an error of librdkafka means, if nothing will get better by itself."""
    text = error.str()
    if "Unsupported SASL mechanism" in text:
        known = re.search(r"supported mechanisms: ([\w, -]+)", text)
        there = f": it has {known[1].strip()}" if known else ""
        return AccessError(f"{kafka} does not have sasl.mechanism={kafka.mechanism}{there}")
    if error.code() == KafkaError._AUTHENTICATION:
        who = kafka.properties.get("sasl.username", "")
        what = f"{who!r} with this password" if who else "this token"
        return AccessError(
            f"{kafka} does not let {what} in ({kafka.mechanism}): look at sasl.username and "
            "sasl.password"
            if who
            else f"{kafka} does not accept {what}: {_reason(text)}"
        )
    for mark, words in _ALERTS.items():
        if mark in text and "SSL" in text:
            return AccessError(f"{kafka}: {words}")
    return AccessError(f"{kafka}: {_reason(text)}") if error.code() in _REFUSED else None


def _reason(text: str) -> str:
    """Cut off what librdkafka puts before and behind a reason."""
    return re.sub(r"^\S+/\w+: | \(after \d+ms in state \w+\)", "", text)

"""Tell a Faust application who it is, in Faust's own words."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError
from faust import auth

from headrace.stream.errors import HeadraceError
from headrace.stream.kafka.client_settings import ClientSettings
from headrace.stream.kafka.tokens import TokenSource


class _Provider(AbstractTokenProvider):  # type: ignore[misc]
    """Ask for a token in a thread, for the loop must go on."""

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens

    async def token(self) -> str:
        """Return a token; without one there is no connection, and the client tries again later."""
        try:
            return (await asyncio.to_thread(self._tokens)).value
        except HeadraceError as error:
            raise KafkaConnectionError(str(error)) from error


def settings_of(kafka: ClientSettings) -> dict[str, Any]:
    """Return what `faust.App` is given to reach a Kafka."""
    tls, properties, told = kafka.tls, kafka.properties, kafka.faust()
    who: auth.Credentials
    if kafka.tokens:
        who = auth.OAuthCredentials(oauth_cb=_Provider(kafka.tokens), ssl_context=tls)
    elif kafka.mechanism:
        who = auth.SASLCredentials(
            username=properties["sasl.username"],
            password=properties["sasl.password"],
            ssl_context=tls,
            mechanism=kafka.mechanism,
        )
    elif tls:
        who = auth.SSLCredentials(tls)
    else:
        return told
    return told | {"broker_credentials": who}

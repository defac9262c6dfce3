"""Tokens for SASL OAUTHBEARER: OIDC's client credentials, kept until they are about to expire."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import NamedTuple

from headrace.stream.errors import AccessError, BrokerError, UsageError

ANSWER_S = 4.0
FRESH = 0.8  # of its life for which a token is given again
MOST_BYTES = 1 << 20


class Token(NamedTuple):
    """Hold a token and when it expires, in seconds since 1970; it must not be shown."""

    value: str
    expires_s: float

    def __repr__(self) -> str:
        return f"Token(expires_s={self.expires_s})"

    @property
    def subject(self) -> str:
        """Return whom it names, if it is a JWT; else ""."""
        try:
            claims = self.value.split(".")[1]
            found = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
            return str(found.get("sub", ""))
        except (ValueError, IndexError, AttributeError):
            return ""


TokenSource = Callable[[], Token]
"""Gives a token that is valid; called again and again, from any thread."""


class Kept:
    """Give a source's token again until four fifths of its life are over."""

    def __init__(self, source: TokenSource) -> None:
        self._source, self._lock = source, threading.Lock()
        self._token, self._until_s = Token("", 0.0), 0.0

    def __call__(self) -> Token:
        with self._lock:
            now_s = time.time()
            if now_s >= self._until_s:
                self._token = self._source()
                self._until_s = now_s + FRESH * (self._token.expires_s - now_s)
            return self._token

    def forget(self) -> None:
        """Ask the source the next time: the token that it gave was not accepted."""
        with self._lock:
            self._until_s = 0.0


class ClientCredentials:
    """Ask an OIDC provider for a token, by a client's id and secret.

    Args:
        ca: a file with the authorities that may sign the provider's certificate; "": the system's.
    """

    def __init__(self, url: str, client_id: str, secret: str, *, scope: str, ca: str) -> None:
        self._url = url
        basic = f"{urllib.parse.quote(client_id, '')}:{urllib.parse.quote(secret, '')}"
        self._basic = base64.b64encode(basic.encode()).decode()
        form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
        self._body = urllib.parse.urlencode(form).encode()
        try:
            tls = ssl.create_default_context(cafile=ca or None)
        except OSError as error:
            raise UsageError(f"https.ca.location: {ca}: no file with certificates") from error
        # No redirects: the secret goes to the address that was given, and nowhere else.
        self._open = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=tls), _NoRedirects()
        ).open

    def __call__(self) -> Token:
        """Ask for a token.

        Raises:
            AccessError: the provider refuses.
            BrokerError: it does not answer, or with something else.
        """
        request = urllib.request.Request(  # noqa: S310  http and https alone, see `properties`
            self._url,
            self._body,
            {
                "Authorization": f"Basic {self._basic}",
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept": "application/json",
            },
        )
        try:
            with self._open(request, timeout=ANSWER_S) as answer:
                found = json.loads(answer.read(MOST_BYTES))
            value, life_s = str(found["access_token"]), float(found.get("expires_in", 300))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (400, 401, 403):
                raise AccessError(
                    f"{self._url} gives no token (HTTP {error.code}): look at "
                    "sasl.oauthbearer.client.id, client.secret and scope"
                ) from None
            raise BrokerError(f"{self._url} gives no token: HTTP {error.code}") from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise BrokerError(f"{self._url} gives no token: {reason}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BrokerError(f"{self._url} answers, but not with a token") from None
        return Token(value, time.time() + life_s)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: object) -> None:
        return None

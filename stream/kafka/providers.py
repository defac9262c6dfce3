"""What the clouds' own Kafkas ask for: `provider` in the properties, and the rest follows."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Mapping
from datetime import UTC
from typing import Any
from urllib.parse import urlsplit

from headrace.stream.errors import AccessError, UsageError
from headrace.stream.kafka.tokens import Token, TokenSource

MSK, EVENT_HUBS = "aws-msk-iam", "azure-event-hubs"
GOOGLE, CONFLUENT = "google-managed-kafka", "confluent-cloud"
TLS_AND_SASL = {"security.protocol": "sasl_ssl"}
IMPLIED: dict[str, dict[str, str]] = {
    MSK: TLS_AND_SASL | {"sasl.mechanism": "OAUTHBEARER"},
    EVENT_HUBS: TLS_AND_SASL | {"sasl.mechanism": "PLAIN", "sasl.username": "$ConnectionString"},
    GOOGLE: TLS_AND_SASL | {"sasl.mechanism": "OAUTHBEARER"},
    CONFLUENT: TLS_AND_SASL | {"sasl.mechanism": "PLAIN"},
}
"""Properties by provider."""
TOKENS = {MSK, GOOGLE}  # who asks for tokens of a kind of their own
EVENT_HUBS_PORT = 9093
_MSK_HOST = re.compile(r"\.kafka(?:-serverless)?\.([a-z0-9-]+)\.amazonaws\.com", re.IGNORECASE)


def implied(properties: Mapping[str, str]) -> dict[str, str]:
    """Return properties with those that follow from their `provider`.

    Raises:
        UsageError: one says otherwise, or is no connection string of Event Hubs.
    """
    found = dict(properties)
    provider = found.get("provider", "")
    for key, value in IMPLIED.get(provider, {}).items():
        if found.setdefault(key, value) != value:
            raise UsageError(f"{key} is given, and provider={provider} needs {value}: leave it out")
    if provider == EVENT_HUBS and "sasl.password" in found:
        host = _event_hubs_host(found["sasl.password"])
        found.setdefault("bootstrap.servers", f"{host}:{EVENT_HUBS_PORT}")
    return found


def token_source(properties: Mapping[str, str], servers: str) -> TokenSource:
    """Return where a provider of TOKENS has its tokens from.

    Raises:
        UsageError: its package is not installed, or no region is known.
    """
    if properties["provider"] == GOOGLE:
        return _google()
    named = _MSK_HOST.search(servers)
    environment = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    region = properties.get("aws.region") or (named[1] if named else environment)
    if not region:
        raise UsageError(f"aws.region is missing, and {servers} does not name it")
    return _msk(region)


def _msk(region: str) -> TokenSource:
    """Return tokens that AWS's own signer makes of the credentials that AWS's clients find."""
    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
    except ImportError:
        raise UsageError(f"provider={MSK} needs `pip install headrace[msk]`") from None

    def token() -> Token:
        try:
            value, expires_ms = MSKAuthTokenProvider.generate_auth_token(region)
        except Exception as error:  # botocore's many, which may quote what they were given
            raise AccessError(
                f"no token for Amazon MSK ({type(error).__name__}): expected AWS credentials, in "
                "the environment, in ~/.aws or from the machine's role"
            ) from None
        return Token(value, expires_ms / 1000.0)

    return token


def _google() -> TokenSource:
    """Return tokens of Google's application default credentials, as its Kafka wants them."""
    try:
        import google.auth
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request
    except ImportError:
        raise UsageError(f"provider={GOOGLE} needs `pip install headrace[google]`") from None

    def token() -> Token:
        try:
            scope = "https://www.googleapis.com/auth/cloud-platform"
            credentials, _ = google.auth.default(scopes=[scope])
            credentials.refresh(Request())  # type: ignore[no-untyped-call]
        except GoogleAuthError as error:
            raise AccessError(
                f"no token for Google's Kafka ({type(error).__name__}): expected application "
                "default credentials, by GOOGLE_APPLICATION_CREDENTIALS or of the machine"
            ) from None
        return google_token(credentials)

    return token


def google_token(credentials: Any) -> Token:
    """Return a token for Google's Kafka: a header, claims and the access token, each in base64.

    cloud.google.com/managed-service-for-apache-kafka/docs/authentication-kafka.
    """
    expires_s = credentials.expiry.replace(tzinfo=UTC).timestamp()
    claims = {
        "exp": expires_s,
        "iat": time.time(),
        "iss": "Google",
        "scope": "kafka",
        "sub": getattr(credentials, "service_account_email", None) or "",
    }
    header = {"typ": "JWT", "alg": "GOOG_OAUTH2_TOKEN"}
    parts = (json.dumps(header), json.dumps(claims), credentials.token)
    value = ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)
    return Token(value, expires_s)


def _event_hubs_host(connection_string: str) -> str:
    """Return the host that a connection string of Event Hubs names."""
    fields = dict(part.partition("=")[::2] for part in connection_string.split(";"))
    host = urlsplit(fields.get("Endpoint", "")).hostname
    if not host or not {"SharedAccessKeyName", "SharedAccessKey"} <= fields.keys():
        raise UsageError(
            f"sasl.password: provider={EVENT_HUBS} needs the namespace's connection string: "
            "Endpoint=sb://...;SharedAccessKeyName=...;SharedAccessKey=..."
        )
    return host

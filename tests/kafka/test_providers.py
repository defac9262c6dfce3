"""The clouds' own Kafkas: what `provider` makes of the least that a user gives."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from headrace.stream.errors import AccessError, UsageError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.properties import check
from headrace.stream.kafka.providers import google_token
from headrace.stream.kafka.topics import list_topics
from tests.support.hostile import Run
from tests.support.secured import (
    AWS_KEY,
    AWS_SECRET,
    PASSWORD,
    Secured,
    assert_all_clients_work,
    compile_msk,
    secured,
)

HUB = "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=root;SharedAccessKey=c2VjcmV0"


@pytest.fixture(scope="module")
def msk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Run a broker that computes the signature of AWS's tokens again."""
    try:
        classes = compile_msk(tmp_path_factory.mktemp("classes"))
    except RuntimeError as error:
        pytest.skip(f"NOT RUN: {error}")
    with secured(tmp_path_factory.mktemp("msk"), msk=classes) as running:
        yield running


@pytest.fixture
def given(msk: Secured, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the properties for it, with credentials where AWS's clients look."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", AWS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS_SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return {
        "provider": "aws-msk-iam",
        "aws.region": "eu-central-1",
        "bootstrap.servers": msk.at("OAUTH"),
        "ssl.ca.location": msk.file("ca.pem"),
    }


def test_all_clients_log_in_by_tokens_of_aws(given: dict[str, str]) -> None:
    assert_all_clients_work(KafkaConnection("", given))


def test_a_command_logs_in_by_tokens_of_aws(
    msk: Secured, given: dict[str, str], run: Run, tmp_path: Path
) -> None:
    path = msk.write(tmp_path / "client.properties", given)
    assert run("topics", "list", "--kafka-config", path).code == 0
    refused = run("topics", "list", "--kafka-config", path, AWS_SECRET_ACCESS_KEY="wrong-canary")
    assert refused.code == 2
    assert "wrong-canary" not in refused.err
    assert len(refused.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN")]
)
def test_who_signs_otherwise_is_refused(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(AccessError):
        list_topics(KafkaConnection("", given))


def test_without_credentials_it_says_where_they_are_looked_for(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(AccessError, match=r"no token for Amazon MSK .* AWS credentials"):
        list_topics(KafkaConnection("", given))


def test_the_region_stands_in_the_address_or_the_environment(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del given["aws.region"]
    with pytest.raises(UsageError, match=r"aws\.region is missing"):
        KafkaConnection("", given)
    for servers in (
        "b-1.shop.a1b2c3.c2.kafka.eu-west-1.amazonaws.com:9098",
        "boot-a1.c2.kafka-serverless.eu-west-1.amazonaws.com:9098",
    ):
        tokens = KafkaConnection(servers, given).tokens
        assert tokens
        value = tokens().value
        url = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode()
        assert url.startswith("https://kafka.eu-west-1.amazonaws.com/?")
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert KafkaConnection("", given).tokens


def test_confluents_cloud_asks_for_key_and_secret_alone(secured: Secured) -> None:
    kafka = KafkaConnection(
        secured.at("SASLSSL"),
        {
            "provider": "confluent-cloud",
            "sasl.username": "alice",
            "sasl.password": PASSWORD,
            "ssl.ca.location": secured.file("ca.pem"),
        },
    )
    assert_all_clients_work(kafka)
    with pytest.raises(UsageError, match=r"sasl\.username is missing, and PLAIN needs it"):
        check({"provider": "confluent-cloud"})


def test_event_hubs_ask_for_a_connection_string_alone() -> None:
    found = check({"provider": "azure-event-hubs", "sasl.password": HUB})
    assert found == {
        "provider": "azure-event-hubs",
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "$ConnectionString",
        "sasl.password": HUB,
        "bootstrap.servers": "shop.servicebus.windows.net:9093",
    }
    assert KafkaConnection("", found).servers == "shop.servicebus.windows.net:9093"
    with pytest.raises(UsageError, match="needs the namespace's connection string") as caught:
        check({"provider": "azure-event-hubs", "sasl.password": "canary"})
    assert "canary" not in str(caught.value)


def test_google_gets_a_token_of_its_own_kind() -> None:
    expiry = datetime(2026, 1, 1) + timedelta(hours=1)  # as google-auth has it: UTC without a zone
    credentials = SimpleNamespace(
        token="ya29.canary", expiry=expiry, service_account_email="shop@example.iam"
    )
    token = google_token(credentials)
    header, claims, access = (
        base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()
        for part in token.value.split(".")
    )
    assert json.loads(header) == {"typ": "JWT", "alg": "GOOG_OAUTH2_TOKEN"}
    found = json.loads(claims)
    assert (found["iss"], found["scope"], found["sub"]) == ("Google", "kafka", "shop@example.iam")
    assert found["exp"] == token.expires_s == 1767229200.0
    assert access == "ya29.canary"
    assert token.subject == "shop@example.iam"
    assert "ya29" not in repr(token)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"provider": "oracle"}, "expected one of aws-msk-iam, azure-event-hubs"),
        ({"provider": "aws-msk-iam", "sasl.mechanism": "PLAIN"}, "needs OAUTHBEARER: leave it out"),
        (
            {"provider": "azure-event-hubs", "sasl.password": HUB, "aws.region": "eu-west-1"},
            "aws.region is given, and has",
        ),
        ({"aws.region": "eu-west-1"}, "aws.region is given, and has no effect"),
        (
            {"provider": "google-managed-kafka", "sasl.oauthbearer.client.id": "x"},
            "sasl.oauthbearer.client.id is given, and has no effect",
        ),
    ],
)
def test_what_contradicts_a_provider_is_refused(properties: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(properties)

"""How Kafka's clients are told where and who they are: the one place that knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class ClientSettings:
    """Say how to reach a Kafka; each client library is told in its own words.

    Attributes:
        servers: `host:port[,host:port]`, of any of its brokers.
    """

    servers: str

    def __str__(self) -> str:
        return self.servers

    def confluent(self) -> dict[str, Any]:
        """Return what every client of confluent_kafka is given."""
        return {"bootstrap.servers": self.servers, "log_level": 0}

    def kafka_python(self) -> dict[str, Any]:
        """Return what every client of kafka-python is given."""
        return {"bootstrap_servers": self.servers}

    def faust(self) -> dict[str, Any]:
        """Return what a Faust application is given."""
        return {"broker": ";".join(f"kafka://{server}" for server in self.servers.split(","))}

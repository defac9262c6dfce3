"""Whether the alarms that are there are those that the ledger counts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import msgspec

from headrace.stream.audit.report import Audit
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.ledger.ledger import Record
from headrace.stream.task import Task


class _Told(msgspec.Struct):
    detector: str | None = None  # which alarms alone have, those of earlier versions too


class Alarms:
    """Count the alarms in `<task>.drift`: those before now, and those by the time that is checked.

    What is there now is in the ledger by the time that its end is read; what the ledger speaks of
    is there once that is read.
    """

    def __init__(self, task: Task, kafka: KafkaConnection) -> None:
        self._topic, self._kafka = task.output("drift"), kafka
        self._now = kafka.ends([self._topic], committed=True)

    def check(self, audit: Audit, records: Sequence[Record]) -> None:
        """Compare them with all records of the ledger."""
        counted, before, found = sum(record.alarms for record in records), 0, 0
        with closing(self._kafka.source(self._topic, or_later=True)) as source:
            expired, ends = any(source.begins.values()), source.ends()
            for message, told in audit.decoded(source, ends, _Told, "drift"):
                if told.detector is not None:
                    found += 1
                    now = self._now.get((self._topic, message.partition()), 0)
                    before += message.offset() < now
        if before > counted:
            audit.found(f"{self._topic}: {before - counted} alarms that the ledger does not know")
        if found < counted and not expired:
            audit.found(f"{self._topic}: {counted - found} of the {counted} alarms are gone")

"""Bugs, put into a learner in its own process before it begins."""

from __future__ import annotations

import importlib
import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any


def lying_commit() -> None:
    """Have the client drop the first transaction with events, and say that it is committed."""
    from confluent_kafka import Producer

    class Liar(Producer):
        commits = 0

        def commit_transaction(self, *timeout_s: float) -> None:
            self.commits += 1
            if self.commits == 2:
                self.abort_transaction(*timeout_s)
            else:
                super().commit_transaction(*timeout_s)

    vars(importlib.import_module("headrace.stream.kafka.sink"))["Producer"] = Liar


def no_read_back() -> None:
    """Believe each commit."""
    from headrace.stream.ledger.ledger import Entry, Ledger, Record

    def confirm(self: Ledger, record: Record) -> Entry:
        return Entry(2 * record.seq, record)

    Ledger.confirm = confirm  # type: ignore[method-assign]


def hollow_chain() -> None:
    """Seal records without looking at them."""
    import msgspec

    from headrace.stream.ledger import ledger

    def seal(record: ledger.Record, before: str) -> ledger.Record:
        return msgspec.structs.replace(record, chain=sha256(before.encode()).hexdigest())

    ledger.seal = seal


def loose_outputs() -> None:
    """Send predictions beside the transaction, as most pipelines do."""
    from headrace.stream.kafka.connection import KafkaConnection
    from headrace.stream.kafka.sink import Sink
    from headrace.stream.kafka.transactions import Transactions

    send: Any = Transactions.send
    plain: list[Sink] = []

    def beside(self: Any, topic: str, values: Any, **more: Any) -> None:
        if not topic.endswith(".predictions"):
            send(self, topic, values, **more)
            return
        if not plain:
            plain.append(KafkaConnection(sys.argv[sys.argv.index("-b") + 1]).sink())
        plain[0].send(topic, values, **more)
        plain[0].flush()

    Transactions.send = beside  # type: ignore[method-assign]


def offsets_first() -> None:
    """Move on in the stream before what was taken is committed, and believe that at a start."""
    from headrace.stream.service import recovery, service

    submit: Any = service.Service._submit
    learn_again: Any = recovery._learn_again
    note = Path(sys.argv[sys.argv.index("--state") + 1] + ".offsets")

    def submit_and_note(self: Any, *taken: Any) -> Any:
        work = submit(self, *taken)
        note.write_text(json.dumps(self._position.offsets))
        return work

    def learn_again_and_skip(found: Any, *rest: Any, **more: Any) -> None:
        learn_again(found, *rest, **more)
        if note.exists():
            found.position.offsets.update(
                {int(p): at for p, at in json.loads(note.read_text()).items()}
            )

    service.Service._submit = submit_and_note  # type: ignore[method-assign, assignment]
    recovery._learn_again = learn_again_and_skip

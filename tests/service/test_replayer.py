"""The replayer alone: a ledger's records and their raw events, without Kafka or a learner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import pytest
from msgspec.structs import replace

from headrace.stream.errors import AuditError
from headrace.stream.events import Records
from headrace.stream.kafka.history import Range
from headrace.stream.ledger.ledger import Consumed, Record
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.service.replayer import LedgerReplayer
from headrace.stream.task import parse
from headrace.stream.training.learned import Learned
from headrace.stream.training.snapshot import digest
from headrace.stream.training.trainer import Trainer
from tests.support.events import good

TASK = parse(
    """
name = "t"
[input]
topic = "raw"
[features]
x = { kind = "number" }
[target]
field = "label"
kind = "classify"
classes = ["no", "yes"]
[model]
hidden = [2]
neighbours = 0
[drift]
ladder = []
""",
    "t",
)
CAPACITY = 16


def value(offset: int) -> bytes:
    """Return an event: one in seven is refused, one in eleven comes again."""
    return b"poison" if offset % 7 == 3 else good(offset - 1 if offset % 11 == 5 else offset)


class Raw:
    """Be a topic of one partition that keeps all its events."""

    def __init__(self) -> None:
        self.asked: list[list[Range]] = []

    def read(self, ranges: Sequence[Range]) -> Records:
        self.asked.append([*ranges])
        offsets = [at for each in ranges for at in range(each.start, each.stop)]
        values: list[bytes | None] = [value(at) for at in offsets]
        count = len(offsets)
        return Records("raw", values, [b""] * count, [0] * count, offsets, [1] * count)

    def close(self) -> None:
        """Hold nothing."""


def learned(cuts: Sequence[int]) -> tuple[list[Record], str]:
    """Learn micro-batches that end at the cuts; give their records, and the state's digest."""
    trainer, normalizer, start = Trainer(TASK, CAPACITY), Normalizer(TASK), 0
    records = [Record(seq=0, run="aa", epoch=1, time_ms=0)]
    for seq, stop in enumerate(cuts, start=1):
        raw = Raw().read([Range(0, start, stop)])
        rows, refused = normalizer.normalize(raw)
        rows, repeated = trainer.admit(rows, "raw")
        done = trainer.collect(trainer.submit(rows)) if rows.id else None
        count = len(rows.id)
        records.append(
            Record(
                seq=seq,
                run="aa",
                epoch=1,
                time_ms=0,
                consumed=(Consumed(0, start, stop, count),),
                predicted=count,
                rejected=len(refused),
                repeated=len(repeated),
                output_digest=done.outcome(0, count) if done else "",
            )
        )
        start = stop
    return records, digest(trainer.snapshot().tensors())


CUTS = [3, 4, 7, 20, 21, 23, 39, 40, 41, 42, 57, 58, 64]


@cache
def lived() -> tuple[list[Record], str]:
    """Return the ledger that most tests replay, and the state that it led to."""
    return learned(CUTS)


def replayed(
    records: Sequence[Record], proven_from: int = 0, capacity: int = CAPACITY
) -> tuple[LedgerReplayer, Raw, list[Learned]]:
    raw, parts = Raw(), list[Learned]()
    replayer = LedgerReplayer(
        TASK, Trainer(TASK, capacity), raw, proven_from=proven_from, on_learned=parts.append
    )
    for record in records:
        replayer.add(record)
    return replayer, raw, parts


def test_a_replay_comes_to_the_same_state_in_fewer_and_larger_batches() -> None:
    records, state = lived()
    replayer, raw, parts = replayed(records)
    assert replayer.state() == state
    assert replayer.state() == state  # nothing is learned twice
    assert len(raw.asked) < len(CUTS)
    ranges = [each for asked in raw.asked for each in asked]
    assert [(each.start, each.stop) for each in ranges] == [*zip([0, *CUTS], CUTS, strict=False)]
    assert all(sum(each.stop - each.start for each in asked) <= CAPACITY for asked in raw.asked)
    offsets = [at for part in parts for at in part.rows.offset]
    assert offsets == [at for at in range(64) if at % 7 != 3 and (at % 11 != 5 or at == 60)]
    counts = replayer.counts
    assert counts.events == len(offsets) == sum(record.predicted for record in records)
    assert (counts.rejected, counts.repeated) == (9, 64 - 9 - len(offsets))


def test_how_large_the_batches_are_changes_no_bit() -> None:
    """Smaller ones than the learner's are cut, larger ones put together."""
    records, state = lived()
    for capacity in (5, 64):
        assert replayed(records, capacity=capacity)[0].state() == state
    other, other_state = learned([10, 26, 27, 43, 50, 64])
    assert other_state == state == replayed(other)[0].state()


CHANGES: dict[str, Callable[[Record], Record]] = {
    "events used": lambda r: replace(r, predicted=r.predicted + 1),
    "events refused": lambda r: replace(r, rejected=r.rejected + 1),
    "ids repeated": lambda r: replace(r, repeated=r.repeated + 1),
    "comes out otherwise": lambda r: replace(r, output_digest="0" * 64),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_record_that_says_something_else_is_found(change: str) -> None:
    seq = 6
    records, state = lived()
    records = [CHANGES[change](r) if r.seq == seq else r for r in records]
    with pytest.raises(AuditError, match=change) as caught:
        replayed(records)[0].finish()
    if change == "comes out otherwise":
        assert str(caught.value).startswith(f"record {seq} of the ledger")
    # What came before the records to be proven is learned and not compared.
    assert replayed(records, proven_from=seq + 1)[0].state() == state
    with pytest.raises(AuditError, match=change):
        replayed(records, proven_from=seq)[0].finish()


def test_what_is_not_proven_and_what_is_are_never_put_together() -> None:
    records, _ = lived()
    for proven_from in (3, 6, 11):
        replayer, raw, _ = replayed(records, proven_from=proven_from)
        replayer.finish()
        assert CUTS[proven_from - 2] in [asked[0].start for asked in raw.asked]


def test_a_ledger_without_events_makes_nothing() -> None:
    records, _ = lived()
    replayer, raw, parts = replayed(records[:1])
    assert replayer.state() == digest(Trainer(TASK, CAPACITY).snapshot().tensors())
    assert (raw.asked, parts) == ([], [])

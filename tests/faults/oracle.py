"""The judge: reads what is in Kafka with another client, and believes nothing that is said there.

I1 no loss, I2 no double, I3 the same state, I4 predictions as the ledger says, I5 no transaction
left open, I6 a ledger without a gap or a break, I7 what was seen was never taken back, I10 poison
is put aside once. Nothing of `stream` is used here: formats are read as they are documented.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from poison import POISON
from traffic import Witness

CHAIN = re.compile(rb',"chain":"([0-9a-f]{64})"\}\Z')
CODES = {raw: code for raw, code in POISON.values()}


class Found(NamedTuple):
    """Hold a record as it stands in a topic."""

    offset: int
    value: bytes | None


class Violation(AssertionError):
    """Report an invariant that does not hold; `name` is I1 to I10."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name


def demand(name: str, holds: object, what: str) -> None:
    """Raise Violation unless something holds."""
    if not holds:
        raise Violation(name, what)


@dataclass
class Verdict:
    """Say what was counted; every violation would have been raised."""

    events: int = 0  # raw, all of them
    acknowledged: int = 0
    records: int = 0
    used: int = 0
    rejected: int = 0
    repeated: int = 0
    duplicates: int = 0
    healed: int = 0
    epochs: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)  # predictions, in learned order
    raw: list[bytes] = field(default_factory=list)  # the events that they are of


def read(bootstrap: str, topic: str, *, committed: bool = True) -> dict[int, list[Found]]:
    """Read a whole topic."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        isolation_level="read_committed" if committed else "read_uncommitted",
    )
    places = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    found: dict[int, list[Found]] = {place.partition: [] for place in places}
    while any(consumer.position(place) < ends[place] for place in places):
        for place, records in consumer.poll(timeout_ms=500, max_records=10_000).items():
            found[place.partition] += [Found(r.offset, r.value) for r in records]
    consumer.close()
    return found


def ends(bootstrap: str, topic: str, *, committed: bool) -> dict[int, int]:
    """Ask for the ends of a topic's partitions as readers of one kind see them."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed" if committed else "read_uncommitted",
    )
    places = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
    found = {place.partition: end for place, end in consumer.end_offsets(places).items()}
    consumer.close()
    return found


def newest_state(state: Path, task: str) -> tuple[int, str]:
    """Give record and digest of the newest checkpoint, as its manifest says them."""
    manifests = [
        json.loads(path.read_bytes())["manifest"] for path in (state / task).glob("*/*.json")
    ]
    assert manifests, f"no checkpoint below {state / task}"
    newest = max(manifests, key=lambda manifest: manifest["seq"])
    return newest["seq"], newest["state"]


class Oracle:
    """Judge one run of one task, from its outputs and from what producers were told."""

    def __init__(self, bootstrap: str, task: str, topic: str) -> None:
        self._bootstrap, self._task = bootstrap, task
        self._raw = read(bootstrap, topic)
        self.ledger = read(bootstrap, f"{task}.ledger")[0]
        self.predictions = read(bootstrap, f"{task}.predictions")
        self.letters = read(bootstrap, f"{task}.dead-letter")

    def judge(
        self, acks: Path | None = None, witness: Witness | None = None, *, fused: bool = True
    ) -> Verdict:
        """Check I1, I2, I4, I5, I6, I7 and I10.

        Args:
            fused: the learner normalised events itself, so that it alone wrote dead letters.
        """
        records = self.chained()
        verdict = self.accounted(records, acks)
        self.settled()
        if fused:
            self.put_aside()
        if witness:
            self.never_taken_back(witness)
        return verdict

    def chained(self) -> list[dict[str, Any]]:
        """Check I6: numbers dense, chain unbroken over the bytes as they stand, one run, epochs."""
        records: list[dict[str, Any]] = []
        chain, epoch = b"", -1
        for place, (_, raw) in enumerate(self.ledger):
            demand("I6", raw, f"record {place} is empty")
            raw = raw or b""
            match = CHAIN.search(raw)
            demand("I6", match, f"record {place} has no chain: {raw[-90:]!r}")
            said = match[1] if match else b""
            bare = CHAIN.sub(b"}", raw)
            chain = hashlib.sha256(chain + b"\n" + bare).hexdigest().encode()
            demand("I6", said == chain, f"the chain breaks at record {place}")
            record = json.loads(raw)
            demand("I6", record["seq"] == place, f"{record['seq']} stands at place {place}")
            opening = "opening" in record
            grown = record["epoch"] == epoch + 1 if opening else record["epoch"] == epoch
            demand("I6", grown, f"record {place}: epoch {record['epoch']} after {epoch}")
            epoch = record["epoch"]
            records.append(record)
        demand("I6", len({record["run"] for record in records}) == 1, "more than one run")
        return records

    def accounted(self, records: list[dict[str, Any]], acks: Path | None) -> Verdict:
        """Check I1, I2, I4: each raw event accounted for once, in ranges that abut."""
        verdict = Verdict(records=len(records), epochs=records[-1]["epoch"] + 1)
        raw = {p: {each.offset: each.value for each in found} for p, found in self._raw.items()}
        said = self._lines()
        position = {int(p): at for p, at in records[0]["opening"]["begins"].items()}
        ids: set[Any] = set()
        for record in records:
            counts: Counter[str] = Counter()
            digest = hashlib.sha256()
            for partition, start, stop, used in record.get("consumed", ()):
                where = f"record {record['seq']}, partition {partition}"
                demand(
                    "I6",
                    position[partition] == start < stop,
                    f"{where}: {start}..{stop} after {position[partition]}",
                )
                position[partition] = stop
                before = counts["used"]
                for offset in range(start, stop):
                    demand("I1", offset in raw[partition], f"{where}: no event at {offset}")
                    value = raw[partition][offset]
                    kind = _kind(value, ids)
                    counts[kind] += 1
                    line = said.pop((partition, offset), None)
                    if kind != "used":
                        demand("I2", line is None, f"{where}: {kind} {offset} was predicted")
                        continue
                    demand("I1", line is not None, f"{where}: no prediction for {offset}")
                    digest.update(line or b"")
                    verdict.lines.append(json.loads(line or b""))
                    verdict.raw.append(value or b"")
                    wanted = json.loads(value or b"")["id"]
                    demand("I2", verdict.lines[-1]["id"] == wanted, f"{where}: not {wanted}")
                demand("I2", counts["used"] - before == used, f"{where}: {used} used?")
            for kind in ("used", "rejected", "repeated"):
                demand(
                    "I2",
                    counts[kind] == record.get(kind, 0),
                    f"record {record['seq']}: {counts[kind]} {kind}, it says {record.get(kind)}",
                )
            wanted = digest.hexdigest() if counts["used"] else ""
            demand(
                "I4",
                record.get("predictions", "") == wanted,
                f"record {record['seq']}: predictions are not those of its digest",
            )
            verdict.events += sum(counts.values())
            verdict.used += counts["used"]
            verdict.rejected += counts["rejected"]
            verdict.repeated += counts["repeated"]
            verdict.duplicates += record.get("duplicates", 0)
            verdict.healed += record.get("healed", 0)
        demand("I2", not said, f"predictions that no record speaks of: {list(said)[:5]}")
        for partition, found in raw.items():
            end = max(found, default=-1) + 1
            demand("I1", position[partition] == end, f"{partition}: {end - position[partition]}")
        if acks:
            verdict.acknowledged = self._acknowledged(raw, position, acks)
        return verdict

    def _lines(self) -> dict[tuple[int, int], bytes]:
        """Give the predictions by the place of their event; each once, ascending."""
        lines: dict[tuple[int, int], bytes] = {}
        for partition, found in self.predictions.items():
            last = -1
            for at, value in found:
                line = json.loads(value or b"null")
                place = (line["partition"], line["offset"])
                demand("I2", place not in lines, f"{place} was predicted twice, again at {at}")
                demand("I2", line["partition"] == partition, f"{place} lies in {partition}")
                demand("I2", line["offset"] > last, f"{place} comes after {last}")
                last = line["offset"]
                lines[place] = value or b""
        return lines

    def _acknowledged(
        self, raw: dict[int, dict[int, bytes | None]], position: dict[int, int], acks: Path
    ) -> int:
        """Check that each event that a producer was told is safe lies behind the ledger's end."""
        numbers = set()
        for line in acks.read_text().splitlines():
            number, partition, offset = map(int, line.split())
            demand("I1", offset in raw[partition], f"{partition}/{offset}: acked, and gone")
            demand("I1", offset < position[partition], f"{partition}/{offset}: never taken")
            demand("I1", number not in numbers, f"event {number}: acknowledged twice")
            numbers.add(number)
        return len(numbers)

    def put_aside(self) -> None:
        """Check I10: each poison and each repeated id is one dead letter, of the right code."""
        letters: dict[tuple[int, int], str] = {}
        for partition, found in self.letters.items():
            for _, value in found:
                letter = json.loads(value or b"null")
                place = (letter["partition"], letter["offset"])
                demand("I10", place not in letters, f"{place}: two letters")
                demand("I10", letter["partition"] == partition, f"{place} lies in {partition}")
                letters[place] = letter["code"]
        for partition, found in self._raw.items():
            for offset, value in found:
                code = letters.pop((partition, offset), None)
                if value in CODES:
                    demand("I10", code == CODES[value], f"{partition}/{offset}: {code}")
                else:
                    demand("I10", code in (None, "duplicate_id"), f"{partition}/{offset}: {code}")
        demand("I10", not letters, f"letters of no event: {list(letters)[:5]}")

    def settled(self) -> None:
        """Check I5: nothing is left open, so all readers see the same end."""
        for stage in ("predictions", "dead-letter", "ledger", "metrics", "drift"):
            topic = f"{self._task}.{stage}"
            stable = ends(self._bootstrap, topic, committed=True)
            last = ends(self._bootstrap, topic, committed=False)
            demand("I5", stable == last, f"{topic}: {stable} of {last}")

    def never_taken_back(self, witness: Witness) -> None:
        """Check I7: what was read during the faults is what stands there first."""
        topics = {"predictions": self.predictions, "ledger": {0: self.ledger}}
        for stage, partitions in topics.items():
            for partition, found in partitions.items():
                seen = witness.seen.get((f"{self._task}.{stage}", partition), [])
                pairs = [Found(each.offset, each.value) for each in seen]
                same = pairs == found[: len(pairs)]
                demand("I7", same, f"{stage}/{partition}: another story, {len(pairs)} seen")


def _kind(value: bytes | None, ids: set[Any]) -> str:
    """Say what has to become of an event that comes after those with `ids`; adds its own."""
    if value in CODES:
        return "rejected"
    found = json.loads(value or b"")["id"]
    if found in ids:
        return "repeated"
    ids.add(found)
    return "used"

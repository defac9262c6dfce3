"""The judge: reads what is in Kafka with another client, and believes nothing that is said there.

I1 no loss, I2 no double, I3 the same state, I4 predictions as the ledger says, I5 no transaction
left open, I6 a ledger without a gap or a break, I7 what was seen was never taken back, I10 poison
is put aside once, I11 late labels are accounted for. Nothing of `stream` is used here: formats are
read as they are documented.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.stream.kafka.connection import KafkaConnection
from tests.faults.labels import Label, LabelJudge, Topic, Used, topic_of
from tests.faults.reading import Raw, by_offset, ends, read
from tests.faults.traffic import Witness
from tests.support.events import POISON

CHAIN = re.compile(rb',"chain":"([0-9a-f]{64})"\}\Z')
CODES = {raw: code for raw, code in POISON.values()}


class Violation(AssertionError):
    """Report an invariant that does not hold; `name` is I1 to I11."""

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
    labels: list[tuple[int, Label]] = field(default_factory=list)  # late ones, each with how many
    # of the events come before it


def newest_state(state: Path, task: str) -> tuple[int, str]:
    """Return record and digest of the newest checkpoint, as its manifest says them."""
    manifests = [
        json.loads(path.read_bytes())["manifest"] for path in (state / task).glob("*/*.json")
    ]
    assert manifests, f"no checkpoint below {state / task}"
    newest = max(manifests, key=lambda manifest: manifest["seq"])
    return newest["seq"], newest["state"]


Expect = Callable[[bytes | None], str | None]


class Oracle:
    """Judge one run of one task, from its outputs and from what producers were told.

    Args:
        raws: what stood in the raw topic, and in those of the same name before it; default: what
            stands there now.
        expect: gives the code that an event has to be refused with; None for a good one.
        labels: the topic of late labels, if there is one.
        label_topics: as `raws`, of that.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        task: str,
        topic: str,
        raws: list[Raw] | None = None,
        expect: Expect = CODES.get,
        labels: str | None = None,
        label_topics: list[Topic] | None = None,
    ) -> None:
        self._kafka, self._task, self._expect = kafka, task, expect
        self._labels, self._label_topics = labels, label_topics
        events = read(kafka, topic)
        self._raws = raws or [by_offset(events)]
        self._times_ms = {p: {each.offset: each.time_ms for each in f} for p, f in events.items()}
        self.ledger = read(kafka, f"{task}.ledger")[0]
        self.predictions = read(kafka, f"{task}.predictions")
        self.letters = read(kafka, f"{task}.dead-letter")

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
        for place, (_, raw, _) in enumerate(self.ledger):
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
        raws, said = iter(self._raws), self._lines()
        raw: Raw = {}
        position: dict[int, int] = {}
        ids: set[Any] = set()
        judge = self._label_judge() if self._labels else None
        for record in records:
            predicted: list[tuple[int, Used, bytes, Any]] = []  # when it came, running on
            if "begins" in record.get("opening", ()):
                self._all_taken(raw, position)
                raw, begins = next(raws), record["opening"]["begins"]
                position = {int(p): at for p, at in begins.items()}
            counts: Counter[str] = Counter()
            digest = hashlib.sha256()
            for partition, start, stop, used in record.get("consumed", ()):
                where = f"record {record['seq']}, partition {partition}"
                demand(
                    "I6",
                    position.get(partition, 0) == start < stop,
                    f"{where}: {start}..{stop} after {position.get(partition, 0)}",
                )
                position[partition] = stop
                before, arrived_ms = counts["used"], 0
                for offset in range(start, stop):
                    demand("I1", offset in raw[partition], f"{where}: no event at {offset}")
                    value = raw[partition][offset]
                    kind = self._kind(value, ids)
                    counts[kind] += 1
                    line = said[partition].take(offset, where, wanted=kind == "used")
                    if line is None:
                        continue
                    digest.update(line)
                    event = json.loads(value or b"")
                    wanted, at_ms = event["id"], self._times_ms.get(partition, {}).get(offset, 0)
                    arrived_ms = max(arrived_ms, at_ms)
                    used_event = Used(wanted, at_ms, event.get("label"))
                    predicted.append((arrived_ms, used_event, value or b"", json.loads(line)))
                    demand("I2", predicted[-1][-1]["id"] == wanted, f"{where}: not {wanted}")
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
            if judge:  # with late labels they are learned in the order in which they came
                predicted.sort(key=lambda each: each[0])
                judge.take(record, [event for _, event, _, _ in predicted])
            verdict.raw += [raw_event for _, _, raw_event, _ in predicted]
            verdict.lines += [line for *_, line in predicted]
            verdict.events += sum(counts.values())
            verdict.used += counts["used"]
            verdict.rejected += counts["rejected"]
            verdict.repeated += counts["repeated"]
            verdict.duplicates += record.get("duplicates", 0)
            verdict.healed += record.get("healed", 0)
        left = {p: lines.left() for p, lines in said.items() if lines.left()}
        demand("I2", not left, f"predictions that no record speaks of: {left}")
        self._all_taken(raw, position)
        demand("I1", next(raws, None) is None, "a topic of that name was never learned")
        if judge:
            judge.end()
            verdict.labels = judge.placed
            self._letters_of_labels(judge)
        if acks:
            verdict.acknowledged = self._acknowledged(raw, position, acks)
        return verdict

    def _label_judge(self) -> LabelJudge:
        topics = self._label_topics or [topic_of(self._kafka, self._labels or "")]
        return LabelJudge(topics, demand)

    def _letters_of_labels(self, judge: LabelJudge) -> None:
        """Check that each label that was refused is one dead letter, of the right code."""
        letters = [json.loads(v or b"null") for f in self.letters.values() for _, v, _ in f]
        found = Counter(
            (each["partition"], each["offset"], each["code"])
            for each in letters
            if each["topic"] == self._labels
        )
        demand("I11", found == judge.letters, f"{found - judge.letters} {judge.letters - found}")

    def _all_taken(self, raw: Raw, position: dict[int, int]) -> None:
        for partition, found in raw.items():
            end, at = max(found, default=-1) + 1, position.get(partition, 0)
            demand("I1", at == end, f"{partition}: {end - at}")

    def _kind(self, value: bytes | None, ids: set[Any]) -> str:
        """Return what has to become of an event that comes after those with `ids`; adds its own."""
        if self._expect(value):
            return "rejected"
        found = _identity(value)
        if found in ids:
            return "repeated"
        ids.add(found)
        return "used"

    def _lines(self) -> dict[int, Lines]:
        """Return the predictions of each partition, in their order."""
        for partition, found in self.predictions.items():
            for _, value, _ in found:
                line = json.loads(value or b"null")
                demand("I2", line["partition"] == partition, f"{line} lies in {partition}")
        return {p: Lines([value or b"" for _, value, _ in f]) for p, f in self.predictions.items()}

    def _acknowledged(self, raw: Raw, position: dict[int, int], acks: Path) -> int:
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
        codes: dict[tuple[int, int], list[str]] = {}
        for partition, found in self.letters.items():
            for _, value, _ in found:
                letter = json.loads(value or b"null")
                if letter["topic"] == self._labels:
                    continue
                demand("I10", letter["partition"] == partition, f"{letter} lies in {partition}")
                codes.setdefault((partition, letter["offset"]), []).append(letter["code"])
        for raw in self._raws:
            for partition, events in raw.items():
                for offset, value in events.items():
                    letters = codes.get((partition, offset), [])
                    code, where = self._expect(value), f"{partition}/{offset}"
                    if code:
                        demand("I10", code in letters, f"{where}: {letters}, not {code}")
                        letters.remove(code)
                    elif "duplicate_id" in letters:
                        letters.remove("duplicate_id")
        left = {place: letters for place, letters in codes.items() if letters}
        demand("I10", not left, f"letters of no event: {left}")

    def settled(self) -> None:
        """Check I5: nothing is left open, so all readers see the same end."""
        late = ["expired"] if self._labels else []
        for stage in ("predictions", "dead-letter", "ledger", "metrics", "drift", *late):
            topic = f"{self._task}.{stage}"
            stable = ends(self._kafka, topic, committed=True)
            last = ends(self._kafka, topic, committed=False)
            demand("I5", stable == last, f"{topic}: {stable} of {last}")

    def never_taken_back(self, witness: Witness) -> None:
        """Check I7: what was read during the faults is what stands there first."""
        topics = {"predictions": self.predictions, "ledger": {0: self.ledger}}
        for stage, partitions in topics.items():
            for partition, found in partitions.items():
                seen = witness.seen.get((f"{self._task}.{stage}", partition), [])
                pairs = [(each.offset, each.value) for each in seen]
                same = pairs == [(each.offset, each.value) for each in found[: len(pairs)]]
                demand("I7", same, f"{stage}/{partition}: another story, {len(pairs)} seen")


class Lines:
    """Hold the predictions of one partition, to be taken one after the other."""

    def __init__(self, values: list[bytes]) -> None:
        self._values, self._place = values, 0
        self._offsets = [json.loads(value)["offset"] for value in values]

    def take(self, offset: int, where: str, *, wanted: bool) -> bytes | None:
        """Return the next one, which has to be of this offset; none may be, unless it is wanted."""
        following = self._offsets[self._place] if self.left() else None
        if not wanted:
            demand("I2", following != offset, f"{where}: {offset} was predicted, and should not be")
            return None
        if following != offset:
            later = offset in self._offsets[self._place :]
            demand("I1", later, f"{where}: no prediction for {offset}")
            raise Violation("I2", f"{where}: {following} was predicted before {offset}")
        self._place += 1
        return self._values[self._place - 1]

    def left(self) -> int:
        """Count those that nobody took."""
        return len(self._values) - self._place


def _identity(value: bytes | None) -> Any:
    return json.loads(value or b"")["id"]

"""Where a learner's rows come from: raw events, or the normaliser's rows with their gaps healed.

Both give the same rows in the same order: by raw partition, then by raw offset, without a gap and
without a repetition. What a micro-batch took is told in raw offsets, so history can be read again
from the raw topic however it was read the first time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import msgspec

from headrace.stream.errors import InDoubtError, RecoveryError
from headrace.stream.events import DeadLetter, Feature, Records
from headrace.stream.formats.new_fields import NewFields
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.held import Newest
from headrace.stream.kafka.history import Range, TopicHistory
from headrace.stream.kafka.merged import MergedSource
from headrace.stream.kafka.source import Source
from headrace.stream.kafka.watch import TopicWatch
from headrace.stream.ledger.position import Offsets, advance, move
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import Rows, rows_of
from headrace.stream.service.tracing import step
from headrace.stream.task import Task

ASK_S = 0.05
_UNSEEN: Mapping[str, Any] = {}


class MicroBatch(NamedTuple):
    """Hold what one micro-batch took from the stream."""

    ranges: list[Range]  # of raw offsets; each begins where the last one of its partition ended
    rows: Rows
    letters: list[DeadLetter]  # to be published by the learner
    rejected: int  # events without a row, whoever publishes their letters
    duplicates: int = 0  # rows that came again
    healed: int = 0  # events whose row never came
    reading: Offsets = {}  # noqa: RUF012  where to read on in the features topic
    newest_ms: int = 0  # Kafka's timestamp of the newest event, where labels have their own topic


class RowSource(Protocol):
    """Take micro-batches from a stream.

    Attributes:
        fields: watches the events that are decoded here.
        non_finite: how many NaN and Infinity were read as missing in them.
    """

    fields: NewFields

    @property
    def non_finite(self) -> int: ...

    def take(self, most: int, timeout_s: float) -> MicroBatch | None:
        """Take up to `most` events; None when nothing came in time."""
        ...

    def pass_over(self) -> list[Range]:
        """Return offsets that hold no event, as markers of transactions do, up to the end."""
        ...

    @property
    def complete_ms(self) -> float:
        """Return Kafka's timestamp up to which no event of any partition is still to be taken.

        It is infinite once all was taken that is known to be there.
        """
        ...

    def lag(self) -> int:
        """Count what is known to wait."""
        ...

    def ends(self) -> Offsets:
        """Ask where the topic ends now."""
        ...

    def reached(self, ends: Offsets) -> bool:
        """Return whether everything before `ends` was taken."""
        ...

    def close(self) -> None:
        """Leave the broker."""
        ...


class EventSource:
    """Take raw events and normalise them here, without the intermediate topic.

    Args:
        positions: raw offsets up to which everything was taken; the first range begins there.
        starts: where to read on; later than `positions` where events were deleted.
        watch: of the raw topic.
        fields: state of `fields`.
    """

    def __init__(
        self,
        task: Task,
        kafka: KafkaConnection,
        positions: Offsets,
        starts: Offsets,
        watch: TopicWatch | None = None,
        fields: Mapping[str, Any] = _UNSEEN,
    ) -> None:
        self._normalizer, self.fields = Normalizer(task), NewFields(task, fields)
        source = kafka.source(
            task.input.topic,
            offsets=starts,
            timestamps=self._normalizer.needs_timestamps,
            watch=watch,
        )
        self._source: Source | MergedSource = MergedSource(source) if task.labels else source
        self._positions = dict(positions)
        self.lag, self.ends, self.close = self._source.lag, self._source.ends, self._source.close

    @property
    def non_finite(self) -> int:
        """Return how many NaN and Infinity, which are no JSON, were read as missing so far."""
        return self._normalizer.non_finite

    def take(self, most: int, timeout_s: float) -> MicroBatch | None:
        """Take what is there."""
        with step("poll"):
            records = self._source.poll(most, timeout_s)
        if records is None:
            return None
        ranges = advance(self._positions, records)
        with step("decode"):
            rows, letters = self._normalizer.normalize(records)
        self.fields.add(records.values)
        newest_ms = max(records.timestamps_ms, default=0)
        return MicroBatch(ranges, rows, letters, len(letters), newest_ms=newest_ms)

    def pass_over(self) -> list[Range]:
        """Return the offsets between the last event of a partition and its end."""
        return move(self._positions, {p: self._source.position[p] for p in self._source.ended})

    @property
    def complete_ms(self) -> float:
        """Return Kafka's timestamp up to which all was taken; see `RowSource`."""
        return self._source.complete_ms if isinstance(self._source, MergedSource) else math.inf

    def reached(self, ends: Offsets) -> bool:
        """Return whether everything before `ends` was taken."""
        return all(self._source.position[p] >= end for p, end in ends.items())


class FeatureSource:
    """Take rows that the normaliser made: each once, and those that never came from the events.

    The normaliser is at-least-once and writes one record for each raw record, so an offset that
    comes again is dropped, and one that is left out is read from the raw topic and normalised here,
    if there is an event at all: transactions and compaction leave offsets without one. The raw
    topic is read beside the rows, each event once, from the first offset that is left out.
    A record that is not a row of this task (another version's, a stranger's) counts as left out.

    Args:
        positions, starts, fields: as for `EventSource`; rows tell no fields.
        reading: where to read on in the features topic.
        identity: the id of the features topic; "" takes the one that is there.
    """

    def __init__(
        self,
        task: Task,
        kafka: KafkaConnection,
        positions: Offsets,
        starts: Offsets,
        reading: Offsets,
        identity: str = "",
        fields: Mapping[str, Any] = _UNSEEN,
    ) -> None:
        self._task, self._kafka = task, kafka
        self._asked_s, self._raw_ends = -math.inf, dict[int, int]()  # of the raw topic
        self._normalizer, self.fields = Normalizer(task), NewFields(task, fields)
        self._decode: Any = msgspec.msgpack.Decoder(Feature).decode
        features = task.output("features")
        watch = kafka.watch(features, identity)
        self._source = kafka.source(features, offsets=reading, or_later=True, watch=watch)
        self._raw = TopicHistory(kafka, task.input.topic)
        spec = task.spec
        self._sizes = (8 * spec.numeric, 4 * spec.ids, 8, spec.pixels)
        self._positions = dict.fromkeys(self._source.partitions, 0) | positions
        self._looked = self._positions | starts  # raw offsets up to which nothing is left to heal
        self._reading = dict(self._source.position)
        self._waiting = Records(task.output("features"), [], [], [], [], [])
        self._place = 0  # of the first record that waits
        self._duplicates = 0  # dropped since the last micro-batch
        self._newest = Newest()
        self.lag, self.ends = self._source.lag, self._source.ends

    @property
    def non_finite(self) -> int:
        """Return how many NaN and Infinity, which are no JSON, were read as missing so far."""
        return self._normalizer.non_finite

    def take(self, most: int, timeout_s: float) -> MicroBatch | None:
        """Take rows up to the next lost one; or the events whose rows were lost there."""
        if self._place == len(self._waiting.values):
            try:
                with step("poll"):
                    records = self._source.poll(most, timeout_s)
            except RecoveryError as error:  # its rows are read again from their beginning
                raise InDoubtError(f"{self._source.topic} was made again: start again") from error
            if records is None:
                self._reading.update(self._source.position)
                return None
            self._waiting, self._place = records, 0
        fresh: list[tuple[Feature, bytes | None]] = []
        lost = None
        values, keys, partitions, offsets = self._waiting[1:5]
        for place in range(self._place, len(values)):
            feature = self._row(values[place])
            if feature is not None:
                at, offset = feature.partition, feature.offset
                looked = self._looked_up_to(at, offset)
                if offset > looked and self._raw.reaches(at, offset):
                    gap = Range(at, looked, offset)
                    if fresh and not self._raw.fetched(gap):
                        break  # what is in hand need not wait for the raw topic
                    looked = self._raw.first(gap)
                    if looked < offset:
                        lost = Range(at, looked, min(offset, looked + most))
                        break
                if offset == looked:
                    self._looked[at] = offset + 1
                    fresh.append((feature, keys[place]))
                elif offset < looked:
                    self._duplicates += 1
            self._reading[partitions[place]] = offsets[place] + 1
        else:
            place = len(values)
        self._place = place
        return self._heal(lost) if lost and not fresh else self._batch(fresh)

    def pass_over(self) -> list[Range]:
        """Return the offsets behind the last event of a partition: if no event is among them."""
        found = []
        for partition, start in sorted(self._positions.items()):
            if self._raw.reaches(partition, start):
                gap = Range(partition, start, self._raw.end(partition))
                if self._raw.first(gap) == gap.stop:
                    self._positions[partition] = self._looked[partition] = gap.stop
                    found.append(gap)
        return found

    @property
    def complete_ms(self) -> float:
        """Return Kafka's timestamp up to which all was taken; see `RowSource`."""
        behind = {*self._waiting.partitions[self._place :]}  # rows lie beside their events
        behind |= set(self._source.partitions) - self._source.ended
        return self._newest.complete_ms(behind or self._without_rows())

    def _without_rows(self) -> set[int]:
        """Return the raw partitions of which events have no row yet, as far as is known."""
        if time.monotonic() - self._asked_s > ASK_S:
            self._asked_s, self._raw_ends = time.monotonic(), self._raw_source.ends()
        return {p for p, end in self._raw_ends.items() if end > self._looked.get(p, 0)}

    @cached_property
    def _raw_source(self) -> Source:
        return self._kafka.source(self._task.input.topic)

    def reached(self, ends: Offsets) -> bool:
        """Return whether everything before `ends` was taken."""
        return self._place == len(self._waiting.values) and all(
            self._source.position[p] >= end for p, end in ends.items()
        )

    def close(self) -> None:
        """Leave the broker."""
        self._source.close()
        self._raw.close()
        if "_raw_source" in vars(self):
            self._raw_source.close()

    def _looked_up_to(self, partition: int, offset: int) -> int:
        """Return the offset that is next to be healed; one that was added begins at 0."""
        if partition not in self._looked:
            if not self._raw.reaches(partition, offset):
                return offset + 1  # the row of an event that never was
            self._looked[partition] = 0
        return self._looked[partition]

    def _row(self, raw: bytes | None) -> Feature | None:
        """Decode a record; None for what is no row of this task."""
        try:
            feature: Feature = self._decode(raw or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        if feature.topic != self._task.input.topic:
            return None
        columns = (feature.numeric, feature.ids, feature.entity, feature.image)
        sizes = tuple(map(len, columns))
        return feature if feature.reject or sizes == self._sizes else None

    def _heal(self, lost: Range) -> MicroBatch:
        """Normalise events whose rows never came."""
        records = self._raw.read([lost])
        self._looked[lost.partition] = lost.stop
        rows, letters = self._normalizer.normalize(records)
        self._newest.add(records.partitions, records.timestamps_ms)
        return MicroBatch(
            advance(self._positions, records),
            rows,
            letters,
            len(letters),
            self._dropped(),
            len(records.values),
            dict(self._reading),
            max(records.timestamps_ms, default=0),
        )

    def _dropped(self) -> int:
        """Return, once, how many rows were dropped since the last micro-batch."""
        dropped, self._duplicates = self._duplicates, 0
        return dropped

    def _batch(self, fresh: list[tuple[Feature, bytes | None]]) -> MicroBatch | None:
        if not fresh and not self._duplicates:
            return None
        fresh.sort(key=lambda pair: pair[0].partition)  # stable: offsets ascend within each
        features = [feature for feature, _ in fresh]
        ranges: list[Range] = []
        for feature in features:
            start = self._positions.get(feature.partition, 0)
            self._positions[feature.partition] = feature.offset + 1
            if ranges and ranges[-1].partition == feature.partition:
                start = ranges.pop().start
            ranges.append(Range(feature.partition, start, feature.offset + 1))
        with step("decode"):
            rows = rows_of(self._task, features, [key for _, key in fresh])
        rejected = len(features) - len(rows.id)
        arrived_ms = [feature.arrived_ms for feature in features]
        self._newest.add([feature.partition for feature in features], arrived_ms)
        newest_ms = max(arrived_ms, default=0)
        reading = dict(self._reading)
        return MicroBatch(ranges, rows, [], rejected, self._dropped(), 0, reading, newest_ms)

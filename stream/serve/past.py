"""What a topic held at a past moment: from Kafka, and from an archive where it is there no more."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

from headrace.stream.archive.reader import ArchiveHistory
from headrace.stream.errors import HistoryError
from headrace.stream.events import Records
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import Range

READ = 5_000
WAIT_S = 0.2
STRIDE = 64  # offsets that are looked at for a time; some hold no record


class PastTopic:
    """Read one topic as it was.

    Args:
        archive: where `headrace archive` keeps topics; None: nowhere.
    """

    def __init__(self, kafka: KafkaConnection, topic: str, archive: str | None) -> None:
        self._kafka, self._topic, self._archived = kafka, topic, _archive_of(topic, archive)

    def first_ms(self) -> int | None:
        """Return the time of the oldest record that is held; None without any.

        Raises:
            HeadraceError: Kafka does not answer, or the archive is damaged.
        """
        found = [self._oldest_ms()]
        if self._archived:
            for partition, begin in self._archived.begins().items():
                records = self._archived.read([Range(partition, begin, begin + 1)])
                found += records.timestamps_ms
        return min((each for each in found if each is not None), default=None)

    def newest(self, moment_ms: int, most: int, give_up_s: float) -> Records:
        """Return the newest records of each partition that were there at a moment, `most` of each.

        Args:
            give_up_s: of the monotonic clock, when to return what was read so far.

        Raises:
            HeadraceError: Kafka does not answer, or the archive is damaged.
        """
        with closing(self._kafka.source(self._topic)) as probe:
            begins, stops = probe.begins, probe.ends() | probe.offsets_for_time(moment_ms + 1)
        found: list[list[Any]] = [[], [], [], [], []]
        starts = {}
        for partition, stop in stops.items():
            begin = begins[partition]
            if stop <= begin:
                stop = stops[partition] = self._archived_stop(partition, moment_ms, begin)
            starts[partition] = max(stop - most, 0)
            if starts[partition] < begin:
                _add(found, self._from_archive(partition, starts[partition], min(stop, begin)))
        starts = {at: max(start, begins[at]) for at, start in starts.items()}
        if any(starts[at] < stop for at, stop in stops.items()):
            for records in self._from_kafka(starts, stops, give_up_s):
                _add(found, records)
        kept = [at for at, time_ms in enumerate(found[-1]) if time_ms <= moment_ms]
        columns: list[Any] = [[column[at] for at in kept] for column in found]
        return Records(self._topic, *columns)

    def close(self) -> None:
        """Let go of the archive."""
        if self._archived:
            self._archived.close()

    def _oldest_ms(self) -> int | None:
        with closing(self._kafka.source(self._topic, or_later=True, timestamps=True)) as source:
            while any(source.position[at] < end for at, end in source.ends().items()):
                if records := source.poll(1, WAIT_S):
                    return records.timestamps_ms[0]
        return None

    def _from_kafka(
        self, starts: dict[int, int], stops: dict[int, int], give_up_s: float
    ) -> list[Records]:
        found = []
        with closing(
            self._kafka.source(self._topic, offsets=starts, or_later=True, timestamps=True)
        ) as source:
            while any(source.position[at] < stop for at, stop in stops.items()):
                if time.monotonic() > give_up_s:
                    break
                if records := source.poll(READ, WAIT_S):
                    found.append(records)
        return found

    def _from_archive(self, partition: int, start: int, stop: int) -> Records:
        """Return what an archive has of a range."""
        if self._archived:
            begin = self._archived.begins().get(partition, stop)
            end = self._archived.ends().get(partition, 0)
            start, stop = max(start, begin), min(stop, end)
            if start < stop:
                return self._archived.read([Range(partition, start, stop)])
        return Records(self._topic, [], [], [], [], [])

    def _archived_stop(self, partition: int, moment_ms: int, begin: int) -> int:
        """Return the offset before which an archive holds what was there at a moment."""
        low = self._archived.begins().get(partition, 0) if self._archived else begin
        high = min(self._archived.ends().get(partition, 0), begin) if self._archived else begin
        while low < high:
            middle = (low + high) // 2
            stop = middle
            records = Records(self._topic, [], [], [], [], [])
            while stop < high and not records.offsets:
                start, stop = stop, min(stop + STRIDE, high)
                records = self._from_archive(partition, start, stop)
            if not records.offsets or records.timestamps_ms[0] > moment_ms:
                high = middle
            else:
                low = records.offsets[0] + 1
        return high


def _archive_of(topic: str, place: str | None) -> ArchiveHistory | None:
    if place:
        with suppress(HistoryError):
            return ArchiveHistory(place, topic)
    return None


def columns_of(records: Records | None) -> list[list[Any]]:
    """Return values, keys, partitions, offsets and timestamps of records; of None, nothing."""
    if records is None:
        return [[], [], [], [], []]
    columns: list[list[Any]] = [*records[1:]]
    return columns


def _add(columns: Sequence[list[Any]], records: Records) -> None:
    for column, part in zip(columns, columns_of(records), strict=True):
        column += part

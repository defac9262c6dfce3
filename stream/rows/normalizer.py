"""Turn raw events into rows: pure functions, the same bits in the normaliser and in the learner.

Every step works on each event alone, so that rows do not depend on how events are batched. What
depends on other events (lags, scaling, open predictions) belongs to the learner's state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.model.encoders import ENCODERS
from headrace.stream.errors import TaskError
from headrace.stream.events import DeadLetter, Feature, Records, Reject, dead_letter
from headrace.stream.formats.codec import Codec
from headrace.stream.formats.scalars import scalar_text
from headrace.stream.formats.times import day_or_month_first, times_ms, unix_ms
from headrace.stream.rows import frozen
from headrace.stream.rows.calendar import calendar
from headrace.stream.rows.classes import NEW_CLASS, ClassIndex
from headrace.stream.rows.encoding import encode
from headrace.stream.rows.hashing import Hasher, hash_key
from headrace.stream.rows.ids import no_ids, whole
from headrace.stream.rows.numbers import LARGEST, float64, inverse_propensities, weights
from headrace.stream.rows.rows import Rows, take
from headrace.stream.rows.texts import Texts, truths
from headrace.stream.rows.units import conversion
from headrace.stream.task import Task, plugins
from headrace.stream.task.features import Aggregate, Category, Encoded, Image, Number, Text
from headrace.stream.task.origin import names_the_file
from headrace.stream.task.schema import LONGEST_ID, LONGEST_KEY
from headrace.stream.task.target import LONGEST_CLASS

EXCLUDED = "excluded"


class Normalizer:
    """Normalise the events of one task; `normalize(records)` is a pure function."""

    @names_the_file
    def __init__(self, task: Task) -> None:
        self._task = task
        self._spec = task.spec
        self._codec = Codec(task)
        self._timed = task.input.time is not None
        self._entities = task.input.entity is not None
        source = task.input
        self._weighted, self._chosen = source.weight is not None, source.propensity is not None
        self._excluded = frozenset(task.input.exclude)
        self._numbers = task.of_kind(Number)
        self._categories: dict[str, Category] = task.of_kind(Category)
        self._crosses = [(names, [*map(task.single.index, names)]) for names in task.cross]
        self._images: dict[str, Image] = task.of_kind(Image)
        self._texts: dict[str, Text] = task.of_kind(Text)
        plugins.load(task, ENCODERS)
        self._encoded: dict[str, Encoded] = task.of_kind(Encoded)
        self._encoders = {
            name: (ENCODERS[each.encoder] if isinstance(each, Encoded) else frozen.load(name, each))
            for name, each in task.encoded.items()
        }
        numbers = [*self._numbers]
        self._aggregated = [
            numbers.index(each.of) if each.of in self._numbers else None
            for each in task.of_kind(Aggregate).values()
        ]
        self._classes = ClassIndex(task.target.classes)
        self._window_ms = [t.timestamp() * 1000 for t in (task.input.earliest, task.input.latest)]
        self._texts_of = {name: Texts(name, each) for name, each in self._numbers.items()}
        self._label_texts = Texts("label", task.target)
        self._units = [conversion(name, number) for name, number in self._numbers.items()]
        try:
            self._hasher = Hasher(hash_key(task))
        except OSError as error:
            raise TaskError(
                f"hash_key_file = {task.hash_key_file}: cannot be read: {error.strerror}"
            ) from error

    @property
    def needs_timestamps(self) -> bool:
        """Return whether records have to carry Kafka's timestamps.

        They are the time of events of which no other is mapped, and tell which labels came before.
        """
        return not self._timed or self._task.labels is not None

    @property
    def non_finite(self) -> int:
        """Return how many NaN and Infinity, which are no JSON, were read as missing so far."""
        return self._codec.non_finite

    def normalize(self, records: Records) -> tuple[Rows, list[DeadLetter]]:
        """Return a row for each good event and a dead letter for each other, both in order."""
        columns, refused = self._codec.decode_all(records.values)
        places: Sequence[int] = range(len(records.values))
        if refused:
            places = [place for place in places if place not in refused]
        rows, bad = self._rows(columns, places, records)
        if bad:
            refused |= {places[at]: reject for at, reject in bad.items()}
            rows = take(rows, [at for at in range(len(places)) if at not in bad])
        return rows, [self._dead(records, place, refused[place]) for place in sorted(refused)]

    def numbers(self, records: Records, places: Sequence[int]) -> NDArray[np.float64]:
        """Return the numbers of good events as they came, f64[n, N]: NaN is none.

        Args:
            places: of the good events in the records.
        """
        columns, _ = self._codec.decode_all([records.values[place] for place in places])
        first = 2 + self._entities + self._timed + self._weighted + self._chosen
        numbers = columns[first:][: len(self._numbers)]
        found = [
            float64(texts.read(column, {}))
            for texts, column in zip(self._texts_of.values(), numbers, strict=True)
        ]
        return np.array(found).reshape(len(self._numbers), len(columns[0])).T

    def features(self, records: Records) -> tuple[list[Feature], list[DeadLetter]]:
        """Return one `features` record for each raw record, in order, and the dead letters."""
        rows, dead = self.normalize(records)
        refused = {(letter.partition, letter.offset): letter.code for letter in dead}
        topic, found = records.topic, []
        row = 0
        for partition, offset in zip(records.partitions, records.offsets, strict=True):
            code = refused.get((partition, offset))
            if code is not None:
                found.append(Feature(topic, partition, offset, reject=code))
                continue
            found.append(
                Feature(
                    topic,
                    partition,
                    offset,
                    id=rows.id[row],
                    time_ms=int(rows.time_ms[row]),
                    label=float(rows.label[row]),
                    new_class=rows.new_class[row],
                    numeric=rows.numeric[row].tobytes(),
                    ids=rows.ids[row].tobytes(),
                    entity=rows.entity[row].tobytes(),
                    image=rows.image[row].tobytes(),
                    weight=float(rows.weight[row, 0]) if self._spec.weighted else 1.0,
                    arrived_ms=int(rows.arrived_ms[row]),
                )
            )
            row += 1
        return found, dead

    def _rows(
        self, columns: list[Sequence[Any]], places: Sequence[int], records: Records
    ) -> tuple[Rows, dict[int, Reject]]:
        """Build the rows of decoded events, those that are wrong too: told by place in them."""
        take_next, count = iter(columns).__next__, len(places)
        ids, labels = whole(take_next()), take_next()
        entities = take_next() if self._entities else ()
        times: Sequence[Any] = take_next() if self._timed else _at(places, records.timestamps_ms)
        told = take_next() if self._weighted else [None] * (count * self._spec.weighted)
        keys = _at(places, records.keys)
        bad: dict[int, Reject] = {}
        for at, key in enumerate(keys):
            if key is not None and len(key) > LONGEST_KEY:
                detail = f"a key of {len(key)} bytes, expected at most {LONGEST_KEY}"
                bad[at] = Reject("too_large", detail)
        for at in no_ids(ids):
            expected = f"1 to {LONGEST_ID} characters, or a whole number of 64 bits"
            bad[at] = Reject("id", f"{str(ids[at])[:40]!r}: expected {expected}")
        time_ms = self._times(times, bad)
        weight = weights(told, bad).reshape(count, int(self._spec.weighted))
        if self._chosen:
            weight *= inverse_propensities(take_next(), bad)[:, None]
        label, new_class = self._labels(labels, bad)
        numeric = self._numeric(
            [texts.read(take_next(), bad) for texts in self._texts_of.values()], count
        )
        categories: list[Sequence[Any]] = [
            truths(take_next()) if each.boolean else take_next()
            for each in self._categories.values()
        ]
        values = {name: take_next() for name in (*self._images, *self._texts, *self._encoded)}
        image = self._pixels(values, count, bad)
        hashed = self._hashed(categories, [values[name] for name in self._texts], count)
        encoded = [
            encode(name, encoder, self._task.encoded[name].numbers, values[name], bad)
            for name, encoder in self._encoders.items()
        ]
        for at, value in enumerate(entities if self._excluded else ()):
            if (text := scalar_text(value)) in self._excluded:
                bad[at] = excluded(text)
        entity = np.zeros((count, 2), np.uint32)
        if entities:
            entity[:] = list(map(self._hasher.entity, entities))
        later = np.full((count, len(self._aggregated)), np.nan)
        for at, source in enumerate(self._aggregated):
            if source is not None:
                later[:, at] = numeric[:, source]
        rows = Rows(
            id=ids,
            key=keys,
            partition=_at(places, records.partitions),
            offset=_at(places, records.offsets),
            time_ms=time_ms,
            numeric=np.concatenate(
                [numeric, *encoded, calendar(self._task.calendar, time_ms), later], 1
            ),
            ids=hashed,
            entity=entity,
            label=label,
            new_class=new_class,
            image=image,
            weight=weight,
            arrived_ms=_arrived(places, records),
        )
        return rows, bad

    def _times(self, times: Sequence[Any], bad: dict[int, Reject]) -> NDArray[np.int64]:
        first, last = self._window_ms
        if not self._timed:
            found = np.array(times, np.float64)  # Kafka's are milliseconds
        elif set(map(type, times)) == {float}:
            found = unix_ms(np.array(times))
        else:
            found = times_ms(times, self._task.input.dayfirst)
        wrong = ~((first <= found) & (found < last))  # also NaN
        for at in np.flatnonzero(wrong).tolist():
            text = str(times[at])[:40]
            told = ""
            if self._task.input.dayfirst is None and day_or_month_first(text):
                told = "; whether the day or the month is first, input.dayfirst says"
            bad[at] = Reject(
                "time",
                f"{text!r}: expected RFC 3339 or Unix time from "
                f"{self._task.input.earliest:%Y-%m-%d} to {self._task.input.latest:%Y-%m-%d}{told}",
            )
        return np.where(wrong, 0, found).astype(np.int64)

    def _labels(
        self, labels: Sequence[Any], bad: dict[int, Reject]
    ) -> tuple[NDArray[np.float64], list[str | None]]:
        """Return classes by their index, and the names of those that have none yet; or numbers."""
        new: list[str | None] = [None] * len(labels)
        if self._task.target.kind == "regress":
            found = float64(self._label_texts.read(labels, bad))
            for at in np.flatnonzero(np.abs(found) > LARGEST).tolist():
                bad[at] = Reject(
                    "number", f"label {float(found[at])!r}: expected |x| <= {LARGEST:g}"
                )
            return found.clip(-LARGEST, LARGEST) + 0.0, new  # -0 is 0
        found = np.array(self._classes.find_all(labels), np.float64)
        for at in np.flatnonzero(found == NEW_CLASS).tolist():
            name = scalar_text(labels[at])
            if self._spec.open_classes and 0 < len(name.encode()) <= LONGEST_CLASS:
                new[at] = name
                continue
            expected = f"1 to {LONGEST_CLASS} bytes as a class's name"
            if not self._spec.open_classes:
                expected = f"one of {', '.join(self._task.target.classes[:10])}"
            bad[at] = Reject("label", f"{name[:40]!r}: expected {expected}")
        return found, new

    def _numeric(self, columns: list[Sequence[Any]], count: int) -> NDArray[np.float64]:
        """Convert units; missing and impossible readings become NaN, and so do absurd numbers."""
        values = np.empty((len(columns), count), np.float64)
        for row, column in zip(values, columns, strict=True):
            row[:] = float64(column)
        for number, row, (factor, offset) in zip(
            self._numbers.values(), values, self._units, strict=True
        ):
            row[np.abs(row) > LARGEST] = np.nan
            if codes := [code for code in number.missing if not isinstance(code, str)]:
                row[np.isin(row, codes)] = np.nan
            if number.to:
                row *= factor
                row += offset
            if number.min is not None:
                row[row < number.min] = np.nan
            if number.max is not None:
                row[row > number.max] = np.nan
        return values.T + 0.0  # -0 is 0

    def _pixels(
        self, columns: Mapping[str, Sequence[bytes]], count: int, bad: dict[int, Reject]
    ) -> NDArray[np.uint8]:
        """Bring the pixels of the one image that is learned into rows; a wrong size is a reject."""
        found = b""
        for name, image in self._images.items():
            column = columns[name]
            for at, value in enumerate(column):
                if len(value) != image.size:
                    shape = " x ".join(map(str, image.shape))
                    bad[at] = Reject(
                        "image", f"{name}: {len(value)} bytes, expected {shape} = {image.size}"
                    )
            if image.encoder:
                continue
            blank = bytes(image.size)
            found = b"".join([blank if at in bad else value for at, value in enumerate(column)])
        return np.frombuffer(found, np.uint8).reshape(count, *self._task.image)

    def _hashed(
        self, categories: list[Sequence[Any]], texts: list[Sequence[Any]], count: int
    ) -> NDArray[np.uint32]:
        hashed = np.zeros((count, self._spec.ids), np.uint32)
        hasher = self._hasher
        single = [
            (name, column)
            for (name, each), column in zip(self._categories.items(), categories, strict=True)
            if not each.several
        ]
        for place, (name, column) in enumerate(single):
            if set(map(type, column)) == {str}:  # texts are alike if they are equal
                known = {value: hasher.category(name, value) for value in set(column)}
                hashed[:, place] = [known[value] for value in column]
                continue
            hashed[:, place] = [0 if v is None else hasher.category(name, v) for v in column]
        for place, (names, parts) in enumerate(self._crosses, len(single)):
            hashed[:, place] = hasher.cross(names, hashed[:, parts])
        start = self._spec.single_ids
        for (name, each), column in zip(self._categories.items(), categories, strict=True):
            if each.tokens:
                for row, value in zip(hashed, column, strict=True):
                    values = value if isinstance(value, list) else [value]
                    tokens = hasher.listed(name, values, each)
                    row[start : start + len(tokens)] = tokens
                start += each.tokens
        for text, column in zip(self._texts.values(), texts, strict=True):
            for row, value in zip(hashed, column, strict=True):
                if value:
                    tokens = hasher.tokens(value, text.ngrams, text.max_tokens)
                    row[start : start + len(tokens)] = tokens
            start += text.max_tokens
        for column, most in zip(texts, self._spec.words, strict=False):
            for row, value in zip(hashed, column, strict=True):
                if value:
                    words = hasher.words(value, most)
                    row[start : start + len(words)] = words
            start += most
        return hashed

    def _dead(self, records: Records, place: int, reject: Reject) -> DeadLetter:
        where = (records.topic, records.partitions[place], records.offsets[place])
        return dead_letter(reject, *where, records.keys[place], records.values[place])


def _arrived(places: Sequence[int], records: Records) -> NDArray[np.int64]:
    if not records.timestamps_ms:
        return np.zeros(len(places), np.int64)
    return np.array(_at(places, records.timestamps_ms), np.int64)


def excluded(entity: str, where: str = "input") -> Reject:
    """Say that an event is refused for its entity, or a label for its source."""
    return Reject(EXCLUDED, f"{entity[:80]!r} is among {where}.exclude")


def _at(places: Sequence[int], column: list[Any]) -> list[Any]:
    """Return what stands at some places of a column, each of which is named once at most."""
    return [*column] if len(places) == len(column) else [column[place] for place in places]

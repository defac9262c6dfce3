"""The account of one task: what was sent, answered, scored; how long it took; what to show."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from headrace.stream.events import DeadLetter, DriftAlarm, DriftRecord, Prediction, Records, Reject
from headrace.stream.formats.codec import Codec
from headrace.stream.formats.scalars import scalar_text
from headrace.stream.rows.classes import ClassIndex
from headrace.stream.task import Task
from headrace.stream.task.features import Text

LATEST = 4
REMEMBERED = 2_000
OPEN = 1_000_000
HISTORY = 60
PACE_S = 3.0

Place = tuple[int, int]  # partition and offset of a raw record


class Latencies:
    """Count latencies in classes 2 % wide: bounded, however many there are."""

    STEP = math.log(1.02)
    CLASSES = 800  # up to 2 hours

    def __init__(self) -> None:
        self._counts = [0] * self.CLASSES

    def add(self, ms: float) -> None:
        """Count one; below a millisecond is one class."""
        place = int(math.log(ms) / self.STEP) if ms > 1 else 0
        self._counts[min(place, self.CLASSES - 1)] += 1

    def percentile(self, percent: float) -> float | None:
        """Return the latency in ms that `percent` of all do not exceed, to 1 %; None if none."""
        wanted = max(math.ceil(sum(self._counts) * percent / 100), 1)
        for place, count in enumerate(self._counts):
            wanted -= count
            if wanted <= 0:
                return round(math.exp((place + 0.5) * self.STEP), 1)
        return None


@dataclass
class Preview:
    """Hold what can be shown of an event: a text or its time, and the label once it is known."""

    text: str
    truth: str | float | None = None


class Line(NamedTuple):
    """Hold a prediction as it is shown."""

    id: str
    text: str
    prediction: str | float | None
    probability: float | None
    truth: str | float | None


@dataclass(frozen=True)
class TaskStatus:
    """Say where a task stands; `value` and `baseline` are over the whole stream."""

    name: str
    events: int  # in the raw topic
    predictions: int
    dead_letters: int
    per_second: float
    metric: str
    value: float | None
    baseline: float | None
    baseline_name: str
    p50_ms: float | None
    p99_ms: float | None
    drifts: int
    last_drift: DriftAlarm | None
    last_drift_s: float  # of the monotonic clock
    history: tuple[float, ...]
    latest: tuple[Line, ...]

    @property
    def open(self) -> int:
        """Count the events that have no answer yet."""
        return self.events - self.predictions - self.dead_letters

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "events": self.events,
            "predictions": self.predictions,
            "dead_letters": self.dead_letters,
            "metric": self.metric,
            "value": self.value,
            "baseline": self.baseline,
            "baseline_name": self.baseline_name,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "drift_alarms": self.drifts,
        }


@dataclass
class Tally:
    """Keep the account of one task from the records of its topics, in whatever order they come."""

    name: str
    task: Task
    events: int = 0
    predictions: int = 0
    dead_letters: int = 0
    drifts: int = 0
    last_drift: DriftAlarm | None = None
    last_drift_s: float = 0.0
    scored: int = 0  # events behind the metric
    value: float | None = None
    baseline: tuple[str, float | None] = ("", None)
    latencies: Latencies = field(default_factory=Latencies)

    def __post_init__(self) -> None:
        self._codec = Codec(self.task)
        self._classes = ClassIndex(self.task.target.classes)
        self._sent_ms: dict[Place, int] = {}  # events without an answer
        self._early: dict[Place, float | None] = {}  # answers read before their event
        self._glimpses: dict[Place, Preview] = {}
        self._places: dict[Any, deque[Place]] = {}  # by entity, for labels that come later
        self._latest: deque[tuple[Place, Prediction]] = deque(maxlen=LATEST)
        self._history: deque[float] = deque(maxlen=HISTORY)
        self._pace: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._prediction = msgspec.json.Decoder(Prediction).decode
        self._letter = msgspec.json.Decoder(DeadLetter).decode
        self._drift = msgspec.json.Decoder(DriftRecord).decode

    @property
    def metric(self) -> str:
        """Name the metric that is followed."""
        return "accuracy" if self.task.spec.classes else "mae"

    def sent(self, records: Records, now_ms: float) -> None:
        """Take raw events."""
        columns = (records.partitions, records.offsets, records.timestamps_ms, records.values)
        for partition, offset, sent_ms, value in zip(*columns, strict=True):
            place = (partition, offset)
            if place in self._early:
                self._time(sent_ms, self._early.pop(place))
            elif len(self._sent_ms) < OPEN:
                self._sent_ms[place] = sent_ms
            self._look(place, value)
        self.events += len(records.values)

    def predicted(self, records: Records, now_ms: float) -> None:
        """Take predictions, read at `now_ms`."""
        for value in records.values:
            prediction = self._prediction(value or b"")
            place = (prediction.partition, prediction.offset)
            self._answer(place, now_ms)
            self._latest.append((place, prediction))
        self.predictions += len(records.values)

    def refused(self, records: Records, now_ms: float) -> None:
        """Take dead letters; they answer an event, but count for no latency."""
        for value in records.values:
            letter = self._letter(value or b"")
            self._answer((letter.partition, letter.offset), None)
        self.dead_letters += len(records.values)

    def measured(self, records: Records, now_ms: float) -> None:
        """Take metrics: the last one counts, over the whole stream, beside the best baseline."""
        better: Callable[..., Any] = max if self.metric == "accuracy" else min
        for value in records.values:
            report = msgspec.json.decode(value or b"")
            self.scored, self.value = report["events"], report["all"][self.metric]
            known = [
                (scopes["all"][self.metric], name)
                for name, scopes in report["baselines"].items()
                if scopes["all"][self.metric] is not None
            ]
            if known:
                score, name = better(known)
                self.baseline = (name, score)
            if self.value is not None:
                self._history.append(self.value)

    def alarmed(self, records: Records, now_ms: float) -> None:
        """Take drift alarms, and pass over what was done about them."""
        for value in records.values:
            record = self._drift(value or b"")
            if isinstance(record, DriftAlarm):
                self.drifts += 1
                self.last_drift, self.last_drift_s = record, time.monotonic()

    def status(self) -> TaskStatus:
        """Return where the task stands now."""
        now_s = time.monotonic()
        self._pace.append((now_s, self.predictions))
        while len(self._pace) > 2 and now_s - self._pace[0][0] > PACE_S:
            self._pace.popleft()
        since_s, before = self._pace[0]
        return TaskStatus(
            name=self.name,
            events=self.events,
            predictions=self.predictions,
            dead_letters=self.dead_letters,
            per_second=(self.predictions - before) / max(now_s - since_s, 1e-3),
            metric=self.metric,
            value=self.value,
            baseline=self.baseline[1],
            baseline_name=self.baseline[0],
            p50_ms=self.latencies.percentile(50),
            p99_ms=self.latencies.percentile(99),
            drifts=self.drifts,
            last_drift=self.last_drift,
            last_drift_s=self.last_drift_s,
            history=tuple(self._history),
            latest=tuple(self._line(place, found) for place, found in self._latest),
        )

    @property
    def settled(self) -> bool:
        """Return whether every event that was read has its answer."""
        return not self._sent_ms and self.events == self.predictions + self.dead_letters

    def _answer(self, place: Place, now_ms: float | None) -> None:
        sent_ms = self._sent_ms.pop(place, None)
        if sent_ms is not None:
            self._time(sent_ms, now_ms)
        elif len(self._early) < OPEN:
            self._early[place] = now_ms

    def _time(self, sent_ms: int, now_ms: float | None) -> None:
        if now_ms is not None:
            self.latencies.add(now_ms - sent_ms)

    def _look(self, place: Place, value: bytes | None) -> None:
        """Remember what an event shows, and which earlier event its label is the truth about."""
        fields = self._codec.decode(value)
        if isinstance(fields, Reject):
            return
        shown = iter(fields[2:])
        entity = next(shown) if self.task.input.entity else None
        text = str(next(shown)) if self.task.input.time else ""
        if texts := len(self.task.of_kind(Text)):
            text = str(fields[-texts])
        self._glimpses[place] = Preview(text)
        if len(self._glimpses) > REMEMBERED:
            del self._glimpses[next(iter(self._glimpses))]
        if len(self._places) > REMEMBERED:
            self._places.clear()
        ahead = self.task.target.horizon
        places = self._places.setdefault(entity, deque(maxlen=ahead + 1))
        places.append(place)
        if len(places) > ahead and (about := self._glimpses.get(places[0])):
            about.truth = self._label(fields[1])

    def _label(self, label: Any) -> str | float | None:
        if self.task.target.kind == "regress" or label is None:
            return None if label is None else float(label)
        (found,) = self._classes.find_all([label])
        return scalar_text(label) if found < 0 else self.task.target.classes[int(found)]

    def _line(self, place: Place, found: Prediction) -> Line:
        preview = self._glimpses.get(place, Preview(""))
        probability = max(found.probabilities) if found.probabilities else None
        return Line(str(found.id), preview.text, found.prediction, probability, preview.truth)

"""What the page shows of a task: the newest records of its topics, never more than so many."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from headrace.stream.events import Records
from headrace.stream.serve import excerpts
from headrace.stream.serve.excerpts import number, object_of, within
from headrace.stream.task import Task

STAGES = ("metrics", "drift", "predictions", "dead-letter")
POINTS, ALARMS, PREDICTIONS, EXPLAINED, CODES = 900, 200, 50, 8, 40
LATENCIES = 500
_MARK = b'"explanation"'
BASELINES = {True: ("no_change", "majority"), False: ("no_change", "median")}

Place = tuple[int, int]  # partition and offset of an event


class View:
    """Hold what was read of a task's topics, bounded; whatever strangers wrote there.

    One thread may fill it while others look.

    Attributes:
        version: grows with whatever comes.
    """

    def __init__(self, task: Task) -> None:
        self._task, self.version, self._lock = task, 0, threading.Lock()
        self._metric = "accuracy" if task.spec.classes else "mae"
        self._baselines = BASELINES[bool(task.spec.classes)]
        self._points: deque[dict[str, Any]] = deque(maxlen=POINTS)
        self._drift: deque[dict[str, Any]] = deque(maxlen=ALARMS)
        self._predictions: deque[dict[str, Any]] = deque(maxlen=PREDICTIONS)
        self._explained: deque[dict[str, Any]] = deque(maxlen=EXPLAINED)
        self._refused: dict[str, dict[str, Any]] = {}
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._latest: dict[str, Any] = {}

    def take(self, stage: str, records: Records) -> None:
        """Take records, which have timestamps, of one of the STAGES."""
        with self._lock:
            self._take(stage, records)
            self.version += 1

    def _take(self, stage: str, records: Records) -> None:
        if stage == "metrics":
            self._take_metrics(records.values)
        elif stage == "drift":
            told = [excerpts.of_drift(found, at_ms) for found, at_ms in _newest(records, ALARMS)]
            self._drift += told
        elif stage == "predictions":
            told = [excerpts.of_prediction(*each) for each in _newest(records, PREDICTIONS)]
            self._predictions += told
            self._take_explained(records)
        else:
            for found, at_ms in _newest(records, len(records.values)):
                self._refuse(found, at_ms)

    def lacking(self, what: str) -> list[Place]:
        """Return the events, in order, of predictions that lack their `event` or their `truth`."""
        shown = chain(self._predictions, self._explained)
        places = [_place(each) for each in shown if what not in each]
        return sorted({place for place in places if place})

    def know(self, place: Place, *, event: str, sent_ms: int) -> None:
        """Take how an event begins, and when it was sent (0: that is not known)."""
        with self._lock:
            for each in self._at(place):
                if "event" not in each:
                    each["event"] = event
                    self.version += 1
                    if 0 < sent_ms <= each["at_ms"]:
                        self._latencies.append(each["at_ms"] - sent_ms)

    def solve(self, place: Place, truth: Any) -> None:
        """Take what should have been predicted of an event; None: it has no label."""
        with self._lock:
            for each in self._at(place):
                each["truth"] = excerpts.scalar(truth)
                self.version += 1

    def as_json(self, after_ms: float = -math.inf) -> dict[str, Any]:
        """Return it all.

        Args:
            after_ms: leave out points of the time line up to then.
        """
        with self._lock:
            return {
                "task": self._task.name,
                "target": self._task.target.field,
                "horizon": self._task.target.horizon,
                "labels_topic": self._task.labels and self._task.labels.topic,
                "metric": self._metric,
                "baselines": self._baselines,
                "explains": self._task.model.explain is not None,
                "points": [each for each in self._points if each["t"] > after_ms],
                "latest": self._latest,
                "latency": _percentiles(self._latencies),
                "drift": [*self._drift],
                "predictions": [dict(each) for each in self._predictions][::-1],
                "explained": [dict(each) for each in self._explained][::-1],
                "refused": dict(self._refused),
            }

    def summary(self) -> dict[str, Any]:
        """Return on which side of its baselines the task is."""
        with self._lock:
            return {
                "task": self._task.name,
                "metric": self._metric,
                "baselines": self._baselines,
                "point": self._points[-1] if self._points else None,
                "alarmed_ms": max(
                    (each["at_ms"] for each in self._drift if each["kind"] == "alarm"), default=None
                ),
            }

    def _at(self, place: Place) -> Iterator[dict[str, Any]]:
        shown = chain(self._predictions, self._explained)
        return (each for each in shown if _place(each) == place)

    def _take_explained(self, records: Records) -> None:
        explained = [at for at, value in enumerate(records.values) if _MARK in (value or b"")]
        for at in explained[-EXPLAINED:]:
            found = object_of(records.values[at])
            if why := excerpts.explanation(found):
                told = excerpts.of_prediction(found, records.timestamps_ms[at])
                self._explained.append(told | {"explanation": why})

    def _take_metrics(self, values: Sequence[bytes | None]) -> None:
        for found in filter(None, map(object_of, values)):
            time_ms = found.get("time_ms")
            if type(time_ms) is not int or not 0 < time_ms < 1 << 53:
                continue
            if not self._points or time_ms > self._points[-1]["t"]:
                self._points.append(self._point(time_ms, found))
                self._latest = excerpts.of_metrics(found, self._baselines)

    def _point(self, time_ms: int, found: dict[str, Any]) -> dict[str, Any]:
        """Return one moment of the time line."""
        point: dict[str, Any] = {"t": time_ms}
        for name in ("model", *self._baselines):
            told = found if name == "model" else within(found, "baselines", name)
            for scope in excerpts.SCOPES:
                point[f"{name}_{scope}"] = number(within(told, scope).get(self._metric))
        return point | {
            "rate": number(found.get("events_per_second")),
            "lag": number(found.get("lag")),
            "pending": number(within(found, "labels").get("pending")),
        }

    def _refuse(self, letter: dict[str, Any], at_ms: int) -> None:
        code = excerpts.scalar(letter.get("code"), excerpts.NAME)
        if not isinstance(code, str) or (code not in self._refused and len(self._refused) >= CODES):
            return
        count = self._refused.get(code, {"count": 0})["count"] + 1
        self._refused[code] = {"count": count, "example": excerpts.of_letter(letter, at_ms)}


def _newest(records: Records, most: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield records that are objects with their timestamps, in the order of these."""
    order = sorted(range(len(records.values)), key=records.timestamps_ms.__getitem__)
    for at in order[-most:] if most else ():
        if found := object_of(records.values[at]):
            yield found, records.timestamps_ms[at]


def _place(prediction: dict[str, Any]) -> Place | None:
    partition, offset = prediction["partition"], prediction["offset"]
    known = all(type(part) is int and 0 <= part < 1 << 62 for part in (partition, offset))
    return (partition, offset) if known else None


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """Return percentiles in ms, and of how many values; None without any."""
    if not values:
        return None
    ranked = sorted(values)
    found = {
        name: ranked[min(int(share * len(ranked)), len(ranked) - 1)]
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
    return found | {"events": len(ranked)}

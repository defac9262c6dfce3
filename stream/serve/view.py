"""What the page shows of a task: the newest records of its topics, never more than so many."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace.stream.events import Records
from headrace.stream.task import Task

STAGES = ("metrics", "drift", "predictions", "dead-letter")
POINTS, ALARMS, PREDICTIONS, EXPLAINED, CODES = 900, 200, 12, 8, 40
LATENCIES = 500
SHOWN = 400  # characters of a refused event or of a value
Place = tuple[int, int]
"""Partition and offset of an event."""
BASELINES = {True: ("no_change", "majority"), False: ("no_change", "median")}


class View:
    """Hold what was read of a task's topics, bounded; whatever strangers wrote there.

    Attributes:
        version: grows with whatever comes.
    """

    def __init__(self, task: Task) -> None:
        self._task, self.version = task, 0
        self._points: deque[dict[str, Any]] = deque(maxlen=POINTS)
        self._drift: deque[dict[str, Any]] = deque(maxlen=ALARMS)
        self._predictions: deque[dict[str, Any]] = deque(maxlen=PREDICTIONS)
        self._explained: deque[dict[str, Any]] = deque(maxlen=EXPLAINED)
        self._chosen: list[dict[str, Any]] = []
        self._shown: list[dict[str, Any]] = []
        self._refused: dict[str, dict[str, Any]] = {}
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._latest: dict[str, Any] = {}

    def take(self, stage: str, records: Records) -> None:
        """Take records of one of the STAGES."""
        self.version += 1
        if stage == "metrics":
            self._take_metrics(records.values)
        elif stage == "drift":
            times = records.timestamps_ms or [0] * len(records.values)
            for value, time_ms in zip(records.values, times, strict=True):
                if found := _object(value):
                    self._drift.append(found | {"published_s": time_ms / 1000})
        elif stage == "predictions":
            times = records.timestamps_ms or [0] * len(records.values)
            newest = zip(records.values[-PREDICTIONS:], times[-PREDICTIONS:], strict=True)
            for value, time_ms in newest:
                if found := _object(value):
                    self._predictions.append(found | {"published_ms": time_ms})
            told = [value for value in records.values if value and b'"explanation"' in value]
            self._explained += filter(None, map(_object, told[-EXPLAINED:]))
        else:
            for value in records.values:
                self._refuse(_object(value))

    def choose(self) -> list[Place]:
        """Show the newest predictions; return where their events stand, if they were not shown."""
        if [*self._predictions] == self._chosen:
            return []
        self._chosen = [*self._predictions]
        self._shown = [*self._predictions]
        self.version += 1
        return [place for each in self._shown if (place := _place(each))]

    def know(self, events: Mapping[Place, tuple[Any, int]]) -> None:
        """Take of events of `choose` the label, None if there is none, and when it was sent."""
        for at, each in enumerate(self._shown):
            label, sent_ms = events.get(_place(each) or (-1, -1), (None, 0))
            if label is not None:
                self._shown[at] = each | {"truth": label}
            if 0 < sent_ms <= (published_ms := each["published_ms"]):
                self._latencies.append(published_ms - sent_ms)

    def as_json(self, after_ms: float = -math.inf) -> dict[str, Any]:
        """Return it all.

        Args:
            after_ms: leave out points of the time line up to then.
        """
        classes = self._task.spec.classes > 0
        return {
            "task": self._task.name,
            "target": self._task.target.field,
            "kind": self._task.target.kind,
            "horizon": self._task.target.horizon,
            "late": self._task.labels is not None,
            "metric": "accuracy" if classes else "mae",
            "baselines": BASELINES[classes],
            "explains": self._task.model.explain is not None,
            "points": [each for each in self._points if each["t"] > after_ms],
            "latest": self._latest,
            "latency": _percentiles(self._latencies),
            "drift": [*self._drift][-50:],
            "predictions": self._shown[::-1],
            "explained": [*self._explained][::-1],
            "refused": self._refused,
        }

    def _take_metrics(self, values: Sequence[bytes | None]) -> None:
        for found in filter(None, map(_object, values)):
            time_ms = found.get("time_ms")
            if type(time_ms) is not int or (self._points and time_ms <= self._points[-1]["t"]):
                continue
            self._points.append(self._point(time_ms, found))
            self._latest = _kept(found)

    def _point(self, time_ms: int, found: dict[str, Any]) -> dict[str, Any]:
        """Return one moment of the time line."""
        classes = self._task.spec.classes > 0
        metric = "accuracy" if classes else "mae"
        scores: dict[str, Any] = {}
        for name in ("model", *BASELINES[classes]):
            told = found if name == "model" else _within(found, "baselines", name)
            for scope in ("window", "all"):
                scores[f"{name}_{scope}"] = _number(_within(told, scope).get(metric))
        labels = _within(found, "labels")
        return scores | {
            "t": time_ms,
            "rate": _number(found.get("events_per_second")),
            "lag": _number(found.get("lag")),
            "pending": _number(labels.get("pending")),
        }

    def _refuse(self, letter: dict[str, Any]) -> None:
        code = letter.get("code")
        if not isinstance(code, str) or (code not in self._refused and len(self._refused) >= CODES):
            return
        told = self._refused.setdefault(code[:100], {"count": 0})
        told["count"] += 1
        told["example"] = {
            name: letter[name][:SHOWN] if isinstance(letter[name], str) else letter[name]
            for name in ("detail", "partition", "offset", "raw")
            if isinstance(letter.get(name), str | int)
        }


def _place(told: dict[str, Any]) -> Place | None:
    """Return where the event of a prediction stands, if that is told."""
    partition, offset = told.get("partition"), told.get("offset")
    if type(partition) is int and type(offset) is int and min(partition, offset) >= 0:
        return (partition, offset) if max(partition, offset) < 1 << 62 else None
    return None


def _kept(found: dict[str, Any]) -> dict[str, Any]:
    """Return what of a record of metrics is shown beside the time line."""
    names = ("events", "learned", "rejected", "repeated", "lag", "checkpoint_age_s", "time_ms")
    told = {name: _number(found.get(name)) for name in names}
    nested = {
        name: {key: value for key, value in [*_within(found, name).items()][:200]}
        for name in ("members", "labels", "importance", "all", "window", "baselines")
        if name in found
    }
    return told | nested


def _object(value: bytes | None) -> dict[str, Any]:
    """Return a record that is a JSON object; {} if it is none, or a huge one."""
    if not value or len(value) > 1 << 20:
        return {}
    try:
        found = msgspec.json.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _within(found: Any, *names: str) -> dict[str, Any]:
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | int | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return value if known and math.isfinite(value) else None


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """Return percentiles in ms; None without any value."""
    if not values:
        return None
    ranked = sorted(values)
    return {
        name: ranked[min(int(share * len(ranked)), len(ranked) - 1)]
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }

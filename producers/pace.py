"""When each event may go: at a steady rate, or as fast as its own times say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from headrace.producers.sources import Event
from headrace.stream.errors import UsageError

_NS = 1_000_000_000
SLOT_NS = 10_000_000  # finer slots cost more than they smooth
MAX_LAG_NS = 1 * _NS  # what a stall delayed for longer than this is not caught up
_NAP_S = 0.1  # the longest sleep between two looks at `stop`


class Pace(Protocol):
    """When an event may go, in ns of a monotonic clock; called once per event, in order."""

    def due_ns(self, event: Event, now_ns: int) -> int: ...


class Rate:
    """Let `per_s` events go each second (0 < per_s), in slots of 10 ms.

    After a stall events go at twice the rate until at most one second is caught up: no 10 ms
    carry more than 40 ms' worth of events, plus one for each of the two slots they touch.
    """

    def __init__(self, per_s: float) -> None:
        if not 0 < per_s < float("inf"):
            raise UsageError(f"rate {per_s:g}: expected events per second above 0, such as 500")
        self._per_s = per_s
        self._count = 0
        self._origin_ns = 0
        self._previous_ns = 0

    def due_ns(self, event: Event, now_ns: int) -> int:
        if self._count == 0:
            self._origin_ns = self._previous_ns = now_ns
        planned_ns = self._origin_ns + int(self._count * _NS / self._per_s)
        if (excess_ns := now_ns - planned_ns - MAX_LAG_NS) > 0:
            self._origin_ns += excess_ns
            planned_ns += excess_ns
        if self._count:
            soonest_ns = self._previous_ns + int(_NS / self._per_s / 2)
            planned_ns = max(planned_ns, soonest_ns, self._slot_ns(now_ns))
        self._previous_ns = planned_ns
        self._count += 1
        return self._slot_ns(planned_ns)

    def _slot_ns(self, moment_ns: int) -> int:
        return moment_ns - (moment_ns - self._origin_ns) % SLOT_NS


class Speed:
    """Let events go as far apart as their times are, `factor` times faster (0 < factor).

    An event older than one before it goes at once. After a stall at most one second is caught up.
    """

    def __init__(self, factor: float) -> None:
        if not 0 < factor < float("inf"):
            raise UsageError(f"speed {factor:g}: expected a factor above 0, such as 3600x")
        self._factor = factor
        self._origin_ns = 0
        self._first_ms: int | None = None
        self._latest_ms = 0

    def due_ns(self, event: Event, now_ns: int) -> int:
        if event.time_ms is None:
            raise UsageError(
                f"event {event.id} has no time, which a speed needs: name the time column, or give"
                " a rate"
            )
        if self._first_ms is None:
            self._origin_ns, self._first_ms = now_ns, event.time_ms
        elif event.time_ms < self._latest_ms:
            return now_ns
        self._latest_ms = event.time_ms
        due_ns = self._origin_ns + int((event.time_ms - self._first_ms) * 1e6 / self._factor)
        self._origin_ns += max(0, now_ns - due_ns - MAX_LAG_NS)
        return due_ns


def paced(
    events: Iterable[Event],
    pace: Pace,
    *,
    clock_ns: Callable[[], int],
    sleep_s: Callable[[float], object],
    stop: Callable[[], bool],
) -> Iterator[Event]:
    """Yield each event when it is due; end early when `stop` says so."""
    for event in events:
        due_ns = pace.due_ns(event, clock_ns())
        while (wait_ns := due_ns - clock_ns()) > 0:
            if stop():
                return
            sleep_s(min(wait_ns / _NS, _NAP_S))
        yield event


def parse_speed(text: str) -> float:
    """Return 3600.0 for "3600x" or "3600".

    Raises:
        UsageError: not a number above 0.
    """
    try:
        factor = float(text.strip().removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise UsageError(f"speed {text!r}: expected a factor above 0, such as 3600x")
    return factor

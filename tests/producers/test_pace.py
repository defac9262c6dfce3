from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from headrace.producers.pace import Pace, Rate, Speed, paced, parse_speed
from headrace.producers.sources import Event
from headrace.stream.errors import UsageError

MS = 1_000_000


class Clock:
    """Time that passes only in sleeps, each a little too long, and in stalls at given moments."""

    def __init__(self, oversleep_ns: int = 0) -> None:
        self.now_ns = 17
        self.oversleep_ns = oversleep_ns

    def __call__(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9) + self.oversleep_ns


def events(n: int, times_ms: list[int] | None = None) -> Iterator[Event]:
    for i in range(n):
        yield Event(str(i), None, times_ms[i] if times_ms else None, b"{}")


def release_times(
    pace: Pace,
    source: Iterator[Event],
    *,
    stall_at: int = -1,
    oversleep_ns: int = 0,
    per_event_ns: int = 0,
) -> list[int]:
    clock = Clock(oversleep_ns)
    times = []
    for event in paced(source, pace, clock_ns=clock, sleep_s=clock.sleep, stop=lambda: False):
        times.append(clock.now_ns - 17)
        clock.now_ns += per_event_ns
        if event.id == str(stall_at):
            clock.now_ns += 2_000 * MS
    return times


@pytest.mark.parametrize("rate", [1, 3, 150, 333.3, 1_000, 1_234, 9_999, 20_000])
def test_every_10_ms_carry_a_hundredth_of_the_rate(rate: float) -> None:
    seconds = 12 if rate < 100 else 1
    n = int(rate * seconds)
    times = release_times(Rate(rate), events(n))
    per_slice = Counter(at // (10 * MS) for at in times)
    whole_slices = range(int(n / rate * 100) - 1)
    assert all(abs(per_slice[i] - rate / 100) <= 1 for i in whole_slices)


def test_rate_holds_on_average_when_every_sleep_is_too_long() -> None:
    times = release_times(Rate(20_000), events(40_000), oversleep_ns=3 * MS, per_event_ns=2_000)
    assert times[-1] == pytest.approx(2_000 * MS, abs=20 * MS)


@pytest.mark.parametrize("rate", [1, 50, 1_000, 20_000])
def test_stall_is_not_followed_by_a_burst(rate: int) -> None:
    n = rate * 8
    stall_at = rate * 2
    times = release_times(Rate(rate), events(n), stall_at=stall_at)
    after = times[stall_at + 1 :]
    slices = Counter(at // (10 * MS) for at in after)
    assert max(slices.values()) <= 4 * rate / 100 + 2
    assert sum(at < after[0] + 500 * MS for at in after) <= 2 * rate * 0.51 + 3
    # The next event was due 1 / rate after the stall began: all but one second of that is given up.
    assert times[-1] == pytest.approx((n - 2) / rate * 1e9 + 1_000 * MS, abs=10 * MS)


def test_speed_keeps_the_gaps_of_the_event_times() -> None:
    hours = [0, 1, 1, 5, 4, 6]
    source = events(6, [hour * 3_600_000 for hour in hours])
    times = release_times(Speed(3_600), source)
    assert times == [0, 1_000 * MS, 1_000 * MS, 5_000 * MS, 5_000 * MS, 6_000 * MS]


def test_speed_catches_up_one_second_of_a_stall() -> None:
    source = events(100, [i * 100 for i in range(100)])
    times = release_times(Speed(1), source, stall_at=20)
    at_once = [at for at in times if at == times[21]]
    assert len(at_once) <= 11
    assert times[-1] == pytest.approx(9_900 * MS + 900 * MS, abs=200 * MS)
    assert all(later >= earlier for earlier, later in pairwise(times))


def test_stop_ends_a_long_wait() -> None:
    clock = Clock()
    source = events(2, [0, 3_600_000])
    taken = list(
        paced(
            source,
            Speed(1),
            clock_ns=clock,
            sleep_s=clock.sleep,
            stop=lambda: clock.now_ns > 1_000 * MS,
        )
    )
    assert [event.id for event in taken] == ["0"]
    assert clock.now_ns < 1_200 * MS


def test_speed_names_the_event_without_time() -> None:
    with pytest.raises(UsageError, match="event 0 has no time"):
        release_times(Speed(2), events(1))


@pytest.mark.parametrize(("text", "factor"), [("3600x", 3600.0), ("1", 1.0), (" 0.5x ", 0.5)])
def test_parse_speed_reads_factors(text: str, factor: float) -> None:
    assert parse_speed(text) == factor


@pytest.mark.parametrize("text", ["", "x", "fast", "0x", "-1", "nan", "inf", "3600 s"])
def test_parse_speed_refuses_what_is_no_factor(text: str) -> None:
    with pytest.raises(UsageError, match="expected a factor above 0"):
        parse_speed(text)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_rate_must_be_above_zero(rate: float) -> None:
    with pytest.raises(UsageError, match="rate"):
        Rate(rate)

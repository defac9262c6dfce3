"""Keep what a service answers by on the newest release, and know how far it is behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import msgspec

from headrace.stream.errors import HeadraceError, RecoveryError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.metadata import EndReader
from headrace.stream.kafka.source import Source
from headrace.stream.ledger.release import Release
from headrace.stream.serve.follower import Follower
from headrace.stream.serve.predictor import Predictor

POLL_S = 0.2
NEWEST = 100  # records of metrics, of which the last one counts
ASK_S = 1.0  # from one look at the end of the events' topic to the next
AGAIN_S = 1.0  # after Kafka did not answer
STALE_S = 10.0  # after which the end that was seen last says nothing


class LearnerStands(msgspec.Struct):
    """Hold what a learner says of itself on `<task>.metrics`, as far as it is told on."""

    time_ms: int
    events: int
    learned: int
    rejected: int
    repeated: int
    lag: int
    checkpoint_age_s: float | None = None
    labels: dict[str, Any] | None = None
    all: dict[str, Any] = {}
    window: dict[str, Any] = {}
    baselines: dict[str, dict[str, Any]] = {}
    members: dict[str, Any] = {}

    @property
    def scores(self) -> Iterator[tuple[str, str, str, float]]:
        """Yield whose score it is, of which metric, of which events, and the score."""
        own = {"all": self.all, "window": self.window}
        for model, told in {"headrace": own, **self.baselines}.items():
            for events in own:
                scores = told.get(events)
                for metric, value in scores.items() if isinstance(scores, dict) else ():
                    if isinstance(value, int | float):
                        yield model, metric, events, value

    @property
    def weights(self) -> dict[str, float]:
        """Return the weights of the pool's members, by name."""
        told = self.members.items()
        return {name: weight for name, weight in told if isinstance(weight, int | float)}


class Following:
    """Follow the releases of one task on a thread of its own, from `start` to `stop`.

    Args:
        predictor: takes each release over.
        key: of the seals of releases.
        on_note: called with a line for a person, from that thread.
    """

    def __init__(
        self,
        predictor: Predictor,
        kafka: KafkaConnection,
        key: bytes | None,
        on_note: Callable[[str], None],
    ) -> None:
        self._predictor, self._kafka, self._key = predictor, kafka, key
        self._on_note, self._told = on_note, ""
        self._ended = threading.Event()
        self._ends: dict[int, int] = {}
        self._seen_s = -float("inf")  # when those were
        self._thread = threading.Thread(target=self._run, name="releases", daemon=True)
        self.releases = 0
        """How many were taken over."""
        self.refused = 0
        """How many were not what they should be, and left out."""
        self.learner: LearnerStands | None = None
        """The newest record of `<task>.metrics`; None before there is one."""

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Follow no more."""
        self._ended.set()
        self._thread.join(5.0)

    @property
    def behind_events(self) -> int | None:
        """Return how many offsets of the topic the release does not know.

        As of about ASK_S ago; None before there is a release, and while Kafka does not say.
        """
        release, ends = self._predictor.release, self._ends
        if release is None or time.monotonic() - self._seen_s > STALE_S:
            return None
        known = release.manifest.positions
        return sum(max(end - known.get(partition, 0), 0) for partition, end in ends.items())

    @property
    def behind_s(self) -> float | None:
        """Return for how long what is answered by may be out of date: 0 if no event came since."""
        release = self._predictor.release
        if release is None:
            return None
        return 0.0 if self.behind_events == 0 else release.age_s

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with ExitStack() as stack:
                    follower = Follower(self._predictor.task, self._kafka, self._key)
                    stack.callback(follower.close)
                    metrics = _newest(self._kafka, self._predictor.task.output("metrics"))
                    stack.callback(metrics.close)
                    ends = self._kafka.end_reader(committed=True)
                    stack.callback(ends.close)
                    self._follow(follower, metrics, ends)
            except RecoveryError:  # whose advice is for `learn`
                output = self._predictor.task.output
                self._tell(
                    f"{output('models')} or {output('metrics')} was deleted and made again: what "
                    "comes there now is followed"
                )
            except Exception as error:  # whatever a stranger's release does: it must go on
                told = str(error) if isinstance(error, HeadraceError) else repr(error)
                self._tell(told)
                self._ended.wait(AGAIN_S)

    def _follow(self, follower: Follower, metrics: Source, ends: EndReader) -> None:
        looked_s, topic = 0.0, self._predictor.task.input.topic
        while not self._ended.is_set():
            found = follower.poll(POLL_S)
            if follower.problems:
                self.refused += len(follower.problems)
                self._tell(follower.problems[-1])
                follower.problems.clear()
            if found:
                self._take_over(found)
            if records := metrics.poll(NEWEST, 0.0):
                self._take(records.values[-1])
            if time.monotonic() - looked_s > ASK_S:
                looked_s = time.monotonic()
                with suppress(HeadraceError):
                    read = ends.read([topic])
                    self._ends = {partition: end for (_, partition), end in read.items()}
                    self._seen_s = time.monotonic()

    def _take_over(self, found: Release) -> None:
        """Have a release answer; one that no learner can have written is left out."""
        try:
            self._predictor.take_over(found.manifest, found.tensors)
        except ValueError as error:
            self.refused += 1
            self._tell(f"a release is not taken: it is no state of this task: {error}")
            return
        self.releases += 1
        self._told = ""

    def _take(self, value: bytes | None) -> None:
        """Take what the learner says of itself, unless a stranger wrote it."""
        with suppress(msgspec.MsgspecError, RecursionError):
            self.learner = msgspec.json.decode(value or b"", type=LearnerStands)

    def _tell(self, line: str) -> None:
        """Tell a person, but not the same thing again and again."""
        if line != self._told:
            self._told = line
            self._on_note(line)


def _newest(kafka: KafkaConnection, topic: str) -> Source:
    """Read a topic of one partition from shortly before its end."""
    probe = kafka.source(topic)
    start = max(probe.ends()[0] - NEWEST, probe.begins[0])
    probe.close()
    return kafka.source(topic, offsets={0: start}, or_later=True)

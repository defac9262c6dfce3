"""How serving is doing, for Prometheus."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import prometheus_client as prometheus
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from headrace.stream.events import Reject
from headrace.stream.serve.served import Served

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """Count answers by task, and tell of them and of releases as Prometheus reads it."""

    media = prometheus.CONTENT_TYPE_LATEST

    def __init__(self, served: Mapping[str, Served]) -> None:
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = prometheus.CollectorRegistry()
        self._seconds = prometheus.Histogram(
            "headrace_predict_seconds",
            "Time from a request's last byte to its answer.",
            ["task"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._predicted = prometheus.Counter(
            "headrace_predicted_events",
            "Events that were answered.",
            ["task"],
            registry=self._registry,
        )
        self._refused = prometheus.Counter(
            "headrace_refused_events",
            "Events that were refused, by code.",
            ["task", "code"],
            registry=self._registry,
        )
        self._registry.register(_Releases(served))
        self._registry.register(_Learners(served))

    @contextmanager
    def timed(self, task: str) -> Iterator[None]:
        """Measure how long the block takes."""
        began_s = time.perf_counter()
        yield
        self._seconds.labels(task).observe(time.perf_counter() - began_s)

    def count(self, task: str, answers: Sequence[Any]) -> None:
        """Count answers."""
        refused = Counter(answer.code for answer in answers if isinstance(answer, Reject))
        self._predicted.labels(task).inc(len(answers) - refused.total())
        for code, count in refused.items():
            self._refused.labels(task, code).inc(count)

    def text(self) -> bytes:
        """Return all as text that Prometheus reads."""
        return prometheus.generate_latest(self._registry)


class _Releases(Collector):
    """Tell how each task's release stands when it is asked for."""

    def __init__(self, served: Mapping[str, Served]) -> None:
        self._served = served

    def collect(self) -> Iterator[Any]:
        step = GaugeMetricFamily("headrace_release_step", "Steps of the state.", labels=["task"])
        age = GaugeMetricFamily(
            "headrace_release_age_seconds",
            "How long ago the state was that of the learner.",
            labels=["task"],
        )
        behind = GaugeMetricFamily(
            "headrace_release_behind_events",
            "Events of the topic that the state does not know.",
            labels=["task"],
        )
        taken = CounterMetricFamily(
            "headrace_releases", "Releases that were taken over.", labels=["task"]
        )
        refused = CounterMetricFamily(
            "headrace_releases_refused",
            "Releases that were not whole or not sound.",
            labels=["task"],
        )
        for name, one in self._served.items():
            following = one.following
            taken.add_metric([name], following.releases)
            refused.add_metric([name], following.refused)
            if release := one.predictor.release:
                step.add_metric([name], release.step)
                age.add_metric([name], release.age_s)
                if (events := following.behind_events) is not None:
                    behind.add_metric([name], events)
        yield from (step, age, behind, taken, refused)


class _Learners(Collector):
    """Tell what each task's learner last said of itself, wherever it runs."""

    def __init__(self, served: Mapping[str, Served]) -> None:
        self._served = served

    def collect(self) -> Iterator[Any]:
        counts = {
            name: CounterMetricFamily(f"headrace_learner_{name}", told, labels=["task"])
            for name, told in _COUNTS.items()
        }
        gauges = {
            name: GaugeMetricFamily(f"headrace_learner_{name}", told, labels=["task"])
            for name, told in _GAUGES.items()
        }
        score = GaugeMetricFamily(
            "headrace_learner_score",
            "Scores of the learner and of baselines, of all events and of the newest ones.",
            labels=["task", "model", "metric", "events"],
        )
        weight = GaugeMetricFamily(
            "headrace_learner_member_weight",
            "Weights of the pool's members.",
            labels=["task", "member"],
        )
        for task, one in self._served.items():
            told = one.following.learner
            if told is None:
                continue
            counts["events"].add_metric([task], told.events)
            counts["labels"].add_metric([task], told.learned)
            counts["refused_events"].add_metric([task], told.rejected + told.repeated)
            gauges["lag_events"].add_metric([task], told.lag)
            gauges["silent_seconds"].add_metric([task], time.time() - told.time_ms / 1000)
            if told.checkpoint_age_s is not None:
                gauges["checkpoint_age_seconds"].add_metric([task], told.checkpoint_age_s)
            if told.labels and isinstance(told.labels.get("pending"), int):
                gauges["pending_labels"].add_metric([task], told.labels["pending"])
            for *which, value in told.scores:
                score.add_metric([task, *which], value)
            for member, value in told.weights.items():
                weight.add_metric([task, member], value)
        yield from (*counts.values(), *gauges.values(), score, weight)


_COUNTS = {
    "events": "Events of this run that were predicted.",
    "labels": "Labels of this run that were learned.",
    "refused_events": "Events of this run that were refused.",
}
_GAUGES = {
    "lag_events": "Events that wait.",
    "silent_seconds": "Since the learner last told of itself; it does so each second it learns.",
    "checkpoint_age_seconds": "Age of the newest checkpoint, then.",
    "pending_labels": "Events that wait for their label, where labels come by themselves.",
}

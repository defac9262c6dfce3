"""Spans of micro-batches, as OpenTelemetry's own SDK collects them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.service import tracing
from headrace.stream.service.learn import learn
from headrace.stream.service.start import Safety
from tests.support.events import good
from tests.support.memory_kafka import MemoryKafka
from tests.support.serving import small_task

TASK = small_task()


def learned(state: Path, events: int = 100, first: int = 0) -> MemoryKafka:
    kafka = MemoryKafka()
    kafka.make(topic_specs(TASK), partitions=1)
    for number in range(first, first + events):
        kafka.topics[TASK.input.topic][0].append(good(number))
    safety = Safety(str(state))
    done = learn(TASK, kafka, origin="events", safety=safety, micro_batch=32, drain=True)
    assert done.events == events
    return kafka


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Collect spans in this process, while the test lasts."""
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    return exporter


def test_each_micro_batch_is_a_trace_of_its_steps(
    collected: InMemorySpanExporter, tmp_path: Path
) -> None:
    learned(tmp_path)
    spans = collected.get_finished_spans()
    roots = [span for span in spans if span.parent is None]
    assert {span.name for span in roots} == {"micro-batch"}
    events = [dict(root.attributes or {})["headrace.events"] for root in roots]
    assert sum(map(int, map(str, events))) == 100
    records = [dict(root.attributes or {})["headrace.record"] for root in roots]
    assert records == sorted({*records}, key=str)
    for root in roots:
        assert dict(root.attributes or {})["headrace.task"] == "poisoned"
        within = [span for span in spans if span.parent and of(span) == of(root)]
        assert [span.name for span in within] == ["poll", "decode", "learn", "publish", "commit"]
        for before, after in pairwise(within):
            assert begin(before) <= end(before) <= begin(after) <= end(after)
        assert (begin(root), end(root)) == (begin(within[0]), end(within[-1]))


def test_what_is_collected_is_sent_before_a_learner_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a processor that sends spans each hour: a command does not wait for Python's own end."""
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    learned(tmp_path)
    spans = exporter.get_finished_spans()
    provider.shutdown()
    assert {span.name for span in spans} >= {"micro-batch", "commit"}


def test_who_collects_and_does_not_answer_holds_up_no_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    provider, given_up = TracerProvider(), threading.Event()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(provider, "force_flush", lambda: given_up.wait(60))
    closing = tracing.Tracing("t")
    began_s = time.monotonic()
    closing.close()
    assert time.monotonic() - began_s < 3
    given_up.set()


def of(span: ReadableSpan) -> int:
    assert span.context
    found: int = span.context.trace_id
    return found


def begin(span: ReadableSpan) -> int:
    assert span.start_time
    return span.start_time


def end(span: ReadableSpan) -> int:
    assert span.end_time
    return span.end_time


def test_nothing_is_collected_unless_the_program_asks_for_it(tmp_path: Path) -> None:
    assert tracing.Tracing("t").begin() is None
    with tracing.step("poll"):
        pass
    learned(tmp_path)


def test_it_changes_nothing_that_is_published(
    collected: InMemorySpanExporter, tmp_path: Path
) -> None:
    traced = learned(tmp_path / "traced").topics[TASK.output("predictions")][0].values
    code = (
        "import sys; from pathlib import Path; from tests.service.test_tracing import *; "
        "kafka = learned(Path(sys.argv[1])); "
        "sys.stdout.buffer.write(b'\\n'.join(kafka.topics[TASK.output('predictions')][0].values))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "plain")],
        capture_output=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"HEADRACE_STATE": str(tmp_path / "plain")},
    )
    assert done.stdout.split(b"\n") == traced, done.stderr

"""The service `headrace learn`: exactly once, and on where the ledger ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.process.garbage import tune_memory
from headrace.stream.process.terminal import visible
from headrace.stream.service.progress import Progress, Stall, waits
from headrace.stream.service.start import Origin, Safety, start_service
from headrace.stream.task import Task


def learn(
    task: Task,
    kafka: KafkaConnection,
    *,
    origin: Origin,
    safety: Safety,
    micro_batch: int = 4096,
    release_s: float = 0.0,
    drain: bool = False,
    stop: Callable[[], bool] = lambda: False,
    on_ready: Callable[[], None] = lambda: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Progress:
    """Learn from a topic until told to stop, exactly once, and publish what is predicted.

    Goes on where the task's ledger ends, with the state that it had there, bit for bit.

    Args:
        origin: `features` as made by the normaliser, or raw `events` normalised here.
        micro_batch: most events handled at a time; changes speed, never a prediction.
        release_s: how old the state on `<task>.models` may become, by which `headrace serve`
            answers, before the next one is released; 0 for none.
        drain: stop at what is now the end of the topic.
        on_progress: called about once a second.
        on_note: called with a line for a person: how it goes on, what went wrong beside.

    Raises:
        TopicError: a topic is missing, or cannot do what it is for.
        BrokerError: no broker.
        UsageError: the run that goes on began with another learner than `safety.start`.
        RecoveryError: the state of the ledger's tip cannot be had again.
        InDoubtError, FencedError: what was written is not certain, or is another's to write.
        StoppedError: `stop` said so before the first event was taken.
    """
    tune_memory()  # history is learned again at once
    stall = Stall()

    def report(progress: Progress) -> None:
        if line := stall.look(progress, time.monotonic()):
            on_note(line)
        on_progress(progress)

    with ExitStack() as stack:
        service = start_service(
            task,
            kafka,
            origin=origin,
            safety=safety,
            micro_batch=micro_batch,
            release_s=release_s,
            on_progress=report,
            on_note=on_note,
            stop=stop,
            stack=stack,
        )
        on_ready()
        progress = service.run(drain=drain, stop=stop)
    for line in (*service.refusals.all, *service.remarks()):
        on_note(visible(str(line), keep=""))
    if drain and (hidden := _hidden(kafka, task.input.topic)):
        on_note(waits(hidden))
    return progress


def _hidden(kafka: KafkaConnection, topic: str) -> int:
    """Count the records behind a transaction that is still open."""
    all_there, committed = (sum(kafka.ends([topic], committed=c).values()) for c in (False, True))
    return all_there - committed

"""The normaliser as a Faust application: an event in, a row out.

Stateless and at-least-once. Faust consumes, shares the partitions among workers and commits. An
offset is committed only after Kafka has acknowledged everything that its record led to: Faust acks
a record even when its agent raised, and commits when sends have failed, so neither is left to it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterable, Callable, Coroutine, Generator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import faust
from aiokafka.conn import CloseReason
from faust.transport.drivers import aiokafka
from faust.types import EventT

from headrace.stream.engines.credentials import settings_of
from headrace.stream.engines.stage import OUTPUTS, Stage
from headrace.stream.errors import AccessError
from headrace.stream.events import Records
from headrace.stream.kafka.access import require_group
from headrace.stream.kafka.acls import normalizer_group
from headrace.stream.kafka.connection import KafkaConnection, connect
from headrace.stream.kafka.diagnosis import explain
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import admin_of
from headrace.stream.process import workers as processes
from headrace.stream.process.terminal import LogHandler, guard, note
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task, load

TAKE = 2_000
WITHIN_S = 0.01
COMMIT_S = 1.0
FULL_S = 1.0
METADATA_MS = 3_000  # after which partitions that were added are noticed
SESSION_S = 6.0  # the least that Kafka allows: partitions of a killed worker wait so long


async def pump(
    batches: AsyncIterable[Sequence[EventT[Any]]], publish: Callable[[Records], None]
) -> None:
    """Publish batch after batch, and acknowledge the events of a batch only after it is out.

    `publish` runs in a thread: meanwhile the loop fetches on.
    """
    loop = asyncio.get_running_loop()
    async for events in batches:
        await loop.run_in_executor(None, publish, records_of(events))
        for event in events:
            event.ack()


def records_of(events: Sequence[EventT[Any]]) -> Records:
    """Turn Faust events of one topic into columns."""
    messages = [event.message for event in events]
    return Records(
        topic=messages[0].topic,
        values=[message.value for message in messages],
        keys=[message.key for message in messages],
        partitions=[message.partition for message in messages],
        offsets=[message.offset for message in messages],
        timestamps_ms=[round(message.timestamp * 1000) for message in messages],
    )


class _Thread(aiokafka.AIOKafkaConsumerThread):
    """Fetch what is committed; Faust does so only for its own transactions.

    Look why a connection was closed, too: aiokafka connects again, and does so for ever where it is
    let in no more. Of a token that is refused it does not even hear: it takes what Kafka answers
    for a yes, and finds the connection closed.
    """

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # looked at when it starts
        client, broken = consumer._client, transport.app.on_broken
        closed = client._on_connection_closed

        def on_closed(connection: Any, reason: CloseReason | None) -> None:
            if reason not in (CloseReason.IDLE_DROP, CloseReason.SHUTDOWN):
                broken()
            closed(connection, reason)

        client._on_connection_closed = on_closed
        return consumer


class _Consumer(aiokafka.Consumer):
    """Hand messages on without what Faust spends most of its time on."""

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def wait_first(self, *coros: Any, timeout: Any = None) -> Any:
        """Wait for the first of several, as Faust does, but make tasks only if there is a wait.

        Faust makes four tasks for each message: half of its whole cost.
        Faust races the delivery of each message with "stop the flow"; there is no race where the
        delivery is done at its first step, because the stream's buffer has room.
        """
        delivery, *others = coros
        if others and inspect.iscoroutine(delivery):
            try:
                delivery = _Begun(delivery, delivery.send(None))
            except StopIteration:
                for other in others:
                    other.close()
                return None
        return await super().wait_first(delivery, *others, timeout=timeout)

    async def _wait_next_records(self, timeout: float) -> Any:
        """Fetch on as soon as a stream's buffer has room again.

        While the buffers of all partitions are full Faust sleeps for whole seconds.
        """
        deadline = time.monotonic() + FULL_S
        while self.flow_active and not self._get_active_partitions():
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(WITHIN_S)
        return await super()._wait_next_records(timeout)


class _Begun:
    """Await what is left of a coroutine that has been started and waits for `future`."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], future: Any) -> None:
        self._coroutine, self._future = coroutine, future

    def __await__(self) -> Generator[Any, Any, Any]:
        future = self._future
        try:
            while True:
                try:
                    sent = yield future
                except BaseException as error:
                    future = self._coroutine.throw(error)
                else:
                    future = self._coroutine.send(sent)
        except StopIteration as done:
            return done.value


class _Transport(aiokafka.Transport):
    Consumer = _Consumer


class _App(faust.App):
    """Keep no tables, and therefore no directory for them.

    `on_broken` is called when a connection was closed, and not by us.
    """

    on_broken: Callable[[], None]

    def _create_directories(self) -> None:
        pass


def make_app(tasks: Sequence[Task], kafka: KafkaConnection) -> faust.App:
    """Build the application: one agent for each input topic, whatever number of tasks reads it."""
    app = _App(
        normalizer_group(task.name for task in tasks),
        **settings_of(kafka),
        broker_commit_interval=COMMIT_S,
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=SESSION_S / 3,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=METADATA_MS,
        key_serializer="raw",
        value_serializer="raw",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    app.on_broken = _once(partial(_look, kafka))
    app.transport = _Transport(app.conf.broker_consumer, app)
    for topic in sorted({task.input.topic for task in tasks}):
        readers = [task for task in tasks if task.input.topic == topic]
        stage = Stage(readers, kafka.sink(), partial(_make_room, readers, kafka))
        app.agent(app.topic(topic), name=topic)(_agent(stage, kafka))
    return app


def _agent(publish: Callable[[Records], None], kafka: KafkaConnection) -> Callable[[Any], Any]:
    async def agent(stream: Any) -> None:
        try:
            await pump(stream.noack_take(TAKE, within=WITHIN_S), publish)
        except Exception as error:
            _die(error, kafka)

    return agent


def _once(look: Callable[[], None]) -> Callable[[], None]:
    """Return a function that has `look` called in a thread, but never twice at a time."""
    looking = threading.Lock()

    def run() -> None:
        try:
            look()
        finally:
            looking.release()

    def ask() -> None:
        if looking.acquire(blocking=False):
            threading.Thread(target=run, daemon=True).start()

    return ask


def _look(kafka: KafkaConnection) -> None:
    """End this process if Kafka does not let us in, with the next token either."""
    if kafka.properties and isinstance(wrong := explain(kafka), AccessError):
        _die(wrong, kafka)


def _die(error: BaseException, kafka: KafkaConnection) -> NoReturn:
    """End now, whatever Faust would do: what is not committed is done again by the next worker.

    Clients that were not let in say that nobody answers: then Kafka is asked why.
    """
    if not isinstance(error, AccessError) and kafka.properties:
        error = explain(kafka) or error
    refused = isinstance(error, AccessError)
    note(f"headrace normalize: {error if refused else f'{type(error).__name__}: {error}'}")
    os._exit(processes.USELESS if refused else 1)


def run(
    task_paths: Sequence[str | Path],
    kafka: KafkaConnection,
    *,
    workers: int = 1,
    stop: Callable[[], bool] = lambda: False,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Normalise the topics of tasks in worker processes that share the partitions, until stopped.

    Args:
        on_ready: called once, when every worker has its partitions.

    Raises:
        TaskError: a task file is wrong.
        BrokerError: no broker.
        AccessError: something is not allowed.
        HeadraceError: a topic is missing or has too few partitions, or a worker died repeatedly.
    """
    tasks = [load(path) for path in task_paths]
    for task in tasks:
        Normalizer(task)  # a worker would find the same mistake, and die of it
    for topic in {task.input.topic for task in tasks}:
        _make_room([task for task in tasks if task.input.topic == topic], kafka)
    if kafka.properties:  # a worker would wait for ever
        with admin_of(kafka) as admin:
            group = normalizer_group(task.name for task in tasks)
            require_group(admin, group, tasks[0].input.topic)
    command = [sys.executable, "-P", "-m", "headrace.stream.engines.faust", *map(str, task_paths)]
    processes.keep_running(
        command, workers, environment=kafka.environment(), stop=stop, on_ready=on_ready
    )


def _make_room(tasks: Sequence[Task], kafka: KafkaConnection) -> int:
    """Make sure that the topics of tasks are there, and let outputs grow with their input.

    Returns:
        how many partitions each of the outputs has, at least.
    """
    read = [task.input.topic for task in tasks]
    written = [task.output(stage) for task in tasks for stage in OUTPUTS]
    specs = [spec for task in tasks for spec in topic_specs(task) if spec.name in read + written]
    found = kafka.prepare(list(dict.fromkeys(specs)), needs={"READ": read, "WRITE": written})
    return min(topic.partitions for topic in found)


async def _serve(tasks: Sequence[Task], kafka: KafkaConnection) -> None:
    """Run the application until the owner of this process ends it."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    processes.on_end(lambda: loop.call_soon_threadsafe(ended.set))
    app = make_app(tasks, kafka)

    async def ready(*_: Any, **__: Any) -> None:
        processes.say_ready()

    app.on_rebalance_complete.connect(ready)
    await app.start()
    ends = [asyncio.ensure_future(wait) for wait in (ended.wait(), app.wait_until_stopped())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if app.crash_reason:
        _die(app.crash_reason, kafka)
    await app.stop()


def _once_a_minute() -> Callable[[logging.LogRecord], bool]:
    """Let what is said again and again, while Kafka is away, through once a minute."""
    said: dict[str, float] = {}

    def passes(record: logging.LogRecord) -> bool:
        if record.created - said.get(str(record.msg), 0.0) < 60:
            return False
        said[str(record.msg)] = record.created
        return True

    return passes


def main(paths: Sequence[str]) -> NoReturn:
    """Be one worker process; its environment says where Kafka is."""
    guard()
    logging.basicConfig(format="headrace normalize: %(name)s: %(message)s", handlers=[LogHandler()])
    logging.root.handlers[0].addFilter(_once_a_minute())
    quiet = logging.getLogger("aiokafka.consumer.group_coordinator")
    quiet.setLevel(logging.CRITICAL)  # it reports every rebalance as an error
    with suppress(ImportError):  # there is none for Windows
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    kafka = connect()
    try:
        asyncio.run(_serve([load(path) for path in paths], kafka))
    except Exception as error:
        _die(error, kafka)
    os._exit(0)  # Faust's threads would not end by themselves


if __name__ == "__main__":
    main(sys.argv[1:])

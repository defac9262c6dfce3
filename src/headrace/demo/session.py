"""Start everything in the order that is soonest ready, watch it, and end it in order."""

from __future__ import annotations

import signal
import tempfile
import time
import uuid
import webbrowser
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from headrace.demo.monitor import Monitor
from headrace.demo.page import page_of
from headrace.demo.state import Demo, Stage
from headrace.demo.tally import TaskStatus
from headrace.demo.view import show, summarize
from headrace.stream import task as tasks
from headrace.stream.broker.embedded import Broker, embedded
from headrace.stream.errors import HeadraceError, UsageError
from headrace.stream.evaluation.infer import to_toml
from headrace.stream.kafka.acls import Role, acls, grant
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.properties import to_environment
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import delete, ensure
from headrace.stream.process.child import Child
from headrace.stream.process.signals import ENDING
from headrace.stream.process.terminal import say
from headrace.stream.task import Task

STREAMS = {"pm25": "sensor", "hackernews": "social", "spam": "text"}
LOOK_S = 0.02
HEAP_MB = 256
# Small micro-batches: a text task's arrays of 4096 rows take 4 MB, filled anew for each.
LEARN = ("--from", "features", "--json", "--micro-batch", "256")


@dataclass(frozen=True)
class Patience:
    """Say how long the end may take: seconds since it began, by stage."""

    producers_s: float  # until the producers have flushed
    answers_s: float  # until every event is answered
    learners_s: float  # until the learners have ended
    normalizer_s: float


CALM = Patience(10, 20, 24, 28)
HURRY = Patience(3.0, 3.6, 4.1, 4.4)  # Ctrl-C: the broker included, all is gone within 5 s


def run(
    *,
    seconds: float | None,
    rate: float,
    kafka: KafkaConnection | None,
    secure: bool,
    open_page: bool,
    as_json: bool,
) -> int:
    """Run the demo until told to stop, or for `seconds` of events; return the exit code.

    The code is 0 only if every event sent was predicted or put aside as a dead letter and no part
    failed; 130 when it was interrupted before the first event. On a Kafka that is named the topics
    get names of this run alone, and are deleted at the end. With `secure`, the demo's own Kafka
    asks who comes, and each process is the user who is meant for it. With `open_page`, a browser
    is asked to show the page, too.

    Raises:
        UsageError: `secure`, and a Kafka is named.
    """
    if secure and kafka:
        raise UsageError(f"--secure is for a Kafka of the demo's own, and {kafka} is named")
    demo, code = Demo(rate, secure=secure), 0
    try:
        with _interrupted_by_signals(), show(demo, quiet=as_json):
            _run(demo, seconds, kafka, open_page=open_page)
    except HeadraceError as error:
        demo.errors += map(str, error.args)
        code = error.exit_code
    except KeyboardInterrupt:
        demo.errors.append("interrupted before the end was in order")
        code = 130
    if as_json:
        say(demo.as_json())
    summarize(demo, quiet=as_json)
    return code or int(bool(demo.errors))


def _run(
    demo: Demo, seconds: float | None, named: KafkaConnection | None, *, open_page: bool
) -> None:
    with ExitStack() as stack:
        processes = Processes(demo, named.environment() if named else to_environment({}))
        stack.callback(processes.close)
        places = stack.enter_context(_task_files(own_names=named is not None))
        loaded = [tasks.load(place) for place in places]
        with processes.stage("Kafka"):
            broker = None if named else stack.enter_context(_broker(demo))
            kafka = broker.kafka if broker else cast("KafkaConnection", named)
            demo.bootstrap = kafka.servers
        stack.callback(processes.close)  # before the broker ends
        specs = [spec for task in loaded for spec in topic_specs(task)]
        if named:
            stack.callback(delete, kafka, [spec.name for spec in specs])
        with processes.stage("topics"):
            ensure(kafka, list(dict.fromkeys(specs)))
            if broker and broker.clients:
                grant(kafka, acls(loaded))
                processes.clients, kafka = broker.clients, broker.client("reader")
        patience = CALM
        try:
            processes.begin_learning(places, stack.enter_context(_scratch("state")))
            monitor = stack.enter_context(_watched(demo, kafka, loaded))
            demo.page = stack.enter_context(page_of(loaded, kafka))
            if open_page:
                webbrowser.open(demo.page)
            processes.await_ready()
            processes.begin_producing([task.input.topic for task in loaded])
            processes.watch(seconds)
        except KeyboardInterrupt:
            if not processes.producing:
                raise
            patience = HURRY
        processes.end(monitor, patience)


class Processes:
    """Hold the child processes and give them their cues."""

    def __init__(self, demo: Demo, environment: Mapping[str, str]) -> None:
        self._demo, self._environment = demo, environment
        self._stages = {
            name: Stage(name) for name in ("Kafka", "topics", *STREAMS, "normaliser", "producers")
        }
        demo.stages = list(self._stages.values())
        self._learners = {
            name: self._child(f"learner {name}", "headrace.stream.service.learn")
            for name in STREAMS
        }
        self._normalizer = self._child("normaliser", "headrace.stream.engines.faust")
        self._producers: list[Child] = []
        self.producing = False
        self.clients: Path | None = None  # has a file for each role, if Kafka is secure

    def _child(self, name: str, module: str) -> Child:
        return Child(name, preload=(module,), environment=self._environment)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show a part as starting, then as ready."""
        stage = self._stages[name]
        stage.state = "starts"
        yield
        stage.state = "ready"

    def _login(self, role: Role) -> tuple[str, str]:
        """Return how a command of a role gets to Kafka."""
        if self.clients:
            return "--kafka-config", str(self.clients / f"{role}.properties")
        return "--bootstrap", self._demo.bootstrap

    def begin_learning(self, places: Sequence[Path], state: str) -> None:
        """Begin the learners and the one normaliser for all; let the producers import."""
        for learner, place in zip(self._learners.values(), places, strict=True):
            learner.begin("learn", str(place), *LEARN, "--state", state, *self._login("learner"))
        self._normalizer.begin("normalize", *map(str, places), "--json", *self._login("normaliser"))
        self._producers += [
            self._child(f"producer {source}", "headrace.producers.publish")
            for source in STREAMS.values()
        ]
        for name in (*STREAMS, "normaliser"):
            self._stages[name].state = "starts"

    def await_ready(self) -> None:
        """Wait until the learners have compiled and the normaliser has its partitions."""
        waiting = self._learners | {"normaliser": self._normalizer}
        while waiting:
            for name in [name for name, child in waiting.items() if child.ready]:
                self._stages[name].state = "ready"
                del waiting[name]
            self._check()
            time.sleep(LOOK_S)

    def begin_producing(self, topics: Sequence[str]) -> None:
        """Begin the producers."""
        self.producing = True
        options = ("--rate", str(self._demo.rate), "--loop", "--json")
        for producer, source, topic in zip(self._producers, STREAMS.values(), topics, strict=True):
            login = self._login("producer")
            producer.begin("produce", source, "--topic", topic, *options, *login)
        self._stages["producers"].state = "ready"

    def watch(self, seconds: float | None) -> None:
        """Look after all, for so many seconds of events, or until interrupted."""
        end_s = None if seconds is None else time.monotonic() + seconds
        while end_s is None or time.monotonic() < end_s:
            self._check()
            time.sleep(LOOK_S)

    def end(self, monitor: Monitor, patience: Patience) -> None:
        """Stop the producers, wait for the answers, stop the rest; account for every event."""
        begun_s, demo = time.monotonic(), self._demo
        demo.ending = "producers send what is under way"
        self._stop(self._producers, begun_s + patience.producers_s, strict=True)
        acknowledged = [self._acknowledged(producer) for producer in self._producers]
        demo.ending = "waiting for the last predictions"

        def answered() -> bool:
            events = [status.events for status in monitor.statuses()]
            return monitor.settled and all(map(int.__ge__, events, acknowledged))

        self._until(answered, begun_s + patience.answers_s)
        demo.ending = "stopping learners and normaliser"
        strict = patience is CALM  # in a hurry what is accounted for may be cut short
        self._stop(self._learners.values(), begun_s + patience.learners_s, strict=strict)
        self._until(lambda: monitor.scored, begun_s + patience.learners_s)
        self._stop([self._normalizer], begun_s + patience.normalizer_s, strict=strict)
        demo.ending = "stopping Kafka"
        for status, count in zip(monitor.statuses(), acknowledged, strict=True):
            demo.errors += _account(status, count)

    def close(self) -> None:
        """Leave no process behind."""
        for child in self._all():
            child.close()

    def _all(self) -> list[Child]:
        return [*self._producers, *self._learners.values(), self._normalizer]

    def _check(self) -> None:
        """Raise what has gone wrong in a child, or in the monitor."""
        monitor = self._demo.monitor
        if monitor and monitor.error:
            raise HeadraceError(f"monitor: {monitor.error}")
        for child in self._all():
            if child.ended:
                raise HeadraceError(child.trouble or f"{child.name} ended too early")

    def _stop(self, children: Collection[Child], give_up_s: float, *, strict: bool) -> None:
        for child in children:
            child.stop()
        for child in children:
            if not child.wait(give_up_s):
                child.close()
                if strict:
                    self._demo.errors.append(f"{child.name} did not end in time")
            elif child.trouble:
                self._demo.errors.append(child.trouble)

    def _until(self, done: Callable[[], bool], give_up_s: float) -> None:
        while not done() and time.monotonic() < give_up_s:
            time.sleep(LOOK_S)

    def _acknowledged(self, producer: Child) -> int:
        said = producer.said
        if failed := said.get("failed", 0):
            self._demo.errors.append(f"{producer.name}: {failed} events were not acknowledged")
        return int(said.get("acknowledged", 0))


def _account(status: TaskStatus, acknowledged: int) -> list[str]:
    """Return what does not add up for a task."""
    name, wrong = status.name, []
    if status.events < acknowledged:
        wrong.append(f"{name}: {acknowledged:,} acknowledged, {status.events:,} in the topic")
    if status.open > 0:
        wrong.append(
            f"{name}: {status.open:,} of {status.events:,} events were neither predicted nor "
            "put aside in time"
        )
    if status.open < 0:
        wrong.append(f"{name}: {-status.open:,} answers more than events")
    return wrong


def _scratch(what: str) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(
        prefix=f"headrace-demo-{what}-",
        ignore_cleanup_errors=True,  # a child may still write
    )


@contextmanager
def _task_files(*, own_names: bool) -> Iterator[list[Path]]:
    """Yield the task files; with `own_names`, copies whose topics nobody else has."""
    installed = Path(__file__).parents[1] / "examples"
    root = installed if installed.exists() else Path(__file__).parents[3] / "examples"
    places = [root / f"{name}.toml" for name in STREAMS]
    for place in places:
        if not place.exists():
            raise UsageError(f"{place}: not there; the examples belong to the installation")
    if not own_names:
        yield places
        return
    run = f"demo-{uuid.uuid4().hex[:8]}"
    with _scratch("tasks") as scratch:
        copies = []
        for place in places:
            task = tasks.load(place)
            source = task.input.model_copy(update={"topic": f"{run}.{task.input.topic}"})
            update = {"name": f"{run}-{task.name}", "input": source}
            copies.append(Path(scratch, place.name))
            copies[-1].write_text(to_toml(task.model_copy(update=update)), "utf-8")
        yield copies


@contextmanager
def _watched(demo: Demo, kafka: KafkaConnection, loaded: Sequence[Task]) -> Iterator[Monitor]:
    demo.monitor = Monitor(dict(zip(STREAMS, loaded, strict=True)), kafka)
    try:
        yield demo.monitor
    finally:
        demo.statuses = demo.monitor.statuses()
        demo.monitor.close()


@contextmanager
def _broker(demo: Demo) -> Iterator[Broker]:
    def on_progress(done: int, total: int) -> None:
        demo.stages[0].note = f"fetched {done / 1e6:.0f} of {total / 1e6:.0f} MB, once"

    with embedded(heap_mb=HEAP_MB, secured=demo.secure, on_progress=on_progress) as broker:
        demo.stages[0].note = broker.bootstrap
        yield broker


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Make every signal that asks for the end what Ctrl-C is."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

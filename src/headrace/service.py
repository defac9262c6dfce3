"""What `headrace learn` does, in a program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace import saved
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.process.paths import data_dir
from headrace.stream.service import run as runs
from headrace.stream.service.learn import learn
from headrace.stream.service.plan import plan
from headrace.stream.service.progress import Progress
from headrace.stream.service.start import Origin, Safety
from headrace.stream.task import Task
from headrace.stream.training import keras_models


class Service:
    """Predict and learn the events of a task's topic, exactly once.

    Goes on where the task's ledger ends, with the state that it had there, bit for bit, whoever
    wrote it: this class or `headrace learn`. The task's topics have to be there (`headrace topics
    create`).

    Args:
        task: a task, or the path or URL of its file.
        kafka: a connection, or `host:port[,host:port]` of any of its brokers.
        origin: raw `events`, normalised here, or `features` as `headrace normalize` makes them.
        state: where checkpoints are kept, a directory or an fsspec URL; default: this user's own.
        key: 16 bytes at least that seal checkpoints.
        network: a Keras model that takes the place of `model.network`, as `Learner` takes it. To go
            on, to verify or to open a checkpoint takes the same model again, weights and all: from
            the program, or from a file of it that the task names.
        start_from: the saved learner that a new run begins with: a file of `Learner.save`, or a
            checkpoint of a service as `Learner.load` takes it. A run that goes on has to have begun
            with it.
        micro_batch: most events handled at a time; changes speed, never a prediction.
        release_s: how old the state may become by which `headrace serve` answers, before the next
            one is released to `<task>.models`; 0 for none.
        from_scratch: begin a new run in the same ledger.
        accept_recompute: go on although history comes out otherwise with this code.
        accept_loss: go on although events were deleted before they were learned.
        accept_new_topic: go on with a raw topic that was deleted and made again.

    Raises:
        TaskError: the file is no task, or the model does not fit.
        UsageError: the saved learner cannot be read, or is of another task.
        RecoveryError: it is broken, or was saved by other code than this.
    """

    def __init__(
        self,
        task: Task | str | Path,
        kafka: KafkaConnection | str,
        *,
        origin: Origin = "events",
        state: str | Path | None = None,
        key: bytes | None = None,
        network: Any = None,
        start_from: str | Path | None = None,
        micro_batch: int = 4096,
        release_s: float = 1.0,
        from_scratch: bool = False,
        accept_recompute: bool = False,
        accept_loss: bool = False,
        accept_new_topic: bool = False,
    ) -> None:
        self.task = task if isinstance(task, Task) else Task.load(task)
        if network is not None:
            self.task = self.task.with_network(keras_models.given(network))
        self._kafka = KafkaConnection(kafka) if isinstance(kafka, str) else kafka
        self._origin, self._micro_batch, self._release_s = origin, micro_batch, release_s
        key = key and key.strip()  # of a file perhaps, as the commands read it
        self._safety = Safety(
            str(state or data_dir("state")),
            key,
            None if start_from is None else saved.open_start(str(start_from), key, self.task),
            from_scratch,
            accept_recompute,
            accept_loss,
            accept_new_topic,
        )

    def plan(self) -> list[str]:
        """Say, in lines for a person, where it would go on; changes nothing.

        Raises: as `run`, of what is known before anything is learned again.
        """
        safety = self._safety
        run = runs.run_of(self.task, self._kafka, from_scratch=safety.from_scratch)
        checkpoints = runs.open_checkpoints(self.task, safety.place, run, safety.key)
        found = plan(self.task, self._kafka, checkpoints, run, start=safety.start)
        return found.describe()

    def run(
        self,
        *,
        drain: bool = False,
        stop: Callable[[], bool] = lambda: False,
        on_ready: Callable[[], None] = lambda: None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> Progress:
        """Learn until told to stop, and return how far it came; the last checkpoint is written.

        Args:
            drain: stop at what is now the end of the topic.
            stop: asked between micro-batches, and while Kafka is waited for.
            on_ready: called when the first event may be taken.
            on_progress: called about once a second.
            on_note: called with a line for a person: how it goes on, what went wrong beside.

        Raises:
            TopicError: a topic is missing, or cannot do what it is for.
            BrokerError: no broker.
            UsageError: the run that goes on did not begin with `start_from`.
            RecoveryError: the state of the ledger's tip cannot be had again.
            InDoubtError, FencedError: what was written is not certain, or is another's to write.
            StoppedError: `stop` said so before the first event was taken.
        """
        return learn(
            self.task,
            self._kafka,
            origin=self._origin,
            safety=self._safety,
            micro_batch=self._micro_batch,
            release_s=self._release_s,
            drain=drain,
            stop=stop,
            on_ready=on_ready,
            on_progress=on_progress,
            on_note=on_note,
        )

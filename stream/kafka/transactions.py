"""Outputs that appear together or not at all, and errors that end the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from headrace.stream.errors import (
    BrokerError,
    DeliveryError,
    FencedError,
    HeadraceError,
    InDoubtError,
    StoppedError,
)
from headrace.stream.kafka.access import TRANSACTIONS_REFUSED, lacking, require
from headrace.stream.kafka.client_settings import ClientSettings
from headrace.stream.kafka.diagnosis import explain
from headrace.stream.kafka.fencing import Owner, abort_hanging, owner_of, was_taken_over
from headrace.stream.kafka.sink import Sink
from headrace.stream.kafka.topics import admin_of
from headrace.stream.process.failpoint import failpoint

COMMIT_S = 20.0
FENCE_S = 90.0  # a new broker on a busy machine takes its time to make its log of transactions
STEP_S = 2.0  # after which it is asked whether to stop
AGAIN_S = 0.2


class Transactions:
    """Write records that appear together or not at all, one transaction after the other.

    `begin`, `send`, `commit`, `await_commit`: a thread waits for the end of a transaction, so that
    the next micro-batch is decoded meanwhile. Kafka takes no new transaction before the markers of
    the last one are written, and the client then waits for 20 ms: a `confirm` that reads something
    back spares that wait. There is no abort: whoever meets an error here must end the process and
    let recovery read the ledger, since no client knows how a failed commit ended.

    Args:
        kafka: where it is.
        transactional_id: whoever else uses it is fenced from now on.
        topics: that are written; what an earlier owner left hanging there is aborted.
        on_note: called with a line for a person.
        stop: asked while Kafka is waited for.

    Raises:
        BrokerError: the broker does not answer.
        AccessError: it does not let us in, or not write there.
        StoppedError: `stop` said so.
    """

    def __init__(
        self,
        kafka: ClientSettings,
        transactional_id: str,
        *,
        topics: Sequence[str] = (),
        on_note: Callable[[str], None] = lambda note: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._kafka, self._id, self._stop = kafka, transactional_id, stop
        self._owner: Owner | None = None
        self._sink = Sink(kafka, transactional_id=transactional_id)
        self._pool = ThreadPoolExecutor(1, "commit")
        self._ending: Future[Any] | None = None
        try:
            if topics:
                with admin_of(kafka) as admin:
                    require(admin, {"WRITE": topics})
            self._fence()
            self._owner = owner_of(kafka, transactional_id)
            for place in abort_hanging(kafka, self._owner, topics):
                on_note(f"{place}: a transaction of an earlier learner hung there, and was aborted")
        except HeadraceError:
            self.close()
            raise
        except KafkaException as error:
            self.close()
            if error.args[0].code() == TRANSACTIONS_REFUSED:
                resource = f"transactional-id {transactional_id}"
                raise lacking(kafka, "WRITE", resource) from error
            raise explain(kafka) or BrokerError(
                f"{kafka} does not open transactions: {error.args[0].str()}; are there as many "
                "brokers as its transaction.state.log.replication.factor (3 by default) says?"
            ) from error

    def _fence(self) -> None:
        """Take the transactional id over; a transaction that was left open is aborted by it.

        A broker that has just made or moved its transaction log says that it is not, or not yet,
        the coordinator: then it is asked again.
        """
        give_up_s = time.monotonic() + FENCE_S
        while True:
            try:
                self._sink.producer.init_transactions(STEP_S)
            except KafkaException as error:
                reason = error.args[0]
                again = reason.code() in _MOVING or reason.retriable()
                if not again or time.monotonic() > give_up_s:
                    raise
                if self._stop():
                    raise StoppedError("stopped before Kafka had opened transactions") from error
                time.sleep(AGAIN_S)
            else:
                return

    def begin(self) -> None:
        """Open a transaction; the end of the one before it was awaited."""
        try:
            self._sink.producer.begin_transaction()
        except KafkaException as error:
            raise self._doubt(error, "begin a transaction") from error
        failpoint("transaction begun")

    def send(
        self,
        topic: str,
        values: Sequence[bytes],
        *,
        keys: Sequence[bytes | None] | None = None,
        partitions: Sequence[int] | None = None,
    ) -> None:
        """Put records into the transaction."""
        try:
            self._sink.send(topic, values, keys=keys, partitions=partitions)
        except KafkaException as error:
            raise self._doubt(error, f"write to {topic}") from error
        except DeliveryError as error:
            raise self._told(str(error)) from error

    def commit(
        self, *, check: Callable[[], Any] = lambda: None, confirm: Callable[[], Any] = lambda: None
    ) -> None:
        """Begin to end the transaction.

        Args:
            check: called before it is committed, and may raise: then it never is.
            confirm: called after it, on the same thread.
        """
        failpoint("before commit")
        self._ending = self._pool.submit(self._commit, check, confirm)
        failpoint("commit begun")

    @property
    def settled(self) -> bool:
        """Return whether no commit is under way."""
        return self._ending is None or self._ending.done()

    def await_commit(self) -> Any:
        """Wait for the commit that is under way, and give what `confirm` gave; None without one.

        Raises:
            InDoubtError: a record was not acknowledged, or the end of the transaction is not known.
            FencedError: another process took over the transactional id.
        """
        ending, self._ending = self._ending, None
        return ending.result() if ending else None

    def close(self) -> None:
        """Let go of the broker; what is not committed never appears."""
        self._pool.shutdown()

    def refresh(self, topic: str) -> None:
        """Have the client learn of partitions that were added to a topic."""
        self._sink.refresh(topic)

    def _commit(self, check: Callable[[], Any], confirm: Callable[[], Any]) -> Any:
        try:
            self._sink.flush(COMMIT_S)
            check()
            failpoint("flushed")
            self._sink.poll_delivery_reports(COMMIT_S, self._sink.producer.commit_transaction)
        except KafkaException as error:
            raise self._doubt(error, "commit") from error
        except DeliveryError as error:
            raise self._told(str(error)) from error
        failpoint("committed")
        return confirm()

    def _doubt(self, error: KafkaException, doing: str) -> HeadraceError:
        return self._told(f"{self._id} cannot {doing}: {error.args[0].str()}")

    def _told(self, what: str) -> HeadraceError:
        """Tell an error: as fenced only if another owner is there, who would be fenced in turn."""
        if self._owner and was_taken_over(self._kafka, self._id, self._owner):
            return FencedError(
                f"{self._id}: another learner of this task has started and took over; what this "
                f"one did not commit never appears ({what})"
            )
        return InDoubtError(f"{what}; start again")


_MOVING = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}

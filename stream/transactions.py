"""Outputs that appear together or not at all, and errors that end the process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException

from stream.errors import BrokerError, DeliveryError, DoubtError, FencedError, HeadraceError
from stream.failpoint import failpoint
from stream.kafka import TRANSACTION_S, Sink

COMMIT_S = 20.0


class Transactions:
    """Write records that appear together or not at all, one transaction after the other.

    `begin`, `send`, `commit`, then at some time `settle`. The end of a transaction is waited for
    on a thread, while the next one is written by a second producer: a transaction is begun only
    when all records of the one before are in the log, and ended only when the one before is proven,
    so the log and the readers see one order. There is no abort: whoever meets an error here must
    end the process and let recovery read the ledger, since no client knows how a failed commit
    ended; what follows a failed transaction is never committed.

    Args:
        bootstrap: `host:port[,host:port]`.
        transactional_id: whoever else uses it is fenced from now on.

    Raises:
        BrokerError: the broker does not answer.
    """

    def __init__(self, bootstrap: str, transactional_id: str) -> None:
        self._id = transactional_id
        ids = [f"{transactional_id}.{turn}" for turn in range(2)]
        self._pool = ThreadPoolExecutor(len(ids), "commit")
        self._sinks = [Sink(bootstrap, linger_ms=1.0, transactional_id=each) for each in ids]
        self._under_way: deque[_Ending] = deque()
        try:
            # A transaction that was left open is aborted by this; until it is, Kafka says "wait".
            list(
                self._pool.map(lambda sink: sink.producer.init_transactions(COMMIT_S), self._sinks)
            )
        except KafkaException as error:
            self.close()
            raise BrokerError(
                f"{bootstrap} does not open transactions: {error.args[0].str()}; is it reachable, "
                "and are enough of its brokers up?"
            ) from error

    def begin(self) -> None:
        """Open a transaction; one before it may be under way, with its records in the log."""
        if self._under_way:
            self._under_way[-1].written.wait()
        self._sinks.reverse()  # the first one is written now, the second may be about to end
        try:
            self._sinks[0].producer.begin_transaction()
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
            self._sinks[0].send(topic, values, keys=keys, partitions=partitions)
        except KafkaException as error:
            raise self._doubt(error, f"write to {topic}") from error
        except DeliveryError as error:
            raise DoubtError(f"{error}; start again") from error

    def commit(self, proof: Callable[[], Any] = lambda: None) -> None:
        """Begin to end the transaction; `proof` is called after it, and its answer is kept."""
        failpoint("before commit")
        before = self._under_way[-1].done if self._under_way else None
        written = Event()
        job = self._pool.submit(self._commit, self._sinks[0], before, written, proof)
        self._under_way.append(_Ending(written, job))
        failpoint("commit begun")

    def settle(self, *, leave: int = 0) -> list[Any]:
        """Give the proofs that are in; wait until no more than `leave` are to come.

        Raises:
            DoubtError: a record was not acknowledged, or the end of a transaction is not known.
            FencedError: another process took over the transactional id.
        """
        proofs = []
        while self._under_way and (len(self._under_way) > leave or self._under_way[0].done.done()):
            proofs.append(self._under_way.popleft().done.result())
        return proofs

    def close(self) -> None:
        """Let go of the broker; what is not committed never appears."""
        self._pool.shutdown()

    def _commit(
        self, sink: Sink, before: Future[Any] | None, written: Event, proof: Callable[[], Any]
    ) -> Any:
        try:
            try:
                sink.flush(COMMIT_S)
            finally:
                written.set()
            failpoint("flushed")
            if before:
                before.result()
            sink.producer.commit_transaction(COMMIT_S)
        except KafkaException as error:
            raise self._doubt(error, "commit") from error
        except DeliveryError as error:
            raise DoubtError(f"{error}; nothing was committed; start again") from error
        failpoint("committed")
        return proof()

    def _doubt(self, error: KafkaException, doing: str) -> HeadraceError:
        reason = error.args[0]
        if reason.code() in _FENCED:
            return FencedError(
                f"{self._id}: fenced; another learner of this task has started, or this one stood "
                f"still for more than {TRANSACTION_S:g} s; what it did not commit never appears"
            )
        return DoubtError(f"{self._id} cannot {doing}: {reason.str()}; start again")


class _Ending(NamedTuple):
    """Hold a transaction that is about to end."""

    written: Event  # its records are in the log, or never will be
    done: Future[Any]


_FENCED = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}

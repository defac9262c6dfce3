"""The errors a user can meet, each one line that names the cause and the way out.

HeadraceError                exit 1   anything below; the command line prints it without a traceback
├── UsageError               exit 2   the command, an option or an input file is wrong
│   ├── TaskError            exit 2   the task file is wrong: names key, value, expectation
│   └── TopicError           exit 2   a topic is missing, or cannot do what it is for
├── EventError               exit 1   an event that a program gave is refused
├── BrokerError              exit 3   no Kafka: ours does not start, or yours does not answer
│   └── AccessError          exit 2   Kafka refuses who we are, or what we ask, or is not trusted
├── ServiceError             exit 3   no service answers a question, or not now
├── DeliveryError            exit 4   records were sent and not acknowledged
├── InDoubtError               exit 5   not certain that a batch was committed: start again
├── FencedError              exit 6   another learner of the task has taken over
├── RecoveryError            exit 7   the state cannot be had again without a decision of yours
│   ├── HistoryError         exit 7   events that are needed again are gone
│   └── StoreError           exit 3   the store behind a URL does not do what it is asked
├── AuditError               exit 8   the ledger, the predictions and the state do not agree
└── StoppedError             exit 130 told to end before it had begun
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class HeadraceError(Exception):
    """Report a failure the user can act on: each argument is one line."""

    exit_code = 1

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UsageError(HeadraceError):
    """Report a command, an option or an input file that cannot be used."""

    exit_code = 2


class TaskError(UsageError):
    """Report a task file that cannot be used: key, value, what was expected."""


class TopicError(UsageError):
    """Report a topic that is not there, or that cannot do what it is for."""


class EventError(HeadraceError):
    """Report an event that is refused, which changed nothing: `code` is a dead letter's."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class BrokerError(HeadraceError):
    """Report a broker that cannot be started or reached."""

    exit_code = 3


class AccessError(BrokerError):
    """Report a Kafka that does not trust us or that we do not trust, or that forbids something."""

    exit_code = 2


class ServiceError(HeadraceError):
    """Report a service that does not answer questions, or not this one now."""

    exit_code = 3


class DeliveryError(HeadraceError):
    """Report records that were sent and not acknowledged."""

    exit_code = 4


class InDoubtError(HeadraceError):
    """Report a transaction whose end is not known; recovery finds out from the ledger."""

    exit_code = 5


class FencedError(HeadraceError):
    """Report that a newer learner of the same task owns the ledger."""

    exit_code = 6


class RecoveryError(HeadraceError):
    """Report a state that cannot be rebuilt unless the user decides something."""

    exit_code = 7


class HistoryError(RecoveryError):
    """Report events that are needed again and are no longer there."""


class StoreError(RecoveryError):
    """Report a store behind a URL that does not do what it is asked, now."""

    exit_code = 3


class AuditError(HeadraceError):
    """Report outputs that are not what the ledger, or a recomputation, says."""

    exit_code = 8


class StoppedError(HeadraceError):
    """Report an end that was asked for before there was anything to end in order."""

    exit_code = 130


def no_broker(servers: object, why: object) -> BrokerError:
    """Return the error that nobody answers where a Kafka should be, and the way out."""
    return BrokerError(
        f"no Kafka answers at {servers} ({why}): start one with `headrace up`, or give the address "
        "of yours (--bootstrap, KAFKA_BOOTSTRAP)"
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'input'?` if a word is nearly one of those known, else nothing."""
    names = {name.casefold(): name for name in known}
    near = get_close_matches(word.casefold()[:100], names, 1, 0.67)
    return f"; did you mean {names[near[0]]!r}?" if near else ""

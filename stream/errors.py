"""The errors a user can meet, each one line that names the cause and the way out.

HeadraceError                exit 1   anything below; the command line prints it without a traceback
├── UsageError               exit 2   the command, an option or an input file is wrong
│   └── TaskError            exit 2   the task file is wrong: names key, value, expectation
├── BrokerError              exit 3   no Kafka: ours does not start, or yours does not answer
└── DeliveryError            exit 4   records were sent and not acknowledged
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Report a failure the user can act on, in one line."""

    exit_code = 1


class UsageError(HeadraceError):
    """Report a command, an option or an input file that cannot be used."""

    exit_code = 2


class TaskError(UsageError):
    """Report a task file that cannot be used: key, value, what was expected."""


class BrokerError(HeadraceError):
    """Report a broker that cannot be started or reached."""

    exit_code = 3


class DeliveryError(HeadraceError):
    """Report records that were sent and not acknowledged."""

    exit_code = 4

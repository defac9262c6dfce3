"""How old the state is that answers, while it is asked."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import numpy as np

from headrace.stream.kafka.connection import KafkaConnection

LOOK_S = 0.1  # from one look to the next


class Look(NamedTuple):
    """Say how far a state is behind: what is so, and what its service says."""

    behind_events: int  # of the topic, that it had not learned
    age_s: float  # since it was the learner's
    says_behind_events: int


@contextmanager
def staleness(kafka: KafkaConnection, topic: str, url: str) -> Iterator[list[Look]]:
    """Look all the time while the context is open.

    Args:
        topic: of the task's events, all of which are learned.
        url: of the task, at a service that has a state.
    """
    found: list[Look] = []
    ended = threading.Event()

    def look() -> None:
        with closing(kafka.end_reader(committed=True)) as reader:
            while not ended.wait(LOOK_S):
                end = sum(reader.read([topic]).values())
                told = json.load(urllib.request.urlopen(url))
                age_s = time.time() - told["released_ms"] / 1000
                if told["behind_events"] is not None:
                    found.append(Look(end - told["step"], age_s, told["behind_events"]))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield found
    finally:
        ended.set()
        looking.join()


def percentiles(found: list[Look]) -> dict[str, Any]:
    """Return median and 99th percentile of each; nothing of none."""
    if not found:
        return {}
    each = np.percentile(found, [50, 99], axis=0).T.round(2).tolist()
    return dict(zip(Look._fields, each, strict=True))

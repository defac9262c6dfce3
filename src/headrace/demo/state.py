"""What is known of a demo that runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from headrace.demo.monitor import Monitor
from headrace.demo.tally import TaskStatus


@dataclass
class Stage:
    """Say how far a part is; `note` goes with it on the screen."""

    name: str
    state: str = "waits"  # waits, starts, ready
    note: str = ""


@dataclass
class Demo:
    """Hold what runs. Only the main thread changes it; the view reads."""

    rate: float
    secure: bool = False  # the Kafka that is started for it
    started_s: float = field(default_factory=time.monotonic)
    bootstrap: str = ""
    page: str = ""  # its address
    ending: str = ""  # what the end is waiting for
    monitor: Monitor | None = None
    stages: list[Stage] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    statuses: list[TaskStatus] = field(default_factory=list)  # the last of all

    @property
    def first_prediction_s(self) -> float | None:
        """Return the seconds from the start to the first prediction that was seen."""
        seen_s = self.monitor.first_prediction_s if self.monitor else None
        return None if seen_s is None else round(seen_s - self.started_s, 2)

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "tasks": {status.name: status.as_json() for status in self.statuses},
            "first_prediction_s": self.first_prediction_s,
            "errors": self.errors,
        }

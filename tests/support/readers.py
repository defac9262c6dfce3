"""What a learner of a program reads its events by."""

from __future__ import annotations

import pytest

from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task


def normalizers_of_readers(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Return the tasks of the normalisers that readers make from now on."""
    made: list[Task] = []

    class Counted(Normalizer):
        def __init__(self, task: Task) -> None:
            made.append(task)
            super().__init__(task)

    monkeypatch.setattr("headrace.reading.Normalizer", Counted)
    return made

"""Rows of a program through the compiled loop: a batch is collected while the next one runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import pyarrow as pa

from headrace.stream.events import DeadLetter
from headrace.stream.process.signals import interrupted_later
from headrace.stream.training.learned import Pending

T = TypeVar("T")


class Working(NamedTuple):
    """Hold rows that the compiled loop is working on."""

    first: int
    rows: int
    letters: list[DeadLetter]
    pending: Pending | None


def in_batches(
    raws: Iterable[bytes],
    size: int,
    submit: Callable[[list[bytes]], T],
    collect: Callable[[T], pa.Table],
    empty: pa.Table,
) -> pa.Table:
    """Return what comes of rows, batch after batch.

    Args:
        empty: what comes of none.

    Raises:
        what an iterator raises, when all rows before are done: `said` of it holds what came of
            these, and a note in it says how many.
    """
    found, working, batch = list[pa.Table](), list[T](), list[bytes]()

    def work() -> None:
        with interrupted_later():
            working.append(submit(batch))
            batch.clear()
        settle(1)

    def settle(most: int) -> None:
        while len(working) > most:
            with interrupted_later():
                found.append(collect(working.pop(0)))

    def finish() -> pa.Table:
        if batch:
            work()
        settle(0)
        return pa.concat_tables(found) if found else empty

    try:
        for raw in raws:
            batch.append(raw)
            if len(batch) == size:
                work()
        return finish()
    except BaseException as error:
        settle(0)
        error.said = said = finish()  # type: ignore[attr-defined]
        error.add_note(f"headrace took {said.num_rows:,} rows before it: see its `said`")
        raise

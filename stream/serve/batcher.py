"""Requests that wait, answered together: the compiled program takes many events at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from headrace.stream.training.asking import LINES

THREADS = 2  # one reads and writes JSON while XLA works for the other
FEW = 16  # events that are answered sooner than a thread would have begun


class _Waiting(NamedTuple):
    raws: Sequence[bytes]
    future: asyncio.Future[Any]


class Batcher:
    """Answer requests together, those that came at once as one lot, in the order they came.

    A few events are answered where they came; many on threads, while others come and gather. To be
    used within one event loop.

    Args:
        answer: gives a list as long as that of the events it is given, on any thread.
        few: how many events are answered where they came.
    """

    def __init__(self, answer: Callable[[Sequence[bytes]], list[Any]], few: int = FEW) -> None:
        self._answer, self._few = answer, few
        self._waiting: list[_Waiting] = []
        self._pool, self._busy = ThreadPoolExecutor(THREADS, "answers"), 0

    async def ask(self, raws: Sequence[bytes]) -> list[Any]:
        """Return what `answer` gives of these events.

        Raises:
            whatever `answer` does.
        """
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._begin)  # after all that has come by now
        self._waiting.append(_Waiting(raws, future))
        found: list[Any] = await future
        return found

    def close(self) -> None:
        """Answer what is under way, and no more."""
        self._pool.shutdown(cancel_futures=True)

    def _begin(self) -> None:
        """Answer those that wait, or have a thread begin to if one is free."""
        while self._waiting and self._busy < THREADS:
            count, events = 0, 0
            for waiting in self._waiting:
                if count and events + len(waiting.raws) > LINES:
                    break
                count, events = count + 1, events + len(waiting.raws)
            lot, self._waiting = self._waiting[:count], self._waiting[count:]
            raws = [raw for waiting in lot for raw in waiting.raws]
            if events <= self._few:
                _tell(lot, *self._answered(raws))
                continue
            self._busy += 1
            done = asyncio.get_running_loop().run_in_executor(self._pool, self._answered, raws)
            done.add_done_callback(partial(self._end, lot))

    def _answered(self, raws: Sequence[bytes]) -> tuple[list[Any], Exception | None]:
        try:
            return self._answer(raws), None
        except Exception as error:
            return [], error

    def _end(self, lot: Sequence[_Waiting], done: asyncio.Future[Any]) -> None:
        self._busy -= 1
        if done.cancelled():
            for waiting in lot:
                waiting.future.cancel()
            return
        _tell(lot, *done.result())
        self._begin()


def _tell(lot: Sequence[_Waiting], answers: Sequence[Any], error: Exception | None) -> None:
    """Give each request of a lot its part of the answers."""
    first = 0
    for raws, future in lot:
        if not future.done():  # else its client is gone
            if error:
                future.set_exception(error)
            else:
                future.set_result(answers[first : first + len(raws)])
        first += len(raws)

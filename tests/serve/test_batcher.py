"""Requests that wait are answered together, each with its own part."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from headrace.stream.serve.batcher import FEW, THREADS, Batcher
from headrace.stream.training.asking import LINES


def test_each_request_gets_its_part_and_lots_are_no_larger_than_a_program() -> None:
    lots: list[int] = []

    def answer(raws: Sequence[bytes]) -> list[Any]:
        lots.append(len(raws))
        return [raw + b"!" for raw in raws]

    async def ask() -> None:
        batcher = Batcher(answer)
        asked = [[b"%d-%d" % (at, n) for n in range(size)] for at, size in enumerate(SIZES)]
        found = await asyncio.gather(*map(batcher.ask, asked))
        assert found == [[raw + b"!" for raw in raws] for raws in asked]
        batcher.close()

    SIZES = [1, 0, 3, FEW, 200, 100, LINES + 50, 1, 1, 2]
    asyncio.run(ask())
    assert sum(lots) == sum(SIZES)
    assert len(lots) < len(SIZES)
    assert max(lots) == LINES + 50  # alone


def test_those_that_come_while_a_lot_is_answered_gather() -> None:
    lots: list[int] = []
    go = threading.Event()

    def answer(raws: Sequence[bytes]) -> list[Any]:
        lots.append(len(raws))
        go.wait(10)
        return list(raws)

    async def ask() -> None:
        batcher = Batcher(answer)
        asked = []
        for _ in range(10):
            asked.append(asyncio.create_task(batcher.ask([b"x"] * (FEW + 1))))
            await asyncio.sleep(0.01)
        go.set()
        assert sum(map(len, await asyncio.gather(*asked))) == 10 * (FEW + 1)
        batcher.close()

    asyncio.run(ask())
    assert lots == [FEW + 1] * THREADS + [8 * (FEW + 1)]


def test_an_error_is_told_to_all_of_the_lot_and_no_other() -> None:
    def answer(raws: Sequence[bytes]) -> list[Any]:
        if b"bad" in raws:
            raise LookupError("nothing yet")
        return list(raws)

    async def ask() -> None:
        batcher = Batcher(answer)
        for many in (1, FEW + 1):
            asked = [batcher.ask([b"bad"] * many), batcher.ask([b"good"] * many)]
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(each, LookupError) for each in found)
            with pytest.raises(LookupError):
                await batcher.ask([b"bad"])
            assert await batcher.ask([b"good"]) == [b"good"]
        batcher.close()

    asyncio.run(ask())


def test_a_client_that_leaves_takes_nothing_from_the_others() -> None:
    go = threading.Event()

    def answer(raws: Sequence[bytes]) -> list[Any]:
        go.wait(10)
        return list(raws)

    async def ask() -> None:
        batcher = Batcher(answer)
        one = asyncio.create_task(batcher.ask([b"a"] * 20))
        other = asyncio.create_task(batcher.ask([b"b"] * 20))
        await asyncio.sleep(0.01)
        one.cancel()
        go.set()
        assert await other == [b"b"] * 20
        batcher.close()

    asyncio.run(ask())

"""A bad network between a client and Kafka: replies that come late, and replies that never come.

It reads Kafka's frames: a request begins with length, api key, version, correlation id and client
id, a reply with length and correlation id.
"""

from __future__ import annotations

import asyncio
import random
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

PRODUCE, END_TRANSACTION = 0, 26


class Proxy:
    """Pass everything between a port of its own and a broker's, and hurt what `hurts` chooses.

    Args:
        hurts: called with the api key of each request of `client`; "" to leave it alone, "late" to
            hold its reply back, "cut" to end the connection in the reply's place.
    """

    def __init__(
        self,
        port: int,
        upstream: int,
        hurts: Callable[[int], str],
        *,
        client: bytes = b"rdkafka",
        late_s: float = 5.0,
        seed: int = 6,
    ) -> None:
        self._port, self._upstream, self._hurts = port, upstream, hurts
        self._client, self._late_s, self._chance = client, late_s, random.Random(seed)
        self.requests: Counter[int] = Counter()  # of the client, by api key
        self.hurt: Counter[tuple[int, str]] = Counter()
        self._loop = asyncio.new_event_loop()
        self._open = threading.Event()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="proxy")

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._open.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._meet, "127.0.0.1", self._port)
        self._open.set()
        await self._closing.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        opened = [writer]
        ends = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
        try:
            with suppress(*ends):
                back, forth = await asyncio.open_connection("127.0.0.1", self._upstream)
                opened.append(forth)
                marked: dict[int, tuple[int, str]] = {}
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._requests(reader, forth, marked))
                    both.create_task(self._replies(back, writer, marked))
        except* ends:
            pass
        finally:
            for each in opened:
                each.close()
            self._tasks.discard(task)

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        marked: dict[int, tuple[int, str]],
    ) -> None:
        while True:
            head = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(head, "big"))
            key, _, number, length = struct.unpack_from(">hhih", body)
            if body[10 : 10 + max(length, 0)] == self._client:
                self.requests[key] += 1
                if hurt := self._hurts(key):
                    marked[number] = (key, hurt)
            writer.write(head + body)
            await writer.drain()

    async def _replies(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        marked: dict[int, tuple[int, str]],
    ) -> None:
        while True:
            head = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(head, "big"))
            key, hurt = marked.pop(int.from_bytes(body[:4], "big"), (-1, ""))
            if hurt:
                self.hurt[key, hurt] += 1
            if hurt == "cut":
                raise ConnectionAbortedError
            if hurt == "late":
                await asyncio.sleep(self._chance.uniform(0, self._late_s))
            writer.write(head + body)
            await writer.drain()

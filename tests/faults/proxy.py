"""A bad network between a client and Kafka: replies that come late, and replies that never come.

It reads Kafka's frames: a request begins with length, api key, version, correlation id and client
id, a reply with length and correlation id.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from tests.support.threaded_server import ThreadedServer

PRODUCE, END_TRANSACTION = 0, 26


class Proxy(ThreadedServer):
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
        super().__init__("proxy", port)
        self._upstream, self._hurts = upstream, hurts
        self._client, self._late_s, self._chance = client, late_s, random.Random(seed)
        self.requests: Counter[int] = Counter()  # of the client, by api key
        self.hurt: Counter[tuple[int, str]] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass requests and replies on, until either side ends."""
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

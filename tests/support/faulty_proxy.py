"""A real HTTP server in front of another, which answers in its place or cuts it off, as told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tests.support.threaded_server import ThreadedServer

ENDS = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, ExceptionGroup)


class Request(NamedTuple):
    """Say what a client asks for; the body is not read yet."""

    method: str
    target: str  # path and query
    head: bytes  # its first line and its headers


@dataclass
class Refuse:
    """Answer in the server's place; it never hears of the request."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Cut = Literal["in the request", "in the answer", "before the answer"]
"""Close both connections: with half of the request sent on, with half of the answer sent back, or
with the whole request done by the server and nothing of its answer sent back."""

Fault = Refuse | Cut | None


class FaultyProxy(ThreadedServer):
    """Pass requests on to a server of this machine, but for those that `hurts` finds a fault for.

    Redirections of the server to other ports are followed through here too.
    """

    def __init__(self, upstream: int) -> None:
        super().__init__("faulty proxy")
        self._upstream, self._elsewhere = upstream, 0
        self.hurts: Callable[[Request], Fault] = lambda _: None
        self.requests: list[Request] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one request after the other on."""
        with suppress(*ENDS):
            while await self._exchange(reader, writer):
                pass
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; return whether the connection stays open."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ", 2)
        request = Request(method, target, head)
        self.requests.append(request)
        fault = self.hurts(request)
        if b"100-continue" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = re.sub(rb"\r\n(?i:expect|connection):[^\r]*", b"", head)
        body = await _body(reader, head)
        if isinstance(fault, Refuse):
            lines = {"Content-Length": str(len(fault.body)), **fault.headers}
            writer.write(f"HTTP/1.1 {fault.status} Fault\r\n".encode())
            writer.write("".join(f"{key}: {value}\r\n" for key, value in lines.items()).encode())
            writer.write(b"\r\n" + (b"" if method == "HEAD" else fault.body))
            await writer.drain()
            return True
        to = self._elsewhere if b"namenoderpcaddress=" in head else self._upstream
        back, forth = await asyncio.open_connection("127.0.0.1", to)
        try:
            whole = head[:-2] + b"Connection: close\r\n\r\n" + body
            forth.write(
                whole[: len(whole) - len(body) // 2 - 1] if fault == "in the request" else whole
            )
            await forth.drain()
            if fault == "in the request":
                return False
            answer = self._through_here(await back.read())
        finally:
            forth.close()
        if fault:
            headers = answer.index(b"\r\n\r\n") + 4
            kept = headers + (len(answer) - headers) // 2 if fault == "in the answer" else 0
            writer.write(answer[:kept])
            await writer.drain()
            return False
        writer.write(answer)
        await writer.drain()
        return False

    def _through_here(self, answer: bytes) -> bytes:
        """Return an answer whose redirection, if it is one, leads to this proxy."""
        head, end, body = answer.partition(b"\r\n\r\n")
        if found := re.search(rb"(?i)(\r\nlocation: http://)([^/:]+):(\d+)", head):
            self._elsewhere = int(found[3])
            here = found[1] + f"127.0.0.1:{self.port}".encode()
            head = head.replace(found[0], here)
        return head + end + body


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """Read a request's body as it was sent, its chunks too."""
    if found := re.search(rb"(?i)\r\ncontent-length: *(\d+)", head):
        return await reader.readexactly(int(found[1]))
    if not re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        return b""
    body = b""
    while not body.endswith(b"0\r\n\r\n"):
        size = await reader.readuntil(b"\r\n")
        body += size + await reader.readexactly(int(size.split(b";")[0], 16) + 2)
    return body

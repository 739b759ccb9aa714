"""An upstream server that does on command what no decent one does."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.peers import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Script = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request, and the connection that it came on."""

    head: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


@dataclass
class Scripted:
    """A running server.

    Attributes
    ----------
    heads
        The requests' heads, as they came.
    connections
        How many there have been, and how many are open.
    """

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/rs"


@asynccontextmanager
async def running_script(script: Script) -> AsyncIterator[Scripted]:
    """Run a server that reads the head of each request and lets `script` do the rest."""
    server = Scripted()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.connections += 1
        server.open += 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                server.heads.append(head)
                await script(Exchange(head, reader, writer, len(server.heads)))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            server.open -= 1
            tasks.discard(task)
            writer.close()

    listening = await asyncio.start_server(connected, HOST, 0, limit=1 << 20)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Write an answer whose length is known."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

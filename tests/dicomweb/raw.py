"""Requests as bytes: what no decent client would send."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tests.peers import HOST

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True)
class RawAnswer:
    status: int
    head: bytes
    body: bytes

    @property
    def everything(self) -> bytes:
        return self.head + b"\r\n\r\n" + self.body


class RawClient:
    """One connection at a time, opened again when the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def ask(self, request: bytes, *, method: str = "GET") -> RawAnswer:
        """Send a request, and read one answer; status 0 where the server only closes."""
        for _ in range(2):  # it may have closed after the request before
            used = self._streams is not None
            try:
                return await self._ask(request, method)
            except (asyncio.IncompleteReadError, ConnectionError):
                await self.close()
                if not used:
                    break
        return RawAnswer(0, b"", b"")

    async def _ask(self, request: bytes, method: str) -> RawAnswer:
        if self._streams is None or self._streams[0].at_eof():
            await self.close()
            self._streams = await asyncio.open_connection(HOST, self._port, limit=1 << 20)
        reader, writer = self._streams
        writer.write(request)
        async with asyncio.timeout(20):
            head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
            status = int(head.split(b" ", 2)[1])
            fields = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
            }
            body = b""
            if method == "HEAD" or status in {204, 304}:
                pass
            elif fields.get(b"transfer-encoding") == b"chunked":
                while size := int(await reader.readline(), 16):
                    body += (await reader.readexactly(size + 2))[:-2]
                await reader.readline()
            else:
                body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        if fields.get(b"connection", b"").lower() == b"close":
            await self.close()
        return RawAnswer(status, head, body)


def request(method: str, target: str | bytes, token: str = "", *headers: str, body: bytes = b"") -> bytes:
    """Write a request; the target goes out as it is."""
    raw = target if isinstance(target, bytes) else target.encode("latin-1")
    lines = [method.encode() + b" " + raw + b" HTTP/1.1", b"Host: images.example.org"]
    if token:
        lines.append(b"Authorization: Bearer " + token.encode())
    if body:
        lines.append(b"Content-Length: " + str(len(body)).encode())
    lines += [header.encode("latin-1") for header in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body

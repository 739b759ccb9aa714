"""One connection to the upstream server: a request goes out, an answer comes in, its body is passed on.

aiohttp's client takes half of the time of a proxied frame: it parses bodies, copies them and wakes a task for
every piece. Here the head is parsed, and what follows goes from one socket to the other: received into a buffer
that is used again, written to the client's transport in the same callback.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol, cast

from pacsbridge.dicomweb.wire import (
    HEAD_LIMIT,
    ChunkedBody,
    Framing,
    Head,
    ProtocolError,
    framing,
    parse_head,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

#: In front of what is received: where the client's head is longer than upstream's, it begins there.
_ROOM_BYTES = 2048
#: Received in one go; larger ones save system calls, smaller ones memory: 130 connections hold one each. A frame
#: of 512 x 512 pixels with all around it comes in two.
BUFFER_BYTES = 266_240 + _ROOM_BYTES
#: With less room than this left in a buffer, the next one is begun.
_LEAST_ROOM = 32_768
#: So much may wait for a client that reads slower than the upstream server writes.
_WAITING_BYTES = 524_288
_HEAD_END = b"\r\n\r\n"


class ConnectionBroken(Exception):
    """The connection ended before the answer did."""


class ConnectionStalled(ConnectionBroken):
    """Nothing came for too long."""


class BodyTooLarge(Exception):
    """A body that had to be read whole is longer than it may be."""


class Sink(Protocol):
    """Where a body goes: the transport of the client's connection."""

    def write(self, data: memoryview) -> None: ...  # noqa: D102 - asyncio.WriteTransport

    def get_write_buffer_size(self) -> int: ...  # noqa: D102 - asyncio.WriteTransport


class Drain(Protocol):
    """Waits until the sink takes more."""

    async def __call__(self) -> None: ...  # noqa: D102 - one call


class Connection(asyncio.BufferedProtocol):
    """A connection that carries one request at a time.

    Attributes
    ----------
    requests
        How many requests it has carried.
    active_at
        The loop's time when something last moved; `waits_for_client` tells when nothing had to.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._memory = bytearray(BUFFER_BYTES)
        self._buffer = memoryview(self._memory)
        self._filled = _ROOM_BYTES
        #: What came of the body together with the head, and where that begins in its memory.
        self._first: memoryview | None = None
        self._first_start = 0
        self._method = ""
        self._head: Head | None = None
        self._expects_head = False
        self._framing = Framing.LENGTH
        self._left = 0
        self._chunks = ChunkedBody()
        self._complete = True
        self._queue: deque[memoryview] = deque()
        self._queued = 0
        self._sink: Sink | None = None
        self._error: ConnectionBroken | None = None
        self._spoilt = False
        self._waiter: asyncio.Future[None] | None = None
        self._answered: Callable[[], None] | None = None
        self._reads = True
        self._can_write = asyncio.Event()
        self._can_write.set()
        self.requests = 0
        self.active_at = self._loop.time()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the body that ends with the connection; otherwise the answer is broken."""
        self._transport = None
        self._can_write.set()
        if exc is None and self._framing is Framing.UNTIL_CLOSE and self._head is not None:
            self._complete = True
        elif not self._complete:
            self._error = self._error or ConnectionBroken("the upstream server closed the connection")
        self._wake()

    def eof_received(self) -> bool:
        """Let the transport close."""
        return False

    def pause_writing(self) -> None:
        """Make the sender of a request's body wait."""
        self._can_write.clear()

    def resume_writing(self) -> None:
        """Let the sender go on."""
        self._can_write.set()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's wish; ours is larger
        """Give the free part of the buffer, or of another when what is in it is still in use."""
        if BUFFER_BYTES - self._filled < _LEAST_ROOM and not self._expects_head:
            self._memory = bytearray(BUFFER_BYTES)
            self._buffer = memoryview(self._memory)
            self._filled = _ROOM_BYTES
        return self._buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was received."""
        self.active_at = self._loop.time()
        start = self._filled
        try:
            if self._expects_head:
                self._filled += nbytes
                self._take_head(start)
            else:
                self._take_body(self._buffer[start : start + nbytes], start + nbytes)
        except ProtocolError as error:
            self._error = ConnectionBroken(f"the upstream server does not speak HTTP/1.1: {error}")
            self.abort()
            self._wake()

    # What the pool and the answer call.

    @property
    def idle(self) -> bool:
        """Whether another request can be sent on it."""
        transport = self._transport
        return (
            transport is not None
            and not transport.is_closing()
            and self._complete
            and not self._spoilt
            and self._error is None
            and not self._expects_head
            and self._framing is not Framing.UNTIL_CLOSE
            and (self._head is None or self._head.keeps_alive)
        )

    @property
    def complete(self) -> bool:
        """Whether the whole answer has been received."""
        return self._complete

    @property
    def waits_for_client(self) -> bool:
        """Whether it stopped reading because the client is slow."""
        return not self._reads

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    def spoil(self) -> None:
        """Let nothing follow on it: a request did not go out whole."""
        self._spoilt = True

    def stall(self) -> None:
        """Give up: nothing has come for too long."""
        self._error = self._error or ConnectionStalled("the upstream server is silent")
        self.abort()
        self._wake()

    def send(self, method: str, head: bytes) -> None:
        """Send the head of a request.

        Raises
        ------
        ConnectionBroken
            The connection is gone.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionBroken("the upstream server closed the connection")
        self.requests += 1
        self._method = method
        self._head = None
        self._first = None
        self._filled = _ROOM_BYTES
        self._queue.clear()
        self._queued = 0
        self._sink = None
        self._resume()
        self._complete = False
        self._expects_head = True
        self.active_at = self._loop.time()
        transport.write(head)

    def when_answered(self, answered: Callable[[], None] | None) -> None:
        """Have somebody called, once, when the head of the answer is there, or won't come."""
        self._answered = answered

    def answer_head(self) -> Head | ConnectionBroken:
        """Give the head of the answer, or why there is none."""
        return self._head or self._error or ConnectionBroken("there is no answer yet")

    async def send_body(self, pieces: AsyncIterable[bytes], *, chunked: bool) -> None:
        """Send the body of a request as it comes, no faster than the upstream server takes it."""
        async for piece in pieces:
            if self._transport is None:
                return  # the answer, or its absence, tells why
            self.active_at = self._loop.time()
            if chunked:
                self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            else:
                self._transport.write(piece)
            await self._can_write.wait()
        if chunked and self._transport is not None:
            self._transport.write(b"0\r\n\r\n")

    async def head(self) -> Head:
        """Wait for the head of the answer.

        Raises
        ------
        ConnectionBroken
            It didn't come.
        """
        while self._head is None:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._head

    async def read(self, limit: int) -> bytes:
        """Read the body whole.

        Raises
        ------
        BodyTooLarge, ConnectionBroken
            It is longer than `limit` bytes; it didn't come to its end.
        """
        if self._complete and self._queued <= limit:
            return self.read_now()
        pieces = []
        size = 0
        async for piece in self.pieces():
            size += len(piece)
            if size > limit:
                raise BodyTooLarge
            pieces.append(piece)
        return b"".join(pieces)

    def read_now(self) -> bytes:
        """Read what is there of the body: all of it when it is `complete`."""
        whole = b"".join(self._queue)
        self._queue.clear()
        self._queued = 0
        return whole

    async def pieces(self) -> AsyncIterator[memoryview]:
        """Give the body piece by piece.

        Raises
        ------
        ConnectionBroken
            It didn't come to its end.
        """
        while True:
            while self._queue:
                piece = self._queue.popleft()
                self._queued -= len(piece)
                yield piece
            if self._complete:
                return
            if self._error is not None:
                raise self._error
            self._resume()
            await self._wait()

    def begin_with(self, head: bytes) -> bytes | memoryview:
        """Give a head for the client, together with what came of the body already: one packet, not two.

        The head is written into the buffer in front of the body, over upstream's own, so that nothing is copied.
        """
        start = self._first_start - len(head)
        if self._first is None or not self._queue or self._queue[0] is not self._first or start < 0:
            return head
        piece = self._queue.popleft()
        self._queued -= len(piece)
        memory = memoryview(piece.obj)
        memory[start : self._first_start] = head
        return memory[start : self._first_start + len(piece)]

    async def relay(self, sink: Sink, drain: Drain) -> None:
        """Pass the body on to `sink` as it comes, no faster than it is taken there.

        Raises
        ------
        ConnectionBroken
            It didn't come to its end.
        """
        while self._queue:
            sink.write(self._queue.popleft())
        self._queued = 0
        self._sink = sink
        if not sink.get_write_buffer_size():
            self._filled = _ROOM_BYTES
        while True:
            if sink.get_write_buffer_size() > _WAITING_BYTES:
                await drain()
            if self._complete:
                return
            if self._error is not None:
                raise self._error
            self._resume()
            await self._wait()

    def _take_head(self, start: int) -> None:
        end = self._find_head_end(start)
        while end >= 0:
            head = parse_head(bytes(self._buffer[_ROOM_BYTES:end]))
            body_start = end + len(_HEAD_END)
            rest = self._buffer[body_start : self._filled]
            if head.status >= 200:
                self._begin_body(head)
                self._first, self._first_start = rest, body_start
                self._take_body(rest, self._filled)
                return
            if head.status == 101:
                raise ProtocolError("an upgrade that nobody asked for")
            # An interim answer (RFC 9110, 15.2): the one that was asked for follows.
            self._filled = _ROOM_BYTES + len(rest)
            self._buffer[_ROOM_BYTES : self._filled] = bytes(rest)
            end = self._find_head_end(_ROOM_BYTES)
        if self._filled - _ROOM_BYTES >= HEAD_LIMIT:
            raise ProtocolError("a head without end")

    def _find_head_end(self, start: int) -> int:
        return self._memory.find(_HEAD_END, max(_ROOM_BYTES, start - len(_HEAD_END)), self._filled)

    def _begin_body(self, head: Head) -> None:
        self._framing, self._left = framing(self._method, head)
        self._head = head
        self._expects_head = False
        if self._framing is Framing.CHUNKED:
            self._chunks = ChunkedBody()
        elif self._framing is Framing.LENGTH and not self._left:
            self._complete = True

    def _take_body(self, data: memoryview, filled: int) -> None:
        """Pass on what came; `filled` is how far the buffer is in use when that has to be kept."""
        kept = False
        if self._complete and data:
            raise ProtocolError("more than was asked for")
        if self._framing is Framing.CHUNKED:
            for piece in self._chunks.feed(data):
                kept |= self._emit(piece)
            self._complete = self._chunks.ended
        elif self._framing is Framing.UNTIL_CLOSE:
            kept = self._emit(data)
        else:
            if len(data) > self._left:
                raise ProtocolError("more than one answer")
            self._left -= len(data)
            kept = self._emit(data)
            self._complete = not self._left
        self._filled = filled if kept else _ROOM_BYTES
        if self._complete or self._sink is None:
            self._wake()

    def _emit(self, piece: memoryview) -> bool:
        """Pass a piece on, and tell whether its memory is still in use."""
        if not piece:
            return False
        if self._sink is None:
            self._queue.append(piece)
            self._queued += len(piece)
            if self._queued > _WAITING_BYTES:
                self._pause()
            return True
        self._sink.write(piece)
        waiting = self._sink.get_write_buffer_size()
        if waiting > _WAITING_BYTES:
            self._pause()
            self._wake()
        return waiting > 0

    def _pause(self) -> None:
        if self._reads and self._transport is not None:
            self._transport.pause_reading()
            self._reads = False

    def _resume(self) -> None:
        if not self._reads and self._transport is not None:
            self.active_at = self._loop.time()
            self._transport.resume_reading()
            self._reads = True

    def _wake(self) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered()
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

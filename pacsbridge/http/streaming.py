"""An image to a client: file after file by ``sendfile``, past the event loop and without a copy of our own.

The kernel sends from the page cache to the socket; Python only says what comes next. It says so in a worker
thread, since a file that has left the cache is read from the disk then, and for as long as the socket takes
something. While the client is slower than that, no thread waits, but the event loop.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
import termios
import time
from enum import Enum, auto
from typing import TYPE_CHECKING

from pacsbridge.jobs.threads import until_done
from pacsbridge.media.image import FileSegment, ImageTorn

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from pacsbridge.media.image import Segment

#: After so many bytes a thread gives others a turn, and sees whether it shall stop.
_TURN_BYTES = 8 << 20
#: How often it is looked whether a slow client takes something, in seconds.
_LOOK_SECONDS = 1.0
_INT = struct.Struct("@i")


class ClientStalled(Exception):
    """The client took nothing for too long."""


class _Progress(Enum):
    DONE = auto()
    BLOCKED = auto()
    TURN_IS_OVER = auto()


async def send_segments(connection: socket.socket, segments: Iterator[Segment], patience: float) -> None:
    """Send segments over a connection that nobody else writes to meanwhile.

    Parameters
    ----------
    connection
        A non-blocking socket; it is closed in the end, so it should be a duplicate.
    segments
        What to send; each is asked for in a worker thread.
    patience
        How long the client may take nothing at all, in seconds.

    Raises
    ------
    ClientStalled
        It took nothing for so long.
    ImageTorn
        A file is gone or has changed; what was sent until then is right.
    OSError
        The connection broke, or a file can't be read.
    """
    with connection:
        sender = _Sender(connection, segments)
        try:
            while (progress := await until_done(sender.send, sender.stop)) is not _Progress.DONE:
                if progress is _Progress.BLOCKED:
                    await _until_writable(connection, patience)
        finally:
            sender.close()


class _Sender:
    """What is being sent: `send` in one thread at a time, `stop` from any."""

    def __init__(self, connection: socket.socket, segments: Iterator[Segment]) -> None:
        self._connection = connection
        self._segments = segments
        self._data = b""
        self._file = -1
        # Of the segment that is being sent: where in it, and how much is left.
        self._offset = self._left = 0
        self._stopped = False

    def send(self) -> _Progress:
        """Send until the socket takes no more, everything is sent, or the turn is over."""
        turn = _TURN_BYTES
        while turn > 0 and not self._stopped:
            if not self._left and not self._begin_next():
                return _Progress.DONE
            try:
                count = self._send_some()
            except BlockingIOError:
                return _Progress.BLOCKED
            self._offset += count
            self._left -= count
            turn -= count
        return _Progress.TURN_IS_OVER

    def stop(self) -> None:
        """Have `send` come to an end."""
        self._stopped = True

    def close(self) -> None:
        """Close the file that is open."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _begin_next(self) -> bool:
        self.close()
        segment = next(self._segments, None)
        if segment is None:
            return False
        if isinstance(segment, FileSegment):
            self._file = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
            self._offset, self._left = segment.offset, segment.count
        else:
            self._data = segment.data
            self._offset, self._left = 0, len(segment.data)
        return True

    def _send_some(self) -> int:
        if self._file < 0:
            return self._connection.send(memoryview(self._data)[self._offset :])
        count = os.sendfile(self._connection.fileno(), self._file, self._offset, self._left)
        if not count:
            raise ImageTorn(errno.EIO, "a file of the disc shrank while it was read")
        return count


async def _until_writable(connection: socket.socket, patience: float) -> None:
    """Wait until the socket takes more, for as long as the client takes something of what it was given."""
    loop = asyncio.get_running_loop()
    writable: asyncio.Future[None] = loop.create_future()
    loop.add_writer(connection, _settle, writable)
    try:
        waiting, moved = _waiting_bytes(connection), time.monotonic()
        while not writable.done():
            await asyncio.wait({writable}, timeout=min(_LOOK_SECONDS, patience))
            left = _waiting_bytes(connection)
            if left != waiting:
                waiting, moved = left, time.monotonic()
            elif time.monotonic() - moved >= patience and not writable.done():
                raise ClientStalled
    finally:
        loop.remove_writer(connection)


def _settle(writable: asyncio.Future[None]) -> None:
    if not writable.done():
        writable.set_result(None)


def _waiting_bytes(connection: socket.socket) -> int:
    """Tell how many bytes the client has not acknowledged (SIOCOUTQ, tcp(7)); 0 where that is not known.

    The socket counts as writable again only when a good part of its buffer is free, which takes a slow client
    longer than a time-out.
    """
    try:
        return int(_INT.unpack(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(_INT.size)))[0])
    except OSError:
        return 0

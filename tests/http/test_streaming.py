"""Segments to a socket: all of them, to slow clients too, and an end with those who take nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pacsbridge.http.streaming import ClientStalled, send_segments
from pacsbridge.media.image import DataSegment, FileSegment, ImageTorn
from tests.peers import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacsbridge.media.image import Segment

LONG = 12 << 20
"""More than a thread sends in one turn."""


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end and the client's, with little room between them."""
    with socket.create_server((HOST, 0)) as listener:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        # As on a real network: what the client takes is told in segments, which are 64 KB on the loopback.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
        client.connect(listener.getsockname())
        ours, _ = listener.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    ours.setblocking(False)
    with ours, client:
        yield ours, client


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(LONG))
    return path


def segments(file: Path) -> list[Segment]:
    return [
        DataSegment(b"metadata"),
        FileSegment(str(file), 0, LONG),
        DataSegment(bytes(100)),
        FileSegment(str(file), 1000, 5),
        DataSegment(b"the end"),
    ]


def content(file: Path) -> bytes:
    data = file.read_bytes()
    return b"metadata" + data + bytes(100) + data[1000:1005] + b"the end"


def read_all(client: socket.socket) -> bytes:
    taken = bytearray()
    while piece := client.recv(1 << 20):
        taken += piece
    return bytes(taken)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_everything_is_sent_in_order(ends: tuple[socket.socket, socket.socket], file: Path) -> None:
    ours, client = ends
    reading = asyncio.create_task(asyncio.to_thread(read_all, client))
    await send_segments(ours, iter(segments(file)), 5)
    assert await reading == content(file)


async def test_a_slow_client_may_take_longer_than_the_patience(
    ends: tuple[socket.socket, socket.socket], file: Path
) -> None:
    """It takes some bytes each time, far too few for the socket to count as writable within the patience."""
    ours, client = ends
    small = [FileSegment(str(file), 0, 400_000)]
    sending = asyncio.create_task(send_segments(ours, iter(small), 1.0))
    taken = bytearray()
    for _ in range(8):
        await asyncio.sleep(0.3)
        assert not sending.done()
        taken += client.recv(8_000)
    taken += await asyncio.to_thread(read_all, client)
    await sending
    assert bytes(taken) == file.read_bytes()[:400_000]


async def test_a_client_that_takes_nothing_is_given_up(
    ends: tuple[socket.socket, socket.socket], file: Path
) -> None:
    before = descriptors()
    ours, _client = ends
    with pytest.raises(ClientStalled):
        await send_segments(ours, iter(segments(file)), 0.3)
    assert descriptors() == before - 1
    assert ours.fileno() < 0


async def test_a_client_that_leaves(ends: tuple[socket.socket, socket.socket], file: Path) -> None:
    ours, client = ends
    sending = asyncio.create_task(send_segments(ours, iter(segments(file)), 5))
    await asyncio.sleep(0.1)
    client.close()
    with pytest.raises(ConnectionError):
        await sending


async def test_a_file_that_shrinks_while_it_is_sent(
    ends: tuple[socket.socket, socket.socket], file: Path
) -> None:
    ours, client = ends
    sending = asyncio.create_task(send_segments(ours, iter(segments(file)), 5))
    await asyncio.sleep(0.1)
    os.truncate(file, 5 << 20)
    taken = await asyncio.to_thread(read_all, client)
    with pytest.raises(ImageTorn):
        await sending
    assert len(taken) == len(b"metadata") + (5 << 20)


async def test_a_cancel_waits_for_the_thread_and_closes_all(
    ends: tuple[socket.socket, socket.socket], file: Path
) -> None:
    before, threads = descriptors(), threading.active_count()
    ours, _client = ends
    sending = asyncio.create_task(send_segments(ours, iter(segments(file)), 30))
    await asyncio.sleep(0.1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert descriptors() == before - 1
    assert threading.active_count() <= threads + 1  # the executor's own

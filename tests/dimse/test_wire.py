"""Reading and writing a socket: everything, in order, and never without an end."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pacsbridge.dimse.wire import ConnectionEnded, Wire, prepare
from tests.peers import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection; the first is prepared."""
    with socket.create_server((HOST, 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    prepare(ours)
    with ours, theirs:
        yield ours, theirs


def patient(_seconds: float) -> None:
    """Wait for ever."""


def test_no_delay(ends: tuple[socket.socket, socket.socket]) -> None:
    assert ends[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_reads_exactly_what_is_asked_for(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    wire = Wire(ours, 100, patient)

    def trickle() -> None:
        for number in range(30):
            theirs.sendall(bytes([number]))
            time.sleep(0.002)

    sender = threading.Thread(target=trickle)
    sender.start()
    assert bytes(wire.read(10)) == bytes(range(10))
    assert bytes(wire.read(20)) == bytes(range(10, 30))
    sender.join()
    theirs.sendall(b"abcdefgh")
    some = bytes(wire.read_some(6, 2))
    assert b"abcdef".startswith(some)
    assert len(some) >= 2


def test_the_end_of_the_connection(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.sendall(b"abc")
    theirs.close()
    with pytest.raises(ConnectionEnded):
        Wire(ours, 100, patient).read(10)


def test_a_silence_can_be_given_up(ends: tuple[socket.socket, socket.socket]) -> None:
    class GiveUp(Exception):
        pass

    silences: list[float] = []

    def silent(seconds: float) -> None:
        silences.append(seconds)
        if len(silences) == 3:
            raise GiveUp

    ours, theirs = ends
    theirs.sendall(b"abc")
    with pytest.raises(GiveUp):
        Wire(ours, 100, silent).read(10)
    assert silences == sorted(silences)
    assert silences[-1] > 0


def test_writes_everything_to_a_slow_reader(ends: tuple[socket.socket, socket.socket]) -> None:
    """The kernel takes a part, waits for the reader, gives up, and is asked again with the rest."""
    ours, theirs = ends
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    silences: list[float] = []
    parts: list[bytes | memoryview] = [bytes([number % 256]) * (10_000 + number) for number in range(2000)]
    whole = b"".join(parts)
    received = bytearray()

    def read() -> None:
        time.sleep(1.3)
        while len(received) < len(whole):
            received.extend(theirs.recv(1 << 20))

    reader = threading.Thread(target=read)
    reader.start()
    Wire(ours, 100, silences.append).write(parts)
    reader.join()
    assert received == whole
    assert silences


def test_writing_to_who_is_gone(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.close()
    with pytest.raises(ConnectionEnded):
        Wire(ours, 100, patient).write([b"x" * 100_000] * 200)


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="Linux only")
def test_what_comes_is_acknowledged_at_once_though_we_answer(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Linux delays that on a connection that goes to and fro, and a peer with Nagle's algorithm waits for it."""
    ours, theirs = ends
    wire = Wire(ours, 100, patient)
    for _ in range(10):
        theirs.sendall(b"question")
        wire.read(8)
        wire.write(b"answer")
        theirs.recv(6)
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1

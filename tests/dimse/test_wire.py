"""A socket that is read in pieces of a known length."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from pacsbridge.dimse import wire
from pacsbridge.dimse.wire import ConnectionEnded, Wire
from tests.peers import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server((HOST, 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with ours, theirs:
        yield ours, theirs


def patient(_seconds: float) -> None:
    """Wait on."""


def test_what_comes_is_acknowledged_at_once(
    connected: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a sender with Nagle's algorithm on waits 40 ms for each small instance."""
    ours, theirs = connected
    acknowledged: list[socket.socket] = []
    monkeypatch.setattr(wire, "acknowledge_at_once", acknowledged.append)
    reader = Wire(ours, 100, patient)
    for number in range(1, 4):
        theirs.sendall(b"abc")
        assert bytes(reader.read(3)) == b"abc"
        assert len(acknowledged) >= number


def test_an_acknowledgement_is_asked_for(connected: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = connected
    wire.acknowledge_at_once(ours)
    if hasattr(socket, "TCP_QUICKACK"):  # Linux
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)


def test_other_sockets_are_read_too() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"abc")
        assert bytes(Wire(ours, 100, patient).read(3)) == b"abc"
        theirs.close()
        with pytest.raises(ConnectionEnded):
            Wire(ours, 100, patient).read(1)

"""pynetdicom's socket, as both sides of an association share it with pynetdicom.

What it leans on is listed in `pacsbridge.dimse.association`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

from pynetdicom import AE
from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

from pacsbridge.dimse.fastpath import BUFFER_BYTES
from pacsbridge.dimse.message import PduType
from pacsbridge.dimse.tls import TlsSocket
from pacsbridge.dimse.wire import TICK_SECONDS, ConnectionEnded, ended, prepare

if TYPE_CHECKING:
    from pynetdicom.association import Association

    from pacsbridge.dimse.tls import ClientTls
#: The longest PDU that pynetdicom is given to read: an A-ASSOCIATE-RQ with 128 contexts of all transfer
#: syntaxes has 200 KB.
_MAXIMUM_PDU_LENGTH = max(1 << 20, BUFFER_BYTES)
#: How long a peer may be silent in the middle of a PDU, in seconds.
STALL_SECONDS = 60.0
#: How long one PDU that pynetdicom reads may take altogether, in seconds.
_PDU_SECONDS = 120.0
#: How long a TLS handshake may take where there is no time-out for connecting, in seconds.
_HANDSHAKE_SECONDS = 15.0
#: How long a peer that was aborted may go on sending before the connection is closed, in seconds.
_LINGER_SECONDS = 1.0
_WAITING_FOR_REQUEST = "Sta2"
#: The peer asked for an association, or for its release, and waits for our answer (PS3.8, 9.2.1).
_ANSWER_IS_DUE = ("Sta3", "Sta8")
_BEFORE_ANSWER = ("Sta1", _WAITING_FOR_REQUEST)


class SharedSocket(AssociationSocket):
    """pynetdicom's socket, which can be lent to somebody who reads and writes it directly.

    It also waits with ``poll`` (``select`` fails once the process has 1,024 descriptors), bounds what a peer
    can make pynetdicom read, and closes the descriptor in every case.
    """

    lend_when_accepting = False
    tls: ClientTls | None = None
    """How to connect, where it is by TLS."""
    failure: ConnectionEnded | None = None
    """Why there is no TLS with the peer."""
    last_moved = 0.0
    """When (``time.monotonic``) pynetdicom last got or sent a byte."""
    first_byte: int | None = None
    """What the peer began with: a PDU type, unless it speaks something else."""

    def __init__(self, assoc: Association, client_socket: socket.socket | None = None, **kwargs: Any) -> None:
        super().__init__(assoc, client_socket=client_socket, **kwargs)
        self._lent = threading.Event()
        self._returned = threading.Event()
        self._unread = b""
        self._aborting = False
        if client_socket is not None:
            prepare(client_socket)

    def connect(self, primitive: T_CONNECT) -> None:
        """Connect to the peer that we ask for an association."""
        super().connect(primitive)
        if self.socket is None:
            return
        prepare(self.socket)
        if self.tls is not None:
            seconds = self.assoc.connection_timeout or _HANDSHAKE_SECONDS
            try:
                self.socket = self.tls.shake_hands(self.socket, seconds=seconds, check=lambda: None)
            except ConnectionEnded as error:
                self.failure = error
                self.socket = None
                self._is_connected = False
                # The DUL thread, which runs this, looks at it next: as if the connection had been refused.
                primitive.result = "Evt17"

    @property
    def ready(self) -> bool:
        """Whether pynetdicom has something to read; waits a little where it has nothing else to do."""
        if self._lent.is_set():
            self._returned.wait(TICK_SECONDS)
            return False
        if self._aborting or self.socket is None or not self._is_connected:
            return False  # when aborting, what the peer still says is dropped by `close`
        state = self.assoc.dul.state_machine.current_state
        if (state in _BEFORE_ANSWER and not self.event_queue.empty()) or state in _ANSWER_IS_DUE:
            # Nothing may come before our answer. If it were read, it would move the state machine, and the
            # answer that is under way would then be an invalid event, of which pynetdicom's thread dies.
            return False
        if self._unread:
            return True
        idle = state == _WAITING_FOR_REQUEST
        try:
            return self._readable(self.socket, TICK_SECONDS if idle else 0)
        except (OSError, ValueError) as error:
            if isinstance(error, ssl.SSLError):
                self.failure = ended(error)
            self.event_queue.put("Evt17")  # transport connection closed, as pynetdicom's own does
            return False

    def _readable(self, connection: socket.socket, seconds: float) -> bool:
        """Tell whether something is there for pynetdicom, or the end of the connection is."""
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if not isinstance(connection, TlsSocket):
            return bool(poll.poll(seconds * 1000))
        # What OpenSSL has read already, poll does not see; and what poll sees may be for OpenSSL alone.
        if not connection.pending() and not poll.poll(seconds * 1000):
            return False
        first = connection.recv_now(1)
        self._unread = first or b""
        return first is not None

    def send(self, bytestream: bytes) -> None:
        """Send a PDU; with an A-ASSOCIATE-AC the socket passes to the receiver, before the peer can go on."""
        if self.lend_when_accepting and bytestream[:1] == bytes([PduType.A_ASSOCIATE_AC]):
            self._lent.set()
        rest = memoryview(bytestream)
        self.last_moved = time.monotonic()
        try:
            while rest and self.socket is not None:
                try:
                    rest = rest[self.socket.send(rest) :]
                    self.last_moved = time.monotonic()
                except BlockingIOError:
                    if time.monotonic() > self.last_moved + STALL_SECONDS:
                        raise
        except OSError:
            self.event_queue.put("Evt17")

    def recv(self, nr_bytes: int) -> bytearray:
        """Read for pynetdicom: bounded in length and in time."""
        if nr_bytes > _MAXIMUM_PDU_LENGTH:
            raise OSError("a PDU that is too long")
        data = bytearray(self._unread[:nr_bytes])
        self._unread = self._unread[nr_bytes:]
        deadline = time.monotonic() + _PDU_SECONDS
        stalled = time.monotonic() + STALL_SECONDS
        connection = self.socket
        while len(data) < nr_bytes and connection is not None:
            try:
                part = connection.recv(nr_bytes - len(data))
            except BlockingIOError:
                if time.monotonic() > min(deadline, stalled):
                    raise TimeoutError("a PDU that does not end") from None
                continue
            if not part:
                break
            data += part
            self.last_moved = time.monotonic()
            if self.first_byte is None:
                self.first_byte = data[0]
            stalled = time.monotonic() + STALL_SECONDS
            if time.monotonic() > deadline:
                raise TimeoutError("a PDU that does not end")
        return data

    def lend(self) -> None:
        """Keep pynetdicom from reading until `give_back`."""
        self._returned.clear()
        self._lent.set()

    def wait_lent(self) -> bool:
        """Wait until the A-ASSOCIATE-AC is under way; tell whether it is, which it never is when its thread died."""
        while not self._lent.wait(TICK_SECONDS):
            if not self.assoc.dul.is_alive():
                return False
        return True

    def give_back(self, unread: bytes = b"", *, aborting: bool = False) -> None:
        """Let pynetdicom go on, with what was read and is its own.

        Parameters
        ----------
        unread
            The beginning of a PDU.
        aborting
            An A-ABORT follows, and nothing that the peer says is of interest any more.
        """
        self._unread = unread
        self._aborting = aborting
        self._lent.clear()
        self._returned.set()

    def interrupt(self) -> None:
        """Make whoever reads see the end of the connection."""
        self._shutdown(socket.SHUT_RD)

    def hang_up(self) -> None:
        """Make whoever reads or writes see the end of the connection."""
        self._shutdown(socket.SHUT_RDWR)

    def discard(self) -> None:
        """Close the descriptor, if it still is open."""
        self._shutdown_socket()

    def _shutdown(self, how: int) -> None:
        connection = self.socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(how)

    def close(self) -> None:
        """Close the connection; a peer that was aborted gets a moment to read so."""
        if self._aborting and self.socket is not None:
            self._linger(self.socket)
        super().close()

    def _shutdown_socket(self) -> None:
        """Shut down and close; pynetdicom's own leaves the descriptor open when the peer was faster."""
        connection = self.socket
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            finally:
                connection.close()

    def _linger(self, connection: socket.socket) -> None:
        """Read what the peer still sends: closing on it loses the A-ABORT (RFC 1122, 4.2.2.13)."""
        deadline = time.monotonic() + _LINGER_SECONDS
        try:
            connection.shutdown(socket.SHUT_WR)
            while time.monotonic() < deadline and connection.recv(BUFFER_BYTES):
                pass
        except OSError:
            return


class PollingAE(AE):
    """An AE whose own requests use `SharedSocket`: they work with 1,024 descriptors open, and without delays."""

    tls: ClientTls | None = None

    def _create_socket(self, assoc: Association, address: AddressInformation, tls_args: Any) -> SharedSocket:
        del tls_args  # pynetdicom's handshake can't tell why it failed
        shared = SharedSocket(assoc, address=address)
        shared.tls = self.tls
        return shared

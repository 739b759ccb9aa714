"""What pynetdicom 3.0.4 gets wrong at the edges of an association: a lost response, an open socket, delay."""

from __future__ import annotations

import contextlib
import queue
import socket
from typing import TYPE_CHECKING, Any

from pynetdicom.dimse import DIMSEServiceProvider

from pacsbridge.dimse.shared_socket import PollingAE

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.transport import AssociationSocket

    from pacsbridge.dimse.shared_socket import SharedSocket

#: How often one who waits for a response looks whether it can come at all, in seconds.
_TICK_SECONDS = 0.2


class ClosingSocket(socket.socket):
    """A socket that may be shut down when its peer is gone already.

    pynetdicom 3.0.4 closes a socket after shutting it down, and leaves it open (to the garbage collector)
    when the shutdown fails: the peer was faster, or there was no connection at all.
    """

    def shutdown(self, how: int) -> None:
        """Shut the connection down, if there still is one."""
        with contextlib.suppress(OSError):
            super().shutdown(how)


class PatientProvider(DIMSEServiceProvider):
    """Keeps responses for the one who waits for them, and keeps nobody waiting for a connection that is gone.

    ``send_c_*()`` pauses the association's own thread, which may be past that check already. It would take
    the response from the queue as an "unexpected message", and the caller would wait until its time-out. So
    would one who sends on a connection that has ended, but not long enough ago for the association to know.
    """

    def get_msg(self, block: bool = False) -> Any:
        """Take a message; (None, None) where there is none, or none any more."""
        if not block:
            paused = not self.assoc._reactor_checkpoint.is_set()  # noqa: SLF001 - the thread is to pause
            return (None, None) if paused else super().get_msg(block=False)
        waited = 0.0
        while self.dimse_timeout is None or waited < self.dimse_timeout:
            try:
                return self.msg_queue.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                waited += _TICK_SECONDS
                if not self.assoc.dul.is_alive():
                    break
        return None, None


class RequestingAE(PollingAE):
    """An AE whose requested associations lose no response, whatever the number of open descriptors."""

    def _create_socket(self, assoc: Association, *args: Any) -> SharedSocket:
        assoc.dimse = PatientProvider(assoc)
        return super()._create_socket(assoc, *args)


def on_connection(event: Event) -> None:
    """At pynetdicom's ``EVT_CONN_OPEN``: make the socket of an association one that closes and sends at once.

    Nagle's algorithm holds small answers back until the peer has acknowledged what went before.
    """
    wrapper = event.assoc.dul.socket
    if wrapper is not None and wrapper.socket is not None:
        _replace_socket(wrapper)
        wrapper.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _replace_socket(wrapper: AssociationSocket) -> None:
    plain = wrapper.socket
    if plain is not None and not isinstance(plain, ClosingSocket):
        timeout = plain.gettimeout()
        wrapper.socket = ClosingSocket(fileno=plain.detach())
        wrapper.socket.settimeout(timeout)

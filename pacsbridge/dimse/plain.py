"""An association that we ask for by pynetdicom: queries always, and all else where the fast paths are off.

It fails as `pacsbridge.dimse.requestor` does, so that one place finds the words for both.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pynetdicom import evt
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ

from pacsbridge.dimse.connection import RequestingAE
from pacsbridge.dimse.requestor import Aborted, Rejected, Silent
from pacsbridge.dimse.shared_socket import SharedSocket
from pacsbridge.dimse.tls import ALERT_RECORD
from pacsbridge.dimse.wire import ConnectionEnded, TlsFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pynetdicom.events import Event
    from pynetdicom.presentation import PresentationContext

    from pacsbridge.dimse.requestor import SendTimeouts
    from pacsbridge.dimse.tls import ClientTls

#: pynetdicom's own timers between two messages; silence is watched by who waits, with `abort`.
_NEVER = 24 * 3600.0
_MAX_PDU = 131072
_JOIN_SECONDS = 5.0


class NothingAccepted(Aborted):
    """The peer accepted none of the presentation contexts."""


class PlainAssociation:
    """An association with a peer, used from one thread; `abort` from any.

    Parameters
    ----------
    host, port, ae_title
        Whom to ask.
    calling_ae_title
        Who asks.
    contexts
        What to propose.
    timeouts
        How long the peer may take to be connected to, and to answer the request.
    tls
        How to connect by TLS; None: without.
    on_message
        Called with each DIMSE message that comes.
    """

    def __init__(
        self,
        host: str,
        port: int,
        ae_title: str,
        calling_ae_title: str,
        contexts: Sequence[PresentationContext],
        *,
        timeouts: SendTimeouts,
        tls: ClientTls | None = None,
        on_message: Callable[[Any], None] = lambda _message: None,
    ) -> None:
        self._address = (host, port)
        self._ae_title = ae_title
        self._contexts = list(contexts)
        self._timeouts = timeouts
        self._on_message = on_message
        self._connected = False
        self._rejection: A_ASSOCIATE_RJ | None = None
        self._stop = False
        self.aborted_by_peer = False
        """Whether the peer sent an A-ABORT."""
        self._ae = RequestingAE(ae_title=calling_ae_title)
        self._ae.connection_timeout = timeouts.connect
        self._ae.acse_timeout = timeouts.negotiate
        self._ae.dimse_timeout = self._ae.network_timeout = _NEVER
        self._ae.tls = tls
        self.pynetdicom: Any = None
        """pynetdicom's association, once `open` was called."""

    def open(self) -> None:
        """Ask for the association.

        Raises
        ------
        OSError
            There is no connection.
        Rejected, Aborted, Silent, ConnectionEnded
            There is no association; NothingAccepted is an Aborted, TlsFailure a ConnectionEnded.
        """
        began = time.monotonic()
        self.pynetdicom = self._ae.associate(
            *self._address,
            ae_title=self._ae_title,
            max_pdu=_MAX_PDU,
            contexts=self._contexts,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, self._see_connection),
                (evt.EVT_PDU_RECV, self._see_pdu),
                (evt.EVT_DIMSE_RECV, self._see_message),
            ],
        )
        if not self.pynetdicom.is_established:
            refusal = self._refusal(time.monotonic() - began)
            self._discard()
            raise refusal
        if self._stop:
            self.abort()

    @property
    def stopped(self) -> bool:
        """Whether it was aborted from our side."""
        return self._stop

    @property
    def last_moved(self) -> float:
        """When (``time.monotonic``) a byte last came or went."""
        shared = self._shared
        return shared.last_moved if shared is not None else 0.0

    def close(self, *, release: bool) -> None:
        """Release it, or abort it."""
        if self.pynetdicom is None:
            return
        if release and self.pynetdicom.is_established and not self._stop:
            self.pynetdicom.release()
        else:
            self.abort()
        if self.pynetdicom.ident is not None:  # there is no thread without an association
            self.pynetdicom.join(timeout=_JOIN_SECONDS)
        self._discard()

    def abort(self) -> None:
        """End it now; whoever waits for a response wakes up. Safe to call from any thread."""
        self._stop = True
        association = self.pynetdicom
        if association is not None:
            if association.is_established:
                association.abort()
            # pynetdicom wakes the reader when the peer aborts, but not when we do.
            association.dimse.msg_queue.put((None, None))

    def hang_up(self) -> None:
        """Close the connection under a peer that does not read: an A-ABORT would wait in the queue."""
        if self._shared is not None:
            self._shared.hang_up()

    @property
    def _shared(self) -> SharedSocket | None:
        shared = self.pynetdicom.dul.socket if self.pynetdicom is not None else None
        return shared if isinstance(shared, SharedSocket) else None

    def _discard(self) -> None:
        """Close the descriptor: pynetdicom's thread, which should, may have died of what the peer said."""
        if self._shared is not None:
            self._shared.discard()

    def _see_connection(self, _event: Event) -> None:
        self._connected = True

    def _see_pdu(self, event: Event) -> None:
        # A rejection that comes before pynetdicom looks whether the connection stands counts as an abort there.
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            self._rejection = event.pdu
        elif isinstance(event.pdu, A_ABORT_RQ):
            self.aborted_by_peer = True

    def _see_message(self, event: Event) -> None:
        self._on_message(event.message)

    def _refusal(self, seconds: float) -> Exception:
        shared = self._shared
        if shared is not None and shared.failure is not None:
            return shared.failure
        if shared is not None and shared.first_byte == ALERT_RECORD:
            return TlsFailure("it wants TLS")
        if not self._connected:
            return ConnectionRefusedError("no connection")
        if self._rejection is not None:
            return Rejected(self._rejection.source or 0, self._rejection.reason_diagnostic or 0)
        if self.aborted_by_peer:
            return Aborted("it aborted the association")
        if self.pynetdicom.rejected_contexts:
            return NothingAccepted("it accepts nothing of what was proposed")
        if seconds >= self._timeouts.negotiate:
            return Silent()
        return ConnectionEnded("closed by the peer")

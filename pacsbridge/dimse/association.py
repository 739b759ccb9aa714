"""Where pynetdicom and pacsbridge share an association: all that leans on pynetdicom's inner names is here.

pynetdicom negotiates, releases and aborts. When it sends the A-ASSOCIATE-AC, in that very act the socket
passes to the receiver (`pacsbridge.dimse.fastpath`), which reads it in the association's thread; pynetdicom's
DUL thread sees "nothing to read" and sleeps. At the first PDU that is no P-DATA-TF the socket goes back, with
what was read of that PDU, and pynetdicom goes on as if it had never been away.

The names that this leans on (pinned: pynetdicom 3.0.4; ``tests/dimse/test_association.py`` says when one is
gone): ``AE`` (``_create_socket``), ``AssociationSocket`` (``connect``, ``ready``, ``recv``, ``send``, ``close``,
``_shutdown_socket``, ``_is_connected``, ``event_queue``), ``Association`` (``run_reactor``, ``_run_reactor``,
``_server``, ``_accepted_cx``, ``kill``), ``DULServiceProvider`` (``_idle_timer``, ``kill_dul``, ``run``,
``to_user_queue``, ``state_machine``).
"""

from __future__ import annotations

import ssl
from collections import Counter
from typing import TYPE_CHECKING, Protocol

import structlog
from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom._handlers import (
    standard_dimse_recv_handler,
    standard_dimse_sent_handler,
    standard_pdu_recv_handler,
    standard_pdu_sent_handler,
)
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_P_ABORT

from pacsbridge.dimse.fastpath import BUFFER_BYTES, Context, Receiver
from pacsbridge.dimse.message import AbortReason, InvalidMessage
from pacsbridge.dimse.shared_socket import SharedSocket
from pacsbridge.dimse.status import Status, describe
from pacsbridge.dimse.tls import HANDSHAKE_RECORD, server_context, shake_hands
from pacsbridge.dimse.wire import ConnectionEnded

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from pynetdicom.ae import ApplicationEntity
    from pynetdicom.events import Event
    from pynetdicom.transport import AssociationServer

    from pacsbridge.config import ServerTlsConfig
    from pacsbridge.dimse.inbox import Sink

log = structlog.get_logger(__name__)

#: The longest body of a P-DATA-TF that peers are told to send, in bytes.
MAXIMUM_LENGTH = BUFFER_BYTES
#: How long a peer may be silent in the middle of a message, in seconds.
STALL_SECONDS = 60.0
#: How long a TLS handshake may take, in seconds.
HANDSHAKE_SECONDS = 15.0
_STANDARD_HANDLERS = (
    (evt.EVT_DIMSE_RECV, standard_dimse_recv_handler),
    (evt.EVT_DIMSE_SENT, standard_dimse_sent_handler),
    (evt.EVT_PDU_RECV, standard_pdu_recv_handler),
    (evt.EVT_PDU_SENT, standard_pdu_sent_handler),
)


class Port(Protocol):
    """The port that a connection came to."""

    fast: bool
    tls: ServerTlsConfig | None

    def receive(
        self, *, SOPClassUID: str, SOPInstanceUID: str, TransferSyntaxUID: str, calling_ae_title: str
    ) -> Sink:
        """Open a sink for a C-STORE."""

    def count_refused(self) -> None:
        """Count an instance that was answered with a failure."""

    def remove(self, association: AcceptedAssociation) -> None:
        """Forget the association: its thread ends."""


class _GiveUp(Exception):
    """The receiver shall stop: the service ends, or the peer was silent for too long."""


class AcceptedAssociation(Association):
    """An association that a peer asked for, received by `Receiver` where the port is fast.

    Parameters
    ----------
    ae
        The AE that listens.
    server
        pynetdicom's server.
    port
        The same, as the port that it serves.
    idle_seconds
        How long the peer may be silent between two messages, in seconds.
    """

    def __init__(
        self, ae: ApplicationEntity, server: AssociationServer, port: Port, *, idle_seconds: float
    ) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self._server = server
        self._port = port
        self._idle_seconds = idle_seconds
        self._stopping = False
        self._refusals: Counter[Status] = Counter()
        self.name = f"AcceptorThread-{server.ae_title}"  # pynetdicom knows its acceptors by this beginning
        # They build texts for the log from each message and PDU, patients' UIDs included.
        for event, handler in _STANDARD_HANDLERS:
            self.unbind(event, handler)
        self.bind(evt.EVT_CONN_CLOSE, _wake)
        provider = self.dul.run
        # Not a subclass: Association makes its provider itself, and hands it to others in the same breath.
        self.dul.run = lambda: self._run_provider(provider)  # type: ignore[method-assign]

    def use(self, connection: socket.socket) -> None:
        """Take the connection."""
        shared = SharedSocket(self, connection)
        shared.lend_when_accepting = self._port.fast
        self.set_socket(shared)

    def open_sink(self, *, SOPClassUID: str, SOPInstanceUID: str, TransferSyntaxUID: str) -> Sink:
        """Open a sink for a C-STORE on this association."""
        return self._port.receive(
            SOPClassUID=SOPClassUID,
            SOPInstanceUID=SOPInstanceUID,
            TransferSyntaxUID=TransferSyntaxUID,
            calling_ae_title=self.requestor.ae_title,
        )

    def note_answer(self, status: Status) -> None:
        """Count and log what a C-STORE was answered with: the first of a kind now, the number in the end."""
        # pynetdicom's idle timer does not know that its handler, or the receiver, was busy.
        self.dul._idle_timer.restart()  # noqa: SLF001 - see the module's head
        if status is Status.SUCCESS:
            return
        self._port.count_refused()
        self._refusals[status] += 1
        if self._refusals[status] == 1:
            log.warning("instance refused", status=describe(status), local_ae_title=self.acceptor.ae_title)

    def hang_up(self) -> None:
        """End the association, from another thread and soon: the service stops."""
        self._stopping = True
        shared = self.dul.socket
        if self.is_established and not self._port.fast:
            self.abort()
        elif isinstance(shared, SharedSocket):
            shared.interrupt()

    def run_reactor(self) -> None:
        """Run the association, and leave nothing behind."""
        try:
            if self._shake_hands():
                super().run_reactor()
        except Exception:
            log.exception("an association failed")
        finally:
            self.dul.kill_dul()
            if self.dul.socket is not None:
                self.dul.socket._shutdown_socket()  # noqa: SLF001 - see the module's head
            if self.dul.is_alive():
                self.dul.join(STALL_SECONDS)
            self._port.remove(self)
            if getattr(self.dul.socket, "first_byte", None) == HANDSHAKE_RECORD:
                self._log_no_association("the peer speaks TLS, which is off here (storage_scp.tls)")
            for status, count in self._refusals.items():
                log.warning("instances were refused", status=describe(status), count=count)

    def _shake_hands(self) -> bool:
        """Do the TLS handshake where the port wants one, in this thread: a silent peer keeps nobody waiting."""
        shared = self.dul.socket
        if self._port.tls is None or shared is None or shared.socket is None:
            return True
        connection, shared.socket = shared.socket, None
        try:
            shared.socket = shake_hands(
                connection,
                server_context(self._port.tls),
                seconds=HANDSHAKE_SECONDS,
                check=self._check_stopping,
            )
        except _GiveUp:
            return False
        except ConnectionEnded as error:
            connection.close()
            if not isinstance(error.__cause__, (ssl.SSLEOFError, ConnectionError)):
                self._log_no_association(f"{error} (storage_scp.tls)")
            return False  # who comes and goes without a word is a monitor that looks at the port
        return True

    def _check_stopping(self) -> None:
        if self._stopping:
            raise _GiveUp("the service stops")

    def _log_no_association(self, reason: str) -> None:
        log.warning("no association", reason=reason, local_ae_title=self.acceptor.ae_title)

    def _run_provider(self, run: Callable[[], None]) -> None:
        """Run pynetdicom's DUL thread. Some hostile messages raise in it: that ends the association, no more."""
        try:
            run()
        except Exception as error:  # noqa: BLE001 - whatever it is: the thread ends, and the association's sees so
            log.warning(
                "association broken", reason=type(error).__name__, local_ae_title=self.acceptor.ae_title
            )

    def _run_reactor(self) -> None:
        """Receive what comes as P-DATA-TF, then let pynetdicom react to what comes after it."""
        shared = self.dul.socket
        if self._port.fast and isinstance(shared, SharedSocket) and shared.wait_lent():
            self._receive(shared)
        if not self.is_aborted:
            super()._run_reactor()
        # The socket is closed next; an A-ABORT that another thread asked for has to go out before.
        self.kill()

    def _receive(self, shared: SharedSocket) -> None:
        connection = shared.socket
        if connection is None:
            shared.give_back()
            return
        receiver = Receiver(
            connection,
            {
                id_: Context(cx.abstract_syntax or "", cx.transfer_syntax[0])
                for id_, cx in self._accepted_cx.items()
            },
            announced_length=self.acceptor.maximum_length or MAXIMUM_LENGTH,
            maximum_length=self.requestor.maximum_length or 0,
            open_sink=self.open_sink,
            on_answer=self.note_answer,
            on_silence=self._silent,
        )
        try:
            unread = receiver.run()
        except InvalidMessage as error:
            log.warning("association aborted", reason=str(error), local_ae_title=self.acceptor.ae_title)
            self._abort_peer(shared, error.reason)
        except _GiveUp as error:
            log.info("association aborted", reason=str(error), local_ae_title=self.acceptor.ae_title)
            self._abort_peer(shared, AbortReason.NOT_SPECIFIED)
        except ConnectionEnded:
            if self._stopping:
                self._abort_peer(shared, AbortReason.NOT_SPECIFIED)
            else:
                self._resume(shared, b"")
        except Exception:
            log.exception("receiving failed")
            self._abort_peer(shared, AbortReason.NOT_SPECIFIED)
        else:
            self._resume(shared, unread)

    def _resume(self, shared: SharedSocket, unread: bytes) -> None:
        self.dul._idle_timer.restart()  # noqa: SLF001 - it ran while pynetdicom was kept from reading
        shared.give_back(unread)

    def _silent(self, seconds: float, in_message: bool) -> None:
        self._check_stopping()
        if seconds > (STALL_SECONDS if in_message else self._idle_seconds):
            raise _GiveUp("the peer was silent for too long")

    def _abort_peer(self, shared: SharedSocket, reason: AbortReason) -> None:
        """Send an A-ABORT as service provider, and end."""
        primitive = A_P_ABORT()
        primitive.provider_reason = reason
        self.is_aborted = True
        self.is_established = False
        self.dul.send_pdu(primitive)
        shared.give_back(aborting=True)
        evt.trigger(self, evt.EVT_ABORTED, {})
        self.kill()


def _wake(event: Event) -> None:
    """Tell an association's thread that the peer left without asking for one; it would wait for ARTIM."""
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(None)  # pynetdicom's own sign of a time-out

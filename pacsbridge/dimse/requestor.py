"""An association that we ask for in order to send much: one thread, PDUs straight to the socket.

pynetdicom encodes the request and decodes the answer; it does not run the association. Its requestor lives in
two threads that wake up a thousand times a second, encodes each message through objects, and can't be
cancelled while it connects; what a sender needs of the state machine of PS3.8, 9.2 is a line here and there.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext

from pacsbridge.dimse.message import (
    MAXIMUM_COMMAND_LENGTH,
    NO_DATA_SET,
    PDU_HEADER,
    PDV_HEADER,
    PDV_OVERHEAD,
    Command,
    Control,
    Element,
    InvalidMessage,
    PduType,
    decode_command,
    us,
)
from pacsbridge.dimse.tls import ALERT_RECORD
from pacsbridge.dimse.wire import TICK_SECONDS, ConnectionEnded, TlsFailure, Wire, prepare
from pacsbridge.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from pacsbridge.dimse.tls import ClientTls

#: The maximum length that we announce: only responses come.
_ANNOUNCED_LENGTH = 1 << 14
#: The longest answer to an association request that is read: 128 contexts take 6 KB.
_MAXIMUM_ANSWER_LENGTH = 1 << 16
#: The longest data set of a response: 60,000 failed instances by their UIDs.
_MAXIMUM_DATA_SET_LENGTH = 1 << 22
_APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"  # PS3.7, A.2.1
_MAXIMUM_CONTEXTS = 128
#: How long the peer may take to answer a release, in seconds; then the connection is closed all the same.
_RELEASE_SECONDS = 5.0


class Cancelled(Exception):
    """Whoever asked for the association does not want it any more."""


class Silent(Exception):
    """The peer did not answer in time."""


class Rejected(Exception):
    """The peer rejected the association (PS3.8, 9.3.4)."""

    def __init__(self, source: int, reason: int) -> None:
        super().__init__(f"source {source}, reason {reason}")
        self.source = source
        self.reason = reason


class Aborted(Exception):
    """The peer aborted the association, or does not keep to the protocol."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A presentation context to propose."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class SendTimeouts:
    """How long the peer may be silent, in seconds."""

    connect: float = 10.0
    negotiate: float = 30.0
    response: float = 60.0


class Requestor:
    """An association, from the request to the release; leaving it by an exception aborts it.

    Parameters
    ----------
    host, port, ae_title
        Whom to ask.
    calling_ae_title
        Who asks.
    proposals
        At most 128 presentation contexts.
    timeouts
        How long the peer may be silent.
    cancelled
        Asked about twice a second while the peer is silent.
    tls
        How to connect by TLS; None: without.

    Raises
    ------
    OSError
        On entering: no connection.
    Rejected, Aborted, Silent, Cancelled, ConnectionEnded
        On entering: no association; TlsFailure is one that TLS is the reason of.
    """

    def __init__(
        self,
        host: str,
        port: int,
        ae_title: str,
        calling_ae_title: str,
        proposals: Sequence[Proposal],
        *,
        timeouts: SendTimeouts,
        cancelled: Callable[[], bool],
        tls: ClientTls | None = None,
    ) -> None:
        if len(proposals) > _MAXIMUM_CONTEXTS:
            raise ValueError(f"an association has at most {_MAXIMUM_CONTEXTS} presentation contexts")
        self._address = (host, port)
        self._ae_title = ae_title
        self._calling_ae_title = calling_ae_title
        self._proposals = proposals
        self._timeouts = timeouts
        self._cancelled = cancelled
        self._tls = tls
        self._patience = timeouts.negotiate
        self._connection: socket.socket | None = None
        self._unread = b""
        self.contexts: dict[Proposal, int] = {}
        """The IDs of the contexts that the peer accepted."""
        self.maximum_length = 0
        """The longest PDU body that the peer takes, in bytes; 0: any."""
        self.wire: Wire

    def __enter__(self) -> Self:
        connection = self._connect()
        self._connection = connection
        try:
            prepare(connection)
            if self._tls is not None:
                self._connection = connection = self._tls.shake_hands(
                    connection, seconds=self._timeouts.negotiate, check=self.check_cancelled
                )
            self.wire = Wire(connection, _MAXIMUM_ANSWER_LENGTH, self._silent)
            self._negotiate()
        except BaseException:
            self._abort()
            raise
        self._patience = self._timeouts.response
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._release()
        else:
            self._abort()

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if that is wanted."""
        if self._cancelled():
            raise Cancelled

    def read_response(self) -> Command:
        """Read a response: its command set. A data set that follows (C-MOVE's list of failures) is dropped.

        Raises
        ------
        Aborted, Silent, Cancelled, ConnectionEnded
            There is none.
        """
        response = self._decode(self._read_part(Control.COMMAND, MAXIMUM_COMMAND_LENGTH))
        data_set = response.values.get(Element.CommandDataSetType)
        if data_set is not None and data_set != us(NO_DATA_SET):
            self._read_part(Control.DATA_SET, _MAXIMUM_DATA_SET_LENGTH)
        if self._unread:
            raise Aborted("it sent more than a response")
        return response

    def _read_part(self, kind: Control, maximum: int) -> bytearray:
        """Read the fragments of a command set or of a data set."""
        part = bytearray()
        while True:
            control, fragment = self._read_fragment()
            if control & Control.COMMAND != kind:
                raise Aborted("it sent something else than a response")
            part += fragment
            if len(part) > maximum:
                raise Aborted("it sent more than a response")
            if control & Control.LAST:
                return part

    def _read_fragment(self) -> tuple[int, bytes]:
        """Read the next PDV: its message control header and what it holds."""
        while not self._unread:
            kind, self._unread = self._read_pdu()
            if kind != PduType.P_DATA_TF:
                raise Aborted("it ended the association")
        if len(self._unread) < PDV_HEADER.size:
            raise Aborted("it sent a PDV that ends too early")
        length, _, control = PDV_HEADER.unpack_from(self._unread)
        end = PDV_HEADER.size - PDV_OVERHEAD + length
        if length < PDV_OVERHEAD or end > len(self._unread):
            raise Aborted("it sent a PDV whose length is wrong")
        fragment, self._unread = self._unread[PDV_HEADER.size : end], self._unread[end:]
        return control, fragment

    def _decode(self, command: bytearray) -> Command:
        try:
            return decode_command(command)
        except InvalidMessage as error:
            raise Aborted(str(error)) from error

    def _connect(self) -> socket.socket:
        """Connect to the first address that answers, looking out for a cancellation."""
        error: OSError = ConnectionError("the name has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(*self._address, type=socket.SOCK_STREAM):
            connection = socket.socket(family, kind, protocol)
            try:
                connection.setblocking(False)
                self._await_connection(connection, connection.connect_ex(address))
            except OSError as problem:
                connection.close()
                error = problem
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise error

    def _await_connection(self, connection: socket.socket, code: int) -> None:
        deadline = time.monotonic() + self._timeouts.connect
        poll = select.poll()
        poll.register(connection, select.POLLOUT)
        while code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            self.check_cancelled()
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "no answer")
            if poll.poll(TICK_SECONDS * 1000):
                code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, errno.errorcode.get(code, "unknown error"))

    def _negotiate(self) -> None:
        self.wire.write(self._request())
        kind, body = self._read_pdu()
        whole = PDU_HEADER.pack(kind, len(body)) + body
        try:
            if kind == PduType.A_ASSOCIATE_AC:
                acceptance = A_ASSOCIATE_AC()
                acceptance.decode(whole)
                self._accept(acceptance.to_primitive())
                return
            rejection = A_ASSOCIATE_RJ()
            if kind == PduType.A_ASSOCIATE_RJ:
                rejection.decode(whole)
        except Exception as error:  # what pynetdicom raises on nonsense is not agreed on
            raise Aborted("its answer to the association request can't be read") from error
        if kind != PduType.A_ASSOCIATE_RJ:
            raise Aborted("it answered the association request with something else")
        raise Rejected(rejection.source or 0, rejection.reason_diagnostic or 0)

    def _request(self) -> bytes:
        """Encode the A-ASSOCIATE-RQ (PS3.8, 9.3.2)."""
        primitive = A_ASSOCIATE()
        primitive.application_context_name = _APPLICATION_CONTEXT_NAME
        primitive.calling_ae_title = self._calling_ae_title
        primitive.called_ae_title = self._ae_title
        contexts = []
        for number, proposal in enumerate(self._proposals):
            context = PresentationContext()
            context.context_id = _context_id(number)
            context.abstract_syntax = proposal.abstract_syntax
            context.transfer_syntax = [proposal.transfer_syntax]
            contexts.append(context)
        primitive.presentation_context_definition_list = contexts
        length = MaximumLengthNotification()
        length.maximum_length_received = _ANNOUNCED_LENGTH
        implementation = ImplementationClassUIDNotification()
        implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        name = ImplementationVersionNameNotification()
        name.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        primitive.user_information = [length, implementation, name]
        return A_ASSOCIATE_RQ(primitive).encode()

    def _accept(self, primitive: A_ASSOCIATE) -> None:
        """Take from the A-ASSOCIATE-AC what was accepted; what was not proposed is not taken."""
        proposed = {_context_id(number): proposal for number, proposal in enumerate(self._proposals)}
        for context in primitive.presentation_context_definition_results_list:
            proposal = proposed.get(context.context_id or 0)
            if context.result == 0 and proposal and context.transfer_syntax == [proposal.transfer_syntax]:
                self.contexts[proposal] = context.context_id or 0
        self.maximum_length = primitive.maximum_length_received or 0

    def _read_pdu(self) -> tuple[int, bytes]:
        kind, length = PDU_HEADER.unpack(self.wire.read(PDU_HEADER.size))
        if kind == ALERT_RECORD:
            raise TlsFailure("it wants TLS")
        if length > _MAXIMUM_ANSWER_LENGTH:
            raise Aborted("it sent a PDU that is too long")
        body = bytes(self.wire.read(length)) if length else b""
        if kind == PduType.A_ABORT:
            raise Aborted("it aborted the association")
        return kind, body

    def _silent(self, seconds: float) -> None:
        self.check_cancelled()
        if seconds > self._patience:
            raise Silent

    def _release(self) -> None:
        """Release the association (PS3.8, 7.2); whatever comes of that, everything was answered before."""
        self._patience = _RELEASE_SECONDS
        with contextlib.suppress(Aborted, Silent, Cancelled, ConnectionEnded):
            self.wire.write(PDU_HEADER.pack(PduType.A_RELEASE_RQ, 4) + bytes(4))
            self._read_pdu()
        self._close()

    def _abort(self) -> None:
        """Send an A-ABORT as service user (PS3.8, 9.3.8), as far as it can be sent at once, and close."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.setblocking(False)
                self._connection.send(PDU_HEADER.pack(PduType.A_ABORT, 4) + bytes(4))
                self._connection.shutdown(socket.SHUT_WR)
        self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _context_id(number: int) -> int:
    """Give the ID of the nth context: odd numbers from 1 to 255 (PS3.8, 9.3.2.2)."""
    return 2 * number + 1

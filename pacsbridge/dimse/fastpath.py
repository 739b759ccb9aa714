"""Receiving without detours: DIMSE messages read from the socket, data sets going straight into their files.

While P-DATA arrives, this reads it: one system call for the head of a PDU, one for its body, one to write it.
What else may come on an association (release, abort, nonsense) is left to pynetdicom: see
`pacsbridge.dimse.association`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from pacsbridge.dimse.inbox import Refused, Sink
from pacsbridge.dimse.message import (
    FRAGMENT_OFFSET,
    MAXIMUM_COMMAND_LENGTH,
    NO_DATA_SET,
    PDU_HEADER,
    PDV_HEADER,
    PDV_OVERHEAD,
    Command,
    CommandField,
    Control,
    Element,
    InvalidMessage,
    PduType,
    command_pdus,
    decode_command,
    encode_response,
)
from pacsbridge.dimse.status import Status, describe
from pacsbridge.dimse.wire import Wire

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

#: How much is read and written at a time, in bytes, and the maximum length that is announced to peers, so that a
#: PDU is one piece. Measured with 600 instances of 527 KB: 64 and 128 KiB take 0.33 CPU seconds, 256 KiB 0.42 and
#: 1 MiB 0.45 (the buffer leaves the cache); dcmtk never sends more than 128 KiB.
BUFFER_BYTES = 1 << 17
#: A UID as the standard has it is no longer (PS3.5, 9.1).
_MAXIMUM_UID_LENGTH = 64
#: What a peer without a limit of its own is sent at most in a PDU.
_UNLIMITED = 1 << 16
_HEAD_BYTES = PDU_HEADER.size + PDV_HEADER.size
#: Plain numbers: these are looked at for each PDV, and an IntFlag takes a microsecond for it.
_COMMAND, _LAST = int(Control.COMMAND), int(Control.LAST)
_P_DATA_TF = int(PduType.P_DATA_TF)


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


class OpenSink(Protocol):
    """What opens a sink for a C-STORE."""

    def __call__(self, *, SOPClassUID: str, SOPInstanceUID: str, TransferSyntaxUID: str) -> Sink:
        """Open it, or refuse."""


class Receiver:
    """The acceptor's side of the DIMSE messages on one association.

    Parameters
    ----------
    connection
        The socket, prepared by `pacsbridge.dimse.wire.prepare`.
    contexts
        The accepted presentation contexts by their ID.
    announced_length
        The longest PDU body that the peer was told to send, in bytes.
    maximum_length
        The longest that the peer wants, in bytes; 0: any.
    open_sink
        Called at each C-STORE command.
    on_answer
        Called with each status that is answered to a C-STORE.
    on_silence
        Called about twice a second while the peer is silent, with the seconds since it said something and
        whether it is in the middle of a message; raises to give up.
    """

    def __init__(
        self,
        connection: socket.socket,
        contexts: Mapping[int, Context],
        *,
        announced_length: int,
        maximum_length: int,
        open_sink: OpenSink,
        on_answer: Callable[[Status], None],
        on_silence: Callable[[float, bool], None],
    ) -> None:
        self._wire = Wire(connection, BUFFER_BYTES + _HEAD_BYTES, self._silent)
        self._contexts = contexts
        self._announced_length = announced_length
        self._maximum_length = maximum_length or _UNLIMITED
        self._open_sink = open_sink
        self._on_answer = on_answer
        self._on_silence = on_silence
        self._in_pdu = False
        #: What was read of the next PDU.
        self._ahead = b""
        # The message that is arriving: its context, its command set as far as it came, then its sink.
        self._context_id = 0
        self._command_bytes = bytearray()
        self._command: Command | None = None
        self._sink: Sink | None = None

    def run(self) -> bytes:
        """Receive until a PDU begins that is no P-DATA-TF.

        Returns
        -------
        bytes
            What was read of that PDU.

        Raises
        ------
        InvalidMessage
            The peer does not keep to the protocol.
        ConnectionEnded
            The connection is gone.
        """
        try:
            while True:
                head = self._read_head()
                kind, length = PDU_HEADER.unpack_from(head)
                if kind != _P_DATA_TF:
                    return head
                if not FRAGMENT_OFFSET <= length <= self._announced_length:
                    raise InvalidMessage("a PDU with a length that was not agreed on")
                self._in_pdu = True
                self._read_pdu(head, length)
                self._in_pdu = False
        finally:
            if self._sink is not None:
                self._sink.discard()

    def _silent(self, seconds: float) -> None:
        in_message = self._in_pdu or self._sink is not None or bool(self._command_bytes)
        self._on_silence(seconds, in_message)

    def _read_head(self) -> bytes:
        """Read the head of a PDU and of its first PDV, which every P-DATA-TF has.

        What is shorter than both is something else, and complete.
        """
        head, self._ahead = self._ahead, b""
        if len(head) < PDU_HEADER.size:
            head += self._wire.read_some(_HEAD_BYTES - len(head), PDU_HEADER.size - len(head))
        return head

    def _read_pdu(self, head: bytes, length: int) -> None:
        """Walk the PDVs of a P-DATA-TF with a body of `length` bytes, of whose head the beginning is read."""
        if len(head) < _HEAD_BYTES:
            head += self._wire.read(_HEAD_BYTES - len(head))
        pdv_length, context_id, control = PDV_HEADER.unpack_from(head, PDU_HEADER.size)
        while True:
            length -= PDV_HEADER.size - PDV_OVERHEAD + pdv_length
            if pdv_length < PDV_OVERHEAD or length < 0:
                raise InvalidMessage("a PDV whose length is wrong")
            if control & _COMMAND:
                self._read_command(context_id, control, pdv_length - PDV_OVERHEAD)
            else:
                self._read_data_set(context_id, control, pdv_length - PDV_OVERHEAD, ends_pdu=not length)
            if not length:
                return
            if length < PDV_HEADER.size:
                raise InvalidMessage("a PDU that ends in the middle of a PDV")
            pdv_length, context_id, control = PDV_HEADER.unpack(self._wire.read(PDV_HEADER.size))

    def _read_command(self, context_id: int, control: int, length: int) -> None:
        if self._sink is not None:
            raise InvalidMessage("a command in the middle of a data set")
        if context_id not in self._contexts:
            raise InvalidMessage("a presentation context that was not accepted")
        if self._command_bytes and context_id != self._context_id:
            raise InvalidMessage("a command in two presentation contexts")
        if len(self._command_bytes) + length > MAXIMUM_COMMAND_LENGTH:
            raise InvalidMessage("a command set that is too long")
        self._context_id = context_id
        self._command_bytes += self._wire.read(length)
        if control & _LAST:
            command = decode_command(self._command_bytes)
            self._command_bytes = bytearray()
            self._begin(command)

    def _read_data_set(self, context_id: int, control: int, length: int, *, ends_pdu: bool) -> None:
        if self._sink is None or self._command is None or self._command_bytes:
            raise InvalidMessage("a data set without a command")
        if context_id != self._context_id:
            raise InvalidMessage("a data set in another presentation context than its command")
        while length > BUFFER_BYTES:
            self._sink.write(self._wire.read(BUFFER_BYTES))
            length -= BUFFER_BYTES
        if length:
            # In the middle of a data set, another PDU follows: its head comes with the same system call.
            ahead = _HEAD_BYTES if ends_pdu and not control & _LAST else 0
            piece, self._ahead = self._wire.read_ahead(length, ahead)
            self._sink.write(piece)
        if control & _LAST:
            command, sink, self._command, self._sink = self._command, self._sink, None, None
            self._answer_store(command, sink.finish())

    def _begin(self, command: Command) -> None:
        """Act on a command set: answer it, or wait for its data set."""
        field = command.number(Element.CommandField)
        command.number(Element.MessageID)  # without it there can be no answer
        has_data_set = command.number(Element.CommandDataSetType) != NO_DATA_SET
        if field == CommandField.C_ECHO_RQ and not has_data_set:
            self._send(encode_response(command, CommandField.C_ECHO_RSP, Status.SUCCESS))
        elif field == CommandField.C_STORE_RQ and has_data_set:
            self._command = command
            self._sink = self._open(command)
        elif field == CommandField.C_STORE_RQ:
            self._answer_store(command, Status.CANNOT_UNDERSTAND)
        else:
            raise InvalidMessage("a message that is neither C-STORE nor C-ECHO")

    def _open(self, command: Command) -> Sink:
        context = self._contexts[self._context_id]
        SOPClassUID = command.uid(Element.AffectedSOPClassUID)
        SOPInstanceUID = command.uid(Element.AffectedSOPInstanceUID)
        if context.abstract_syntax == Verification or not _is_uid(SOPClassUID):
            return Refused(Status.SOP_CLASS_NOT_SUPPORTED)
        if not _is_uid(SOPInstanceUID):
            return Refused(Status.INVALID_SOP_INSTANCE)
        return self._open_sink(
            SOPClassUID=SOPClassUID,
            SOPInstanceUID=SOPInstanceUID,
            TransferSyntaxUID=context.transfer_syntax,
        )

    def _answer_store(self, command: Command, status: Status) -> None:
        comment = "" if status is Status.SUCCESS else _COMMENTS.get(status, describe(status))
        self._on_answer(status)
        self._send(encode_response(command, CommandField.C_STORE_RSP, status, comment))

    def _send(self, response: bytes) -> None:
        for pdu in command_pdus(self._context_id, response, self._maximum_length):
            self._wire.write(pdu)


#: For the log of the archive: at most 64 characters (PS3.7, C.4.2).
_COMMENTS = {
    Status.NOT_AUTHORIZED: "No job on this port expects the study of this instance",
    Status.OUT_OF_RESOURCES: "No room left in the spool",
    Status.DATA_SET_MISMATCH: "The data set has other SOP UIDs than the command",
    Status.CANNOT_UNDERSTAND: "The data set can't be read",
}


def _is_uid(value: str) -> bool:
    """Tell whether a value can stand for a UID in a file: lax, as archives hold UIDs that break the rules."""
    return 0 < len(value) <= _MAXIMUM_UID_LENGTH and value.isascii() and value.isprintable()

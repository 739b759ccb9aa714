"""One C-STORE over an association of `pacsbridge.dimse.requestor`: the request from the file, and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacsbridge.dimse.message import (
    DATA_SET_PRESENT,
    PRIORITY_MEDIUM,
    CommandField,
    Control,
    Element,
    InvalidMessage,
    command_pdus,
    encode_command,
    fragment_length,
    pdu_header,
    ui,
    us,
)
from pacsbridge.dimse.requestor import Aborted, Proposal, Requestor

if TYPE_CHECKING:
    from pacsbridge.dimse.source import DataSetSource
    from pacsbridge.instance import Instance

#: How much of a file is read and handed to the kernel at a time, in bytes.
_WINDOW_BYTES = 1 << 20
#: The longest PDU body for a peer that takes any.
_UNLIMITED = 1 << 17
#: A peer that takes no longer PDUs than this would get more heads than data.
_SMALLEST_MAXIMUM = 256


class StoreAssociation(Requestor):
    """An association for C-STOREs."""

    def store(self, instance: Instance, proposal: Proposal, source: DataSetSource, message_id: int) -> int:
        """Send an instance in the context of `proposal`, and read the status that it is answered with.

        Raises
        ------
        Aborted, Silent, Cancelled, ConnectionEnded, InvalidMessage
            There is no answer.
        FileChanged
            Its file did, while it was sent.
        """
        command = encode_command(
            [
                (Element.AffectedSOPClassUID, ui(instance.SOPClassUID)),
                (Element.CommandField, us(CommandField.C_STORE_RQ)),
                (Element.MessageID, us(message_id)),
                (Element.Priority, us(PRIORITY_MEDIUM)),
                (Element.CommandDataSetType, us(DATA_SET_PRESENT)),
                (Element.AffectedSOPInstanceUID, ui(instance.SOPInstanceUID)),
            ]
        )
        check_maximum(self.maximum_length)
        self._transmit(self.contexts[proposal], command, source)
        return self._read_status(message_id)

    def _transmit(self, context_id: int, command: bytes, source: DataSetSource) -> None:
        """Send a message: a PDU for each fragment, as many of them at a time as a window holds."""
        maximum = self.maximum_length or _UNLIMITED
        step = fragment_length(maximum)
        parts: list[bytes | memoryview] = list(command_pdus(context_id, command, maximum))
        left = source.length
        for window in source.windows(max(1, _WINDOW_BYTES // step) * step):
            for start in range(0, len(window), step):
                piece = window[start : start + step]
                left -= len(piece)
                # A fragment is even (PS3.8, 9.3.5.1), a deflated data set need not be: it is padded (PS3.5, A.5).
                padding = b"\0" * (len(piece) % 2)
                control = Control.DATA_SET if left else Control.LAST
                parts += (pdu_header(context_id, control, len(piece) + len(padding)), piece, padding)
            self.wire.write(parts)
            self.check_cancelled()
            parts = []

    def _read_status(self, message_id: int) -> int:
        response = self.read_response()
        try:
            if response.number(Element.CommandField) != CommandField.C_STORE_RSP:
                raise Aborted("it answered something else than a C-STORE")
            if response.number(Element.MessageIDBeingRespondedTo) != message_id:
                raise Aborted("it answered another message")
            return response.number(Element.Status)
        except InvalidMessage as error:
            raise Aborted(str(error)) from error


def check_maximum(length: int) -> None:
    """Raise `Aborted` where the longest PDU body that a peer takes leaves no room for data; 0: it takes any."""
    if 0 < length < _SMALLEST_MAXIMUM:
        raise Aborted(f"it takes no PDUs longer than {length} bytes")

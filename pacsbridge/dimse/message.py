"""DIMSE command sets, and the PDUs that carry messages (PS3.7, 6.3 and 9.3; PS3.8, 9.3.5 and E)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct, pack
from typing import TYPE_CHECKING

from pacsbridge.dimse.identity import uid_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: PDU type, reserved, length of what follows (PS3.8, 9.3.1).
PDU_HEADER = Struct(">BxL")
#: Length of what follows, presentation context ID, message control header (PS3.8, 9.3.5.1 and E.2).
PDV_HEADER = Struct(">LBB")
#: Of the length of a PDV: presentation context ID and message control header.
PDV_OVERHEAD = 2
#: Of a PDU's body before the fragment of its only PDV.
FRAGMENT_OFFSET = PDV_HEADER.size
#: A command set is some hundred bytes; more than this is no command set.
MAXIMUM_COMMAND_LENGTH = 1 << 14

_COMMAND_ELEMENT = Struct("<HHL")
_US = Struct("<H")


class PduType(IntEnum):
    """PS3.8, 9.3.1."""

    A_ASSOCIATE_AC = 0x02
    A_ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    A_RELEASE_RQ = 0x05
    A_ABORT = 0x07


class AbortReason(IntEnum):
    """Why a service provider aborts (PS3.8, 9.3.8)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    INVALID_PDU_PARAMETER_VALUE = 6


class Control(IntFlag):
    """The message control header of a PDV (PS3.8, E.2)."""

    DATA_SET = 0
    COMMAND = 1
    LAST = 2


class CommandField(IntEnum):
    """PS3.7, table E.1-1."""

    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_MOVE_RQ = 0x0021
    C_MOVE_RSP = 0x8021
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030
    C_CANCEL_RQ = 0x0FFF


class Element(IntEnum):
    """Elements of group 0000, by keyword (PS3.7, E.1)."""

    CommandGroupLength = 0x0000
    AffectedSOPClassUID = 0x0002
    CommandField = 0x0100
    MessageID = 0x0110
    MessageIDBeingRespondedTo = 0x0120
    MoveDestination = 0x0600
    Priority = 0x0700
    CommandDataSetType = 0x0800
    Status = 0x0900
    ErrorComment = 0x0902
    AffectedSOPInstanceUID = 0x1000
    NumberOfCompletedSuboperations = 0x1021
    NumberOfFailedSuboperations = 0x1022


#: Command Data Set Type when there is no data set, and a value that says that there is one.
NO_DATA_SET = 0x0101
DATA_SET_PRESENT = 0x0001
PRIORITY_MEDIUM = 0x0000


class InvalidMessage(Exception):
    """The peer sent no DIMSE message, or not one that may come now: the association has to be aborted."""

    def __init__(self, message: str, reason: AbortReason = AbortReason.INVALID_PDU_PARAMETER_VALUE) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Command:
    """A command set: the encoded value of each element of group 0000."""

    values: Mapping[int, bytes]

    def number(self, element: Element) -> int:
        """Read an element of VR US.

        Raises
        ------
        InvalidMessage
            It is absent, or has no two bytes.
        """
        value = self.values.get(element, b"")
        if len(value) != _US.size:
            raise InvalidMessage(f"the command has no {element.name}")
        return int(_US.unpack(value)[0])

    def count(self, element: Element) -> int:
        """Read an optional element of VR US; 0 when it is absent or can't be read."""
        value = self.values.get(element, b"")
        return int(_US.unpack(value)[0]) if len(value) == _US.size else 0

    def uid(self, element: Element) -> str:
        """Read an element of VR UI; empty when it is absent."""
        return uid_text(self.values.get(element, b""))

    def text(self, element: Element) -> str:
        """Read an element of VR LO; empty when it is absent."""
        return self.values.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace")


def decode_command(data: bytes | bytearray) -> Command:
    """Decode a command set, Implicit VR Little Endian.

    Raises
    ------
    InvalidMessage
        The bytes are no command set.
    """
    values: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        start = position + _COMMAND_ELEMENT.size
        if start > len(data):
            raise InvalidMessage("the command set ends in the middle of an element")
        group, element, length = _COMMAND_ELEMENT.unpack_from(data, position)
        position = start + length
        if group or position > len(data):
            raise InvalidMessage("the command set holds what is no command element")
        values[element] = bytes(data[start:position])
    return Command(values)


def encode_command(elements: Iterable[tuple[Element, bytes]]) -> bytes:
    """Encode a command set from encoded values in the order of their tags, the group length before it."""
    body = b"".join(_COMMAND_ELEMENT.pack(0, element, len(value)) + value for element, value in elements)
    return _COMMAND_ELEMENT.pack(0, Element.CommandGroupLength, 4) + pack("<L", len(body)) + body


def us(value: int) -> bytes:
    """Encode a value of VR US."""
    return _US.pack(value)


def ui(value: str) -> bytes:
    """Encode a value of VR UI, padded to even length."""
    encoded = value.encode("ascii")
    return encoded + b"\0" * (len(encoded) % 2)


def ae(value: str) -> bytes:
    """Encode a value of VR AE, padded to even length."""
    encoded = value.encode("ascii")
    return encoded + b" " * (len(encoded) % 2)


def lo(value: str) -> bytes:
    """Encode a value of VR LO: at most 64 characters, padded to even length."""
    encoded = value[:64].encode("ascii", "replace")
    return encoded + b" " * (len(encoded) % 2)


def encode_response(request: Command, field: CommandField, status: int, comment: str = "") -> bytes:
    """Encode the response to a C-STORE or C-ECHO from the request's elements (PS3.7, 9.3.1.2, 9.3.5.2)."""
    elements = [
        (Element.AffectedSOPClassUID, request.values.get(Element.AffectedSOPClassUID, b"")),
        (Element.CommandField, us(field)),
        (Element.MessageIDBeingRespondedTo, request.values[Element.MessageID]),
        (Element.CommandDataSetType, us(NO_DATA_SET)),
        (Element.Status, us(status)),
    ]
    if comment:
        elements.append((Element.ErrorComment, lo(comment)))
    if Element.AffectedSOPInstanceUID in request.values:
        instance = request.values[Element.AffectedSOPInstanceUID]
        elements.append((Element.AffectedSOPInstanceUID, instance))
    return encode_command(elements)


def fragment_length(maximum_length: int) -> int:
    """Tell how many bytes of a message fit into a PDU whose body has at most `maximum_length` bytes.

    Raises
    ------
    InvalidMessage
        Nothing fits.
    """
    if maximum_length < FRAGMENT_OFFSET + 2:
        raise InvalidMessage("the peer's maximum length leaves no room for a message")
    return (maximum_length - FRAGMENT_OFFSET) & ~1  # fragments are even (PS3.8, 9.3.5.1)


def pdu_header(context_id: int, control: Control, length: int) -> bytes:
    """Encode what stands before a fragment of `length` bytes that has a PDU for itself."""
    body = FRAGMENT_OFFSET + length
    return PDU_HEADER.pack(PduType.P_DATA_TF, body) + PDV_HEADER.pack(
        length + PDV_OVERHEAD, context_id, control
    )


def command_pdus(context_id: int, command: bytes, maximum_length: int) -> Iterator[bytes]:
    """Encode a command set as PDUs."""
    step = fragment_length(maximum_length)
    for start in range(0, len(command), step):
        part = command[start : start + step]
        last = Control.LAST if start + step >= len(command) else Control.DATA_SET
        yield pdu_header(context_id, Control.COMMAND | last, len(part)) + part

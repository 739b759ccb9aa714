"""What an encoded data set says it is: its SOP Class, SOP Instance and Study, read from its first bytes.

A store is refused by what its data set says, before a byte of it reaches the disk. The reader walks the
elements without decoding them (PS3.5, 7.1 and 7.5), in one pass, without recursion, and never past the bytes
it was given.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOP_CLASS_UID = (0x0008, 0x0016)
_SOP_INSTANCE_UID = (0x0008, 0x0018)
_STUDY_INSTANCE_UID = (0x0020, 0x000D)
_ITEM = (0xFFFE, 0xE000)
_ITEM_DELIMITATION = (0xFFFE, 0xE00D)
_SEQUENCE_DELIMITATION = (0xFFFE, 0xE0DD)
_UNDEFINED_LENGTH = 0xFFFFFFFF
#: Value representations with a length of 32 bits in explicit VR (PS3.5, table 7.1-1).
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_JPIP_REFERENCED_DEFLATE = "1.2.840.10008.1.2.4.95"
_JPIP_HTJ2K_REFERENCED_DEFLATE = "1.2.840.10008.1.2.4.205"
#: The whole data set is deflated (PS3.5, A.5 and A.6).
_DEFLATED = frozenset(
    {DeflatedExplicitVRLittleEndian, _JPIP_REFERENCED_DEFLATE, _JPIP_HTJ2K_REFERENCED_DEFLATE}
)
#: How much of a deflated data set is inflated.
_INFLATED_BYTES = 1 << 16
#: An element of explicit VR with a short length: group, element, VR, length; and the parts of the other
#: forms.
_LITTLE = (Struct("<HH2sH"), Struct("<L"), Struct("<HHL"))
_BIG = (Struct(">HH2sH"), Struct(">L"), Struct(">HHL"))


@dataclass(frozen=True, slots=True)
class Identity:
    """The UIDs of a data set; empty where the bytes at hand do not hold it."""

    SOPClassUID: str = ""
    SOPInstanceUID: str = ""
    StudyInstanceUID: str = ""

    @property
    def complete(self) -> bool:
        """Whether all three are known."""
        return bool(self.SOPClassUID and self.SOPInstanceUID and self.StudyInstanceUID)


def read_identity(head: bytes | bytearray | memoryview, TransferSyntaxUID: str) -> Identity:
    """Read the UIDs from the first bytes of an encoded data set.

    Parameters
    ----------
    head
        The first bytes of the data set, without File Meta Information. What they cut off is as good as
        absent.
    TransferSyntaxUID
        How the data set is encoded.
    """
    if TransferSyntaxUID in _DEFLATED:
        try:
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, _INFLATED_BYTES)
        except zlib.error:
            return Identity()
    found: dict[tuple[int, int], str] = {}
    for tag, start, end in _elements(
        head,
        implicit=TransferSyntaxUID == ImplicitVRLittleEndian,
        big=TransferSyntaxUID == ExplicitVRBigEndian,
    ):
        if tag in (_SOP_CLASS_UID, _SOP_INSTANCE_UID, _STUDY_INSTANCE_UID):
            found[tag] = uid_text(head[start:end])
        if tag >= _STUDY_INSTANCE_UID:
            break
    return Identity(
        SOPClassUID=found.get(_SOP_CLASS_UID, ""),
        SOPInstanceUID=found.get(_SOP_INSTANCE_UID, ""),
        StudyInstanceUID=found.get(_STUDY_INSTANCE_UID, ""),
    )


def uid_text(value: bytes | bytearray | memoryview) -> str:
    """Decode the value of a UI element: padding (a NUL by the standard, a space by habit) goes."""
    return bytes(value).rstrip(b"\0 ").decode("ascii", "replace")


def _elements(
    data: bytes | bytearray | memoryview, *, implicit: bool, big: bool
) -> Iterator[tuple[tuple[int, int], int, int]]:
    """Walk the elements at the top level whose values are whole: tag, start and end of the value.

    What a sequence of undefined length holds is walked too, but not yielded: a stack says how deep the walk
    is and how each level is encoded (a UN of undefined length holds implicit VR, PS3.5 6.2.2).
    """
    forms = _BIG if big else _LITTLE
    position, last = 0, len(data) - forms[2].size
    outer: list[bool] = []
    while position <= last:
        tag, vr, start, length = _header(data, position, implicit, forms)
        if tag in (_ITEM_DELIMITATION, _SEQUENCE_DELIMITATION):
            if not outer:
                return
            implicit = outer.pop()
            length = 0
        if length == _UNDEFINED_LENGTH:
            outer.append(implicit)
            implicit = implicit or vr == b"UN"
            position = start
            continue
        position = start + length
        if position > len(data):
            return
        if not outer:
            yield tag, start, position


def _header(
    data: bytes | bytearray | memoryview, position: int, implicit: bool, forms: tuple[Struct, Struct, Struct]
) -> tuple[tuple[int, int], bytes, int, int]:
    """Read tag, VR, start of the value and its length; items and delimiters are as in implicit VR."""
    short, long, bare = forms
    group, element, vr, length = short.unpack_from(data, position)
    start = position + short.size
    if implicit or group == _ITEM[0]:
        length = bare.unpack_from(data, position)[2]
    elif vr in _LONG_VRS:
        if start + long.size > len(data):
            # Cut off: as good as a value that is not all there.
            return (group, element), vr, start, len(data)
        length = long.unpack_from(data, start)[0]
        start += long.size
    return (group, element), vr, start, length

"""What an encoded data set says it is: its SOP Class, SOP Instance and Study, read from its first bytes.

A store is refused by what its data set says, before a byte of it reaches the disk.
"""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pacsbridge.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    SHORT_VRS,
    UNDEFINED_LENGTH,
    Encoding,
    Malformed,
    header,
    skip_undefined,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

#: How much of a data set is looked at, in bytes.
HEAD_BYTES = 1 << 16

_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_STUDY_INSTANCE_UID = 0x0020000D
_WANTED = frozenset({_SOP_CLASS_UID, _SOP_INSTANCE_UID, _STUDY_INSTANCE_UID})
_JPIP_REFERENCED_DEFLATE = "1.2.840.10008.1.2.4.95"
_JPIP_HTJ2K_REFERENCED_DEFLATE = "1.2.840.10008.1.2.4.205"
#: The whole data set is deflated (PS3.5, A.5 and A.6).
_DEFLATED = frozenset(
    {DeflatedExplicitVRLittleEndian, _JPIP_REFERENCED_DEFLATE, _JPIP_HTJ2K_REFERENCED_DEFLATE}
)
_VR_OFFSET = slice(4, 6)


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


def read_identity(
    head: bytes | bytearray | memoryview, TransferSyntaxUID: str, likely: Iterable[str] = ()
) -> Identity:
    """Read the UIDs from the first bytes of an encoded data set.

    Parameters
    ----------
    head
        The first bytes of the data set, without File Meta Information. What they cut off is as good as
        absent.
    TransferSyntaxUID
        How the data set is encoded.
    likely
        Study Instance UIDs. Where one of them stands anywhere in the bytes it is taken for that of the data
        set, and the walk ends at the SOP Instance UID: a fifth of the way. Whoever stores the data set looks
        again.
    """
    data = bytes(head[:HEAD_BYTES])
    if TransferSyntaxUID in _DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, HEAD_BYTES)
        except zlib.error:
            return Identity()
    found: dict[int, str] = {}
    last = _STUDY_INSTANCE_UID
    study = next((uid for uid in likely if uid.encode() in data), None)
    if study is not None:
        found[_STUDY_INSTANCE_UID] = study
        last = _SOP_INSTANCE_UID
    with contextlib.suppress(Malformed):  # what was found before it counts
        _find(data, _encoding(data, TransferSyntaxUID), last, found)
    return Identity(
        SOPClassUID=found.get(_SOP_CLASS_UID, ""),
        SOPInstanceUID=found.get(_SOP_INSTANCE_UID, ""),
        StudyInstanceUID=found.get(_STUDY_INSTANCE_UID, ""),
    )


def uid_text(value: bytes | bytearray | memoryview) -> str:
    """Decode the value of a UI element: padding (a NUL by the standard, a space by habit) goes."""
    return bytes(value).rstrip(b"\0 ").decode("ascii", "replace")


def _find(data: bytes, encoding: Encoding, last: int, found: dict[int, str]) -> None:
    """Walk the elements as far as the last one that is wanted."""
    at = 0
    while at < len(data):
        tag, vr, start, length = header(data, at, encoding)
        if tag > last:
            return
        if length == UNDEFINED_LENGTH:
            at = skip_undefined(data, start, vr, encoding)
            continue
        at = start + length
        if tag in _WANTED and at <= len(data):
            found[tag] = uid_text(data[start:at])


def _encoding(data: bytes, TransferSyntaxUID: str) -> Encoding:
    """Give the encoding; the first element shows when a careless writer named the wrong one."""
    vr = data[_VR_OFFSET]
    if TransferSyntaxUID == ExplicitVRBigEndian:
        return EXPLICIT_BIG
    if TransferSyntaxUID == ImplicitVRLittleEndian:
        return EXPLICIT_LITTLE if vr in SHORT_VRS else IMPLICIT_LITTLE
    return EXPLICIT_LITTLE if vr.isalpha() and vr.isupper() else IMPLICIT_LITTLE

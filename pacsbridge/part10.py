"""The head of a Part 10 file, found without decoding, in bounded memory and time (PS3.10 7.1)."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from struct import Struct, error
from typing import TYPE_CHECKING, Final, Protocol

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pacsbridge.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    LONG_VRS,
    LONGEST_SHORT_VALUE,
    NUMBER_SIZES,
    SHORT_VRS,
    SQ,
    UN,
    UNDEFINED_LENGTH,
    Element,
    Encoding,
    Malformed,
    Truncated,
    encode,
    encode_item,
    items,
    little_endian,
    long_form,
    reencode,
    skip_undefined,
    value_of,
    walk,
)
from pacsbridge.records import tag_of

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What writes files, and speaks DICOM: the UID is from a UUID (PS3.5, B.2); it stays when the version changes.
IMPLEMENTATION_CLASS_UID: Final = "2.25.198349847321427920281769928032751345659"
IMPLEMENTATION_VERSION_NAME: Final = "PACSBRIDGE"
PREAMBLE_LENGTH: Final = 128
PREFIX: Final = b"DICM"
#: How much of a file is read at first. It holds the head of nearly every image.
HEAD_LENGTH: Final = 16 * 1024
#: The longest element that is taken into memory.
LONGEST_ELEMENT: Final = 32 * 1024 * 1024
#: The longest sequence that is kept. Only its items count of a ContentSequence, which holds a whole report.
LONGEST_KEPT: Final = 8 * 1024 * 1024
#: How much of a deflated data set is inflated in search of its head.
LONGEST_INFLATED: Final = 64 * 1024 * 1024
LONGEST_UID: Final = 64

JPIP_DEFLATED: Final = ("1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")
_DEFLATED: Final = frozenset((str(DeflatedExplicitVRLittleEndian), *JPIP_DEFLATED))
_ENCODINGS: Final = {
    str(ImplicitVRLittleEndian): IMPLICIT_LITTLE,
    str(ExplicitVRBigEndian): EXPLICIT_BIG,
}
#: VRs whose bytes are text, so that one can stand for another.
_TEXT_VRS: Final = (SHORT_VRS | LONG_VRS) - NUMBER_SIZES.keys() - {b"OB", SQ}

_FILE_META_LAST: Final = 0x0002FFFF
_META_CLASS: Final = tag_of("MediaStorageSOPClassUID")
_META_INSTANCE: Final = tag_of("MediaStorageSOPInstanceUID")
_META_SYNTAX: Final = tag_of("TransferSyntaxUID")
_BLENDING: Final = tag_of("BlendingSequence")
_BLENDING_KEYS: Final = (tag_of("StudyInstanceUID"), tag_of("ReferencedSeriesSequence"))
_CONTENT: Final = tag_of("ContentSequence")
_RELATIONSHIP: Final = tag_of("RelationshipType")
_OBSERVERS: Final = tag_of("VerifyingObserverSequence")
_VERIFIED: Final = tag_of("VerificationDateTime")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for.

    Parameters
    ----------
    vrs
        The tags to keep, each with the VR that it has in the dictionary.
    last
        The last tag that is worth looking at.
    short
        Those of `vrs` whose elements can be copied in one piece.
    """

    vrs: Mapping[int, bytes]
    last: int
    short: Mapping[int, bytes]

    @classmethod
    def of(cls, vrs: Mapping[int, bytes], last: int) -> Wanted:
        """Look for these tags, as far as the last one."""
        return cls(vrs, last, {tag: vr for tag, vr in vrs.items() if vr in SHORT_VRS})


_META_WANTED: Final = Wanted.of(
    dict.fromkeys((_META_CLASS, _META_INSTANCE, _META_SYNTAX), b"UI"), _FILE_META_LAST
)


@dataclass(frozen=True, slots=True)
class Meta:
    """What the File Meta Information says (PS3.10 table 7.1-1)."""

    MediaStorageSOPClassUID: str
    MediaStorageSOPInstanceUID: str
    TransferSyntaxUID: str


class NotThere(Exception):
    """More of a file is needed than its `Beginning` holds."""


class Part10:
    """A Part 10 file; `meta` is read when it is made.

    Parameters
    ----------
    source
        An `OpenFile`, or the `Beginning` of one.

    Raises
    ------
    Malformed
        It is no Part 10 file, or lacks a UID.
    NotThere
        Its beginning doesn't tell.
    OSError
        It can't be read.
    """

    def __init__(self, source: Source) -> None:
        self.size = source.size
        buffer = source.read(0, HEAD_LENGTH)
        start = PREAMBLE_LENGTH + len(PREFIX)
        if buffer[PREAMBLE_LENGTH:start] != PREFIX:
            raise Malformed("has no preamble and DICM prefix")
        self._window = _Window(source, buffer, 0, start)
        meta = _collect(self._window, EXPLICIT_LITTLE, _META_WANTED)
        self.meta = Meta(
            uid_of(meta, _META_CLASS, "Media Storage SOP Class UID"),
            uid_of(meta, _META_INSTANCE, "Media Storage SOP Instance UID"),
            uid_of(meta, _META_SYNTAX, "Transfer Syntax UID"),
        )

    def elements(self, wanted: Wanted) -> dict[int, bytes]:
        """Give the wanted elements of the data set, each whole and in Explicit VR Little Endian.

        Values are as they were. A text that has another VR than it should gets the right one; what can't be
        read as what it should be counts as absent. Of sequences, what a directory record needs is there.

        Raises
        ------
        Malformed
            A length lies, the file ends too early, or something is nested or long beyond reason.
        """
        window = self._window
        if self.meta.TransferSyntaxUID in _DEFLATED:
            window = _Window(_Inflated(window.source, window.offset), b"", 0)
        return _collect(window, _encoding(window, self.meta.TransferSyntaxUID), wanted)


def uid_of(found: Mapping[int, bytes], tag: int, name: str) -> str:
    """Give the UID among found elements.

    Raises
    ------
    Malformed
        It is absent, or no UID.
    """
    encoded = found.get(tag)
    uid = value_of(encoded).rstrip(b"\0 ") if encoded else b""
    if not uid:
        raise Malformed(f"lacks a UID: {name}")
    if len(uid) > LONGEST_UID or not uid.isascii() or b"\\" in uid or not uid.decode("ascii").isprintable():
        raise Malformed(f"has no valid {name}")
    return uid.decode("ascii")


class Source(Protocol):
    """Bytes that can be read anywhere; `size` is right at the latest when a read came back short."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read(self, offset: int, length: int) -> bytes:
        """Read somewhere, less than asked for at the end."""


class OpenFile:
    """The bytes of a file that is open for reading; it stays open."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Read somewhere."""
        return os.pread(self.descriptor, length, offset)


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first bytes of a file whose rest is still to come.

    Parameters
    ----------
    data
        At least `HEAD_LENGTH` of them, or the head is not looked for.
    size
        Any number: the real one is not known yet.
    """

    data: bytes
    size: int = 0

    def read(self, offset: int, length: int) -> bytes:
        """Give bytes that are there.

        Raises
        ------
        NotThere
            They are not.
        """
        if offset + length > len(self.data):
            raise NotThere
        return self.data[offset : offset + length]


class _Inflated:
    """The bytes of a deflated data set (PS3.5 A.5), inflated as far as they are asked for."""

    def __init__(self, source: Source, offset: int) -> None:
        self.source = source
        self.offset = offset
        self.inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self.data = bytearray()

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        while len(self.data) < offset + length and not self.inflater.eof:
            if len(self.data) >= LONGEST_INFLATED:
                raise Malformed("has a head that inflates without end")
            deflated = self.inflater.unconsumed_tail
            if not deflated:
                deflated = self.source.read(self.offset, HEAD_LENGTH)
                self.offset += len(deflated)
            if not deflated:
                break
            try:
                self.data += self.inflater.decompress(deflated, HEAD_LENGTH)
            except zlib.error:
                raise Malformed("can't be inflated") from None
        return bytes(self.data[offset : offset + length])


class _Window:
    """The piece of a source that is in memory, and where in it the next element starts."""

    __slots__ = ("at", "base", "buffer", "source")

    def __init__(self, source: Source, buffer: bytes, base: int, at: int = 0) -> None:
        self.source = source
        self.buffer = buffer
        self.base = base
        self.at = at

    @property
    def offset(self) -> int:
        """Where in the source the next element starts."""
        return self.base + self.at

    def more(self) -> bool:
        """Read on from the next element; False at the end of the source.

        Raises
        ------
        Malformed
            The source ends inside an element, or the element is too long to be taken into memory.
        """
        offset = self.offset
        left = max(len(self.buffer) - self.at, 0)
        # An element that did not fit gets twice the room it had: any length is read in linear time.
        self.buffer = self.source.read(offset, max(HEAD_LENGTH, 2 * left))
        self.base, self.at = offset, 0
        if len(self.buffer) > left:
            if left > LONGEST_ELEMENT:
                raise Malformed("has an element that is too long")
            return True
        if offset > self.source.size or self.buffer.strip(b"\0"):
            raise Malformed("ends inside an element")
        return False


def _encoding(window: _Window, TransferSyntaxUID: str) -> Encoding:
    """Give the encoding: what the transfer syntax says, unless the first element shows otherwise."""
    encoding = _ENCODINGS.get(TransferSyntaxUID, EXPLICIT_LITTLE)
    if len(window.buffer) - window.at < 8:
        window.more()
    vr = window.buffer[window.at + 4 : window.at + 6]
    if encoding.implicit and vr in SHORT_VRS:
        return EXPLICIT_LITTLE
    if encoding is EXPLICIT_LITTLE and not (vr.isalpha() and vr.isupper()):
        return IMPLICIT_LITTLE
    return encoding


_explicit_little: Final = Struct("<HH2sH").unpack_from
_explicit_big: Final = Struct(">HH2sH").unpack_from
_implicit_little: Final = Struct("<HHI").unpack_from


def _collect(window: _Window, encoding: Encoding, wanted: Wanted) -> dict[int, bytes]:
    """Walk from the next element to the last that is wanted; give the wanted ones.

    This loop runs over every element of every instance that is received, so it does by itself what
    `elements.header` does.
    """
    vrs, last, implicit, big_endian = wanted.vrs, wanted.last, encoding.implicit, encoding.big_endian
    explicit = _explicit_big if big_endian else _explicit_little
    as_is = wanted.short if encoding is EXPLICIT_LITTLE else {}
    found: dict[int, bytes] = {}
    buffer, at = window.buffer, window.at
    while True:
        try:
            if implicit:
                group, number, length = _implicit_little(buffer, at)
                vr, start = b"", at + 8
            else:
                group, number, vr, length = explicit(buffer, at)
                start = at + 8
                if vr not in SHORT_VRS:
                    vr, start, length = long_form(buffer, at, vr, length, big_endian=big_endian)
            tag = group << 16 | number
            if not 0 < tag <= last:  # zeros fill some files up
                break
            end = (
                start + length if length != UNDEFINED_LENGTH else skip_undefined(buffer, start, vr, encoding)
            )
            if tag in vrs:
                if vr == as_is.get(tag) and not length & 1 and end <= len(buffer):
                    found[tag] = buffer[at:end]
                else:
                    _keep(found, buffer, Element(tag, vr, start, length, end), vrs[tag], encoding)
            at = end
        except (error, Truncated):
            window.at = at
            if not window.more():
                break
            buffer, at = window.buffer, window.at
    window.at = at
    return found


def _keep(found: dict[int, bytes], buffer: bytes, element: Element, vr: bytes, encoding: Encoding) -> None:
    """Put a wanted element whose VR should be `vr` into `found`, where it isn't there as it should be."""
    if vr == SQ:
        if element.vr in (SQ, UN, b"") and element.length:
            _keep_sequence(found, buffer, element, encoding)
    elif element.length != UNDEFINED_LENGTH and (
        element.vr in (vr, UN, b"") or (element.vr in _TEXT_VRS and vr in _TEXT_VRS)
    ):
        if element.length > LONGEST_SHORT_VALUE:
            raise Malformed("has a value that is too long for its value representation")
        if element.end > len(buffer):
            raise Truncated("ends inside an element")
        value = little_endian(vr, buffer[element.start : element.end], encoding)
        found[element.tag] = encode(element.tag, vr, value)


def _keep_sequence(found: dict[int, bytes], buffer: bytes, sequence: Element, encoding: Encoding) -> None:
    """Put what a record needs of a sequence into `found` (PS3.3 F.5.23 and F.5.25)."""
    if sequence.end > len(buffer):
        raise Truncated("ends inside an element")
    inner = IMPLICIT_LITTLE if sequence.vr == UN else encoding
    contents = [list(walk(buffer, start, end, inner)) for start, end in items(buffer, sequence, inner)]

    def text(elements: list[Element], tag: int) -> bytes:
        return b"".join(buffer[each.start : each.end] for each in elements if each.tag == tag).strip(b"\0 ")

    if sequence.tag == _OBSERVERS:
        verified = text(contents[-1], _VERIFIED) if contents else b""  # the last observer verified last
        if verified:
            found[_VERIFIED] = encode(_VERIFIED, b"DT", verified)
        return
    if sequence.tag == _CONTENT:
        contents = [each for each in contents if text(each, _RELATIONSHIP) == b"HAS CONCEPT MOD"]
    elif sequence.tag == _BLENDING:
        contents = [[each for each in one if each.tag in _BLENDING_KEYS] for one in contents]
    if sum(one[-1].end - one[0].start for one in contents if one) > LONGEST_KEPT:
        raise Malformed("has a sequence that is too long")
    if contents:
        value = b"".join(encode_item(reencode(buffer, one, inner)) for one in contents)
        found[sequence.tag] = encode(sequence.tag, SQ, value)

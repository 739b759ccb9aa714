"""Encoded data elements: walked without decoding, written in Explicit VR Little Endian (PS3.5 7)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct, error
from typing import TYPE_CHECKING, Final

from pydicom.datadict import dictionary_VR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UNDEFINED_LENGTH: Final = 0xFFFFFFFF
ITEM: Final = 0xFFFEE000
ITEM_DELIMITATION: Final = 0xFFFEE00D
SEQUENCE_DELIMITATION: Final = 0xFFFEE0DD

#: The longest value whose length fits the 16 bits that most VRs have, even.
LONGEST_SHORT_VALUE: Final = 0xFFFE
#: Sequences in sequences, deeper than any real one: what is deeper was made to exhaust the reader.
DEEPEST: Final = 32
#: The same for sequences that are written again: records hold references and codes, not trees.
DEEPEST_WRITTEN: Final = 8

SQ: Final = b"SQ"
UN: Final = b"UN"
#: VRs whose length has 32 bits (PS3.5 table 7.1-1).
LONG_VRS: Final = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", SQ, b"SV", b"UC", UN, b"UR", b"UT", b"UV")
)
#: VRs whose length has 16 bits (PS3.5 table 7.1-2).
SHORT_VRS: Final = frozenset((
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO",
    b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US",
))  # fmt: skip
#: Bytes of one number, for the VRs that hold numbers: what big endian turns around.
NUMBER_SIZES: Final = {
    b"AT": 2, b"FD": 8, b"FL": 4, b"OD": 8, b"OF": 4, b"OL": 4, b"OV": 8, b"OW": 2,
    b"SL": 4, b"SS": 2, b"SV": 8, b"UL": 4, b"US": 2, b"UV": 8,
}  # fmt: skip
#: Where the dictionary leaves the choice to other elements; signedness does not change the bytes.
_AMBIGUOUS: Final = {"US or SS": b"US", "US or OW": b"OW", "US or SS or OW": b"OW", "OB or OW": b"OW"}

_explicit_little = Struct("<HH2sH")
_explicit_big = Struct(">HH2sH")
_implicit_little = Struct("<HHI")
_tag_length_big = Struct(">HHI")
_long_little = Struct("<I")
_long_big = Struct(">I")


class Malformed(ValueError):
    """The bytes are no data elements."""


class Truncated(Malformed):
    """The bytes end before the element does; with more of them it may be whole."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How data elements are encoded (PS3.5 10 and A)."""

    implicit: bool
    big_endian: bool


EXPLICIT_LITTLE: Final = Encoding(implicit=False, big_endian=False)
IMPLICIT_LITTLE: Final = Encoding(implicit=True, big_endian=False)
EXPLICIT_BIG: Final = Encoding(implicit=False, big_endian=True)


@dataclass(frozen=True, slots=True)
class Element:
    """Where an element is in a buffer.

    Parameters
    ----------
    vr
        Its value representation; empty where the encoding is implicit.
    start, end
        Where its value is, the delimiter of an undefined length included.
    length
        What the header says; `UNDEFINED_LENGTH` may be.
    """

    tag: int
    vr: bytes
    start: int
    length: int
    end: int


def header(buffer: bytes, at: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
    """Read the header of the element at `at`: tag, VR (empty if implicit), start of the value, length.

    Raises
    ------
    Truncated
        The buffer ends before the header does.
    """
    try:
        if encoding.implicit:
            group, element, length = _implicit_little.unpack_from(buffer, at)
            return group << 16 | element, b"", at + 8, length
        explicit = _explicit_big if encoding.big_endian else _explicit_little
        group, element, vr, length = explicit.unpack_from(buffer, at)
        tag = group << 16 | element
        if vr in SHORT_VRS:
            return tag, vr, at + 8, length
        return (tag, *long_form(buffer, at, vr, length, big_endian=encoding.big_endian))
    except error:
        raise Truncated("ends inside an element's header") from None


def long_form(buffer: bytes, at: int, vr: bytes, length: int, *, big_endian: bool) -> tuple[bytes, int, int]:
    """Read the rest of a header whose VR has no short form: VR, start of the value, length.

    What is no VR at all (a delimiter, or an element that a careless writer left implicit) is a length.
    A VR that is newer than this table has 32 bits of length (PS3.5 6.2), unless the 16 bits are used.

    Raises
    ------
    struct.error
        The buffer ends before the header does.
    """
    long = _long_big if big_endian else _long_little
    if vr in LONG_VRS:
        return vr, at + 12, long.unpack_from(buffer, at + 8)[0]
    if not (vr.isalpha() and vr.isupper()):
        return b"", at + 8, long.unpack_from(buffer, at + 4)[0]
    if length:
        return UN, at + 8, length
    return UN, at + 12, long.unpack_from(buffer, at + 8)[0]


def skip_undefined(buffer: bytes, at: int, vr: bytes, encoding: Encoding) -> int:
    """Find where a value of undefined length that starts at `at` ends: behind its delimiter (PS3.5 7.5).

    It keeps its own stack, so depth costs no recursion, and is bounded by `DEEPEST`.

    Raises
    ------
    Truncated
        The buffer ends before the value does.
    Malformed
        There is something else than an item, or it is too deep.
    """
    inner = _inner(vr, encoding)
    stack = [(inner, False)]  # encoding, and whether we are in an item or between items
    while stack:
        inner, in_item = stack[-1]
        if in_item:
            tag, vr, start, length = header(buffer, at, inner)
            if tag == ITEM_DELIMITATION:
                stack.pop()
            elif length == UNDEFINED_LENGTH:
                stack.append((_inner(vr, inner), False))
                length = 0
        else:
            tag, start, length = _item_header(buffer, at, inner)
            if tag == SEQUENCE_DELIMITATION:
                stack.pop()
                length = 0
            elif tag != ITEM:
                raise Malformed("has something else than an item in a sequence")
            elif length == UNDEFINED_LENGTH:
                stack.append((inner, True))
                length = 0
        at = start + length
        if len(stack) > 2 * DEEPEST:
            raise Malformed(f"has sequences in sequences over {DEEPEST} deep")
    return at


def _inner(vr: bytes, encoding: Encoding) -> Encoding:
    """Give the encoding in a sequence: what is in an unknown (UN) one is implicit (PS3.5 6.2.2)."""
    return IMPLICIT_LITTLE if vr == UN else encoding


def _item_header(buffer: bytes, at: int, encoding: Encoding) -> tuple[int, int, int]:
    tag_length = _tag_length_big if encoding.big_endian else _implicit_little
    try:
        group, element, length = tag_length.unpack_from(buffer, at)
    except error:
        raise Truncated("ends inside an item's header") from None
    return group << 16 | element, at + 8, length


def walk(buffer: bytes, at: int, end: int, encoding: Encoding) -> Iterator[Element]:
    """Give the elements between `at` and `end`, to the end or to an item's delimiter.

    Raises
    ------
    Malformed
        An element goes over the end.
    """
    while at < end:
        tag, vr, start, length = header(buffer, at, encoding)
        if tag == ITEM_DELIMITATION:
            return
        at = start + length if length != UNDEFINED_LENGTH else skip_undefined(buffer, start, vr, encoding)
        if at > end:
            raise Malformed("has an element that is longer than what it is in")
        yield Element(tag, vr, start, length, at)


def items(buffer: bytes, sequence: Element, encoding: Encoding) -> Iterator[tuple[int, int]]:
    """Give where the items of a sequence start and end.

    Raises
    ------
    Malformed
        There is something else than items in it.
    """
    at = sequence.start
    while at < sequence.end:
        tag, start, length = _item_header(buffer, at, encoding)
        if tag == SEQUENCE_DELIMITATION:
            return
        if tag != ITEM:
            raise Malformed("has something else than an item in a sequence")
        if length == UNDEFINED_LENGTH:
            at = end = start
            for element in walk(buffer, start, sequence.end, encoding):
                at = end = element.end
            at += 8  # the item's delimiter
        else:
            at = end = start + length
        if end > sequence.end:
            raise Malformed("has an item that is longer than its sequence")
        yield start, end


def encode(tag: int, vr: bytes, value: bytes) -> bytes:
    """Encode an element in Explicit VR Little Endian, its value made even (PS3.5 7.1).

    Raises
    ------
    Malformed
        The value is longer than its VR can tell.
    """
    if len(value) & 1:
        value += b"\0" if vr in (b"UI", b"OB", UN) else b" "
    if vr in LONG_VRS:
        return _explicit_little.pack(tag >> 16, tag & 0xFFFF, vr, 0) + _long_little.pack(len(value)) + value
    if len(value) > LONGEST_SHORT_VALUE:
        raise Malformed("has a value that is too long for its value representation")
    return _explicit_little.pack(tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def encode_item(content: bytes) -> bytes:
    """Encode an item of a sequence with its length."""
    return _implicit_little.pack(ITEM >> 16, ITEM & 0xFFFF, len(content)) + content


def reencode(buffer: bytes, elements: Sequence[Element] | Iterator[Element], encoding: Encoding) -> bytes:
    """Encode elements of any encoding in Explicit VR Little Endian, sequences with their lengths.

    Raises
    ------
    Malformed
        They can't be read, or are too deep.
    """
    return _reencode(buffer, elements, encoding, DEEPEST_WRITTEN)


def _reencode(
    buffer: bytes, elements: Sequence[Element] | Iterator[Element], encoding: Encoding, deepest: int
) -> bytes:
    if not deepest:
        raise Malformed(f"has sequences in sequences over {DEEPEST_WRITTEN} deep")
    parts = []
    for element in elements:
        vr = element.vr or _dictionary_vr(element)
        if vr == SQ or element.length == UNDEFINED_LENGTH:
            inner = _inner(element.vr, encoding)
            content = b"".join(
                encode_item(_reencode(buffer, walk(buffer, start, end, inner), inner, deepest - 1))
                for start, end in items(buffer, element, inner)
            )
            parts.append(encode(element.tag, SQ, content))
        else:
            value = little_endian(vr, buffer[element.start : element.end], encoding)
            parts.append(encode(element.tag, vr, value))
    return b"".join(parts)


def _dictionary_vr(element: Element) -> bytes:
    try:
        vr = dictionary_VR(element.tag)
    except KeyError:
        return UN
    known = _AMBIGUOUS.get(vr) or vr.encode("ascii")
    return known if known in LONG_VRS or element.length <= LONGEST_SHORT_VALUE else UN


def little_endian(vr: bytes, value: bytes, encoding: Encoding) -> bytes:
    """Turn the numbers in a big-endian value around; give anything else as it is."""
    size = NUMBER_SIZES.get(vr) if encoding.big_endian else None
    if size is None:
        return value
    return b"".join(value[at : at + size][::-1] for at in range(0, len(value), size))


def split(encoded: bytes) -> dict[int, bytes]:
    """Take elements in Explicit VR Little Endian with defined lengths apart: tag → the whole encoded element.

    Raises
    ------
    Malformed
        They can't be read.
    """
    parts = {}
    at, end, unpack = 0, len(encoded), _explicit_little.unpack_from
    try:
        while at < end:
            group, element, vr, length = unpack(encoded, at)
            start = at + 8
            if vr in LONG_VRS:
                length = _long_little.unpack_from(encoded, start)[0]
                start += 4
            parts[group << 16 | element] = encoded[at : start + length]
            at = start + length
    except error:
        raise Truncated("ends inside an element's header") from None
    return parts


def value_of(encoded: bytes) -> bytes:
    """Give the value of one element that is encoded in Explicit VR Little Endian."""
    return encoded[12:] if encoded[4:6] in LONG_VRS else encoded[8:]

"""Data elements as bytes: tag, VR and length are read, values stay what they are (PS3.5 section 7).

Re-encoding a data set by way of decoded values would lose what does not decode (odd texts, wrong character
sets, numbers out of range). Here a value is only ever copied, or its bytes swapped.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from pacsbridge.elements import (
    DEEPEST,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_DELIMITATION,
    LONG_VRS,
    SEQUENCE_DELIMITATION,
    SHORT_VRS,
    UNDEFINED_LENGTH,
    Encoding,
    Malformed,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PREAMBLE_LENGTH = 128
PREFIX = b"DICM"

FILE_META_INFORMATION_GROUP_LENGTH = 0x00020000
TRANSFER_SYNTAX_UID = 0x00020010
PIXEL_DATA = 0x7FE00010
_FILE_META_GROUP = 0x0002

#: The longest value that is read into memory in one piece.
MAX_VALUE_IN_MEMORY = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Header:
    """An element's tag, VR (empty in Implicit VR and for delimiters) and value length in bytes."""

    tag: int
    vr: bytes
    length: int

    @property
    def undefined(self) -> bool:
        """Whether a delimiter ends the value."""
        return self.length == UNDEFINED_LENGTH


@dataclass(frozen=True, slots=True)
class Place:
    """Where an element lies in its file: header from `start`, value from `value` up to `stop`."""

    header: Header
    start: int
    value: int
    stop: int


def byte_order(encoding: Encoding) -> str:
    """Return the byte order in struct's notation."""
    return ">" if encoding.big_endian else "<"


def read_exactly(source: BinaryIO, count: int) -> bytes:
    """Read `count` bytes.

    Raises
    ------
    Malformed
        There are fewer, or `count` is beyond what belongs in memory.
    """
    if count > MAX_VALUE_IN_MEMORY:
        raise Malformed(f"a value of {count} bytes is too long to be held")
    data = source.read(count)
    if len(data) != count:
        raise Malformed("ends in the middle of an element")
    return data


def read_header(source: BinaryIO, encoding: Encoding) -> Header | None:
    """Read an element's header; None where the source ends."""
    start = source.read(8)
    if not start:
        return None
    if len(start) != 8:
        raise Malformed("ends in the middle of an element")
    group, element = struct.unpack_from(byte_order(encoding) + "HH", start)
    tag = group << 16 | element
    if encoding.implicit or group == ITEM >> 16:
        return Header(tag, b"", struct.unpack_from(byte_order(encoding) + "L", start, 4)[0])
    vr = start[4:6]
    if vr in SHORT_VRS:
        return Header(tag, vr, struct.unpack_from(byte_order(encoding) + "H", start, 6)[0])
    if vr in LONG_VRS:
        return Header(tag, vr, struct.unpack(byte_order(encoding) + "L", read_exactly(source, 4))[0])
    raise Malformed("has an element of an unknown VR")


def encode_header(tag: int, vr: bytes, length: int) -> bytes:
    """Encode a header in Explicit VR Little Endian (PS3.5 7.1.2)."""
    if vr in LONG_VRS:
        return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, length)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, length)


def encode_delimiter(tag: int, length: int) -> bytes:
    """Encode an item's header or a delimiter in Little Endian (PS3.5 7.5)."""
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, length)


def encode_element(tag: int, vr: bytes, value: bytes) -> bytes:
    """Encode an element with its value padded to an even length."""
    if len(value) % 2:
        value += b"\0" if vr in (b"UI", b"OB") else b" "
    return encode_header(tag, vr, len(value)) + value


def skip_value(source: BinaryIO, header: Header, encoding: Encoding, depth: int = 0) -> None:
    """Move behind the value of `header`.

    Raises
    ------
    Malformed
        The value is not complete.
    """
    if not header.undefined:
        skip(source, header.length)
        return
    if depth > DEEPEST:
        raise Malformed("has sequences nested too deep")
    if header.vr == b"UN":
        encoding = IMPLICIT_LITTLE  # PS3.5 6.2.2, note 4
    while (item := read_item(source, encoding)) is not None:
        if item.undefined:
            skip_item(source, encoding, depth)
        else:
            skip(source, item.length)


def skip_item(source: BinaryIO, encoding: Encoding, depth: int) -> None:
    """Move behind an item of undefined length."""
    while (header := read_header(source, encoding)) is not None:
        if header.tag == ITEM_DELIMITATION:
            return
        skip_value(source, header, encoding, depth + 1)
    raise Malformed("ends in the middle of an item")


def read_item(source: BinaryIO, encoding: Encoding) -> Header | None:
    """Read an item's header in a value of undefined length; None at the sequence's delimiter."""
    header = read_header(source, encoding)
    if header is None:
        raise Malformed("ends in the middle of a sequence")
    if header.tag == SEQUENCE_DELIMITATION:
        return None
    if header.tag != ITEM:
        raise Malformed("has something else than an item in a sequence")
    return header


def skip(source: BinaryIO, count: int) -> None:
    """Move `count` bytes on, which must exist."""
    if count:
        source.seek(count - 1, os.SEEK_CUR)
        read_exactly(source, 1)


def places(source: BinaryIO, encoding: Encoding) -> Iterator[Place]:
    """Yield the elements of a data set from the source's position to its end."""
    while True:
        start = source.tell()
        header = read_header(source, encoding)
        if header is None:
            return
        if header.tag >> 16 == ITEM >> 16:
            raise Malformed("has an item or a delimiter outside of a sequence")
        value = source.tell()
        skip_value(source, header, encoding)
        stop = source.tell()
        yield Place(header, start, value, stop)
        source.seek(stop)


def read_value(source: BinaryIO, place: Place) -> bytes:
    """Read the value of an element of defined length."""
    source.seek(place.value)
    return read_exactly(source, place.stop - place.value)


def read_file_meta(source: BinaryIO) -> list[tuple[int, bytes, bytes]]:
    """Read the File Meta Information from a file's beginning, and stop at the data set (PS3.10 7.1).

    Returns
    -------
    list
        Tag, VR and value of each element, without the group length.

    Raises
    ------
    Malformed
        It is no Part 10 file.
    """
    if read_exactly(source, PREAMBLE_LENGTH + len(PREFIX))[PREAMBLE_LENGTH:] != PREFIX:
        raise Malformed("is no DICOM Part 10 file")
    elements: list[tuple[int, bytes, bytes]] = []
    while True:
        start = source.tell()
        if (peeked := source.read(2)) != struct.pack("<H", _FILE_META_GROUP):
            source.seek(-len(peeked), os.SEEK_CUR)
            return elements
        source.seek(start)
        header = read_header(source, EXPLICIT_LITTLE)
        if header is None or header.undefined:
            raise Malformed("has a broken File Meta Information")
        value = read_exactly(source, header.length)
        if header.tag != FILE_META_INFORMATION_GROUP_LENGTH:
            elements.append((header.tag, header.vr, value))


def encode_file_meta(elements: Iterable[tuple[int, bytes, bytes]], TransferSyntaxUID: str) -> bytes:
    """Encode preamble and File Meta Information with another transfer syntax."""
    replaced = [element for element in elements if element[0] != TRANSFER_SYNTAX_UID]
    replaced.append((TRANSFER_SYNTAX_UID, b"UI", TransferSyntaxUID.encode("ascii")))
    body = b"".join(encode_element(*element) for element in sorted(replaced))
    length = encode_element(FILE_META_INFORMATION_GROUP_LENGTH, b"UL", struct.pack("<L", len(body)))
    return bytes(PREAMBLE_LENGTH) + PREFIX + length + body

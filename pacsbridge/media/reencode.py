"""Implicit VR Little Endian and Explicit VR Big Endian into Explicit VR Little Endian, element by element.

Values are copied, or swapped by the word length of their VR; none is decoded. What Implicit VR does not say,
the VR, comes from the data dictionary (PS3.6); elements that it does not know, private ones among them, are
UN (PS3.5 6.2.2), which every reader has to take. Sequences keep their kind of length. Group lengths are
dropped: they are retired, and would be wrong (PS3.5 7.2).
"""

from __future__ import annotations

import struct
from array import array
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from pydicom.datadict import dictionary_VR

from pacsbridge.elements import (
    DEEPEST,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_DELIMITATION,
    LONG_VRS,
    LONGEST_SHORT_VALUE,
    NUMBER_SIZES,
    SEQUENCE_DELIMITATION,
    UNDEFINED_LENGTH,
    Encoding,
    Malformed,
)
from pacsbridge.media.element_stream import (
    PIXEL_DATA,
    Header,
    byte_order,
    encode_delimiter,
    encode_header,
    places,
    read_exactly,
    read_header,
    read_item,
    read_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 1024 * 1024  # a multiple of every word length

LENGTH_TO_END = 0x00080001
BITS_ALLOCATED = 0x00280100
PIXEL_REPRESENTATION = 0x00280103
LUT_DESCRIPTOR = 0x00283002
LUT_DATA = 0x00283006
WAVEFORM_BITS_ALLOCATED = 0x54001004
_WAVEFORM_GROUP = 0x5400
#: What the VR of another element of the data set depends on.
_DECIDING = (BITS_ALLOCATED, PIXEL_REPRESENTATION, LUT_DESCRIPTOR, WAVEFORM_BITS_ALLOCATED)
_BYTE = 8

_TYPECODES = {2: "H", 4: "I", 8: "Q"}


class _Scope:
    """A data set or an item: the values that decide a VR, its own or those of what it is nested in."""

    def __init__(self, outer: _Scope | None = None) -> None:
        self._outer = outer
        self._values: dict[int, int] = {}

    def note(self, tag: int, value: bytes, order: str) -> None:
        """Remember the first number of a deciding element."""
        if len(value) >= 2:
            self._values[tag] = struct.unpack_from(order + "H", value)[0]

    def get(self, tag: int) -> int | None:
        """Return the nearest value of a deciding element."""
        if tag in self._values:
            return self._values[tag]
        return self._outer.get(tag) if self._outer else None


@lru_cache(maxsize=8192)
def _dictionary_vr(tag: int) -> str:
    """Return what PS3.6 says, "US or SS" and the like included; UN for what it does not know."""
    if tag >> 16 & 1:
        creator = (tag & 0xFFFF) in range(0x10, 0x100)
        return "LO" if creator else "UN"
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _decide_vr(tag: int, scope: _Scope) -> bytes:
    """Return the VR of an element of Implicit VR (PS3.5 annex A.2 for those that depend on others)."""
    vr = _dictionary_vr(tag)
    if len(vr) == 2:
        return vr.encode("ascii")
    if tag == LUT_DATA:
        return b"US" if scope.get(LUT_DESCRIPTOR) == 1 else b"OW"
    if vr == "US or SS":
        return b"SS" if scope.get(PIXEL_REPRESENTATION) == 1 else b"US"
    if vr == "OB or OW" and tag == PIXEL_DATA:
        return b"OB" if (scope.get(BITS_ALLOCATED) or _BYTE + 1) <= _BYTE else b"OW"
    if vr == "OB or OW" and tag >> 16 == _WAVEFORM_GROUP:
        return b"OB" if scope.get(WAVEFORM_BITS_ALLOCATED) == _BYTE else b"OW"
    return b"OW" if "OW" in vr else b"UN"


class Reencoder:
    """Re-encodes one data set.

    Parameters
    ----------
    source
        A file positioned at the data set's first element.
    encoding
        How it is encoded.
    checkpoint
        Called now and then; may raise to stop.
    """

    def __init__(
        self, source: BinaryIO, encoding: Encoding, checkpoint: Callable[[], None] = lambda: None
    ) -> None:
        self._source = source
        self.encoding = encoding
        self._checkpoint = checkpoint

    def run(self, out: BinaryIO) -> None:
        """Write the data set in Explicit VR Little Endian.

        Raises
        ------
        Malformed
            It can't be read to its end.
        """
        start = self._source.tell()
        scope = _Scope()
        # "US or SS" may stand before the element that decides it: look at the whole first.
        for place in places(self._source, self.encoding):
            if place.header.tag in _DECIDING and not place.header.undefined:
                scope.note(place.header.tag, read_value(self._source, place), byte_order(self.encoding))
        self._source.seek(start)
        while (header := read_header(self._source, self.encoding)) is not None:
            self._element(header, out, scope, 0)

    def _element(self, header: Header, out: BinaryIO, scope: _Scope, depth: int) -> None:
        if header.tag >> 16 == ITEM >> 16:
            raise Malformed("has an item or a delimiter outside of a sequence")
        vr = header.vr or _decide_vr(header.tag, scope)
        if vr == b"SQ" or header.undefined:
            self._sequence(header, out, scope, depth)
        elif header.tag & 0xFFFF == 0 or header.tag == LENGTH_TO_END:
            read_exactly(self._source, header.length)
        elif header.tag in _DECIDING:
            value = read_exactly(self._source, header.length)
            scope.note(header.tag, value, byte_order(self.encoding))
            out.write(_header(header.tag, vr, header.length) + self._swapped(value, vr))
        else:
            self._check_words(header.tag, vr, scope)
            out.write(_header(header.tag, vr, header.length))
            self._copy(header.length, vr, out)

    def _check_words(self, tag: int, vr: bytes, scope: _Scope) -> None:
        # The retired Big Endian swaps OW by 16 bits (PS3.5 7.3). In files, pixels of 32 bits are swapped by
        # 32, and wide ones under OB in either way: what they show must not depend on a guess.
        bits = scope.get(BITS_ALLOCATED) or 0
        certain = bits <= _BYTE or (bits == 2 * _BYTE and vr == b"OW")
        if self.encoding.big_endian and tag == PIXEL_DATA and not certain:
            raise Malformed("has Big Endian pixels whose byte order is not certain")

    def _copy(self, length: int, vr: bytes, out: BinaryIO) -> None:
        while length:
            count = min(length, _CHUNK)
            out.write(self._swapped(read_exactly(self._source, count), vr))
            self._checkpoint()
            length -= count

    def _swapped(self, value: bytes, vr: bytes) -> bytes:
        word = NUMBER_SIZES.get(vr, 1) if self.encoding.big_endian else 1
        if word == 1:
            return value
        if len(value) % word:
            raise Malformed("has a value that is no whole number of words")
        words = array(_TYPECODES[word], value)
        words.byteswap()
        return words.tobytes()

    def _sequence(self, header: Header, out: BinaryIO, scope: _Scope, depth: int) -> None:
        """Write a sequence; one of defined length by way of memory, for its length is not known before."""
        if depth >= DEEPEST:
            raise Malformed("has sequences nested too deep")
        if header.tag == PIXEL_DATA or header.vr not in (b"", b"SQ", b"UN"):
            raise Malformed("has a value of undefined length that is no sequence")
        # PS3.5 6.2.2, note 4: UN of undefined length is a sequence in Implicit VR Little Endian.
        inner = self._implicit() if header.vr == b"UN" else self
        if header.undefined:
            out.write(encode_header(header.tag, b"SQ", UNDEFINED_LENGTH))
            while (item := read_item(self._source, inner.encoding)) is not None:
                inner.write_item(item, out, scope, depth)
            out.write(encode_delimiter(SEQUENCE_DELIMITATION, 0))
            return
        stop = self._source.tell() + header.length
        value = BytesIO()
        while self._source.tell() < stop:
            item_header = read_header(self._source, self.encoding)
            if item_header is None or item_header.tag != ITEM:
                raise Malformed("has something else than an item in a sequence")
            self.write_item(item_header, value, scope, depth)
        self._check_end(stop)
        out.write(encode_header(header.tag, b"SQ", value.tell()) + value.getvalue())

    def _implicit(self) -> Reencoder:
        return Reencoder(self._source, IMPLICIT_LITTLE, self._checkpoint)

    def write_item(self, item: Header, out: BinaryIO, outer: _Scope, depth: int) -> None:
        """Write an item whose header has been read."""
        scope = _Scope(outer)
        if item.undefined:
            out.write(encode_delimiter(ITEM, UNDEFINED_LENGTH))
            while (header := read_header(self._source, self.encoding)) is not None:
                if header.tag == ITEM_DELIMITATION:
                    out.write(encode_delimiter(ITEM_DELIMITATION, 0))
                    return
                self._element(header, out, scope, depth + 1)
            raise Malformed("ends in the middle of an item")
        stop = self._source.tell() + item.length
        value = BytesIO()
        while self._source.tell() < stop and (header := read_header(self._source, self.encoding)) is not None:
            self._element(header, value, scope, depth + 1)
        self._check_end(stop)
        out.write(encode_delimiter(ITEM, value.tell()) + value.getvalue())

    def _check_end(self, stop: int) -> None:
        if self._source.tell() != stop:
            raise Malformed("has a sequence that is not as long as it says")


def _header(tag: int, vr: bytes, length: int) -> bytes:
    """Encode a header; PS3.5 6.2.2, note 2: a value that is too long for its VR's length field becomes UN."""
    if vr not in LONG_VRS and length > LONGEST_SHORT_VALUE:
        vr = b"UN"
    return encode_header(tag, vr, length)

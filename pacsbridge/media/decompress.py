"""Encapsulated pixel data into native pixel data, frame by frame (PS3.5 annex A.4 into A.2).

Only what says how the pixels are encoded changes: PhotometricInterpretation, PlanarConfiguration, and
LossyImageCompression where the transfer syntax says it and the data set does not. All other elements are
copied as bytes. A compressed icon goes: it is optional, made from the image, and could not stay under a
native transfer syntax.

Colours: JPEG's DCT processes are lossy and mostly YBR, which few viewers show right when it is native, so
they become RGB, as dcmtk's dcmdjpeg does. Lossless YBR stays YBR_FULL: a conversion would round it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from pacsbridge.elements import EXPLICIT_LITTLE, Malformed
from pacsbridge.media.element_stream import (
    PIXEL_DATA,
    Place,
    encode_element,
    encode_header,
    places,
    read_header,
    read_value,
    skip_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

SAMPLES_PER_PIXEL = 0x00280002
PHOTOMETRIC_INTERPRETATION = 0x00280004
PLANAR_CONFIGURATION = 0x00280006
NUMBER_OF_FRAMES = 0x00280008
ROWS = 0x00280010
COLUMNS = 0x00280011
BITS_ALLOCATED = 0x00280100
BITS_STORED = 0x00280101
PIXEL_REPRESENTATION = 0x00280103
LOSSY_IMAGE_COMPRESSION = 0x00282110
LOSSY_IMAGE_COMPRESSION_RATIO = 0x00282112
LOSSY_IMAGE_COMPRESSION_METHOD = 0x00282114
ICON_IMAGE_SEQUENCE = 0x00880200
EXTENDED_OFFSET_TABLE = 0x7FE00001
EXTENDED_OFFSET_TABLE_LENGTHS = 0x7FE00002
ENCAPSULATED_PIXEL_DATA_VALUE_TOTAL_LENGTH = 0x7FE00003

_IMAGE_PIXEL = (
    *(SAMPLES_PER_PIXEL, PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION, NUMBER_OF_FRAMES, ROWS, COLUMNS),
    *(BITS_ALLOCATED, BITS_STORED, PIXEL_REPRESENTATION, LOSSY_IMAGE_COMPRESSION),
    *(EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS),
)
_ENCAPSULATION_ONLY = frozenset(
    (EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS, ENCAPSULATED_PIXEL_DATA_VALUE_TOTAL_LENGTH)
)

_DCT = frozenset((JPEGBaseline8Bit, JPEGExtended12Bit))
#: What PS3.3 C.7.6.1.1.5.1 calls the method of a transfer syntax that is lossy, or may be.
_LOSSY_METHODS = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
    HTJ2K: "ISO_15444_15",
}
#: The longest native pixel data: its length has 32 bits and is even.
_MAX_LENGTH = 0xFFFFFFFE
_COPY_SIZE = 1024 * 1024
_NATIVE_COLOURS = frozenset(("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL"))


class Undecodable(Exception):
    """The pixel data can't be decoded, or not without a risk to what it shows."""


@dataclass(frozen=True, slots=True)
class _Pixels:
    """The Image Pixel module of a data set (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    signed: int
    photometric: str
    lossy: str
    extended_offsets: tuple[bytes, bytes] | None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(f"<{'ui'[self.signed]}{self.bits_allocated // 8}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)

    @property
    def length(self) -> int:
        return self.rows * self.columns * self.samples * self.frames * (self.bits_allocated // 8)


def decompress(
    source: BinaryIO, TransferSyntaxUID: str, out: BinaryIO, on_frame: Callable[[], None] = lambda: None
) -> None:
    """Write the data set at the source's position with its pixel data decoded.

    Parameters
    ----------
    source
        A file positioned at the first element behind the File Meta Information.
    TransferSyntaxUID
        Its compressed transfer syntax.
    out
        Where the data set goes, in Explicit VR Little Endian.
    on_frame
        Called before each frame; may raise to stop.

    Raises
    ------
    Undecodable
        There is no decoder, or it failed, or the result does not fit its description.
    Malformed
        The data set can't be read to its end.
    """
    syntax = UID(TransferSyntaxUID)
    decoder = _decoder(syntax)
    found = {place.header.tag: place for place in places(source, EXPLICIT_LITTLE)}
    edits: dict[int, bytes] = dict.fromkeys(_ENCAPSULATION_ONLY, b"")
    for place in found.values():
        if place.header.vr == b"SQ" and _holds_encapsulated(source, place):
            if place.header.tag != ICON_IMAGE_SEQUENCE:
                raise Undecodable("it has compressed pixel data inside a sequence")
            edits[ICON_IMAGE_SEQUENCE] = b""
    pixel_place = found.pop(PIXEL_DATA, None)
    if pixel_place is None:
        _copy_edited(source, found, edits, out)
        return
    if not pixel_place.header.undefined:
        raise Undecodable("its pixel data is not encapsulated although its transfer syntax says so")
    pixels = _image_pixels(source, found)
    _check(pixels)
    source.seek(pixel_place.value)
    frames = _decode(source, decoder, pixels)
    on_frame()
    first, photometric = next(frames)
    edits.update(_pixel_edits(pixels, photometric, syntax, pixel_place))
    position = source.tell()
    behind = {tag: place for tag, place in found.items() if tag > PIXEL_DATA}
    before = {tag: place for tag, place in found.items() if tag < PIXEL_DATA}
    _copy_edited(source, before, edits, out)
    source.seek(position)
    _write_frames(first, photometric, frames, pixels, out, on_frame)
    _copy_edited(source, behind, {}, out)


def _decoder(syntax: UID) -> Decoder:
    try:
        return get_decoder(syntax)
    except NotImplementedError:
        raise Undecodable(f"there is no decoder for {syntax.name}") from None


def _holds_encapsulated(source: BinaryIO, sequence: Place) -> bool:
    """Return whether pixel data of undefined length is anywhere in a sequence, however deep."""
    source.seek(sequence.value)
    while source.tell() < sequence.stop:
        header = read_header(source, EXPLICIT_LITTLE)
        if header is None:
            break
        if header.tag == PIXEL_DATA and header.undefined:
            return True
        if header.vr not in (b"", b"SQ"):  # items, delimiters and sequences are entered
            skip_value(source, header, EXPLICIT_LITTLE)
    return False


def _image_pixels(source: BinaryIO, found: dict[int, Place]) -> _Pixels:
    values = {tag: read_value(source, found[tag]) for tag in _IMAGE_PIXEL if tag in found}

    def number(tag: int, default: int | None = None) -> int:
        value = values.get(tag, b"")
        if len(value) >= 2:
            return int(struct.unpack_from("<H", value)[0])
        if default is None:
            raise Undecodable(f"it lacks ({tag >> 16:04X},{tag & 0xFFFF:04X})")
        return default

    def text(tag: int) -> str:
        return values.get(tag, b"").decode("ascii", "replace").strip(" \0")

    offsets = values.get(EXTENDED_OFFSET_TABLE), values.get(EXTENDED_OFFSET_TABLE_LENGTHS)
    try:
        frames = int(text(NUMBER_OF_FRAMES) or 1)
    except ValueError:
        raise Undecodable("its number of frames is no number") from None
    return _Pixels(
        rows=number(ROWS),
        columns=number(COLUMNS),
        samples=number(SAMPLES_PER_PIXEL, 1),
        frames=frames or 1,
        bits_allocated=number(BITS_ALLOCATED),
        bits_stored=number(BITS_STORED),
        signed=number(PIXEL_REPRESENTATION),
        photometric=text(PHOTOMETRIC_INTERPRETATION),
        lossy=text(LOSSY_IMAGE_COMPRESSION),
        extended_offsets=(offsets[0], offsets[1]) if offsets[0] and offsets[1] else None,
    )


def _check(pixels: _Pixels) -> None:
    if (
        pixels.bits_allocated not in (8, 16, 32)
        or pixels.signed not in (0, 1)
        or pixels.samples not in (1, 3)
    ):
        raise Undecodable("its pixels are of a kind that can't be written natively")
    if not 0 < pixels.length <= _MAX_LENGTH:
        raise Undecodable("its decoded pixel data would not fit into one element")


def _decode(source: BinaryIO, decoder: Decoder, pixels: _Pixels) -> Iterator[tuple[NDArray[np.generic], str]]:
    """Yield each frame and the PhotometricInterpretation that it has after decoding."""
    options: dict[str, Any] = {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "samples_per_pixel": pixels.samples,
        "number_of_frames": pixels.frames,
        "bits_allocated": pixels.bits_allocated,
        "bits_stored": pixels.bits_stored,
        "pixel_representation": pixels.signed,
        "photometric_interpretation": pixels.photometric,
        "pixel_keyword": "PixelData",
    }
    if pixels.samples > 1:
        options["planar_configuration"] = 0
    if pixels.extended_offsets:
        options["extended_offsets"] = pixels.extended_offsets
    try:
        for frame, properties in decoder.iter_array(source, raw=decoder.UID not in _DCT, **options):
            photometric = str(properties["photometric_interpretation"])
            yield frame, {"YBR_FULL_422": "YBR_FULL"}.get(photometric, photometric)
    except Exception as error:  # decoders raise whatever they like
        raise Undecodable(f"its {decoder.UID.name} pixel data can't be decoded") from error


def _pixel_edits(pixels: _Pixels, photometric: str, syntax: UID, place: Place) -> dict[int, bytes]:
    if photometric not in _NATIVE_COLOURS:
        raise Undecodable(f"its colours ({photometric}) can't be written natively")
    edits = {
        PHOTOMETRIC_INTERPRETATION: encode_element(
            PHOTOMETRIC_INTERPRETATION, b"CS", photometric.encode("ascii")
        ),
        # PS3.3 C.7.6.3.1.3: present if and only if there are several samples
        PLANAR_CONFIGURATION: encode_element(PLANAR_CONFIGURATION, b"US", struct.pack("<H", 0))
        if pixels.samples > 1
        else b"",
    }
    if syntax in _LOSSY_METHODS and (pixels.lossy == "" or (syntax in _DCT and pixels.lossy != "01")):
        ratio = pixels.length / max(place.stop - place.value, 1)
        for tag, vr, value in (
            (LOSSY_IMAGE_COMPRESSION, b"CS", "01"),
            (LOSSY_IMAGE_COMPRESSION_RATIO, b"DS", f"{ratio:.2f}"),
            (LOSSY_IMAGE_COMPRESSION_METHOD, b"CS", _LOSSY_METHODS[syntax]),
        ):
            edits[tag] = encode_element(tag, vr, value.encode("ascii"))
    return edits


def _copy_edited(source: BinaryIO, found: dict[int, Place], edits: dict[int, bytes], out: BinaryIO) -> None:
    """Write elements by ascending tag; an edit replaces, adds, or with empty bytes removes one."""
    for tag in sorted(found.keys() | edits.keys()):
        if tag in edits:
            out.write(edits[tag])
            continue
        place = found[tag]
        source.seek(place.start)
        left = place.stop - place.start
        while left:
            piece = source.read(min(left, _COPY_SIZE))
            if not piece:
                raise Malformed("ends in the middle of an element")
            out.write(piece)
            left -= len(piece)


def _write_frames(
    first: NDArray[np.generic],
    photometric: str,
    others: Iterator[tuple[NDArray[np.generic], str]],
    pixels: _Pixels,
    out: BinaryIO,
    on_frame: Callable[[], None],
) -> None:
    padding = pixels.length % 2
    vr = b"OB" if pixels.bits_allocated == 8 else b"OW"  # PS3.5 A.2
    out.write(encode_header(PIXEL_DATA, vr, pixels.length + padding))
    out.write(_native(first, pixels))
    count = 1
    while True:
        on_frame()
        following = next(others, None)
        if following is None:
            break
        if following[1] != photometric:
            raise Undecodable("its frames differ in their colours")
        count += 1
        if count > pixels.frames:
            break
        out.write(_native(following[0], pixels))
    if count != pixels.frames:
        raise Undecodable("it does not have as many frames as it says")
    out.write(bytes(padding))


def _native(frame: NDArray[np.generic], pixels: _Pixels) -> bytes:
    if frame.shape != pixels.shape or frame.dtype.itemsize > pixels.dtype.itemsize:
        raise Undecodable("its decoded pixels are not as it says")
    return frame.astype(pixels.dtype, copy=False).tobytes()

"""What DICOMweb gives of one instance of the demo: its metadata, its frames, its bulk data (PS3.18, 10.4)."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pydicom import dcmread
from pydicom.encaps import get_frame
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import (
    JPEG2000,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pacsbridge.instance import read_instance
from pacsbridge.media.previews import Frame, draw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pacsbridge.demo.index import StoredInstance

Row = dict[str, Any]
"""A data set of the DICOM JSON model (PS3.18, Annex F), keyed by tag."""

PIXEL_DATA = "7FE00010"
_SPECIFIC_CHARACTER_SET = "00080005"
#: Longer values stand beside the metadata, in base64.
_INLINE_CHARACTERS = 1024
#: Their bytes are the same to whoever asks for uncompressed ones.
PLAIN = frozenset({ExplicitVRLittleEndian, ImplicitVRLittleEndian})
#: What a compressed frame is called by itself (PS3.18, Table 8.7.3-5).
IMAGE_TYPES = {
    JPEGBaseline8Bit: "image/jpeg",
    JPEGLossless: "image/jpeg",
    JPEGLosslessSV1: "image/jpeg",
    JPEGLSLossless: "image/jls",
    JPEG2000Lossless: "image/jp2",
    JPEG2000: "image/jp2",
    RLELossless: "image/dicom-rle",
}


def metadata(instance: StoredInstance, url: str) -> Row:
    """Give the metadata of an instance (PS3.18, 10.4.1.1.2).

    Parameters
    ----------
    url
        The address of the instance; long values are below it.
    """
    row: Row = instance.header.to_json_dict()
    row[_SPECIFIC_CHARACTER_SET] = {"vr": "CS", "Value": ["ISO_IR 192"]}  # JSON is UTF-8
    _put_aside(row, f"{url}/bulkdata/")
    if frame_count(instance):
        row[PIXEL_DATA] = {"vr": "OW", "BulkDataURI": f"{url}/bulkdata/{PIXEL_DATA}"}
    return dict(sorted(row.items()))


def _put_aside(row: Row, url: str) -> None:
    """Replace long values by their addresses, in sequences too: ``54000100/1/54001010``."""
    for tag, element in row.items():
        if len(element.get("InlineBinary", "")) > _INLINE_CHARACTERS:
            del element["InlineBinary"]
            element["BulkDataURI"] = url + tag
        elif element["vr"] == "SQ":
            for number, item in enumerate(element.get("Value", []), start=1):
                _put_aside(item, f"{url}{tag}/{number}/")


def bulk_data(instance: StoredInstance, attribute: str) -> bytes | None:
    """Give a long value by the address that the metadata has for it; None where there is no such value."""
    row: Row = instance.header.to_json_dict()
    *path, tag = attribute.upper().split("/")
    try:
        for sequence, number in zip(path[::2], path[1::2], strict=True):
            row = dict(enumerate(row[sequence]["Value"], start=1))[int(number)]
        return base64.b64decode(row[tag]["InlineBinary"])
    except (KeyError, TypeError, ValueError):
        return None


def frame_count(instance: StoredInstance) -> int:
    """Tell how many frames an instance has; 0 where it is no image."""
    header = instance.header
    return int(header.get("NumberOfFrames") or 1) if "Rows" in header else 0


def read_frames(instance: StoredInstance, numbers: Sequence[int]) -> Iterator[bytes]:
    """Read frames as they are stored, by their numbers from 1 (PS3.18, 10.4.1.1.6)."""
    data_set = dcmread(instance.path)
    pixels, count = data_set.PixelData, frame_count(instance)
    if instance.TransferSyntaxUID.is_encapsulated:
        for number in numbers:
            yield get_frame(BytesIO(pixels), number - 1, number_of_frames=count)
        return
    length = get_expected_length(data_set) // count
    for number in numbers:
        yield pixels[(number - 1) * length : number * length]


def rendered(instance: StoredInstance, number: int) -> bytes | None:
    """Draw a frame as a JPEG picture; None where it can't be."""
    picture = draw(Frame(read_instance(instance.path), 0, number - 1, frame_count(instance)))
    return picture.jpeg if picture else None

"""The DICOMDIR: the directory of a disc as a Part 10 file (PS3.3 Annex F, PS3.10 8)."""

from __future__ import annotations

import hashlib
import re
import uuid
from struct import Struct
from typing import TYPE_CHECKING, Final

from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from pacsbridge.elements import SQ, encode, encode_item
from pacsbridge.media.record_contents import DirectoryEntry
from pacsbridge.media.record_tree import INSTANCE_LEVEL, directory_records
from pacsbridge.part10 import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    PREAMBLE_LENGTH,
    PREFIX,
)
from pacsbridge.records import tag_of, vr_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["DirectoryEntry", "encode_dicomdir"]

IN_USE: Final = 0xFFFF
NO_KNOWN_INCONSISTENCIES: Final = 0
FILE_META_VERSION: Final = b"\0\1"

#: A File-set ID is at most 16 of the characters of a File ID (PS3.10 8.1 and 8.5).
_FILE_SET_ID: Final = re.compile(r"[A-Z0-9_]{1,16}")
_long: Final = Struct("<I")
_short: Final = Struct("<H")


def encode_dicomdir(entries: Iterable[DirectoryEntry], file_set_id: str) -> bytes:
    """Make the DICOMDIR of a disc: the whole file, in Explicit VR Little Endian.

    One record for each patient, study, series and instance (`pacsbridge.media.record_tree` says which and in which
    order), keys as in PS3.3 F.5, type 1 keys filled in where the images have no value
    (`pacsbridge.media.record_filling`). The same entries give the same bytes, in whatever order they come; the UID
    of the file-set is made of the contents.

    Parameters
    ----------
    entries
        The DICOM files of the disc.
    file_set_id
        The File-set ID, which is the disc's Volume Identifier too: at most 16 of ``A-Z0-9_``.

    Raises
    ------
    ValueError
        The File-set ID or a ReferencedFileID is none.
    """
    if not _FILE_SET_ID.fullmatch(file_set_id):
        raise ValueError(f"{file_set_id!r} is no File-set ID: 1 to 16 characters A-Z 0-9 _")
    records = list(directory_records(entries))
    digest = hashlib.sha256(file_set_id.encode("ascii"))
    for _, content in records:
        digest.update(content)
    head = _file_meta(f"2.25.{uuid.UUID(bytes=digest.digest()[:16], version=5).int}")
    # The length of what comes before the first record does not depend on the values in it.
    origin = len(head) + len(_directory_head(file_set_id, 0, 0)) + len(encode(_SEQUENCE, SQ, b""))
    chained, last = _chain(records, origin)
    return (
        head + _directory_head(file_set_id, origin if records else 0, last) + encode(_SEQUENCE, SQ, chained)
    )


def _element(keyword: str, value: bytes) -> bytes:
    return encode(tag_of(keyword), vr_of(keyword), value)


_SEQUENCE: Final = tag_of("DirectoryRecordSequence")
_NEXT_OFFSET: Final = _element("OffsetOfTheNextDirectoryRecord", _long.pack(0))
_RECORD_IN_USE: Final = _element("RecordInUseFlag", _short.pack(IN_USE))
_LOWER_OFFSET: Final = _element("OffsetOfReferencedLowerLevelDirectoryEntity", _long.pack(0))
_LINKS: Final = _NEXT_OFFSET + _RECORD_IN_USE + _LOWER_OFFSET
#: Where in a record, from its item tag on, the values of the two offsets are.
_NEXT_AT: Final = len(encode_item(_NEXT_OFFSET)) - _long.size
_LOWER_AT: Final = len(encode_item(_LINKS)) - _long.size


def _file_meta(SOPInstanceUID: str) -> bytes:
    """Encode preamble, prefix and File Meta Information (PS3.10 7.1)."""
    meta = b"".join(
        (
            _element("FileMetaInformationVersion", FILE_META_VERSION),
            _element("MediaStorageSOPClassUID", MediaStorageDirectoryStorage.encode("ascii")),
            _element("MediaStorageSOPInstanceUID", SOPInstanceUID.encode("ascii")),
            _element("TransferSyntaxUID", ExplicitVRLittleEndian.encode("ascii")),
            _element("ImplementationClassUID", IMPLEMENTATION_CLASS_UID.encode("ascii")),
            _element("ImplementationVersionName", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
        )
    )
    return (
        bytes(PREAMBLE_LENGTH)
        + PREFIX
        + _element("FileMetaInformationGroupLength", _long.pack(len(meta)))
        + meta
    )


def _directory_head(file_set_id: str, first: int, last: int) -> bytes:
    """Encode what comes before the records, with the offsets of the first and last (PS3.3 F.3.2)."""
    return b"".join(
        (
            _element("FileSetID", file_set_id.encode("ascii")),
            _element("OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity", _long.pack(first)),
            _element("OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity", _long.pack(last)),
            _element("FileSetConsistencyFlag", _short.pack(NO_KNOWN_INCONSISTENCIES)),
        )
    )


def _chain(records: Sequence[tuple[int, bytes]], origin: int) -> tuple[bytes, int]:
    """Encode the records as items whose offsets count from the start of the file; the first is at `origin`.

    Returns
    -------
    tuple
        The items, and the offset of the last record below the root (0 if there is none).
    """
    chained = bytearray()
    latest = [0] * (INSTANCE_LEVEL + 1)  # where the latest record of each level is that can have a next one
    for level, content in records:
        at = len(chained)
        if latest[level]:
            _long.pack_into(chained, latest[level] - origin + _NEXT_AT, origin + at)
        elif level:
            _long.pack_into(chained, latest[level - 1] - origin + _LOWER_AT, origin + at)
        latest[level:] = [origin + at] + [0] * (INSTANCE_LEVEL - level)
        chained += encode_item(_LINKS + content)
    return bytes(chained), latest[0]

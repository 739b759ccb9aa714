"""A received SOP Instance: the one value that the DICOM network and the disc share."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache, lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Final

from pydicom.filereader import read_dataset

from pacsbridge.elements import Malformed, split
from pacsbridge.part10 import Beginning, NotThere, OpenFile, Part10, Wanted, uid_of
from pacsbridge.records import RECORD_KEYS, RECORD_TYPES, tag_of, vr_of

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

#: What is the same in all instances of a series, as a rule.
COMMON_KEYWORDS: Final = (
    "SpecificCharacterSet",
    "StudyDate",
    "SeriesDate",
    "StudyTime",
    "SeriesTime",
    "AccessionNumber",
    "Modality",
    "InstitutionName",
    "StudyDescription",
    "SeriesDescription",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "StudyID",
    "SeriesNumber",
)
#: What each instance has of its own, whatever it is; the keys of its record type (PS3.3 F.5) come beside it.
OWN_KEYWORDS: Final = (
    "InstanceCreationDate",
    "InstanceCreationTime",
    "AcquisitionDate",
    "ContentDate",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "ContentTime",
    "InstanceNumber",
    "NumberOfFrames",
    "Rows",
    "Columns",
)

_COMMON_TAGS: Final = frozenset(map(tag_of, COMMON_KEYWORDS))
_STUDY_UID: Final = tag_of("StudyInstanceUID")
_SERIES_UID: Final = tag_of("SeriesInstanceUID")


class InvalidInstance(ValueError):
    """The file is no DICOM Part 10 file, or lacks a UID that it must have."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One SOP Instance in a Part 10 file of the spool.

    Parameters
    ----------
    path
        Where the file is.
    size
        Its length in bytes.
    attributes
        The attributes that a DICOMDIR or a page needs of the instance itself, as they were, encoded in
        Explicit VR Little Endian.
    common
        Likewise those of its patient, study and series. Thousands of instances share them: one object then.
    """

    path: str
    size: int
    SOPClassUID: str
    SOPInstanceUID: str
    TransferSyntaxUID: str
    StudyInstanceUID: str
    SeriesInstanceUID: str
    attributes: bytes
    common: bytes = b""

    def dataset(self) -> Dataset:
        """Decode `common` and `attributes`."""
        whole = split(self.common) | split(self.attributes)
        encoded = b"".join(whole[tag] for tag in sorted(whole))
        return read_dataset(BytesIO(encoded), is_implicit_VR=False, is_little_endian=True)


def read_instance(path: Path) -> Instance:
    """Read what the spool, the DICOMDIR and the pages need of a Part 10 file (PS3.10 7.1).

    Only the head of the file is read, and none of it decoded. SOP Class and SOP Instance UID are those of the
    File Meta Information.

    Raises
    ------
    InvalidInstance
        The file can't be read as Part 10, or lacks a UID.
    OSError
        It can't be opened or read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read(str(path), Part10(OpenFile(descriptor)))
    except Malformed as problem:
        raise InvalidInstance(f"not a usable DICOM Part 10 file: it {problem}") from problem
    finally:
        os.close(descriptor)


def read_beginning(path: Path, data: bytes) -> Instance | None:
    """Read the same from the first `HEAD_LENGTH` bytes of a file that is still being written.

    `size` is 0 then. None where they don't tell, or tell that something is wrong: `read_instance` will say what.
    """
    try:
        return _read(str(path), Part10(Beginning(data)))
    except (Malformed, NotThere):
        return None


def _read(path: str, file: Part10) -> Instance:
    meta = file.meta
    found = file.elements(_wanted(RECORD_TYPES.get(meta.MediaStorageSOPClassUID, "IMAGE")))
    tags = sorted(found)
    return Instance(
        path=path,
        size=file.size,
        SOPClassUID=sys.intern(meta.MediaStorageSOPClassUID),
        SOPInstanceUID=meta.MediaStorageSOPInstanceUID,
        TransferSyntaxUID=sys.intern(meta.TransferSyntaxUID),
        StudyInstanceUID=sys.intern(uid_of(found, _STUDY_UID, "Study Instance UID")),
        SeriesInstanceUID=sys.intern(uid_of(found, _SERIES_UID, "Series Instance UID")),
        attributes=b"".join([found[tag] for tag in tags if tag not in _COMMON_TAGS]),
        common=_interned(b"".join([found[tag] for tag in tags if tag in _COMMON_TAGS])),
    )


@lru_cache(maxsize=4096)
def _interned(common: bytes) -> bytes:
    """Give the first of equal values, so that the instances of a series share one object."""
    return common


@cache
def _wanted(record_type: str) -> Wanted:
    keywords = {*COMMON_KEYWORDS, *OWN_KEYWORDS, *(key.keyword for key in RECORD_KEYS[record_type])}
    if "VerificationDateTime" in keywords:
        keywords.add("VerifyingObserverSequence")  # it comes from there
    vrs = {tag_of(keyword): vr_of(keyword) for keyword in keywords}
    return Wanted.of(vrs, last=max(vrs))

"""A received SOP Instance: the one value that the DICOM network and the disc share."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag

if TYPE_CHECKING:
    from pathlib import Path

#: What a DICOMDIR or a page may need of an instance (PS3.3 Annex F.5), by keyword.
KEYWORDS = (
    "SpecificCharacterSet",
    "StudyDate",
    "SeriesDate",
    "ContentDate",
    "AcquisitionDateTime",
    "StudyTime",
    "ContentTime",
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
    "InstanceNumber",
    "NumberOfFrames",
)


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
        The attributes that a DICOMDIR needs, as they were, encoded in Explicit VR Little Endian.
    """

    path: str
    size: int
    SOPClassUID: str
    SOPInstanceUID: str
    TransferSyntaxUID: str
    StudyInstanceUID: str
    SeriesInstanceUID: str
    attributes: bytes

    def dataset(self) -> Dataset:
        """Decode `attributes`."""
        return read_dataset(BytesIO(self.attributes), is_implicit_VR=False, is_little_endian=True)


def read_instance(path: Path) -> Instance:
    """Read what the spool, the DICOMDIR and the pages need of a Part 10 file (PS3.10, 7.1).

    Raises
    ------
    InvalidInstance
        The file can't be read as Part 10, or lacks a UID.
    """
    try:
        whole = dcmread(path, stop_before_pixels=True, specific_tags=[Tag(keyword) for keyword in KEYWORDS])
    except (InvalidDicomError, EOFError, ValueError) as error:
        raise InvalidInstance(f"not a DICOM Part 10 file: {error}") from error
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, whole)
    meta = whole.file_meta
    try:
        return Instance(
            path=str(path),
            size=path.stat().st_size,
            SOPClassUID=str(meta.MediaStorageSOPClassUID),
            SOPInstanceUID=str(meta.MediaStorageSOPInstanceUID),
            TransferSyntaxUID=str(meta.TransferSyntaxUID),
            StudyInstanceUID=str(whole.StudyInstanceUID),
            SeriesInstanceUID=str(whole.SeriesInstanceUID),
            attributes=buffer.getvalue(),
        )
    except AttributeError as error:
        raise InvalidInstance(f"lacks a UID: {error}") from error

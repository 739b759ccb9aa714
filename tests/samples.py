"""DICOM files for tests: the real ones that pydicom ships, and small generated ones."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import data_store
import pydicom
from pydicom import Dataset, FileDataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

if TYPE_CHECKING:
    from collections.abc import Sequence

_FOLDERS = (Path(pydicom.__file__).parent / "data", Path(data_store.__file__).parent)


def _prefix(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(132)[128:]


@cache
def real_files() -> tuple[Path, ...]:
    """Give every file in pydicom's and pydicom-data's folders that starts as Part 10 does."""
    found = sorted(path for folder in _FOLDERS for path in folder.rglob("*") if path.is_file())
    return tuple(path for path in found if _prefix(path) == b"DICM")


def real_file(name: str) -> Path:
    """Give pydicom's file of this name."""
    return next(path for path in real_files() if path.name == name)


def dataset(SOPClassUID: str = CTImageStorage, **attributes: Any) -> Dataset:
    """Make a small data set: one study, one series, unless `attributes` say otherwise; None leaves one out."""
    whole = Dataset()
    values: dict[str, Any] = {
        "SOPClassUID": SOPClassUID,
        "SOPInstanceUID": "1.2.3.4.1",
        "StudyDate": "20240229",
        "StudyTime": "101112",
        "AccessionNumber": "A1",
        "Modality": "CT",
        "StudyDescription": "Thorax",
        "SeriesDescription": "Lung",
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "StudyID": "S1",
        "SeriesNumber": "2",
        "InstanceNumber": "1",
        **attributes,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(whole, keyword, value)
    return whole


def part10(
    whole: Dataset,
    TransferSyntaxUID: str = ExplicitVRLittleEndian,
    *,
    pixels: bytes = b"",
    meta: Sequence[str] = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID"),
) -> bytes:
    """Encode a data set as a Part 10 file, with these attributes of File Meta Information."""
    values = {
        "MediaStorageSOPClassUID": whole.SOPClassUID,
        "MediaStorageSOPInstanceUID": whole.SOPInstanceUID,
        "TransferSyntaxUID": TransferSyntaxUID,
    }
    information = FileMetaDataset()
    for keyword in meta:
        setattr(information, keyword, values[keyword])
    if pixels:
        whole.Rows = whole.Columns = 1
        whole.BitsAllocated = 8
        whole.PixelRepresentation = 0
        whole.PixelData = pixels
    buffer = BytesIO()
    dcmwrite(
        buffer,
        FileDataset(buffer, whole, preamble=bytes(128), file_meta=information),
        implicit_vr=TransferSyntaxUID == ImplicitVRLittleEndian,
        little_endian=TransferSyntaxUID != ExplicitVRBigEndian,
        enforce_file_format=False,
        overwrite=True,
    )
    return buffer.getvalue()

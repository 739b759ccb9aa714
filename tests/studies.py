"""Data for the tests: generated studies of any size, and the real files of pydicom and pydicom-data."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import data_store
import pydicom
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

if TYPE_CHECKING:
    from collections.abc import Iterable

_PIXEL_DATA = bytes.fromhex("e07f1000") + b"OW\0\0"
_REAL_FOLDERS = (Path(pydicom.__file__).parent / "data", Path(data_store.__file__).parent / "data")


@dataclass(frozen=True)
class Patient:
    """Who a generated study is of."""

    PatientID: str = "TEST-1"
    PatientName: str = "Test^Patient"
    PatientBirthDate: str = "19700101"
    PatientSex: str = "O"


@dataclass(frozen=True)
class MadeStudy:
    """A generated study and its files."""

    AccessionNumber: str
    StudyInstanceUID: str
    patient: Patient
    paths: tuple[Path, ...]

    @property
    def SOPInstanceUIDs(self) -> set[str]:
        """The instances, as their files say."""
        return {str(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for path in self.paths}


def make_study(
    folder: Path,
    accession_number: str = "A1",
    *,
    patient: Patient | None = None,
    series: int = 1,
    instances: int = 3,
    size: int = 64,
    study: str = "",
) -> MadeStudy:
    """Write a CT study below `folder`: `series` series of `instances` images of `size` × `size` pixels.

    Its UIDs depend on the accession number and on `study` only: name another `study` for a second one under
    the same accession number.
    """
    patient = patient or Patient()
    paths: list[Path] = []
    for number in range(1, series + 1):
        place = folder / f"{accession_number}{study}-{number}"
        paths += make_ct_series(
            place, instances, accession_number=accession_number, patient=patient, size=size, number=number,
            study=study,
        )  # fmt: skip
    return MadeStudy(accession_number, _uid(accession_number, study), patient, tuple(paths))


def make_ct_series(
    folder: Path,
    slices: int,
    *,
    accession_number: str = "A1",
    patient: Patient | None = None,
    size: int = 64,
    number: int = 1,
    study: str = "",
) -> list[Path]:
    """Write one CT series into `folder`, and give its files in order.

    The pixels are the same in all of them and are encoded once, so that thousands cost seconds. A `size` of
    512 makes files of 527 KB, as a scanner does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pixels = _pixel_element(size)
    ds = _ct_header(accession_number, patient or Patient(), size, number, study)
    paths = []
    for index in range(1, slices + 1):
        ds.SOPInstanceUID = f"{ds.SeriesInstanceUID}.{index}"
        ds.file_meta.MediaStorageSOPInstanceUID = UID(ds.SOPInstanceUID)
        ds.InstanceNumber = index
        ds.ImagePositionPatient = [-100, -100, index * 1.25]
        header = BytesIO()
        dcmwrite(header, ds, enforce_file_format=True)
        path = folder / f"{index:05}.dcm"
        path.write_bytes(header.getvalue() + pixels)
        paths.append(path)
    return paths


def _uid(*parts: object) -> str:
    """Make a UID of at most 50 characters, so that a number can be appended to it."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:14], 'big')}"


def _ct_header(accession_number: str, patient: Patient, size: int, number: int, study: str) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = "20250102"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "101112"
    ds.AccessionNumber = accession_number
    ds.Modality = "CT"
    ds.Manufacturer = "pacsbridge tests"
    ds.ReferringPhysicianName = "Referrer^Rita"
    ds.StudyDescription = "Generated CT"
    ds.SeriesDescription = f"Series {number}"
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
        setattr(ds, keyword, getattr(patient, keyword))
    ds.BodyPartExamined = "HEAD"
    ds.SliceThickness = "1.25"
    ds.KVP = "120"
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID = _uid(accession_number, study)
    ds.SeriesInstanceUID = f"{ds.StudyInstanceUID}.{number}"
    ds.StudyID = "1"
    ds.SeriesNumber = number
    ds.AcquisitionNumber = 1
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.FrameOfReferenceUID = f"{ds.StudyInstanceUID}.{number}.0"
    ds.PositionReferenceIndicator = ""
    ds.PixelSpacing = [0.5, 0.5]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows = ds.Columns = size
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.WindowCenter, ds.WindowWidth = 40, 400
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
    return ds


@cache
def _pixel_element(size: int) -> bytes:
    """Encode (7FE0,0010) in Explicit VR Little Endian: a diagonal ramp of 12 bits."""
    row = bytes(byte for column in range(2 * size) for byte in (column * 2048 // size).to_bytes(2, "little"))
    value = b"".join(row[2 * index : 2 * (index + size)] for index in range(size))
    return _PIXEL_DATA + len(value).to_bytes(4, "little") + value


@cache
def real_files(*, unique: bool = True) -> tuple[Path, ...]:
    """Give the files of pydicom and pydicom-data that can be stored: Part 10, with all four UIDs.

    About 150 files: SR, RT, ECG, wrong VRs, other character sets. Many are variants of one instance, in other
    transfer syntaxes, under one SOP Instance UID: with `unique` each UID comes once, without it all 220 come,
    in every transfer syntax.
    """
    found: dict[str, Path] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the files are known to be odd: that is what they are for
        for path in _candidates():
            uid = _storable_uid(path)
            if uid:
                found.setdefault(uid if unique else str(path), path)
    return tuple(found.values())


def _storable_uid(path: Path) -> str:
    """Give the SOP Instance UID of a file that an archive would take; an empty text for others."""
    try:
        ds = dcmread(path, stop_before_pixels=True)
        uids = (ds.SOPClassUID, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.file_meta.TransferSyntaxUID)
        uid = ds.SOPInstanceUID
    except (InvalidDicomError, AttributeError, EOFError):
        return ""
    return str(uid) if all(uids) and uid == ds.file_meta.get("MediaStorageSOPInstanceUID") else ""


def _candidates() -> Iterable[Path]:
    for folder in _REAL_FOLDERS:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix in {".dcm", ""}:
                yield path


def unused_uid() -> str:
    """Give a UID that nobody has."""
    return str(generate_uid())

"""Data sets of the sample patients: the modules that their IODs need, from frozen descriptions (PS3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.uid import UID

MANUFACTURER = "pacsbridge demo"
#: What makes the UIDs of the samples: a change gives every instance a new identity.
_UID_SOURCE = "pacsbridge demo 1"


@dataclass(frozen=True)
class Person:
    """A patient who doesn't exist (PS3.3 C.7.1.1)."""

    PatientName: str
    PatientID: str
    PatientBirthDate: str
    PatientSex: str
    SpecificCharacterSets: tuple[str, ...] = ("ISO_IR 100",)


@dataclass(frozen=True)
class Study:
    """One examination (PS3.3 C.7.2.1)."""

    person: Person
    AccessionNumber: str
    StudyDate: str
    StudyTime: str
    StudyDescription: str
    ReferringPhysicianName: str = "Brandt^Ines"

    @property
    def StudyInstanceUID(self) -> UID:
        """The same in every run, so that links stay good."""
        return uid_of(self.AccessionNumber)


@dataclass(frozen=True)
class Series:
    """One series (PS3.3 C.7.3.1)."""

    study: Study
    SeriesNumber: int
    Modality: str
    SeriesDescription: str
    BodyPartExamined: str = ""


def uid_of(*parts: object) -> UID:
    """Make a UID that depends on `parts` only."""
    return generate_uid(entropy_srcs=[_UID_SOURCE, *map(str, parts)])


def new_instance(series: Series, sop_class: UID, number: int) -> Dataset:
    """Make a data set with the patient, study, series, equipment and SOP common modules."""
    study, person = series.study, series.study.person
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = list(person.SpecificCharacterSets)
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = uid_of(study.AccessionNumber, series.SeriesNumber, number)
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = study.StudyDate
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = study.StudyTime
    ds.AccessionNumber = study.AccessionNumber
    ds.Modality = series.Modality
    ds.Manufacturer = MANUFACTURER
    ds.InstitutionName = "Demo Hospital"
    ds.ReferringPhysicianName = study.ReferringPhysicianName
    ds.StudyDescription = study.StudyDescription
    ds.SeriesDescription = series.SeriesDescription
    ds.PatientName = person.PatientName
    ds.PatientID = person.PatientID
    ds.PatientBirthDate = person.PatientBirthDate
    ds.PatientSex = person.PatientSex
    ds.StudyInstanceUID = study.StudyInstanceUID
    ds.SeriesInstanceUID = uid_of(study.AccessionNumber, series.SeriesNumber)
    ds.StudyID = study.AccessionNumber
    ds.SeriesNumber = series.SeriesNumber
    ds.InstanceNumber = number
    if series.BodyPartExamined:
        ds.BodyPartExamined = series.BodyPartExamined
    return ds


def add_gray_pixels(ds: Dataset, pixels: NDArray[np.uint16], center: float, width: float) -> None:
    """Add the image pixel module for 12 bits in 16, and a window (PS3.3 C.7.6.3, C.11.2).

    Parameters
    ----------
    pixels
        Rows × columns, 0 to 4095.
    center, width
        The window, in the units that the rescale of the data set makes.
    """
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.WindowCenter, ds.WindowWidth = center, width
    ds.PixelData = np.ascontiguousarray(pixels, dtype="<u2").tobytes()


def add_axial_plane(ds: Dataset, z: float, pixel_mm: float, thickness: float) -> None:
    """Add the image plane and frame of reference modules of an axial slice at `z` mm."""
    corner = round(-(ds.Columns - 1) / 2 * pixel_mm, 4)
    ds.FrameOfReferenceUID = uid_of(ds.StudyInstanceUID, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [corner, corner, round(z, 4)]
    ds.PixelSpacing = [pixel_mm, pixel_mm]
    ds.SliceThickness = thickness
    ds.SliceLocation = round(z, 4)


def ct_slice(series: Series, number: int, z: float, pixel_mm: float, hu: NDArray[np.floating]) -> Dataset:
    """Make a CT image of Hounsfield units (PS3.3 A.3)."""
    ds = new_instance(series, CTImageStorage, number)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    add_gray_pixels(ds, np.clip(hu + 1024, 0, 4095).astype(np.uint16), 40, 90)
    add_axial_plane(ds, z, pixel_mm, 1.25)
    ds.PatientPosition = "HFS"
    ds.AcquisitionNumber = 1
    ds.KVP = 120
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
    return ds


@dataclass(frozen=True)
class Sequence:
    """What an MR pulse sequence is set to; times in ms."""

    ScanningSequence: tuple[str, ...]
    SequenceVariant: str
    RepetitionTime: float
    EchoTime: float
    InversionTime: float | None = None


def mr_slice(
    series: Series, number: int, z: float, pixel_mm: float, signal: NDArray[np.floating], sequence: Sequence
) -> Dataset:
    """Make an MR image (PS3.3 A.4)."""
    ds = new_instance(series, MRImageStorage, number)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    add_gray_pixels(ds, np.clip(signal, 0, 4095).astype(np.uint16), 500, 1000)
    add_axial_plane(ds, z, pixel_mm, 5)
    ds.PatientPosition = "HFS"
    ds.ScanningSequence = list(sequence.ScanningSequence)
    ds.SequenceVariant = sequence.SequenceVariant
    ds.ScanOptions = ""
    ds.MRAcquisitionType = "2D"
    ds.RepetitionTime = sequence.RepetitionTime
    ds.EchoTime = sequence.EchoTime
    ds.EchoTrainLength = 1
    if sequence.InversionTime is not None:
        ds.InversionTime = sequence.InversionTime
    ds.MagneticFieldStrength = 1.5
    return ds


def radiograph(series: Series, number: int, density: NDArray[np.floating], position: str) -> Dataset:
    """Make a computed radiograph of densities from 0 to 1 (PS3.3 A.2)."""
    ds = new_instance(series, ComputedRadiographyImageStorage, number)
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    add_gray_pixels(ds, (density * 4095).astype(np.uint16), 2000, 4000)
    ds.ViewPosition = position
    ds.PatientOrientation = ["L", "F"]
    return ds


def save(ds: Dataset, path: Path) -> None:
    """Write a Part 10 file."""
    ds.save_as(path, enforce_file_format=True)

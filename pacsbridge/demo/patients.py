"""The sample patients: seven people who don't exist, with studies of many kinds.

Most of it is drawn (`pacsbridge.demo.phantoms`). The ultrasound and the electrocardiogram are real recordings
that pydicom ships as test files; only their pixels and waveforms are used, under new headers.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom import Dataset, dcmread
from pydicom.uid import (
    JPEG2000Lossless,
    TwelveLeadECGWaveformStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from pacsbridge.demo import phantoms
from pacsbridge.demo.datasets import (
    Person,
    Sequence,
    Series,
    Study,
    ct_slice,
    mr_slice,
    new_instance,
    radiograph,
    save,
)
from pacsbridge.demo.phantoms import Tissues
from pacsbridge.demo.report import report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"

CT_SLICES = 120
MR_SLICES = 22

_CT = Tissues(air=-1000, skin=25, fat=-90, bone=950, csf=6, gray=38, white=29, nuclei=36, lesion=33, noise=4)
_T1 = Tissues(
    air=5, skin=500, fat=900, bone=60, csf=120, gray=400, white=560, nuclei=430, lesion=330, noise=12
)
_T2 = Tissues(
    air=5, skin=350, fat=600, bone=50, csf=1000, gray=520, white=380, nuclei=430, lesion=800, noise=14
)
_FLAIR = Tissues(
    air=5, skin=350, fat=500, bone=50, csf=80, gray=540, white=420, nuclei=460, lesion=900, noise=14
)

_MR_SEQUENCES = (
    ("T1 SE axial", _T1, Sequence(("SE",), "NONE", 520, 12)),
    ("T2 SE axial", _T2, Sequence(("SE",), "NONE", 4200, 98)),
    ("FLAIR axial", _FLAIR, Sequence(("SE", "IR"), "NONE", 8500, 110, 2400)),
)

#: What describes the recorded frames: taken over with them.
_ECHO_KEYWORDS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "NumberOfFrames",
    "FrameTime",
    "FrameIncrementPointer",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "PixelData",
)


@dataclass(frozen=True)
class SamplePatient:
    """A patient of the demo PACS.

    Parameters
    ----------
    accession_numbers
        What to ask for; one for each study.
    shows
        One line in English.
    """

    PatientName: str
    PatientID: str
    accession_numbers: tuple[str, ...]
    StudyInstanceUIDs: tuple[str, ...]
    shows: str


@dataclass(frozen=True)
class _Sample:
    """Studies of one patient, before they are written."""

    studies: tuple[Study, ...]
    shows: str
    instances: Iterable[Dataset]


def write_sample_patients(folder: Path) -> list[SamplePatient]:
    """Write the studies of all sample patients below `folder`, one folder for each study.

    Every run writes the same UIDs and the same pixels: about 200 files of 70 MB.
    """
    patients = []
    for make in (_head_ct, _head_mr, _ultrasound, _chest, _heart, _electrocardiogram, _knees):
        sample = make()
        for number, ds in enumerate(sample.instances):
            study = folder / str(ds.AccessionNumber)
            study.mkdir(parents=True, exist_ok=True)
            save(ds, study / f"{number:04}.dcm")
        patients.append(_patient(sample))
    return patients


def _patient(sample: _Sample) -> SamplePatient:
    person = sample.studies[0].person
    return SamplePatient(
        PatientName=person.PatientName,
        PatientID=person.PatientID,
        accession_numbers=tuple(study.AccessionNumber for study in sample.studies),
        StudyInstanceUIDs=tuple(study.StudyInstanceUID for study in sample.studies),
        shows=sample.shows,
    )


def _head_ct() -> _Sample:
    person = Person("Lindqvist^Astrid", "DEMO-1001", "19580412", "F")
    study = Study(person, "CT1001", "20250311", "091502", "CT of the head")
    series = Series(study, 2, "CT", "Head 1.25 mm", "HEAD")

    def slices() -> Iterator[Dataset]:
        for index in range(CT_SLICES):
            z = -60 + index * 1.25
            yield ct_slice(series, index + 1, z, 0.45, phantoms.head(z, 512, 0.45, _CT, seed=1))

    return _Sample((study,), f"CT of the head, {CT_SLICES} slices", slices())


def _head_mr() -> _Sample:
    person = Person("Okafor^Daniel", "DEMO-1002", "19790923", "M")
    study = Study(person, "MR1002", "20250402", "134410", "MR of the brain")

    def slices() -> Iterator[Dataset]:
        for number, (name, tissues, sequence) in enumerate(_MR_SEQUENCES, start=1):
            series = Series(study, number, "MR", name, "HEAD")
            for index in range(MR_SLICES):
                z = -52 + index * 6.5
                signal = phantoms.head(z, 256, 0.9, tissues, seed=1 + number)
                yield mr_slice(series, index + 1, z, 0.9, signal, sequence)

    return _Sample((study,), "MR of the brain: T1, T2 and FLAIR", slices())


def _ultrasound() -> _Sample:
    person = Person("Rossi^Chiara", "DEMO-1003", "19910130", "F")
    study = Study(person, "US1003", "20250507", "101533", "Ultrasound of the neck")
    series = Series(study, 1, "US", "Lymph node, power Doppler", "NECK")
    return _Sample((study,), "Ultrasound in colour, JPEG 2000", [_power_doppler(series)])


def _power_doppler(series: Series) -> Dataset:
    """Take the picture without the texts around it: they name a hospital."""
    ds = new_instance(series, UltrasoundImageStorage, 1)
    pixels = dcmread(_PYDICOM_FILES / "examples_jpeg2k.dcm").pixel_array[112:334, 44:596]
    ds.ImageType = ["ORIGINAL", "PRIMARY", "SMALL PARTS", "0001"]
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "YBR_RCT"  # what the encoder makes of RGB
    ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.LossyImageCompression = "00"
    ds.PatientOrientation = ""
    ds.compress(JPEG2000Lossless, np.ascontiguousarray(pixels), generate_instance_uid=False)
    return ds


def _chest() -> _Sample:
    person = Person("Novak^Petra", "DEMO-1004", "19661118", "F")
    study = Study(person, "CR1004", "20250519", "084027", "Chest radiograph")
    image = radiograph(
        Series(study, 1, "CR", "Chest PA", "CHEST"), 1, phantoms.chest(768, 0.5, seed=7), position="PA"
    )
    text = report(
        Series(study, 2, "SR", "Report"),
        image=image,
        findings=("The lungs are clear.", "The heart is of normal size."),
        length_mm=142,
        impression="No acute cardiopulmonary disease.",
        author="Brandt^Ines",
    )
    image.compress(JPEG2000Lossless, generate_instance_uid=False)
    return _Sample((study,), "Chest radiograph with its report (SR)", [image, text])


def _heart() -> _Sample:
    person = Person(
        "Kobayashi^Haruka=小林^遥=こばやし^はるか",
        "DEMO-1005",
        "19840705",
        "F",
        SpecificCharacterSets=("", "ISO 2022 IR 87"),
    )
    study = Study(person, "US1005", "20250612", "151208", "Echocardiography")
    series = Series(study, 1, "US", "Parasternal long axis", "HEART")
    return _Sample((study,), "Echocardiogram of 30 frames, JPEG; a name in Japanese", [_echo(series)])


def _echo(series: Series) -> Dataset:
    source = dcmread(_PYDICOM_FILES / "examples_ybr_color.dcm")
    ds = new_instance(series, UltrasoundMultiFrameImageStorage, 1)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "EPICARDIAL", "0001"]
    ds.PatientOrientation = ""
    for keyword in _ECHO_KEYWORDS:
        ds[keyword] = source[keyword]
    ds.LossyImageCompressionMethod = "ISO_10918_1"
    ds.file_meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
    return ds


def _electrocardiogram() -> _Sample:
    person = Person("Müller^Jörg", "DEMO-1006", "19520829", "M")
    study = Study(person, "EC1006", "20250624", "075940", "Electrocardiogram")
    source = dcmread(_PYDICOM_FILES / "waveform_ecg.dcm")
    ds = new_instance(Series(study, 1, "ECG", "12 leads at rest"), TwelveLeadECGWaveformStorage, 1)
    ds.AcquisitionDateTime = study.StudyDate + study.StudyTime
    ds.AcquisitionContextSequence = []
    ds.WaveformSequence = deepcopy(source.WaveformSequence)
    for group in ds.WaveformSequence:
        group.pop("MultiplexGroupTimeOffset", None)  # allowed with a synchronization time only
    return _Sample((study,), "Electrocardiogram of 12 leads; a name with umlauts", [ds])


def _knees() -> _Sample:
    person = Person("Silva^Mateus", "DEMO-1007", "19730217", "M")
    before = Study(person, "CR1007", "20240603", "111845", "Radiograph of the right knee")
    after = Study(person, "CR1008", "20250605", "102012", "Radiograph of the right knee, one year later")
    images = []
    for study, gap in ((before, 6), (after, 4)):
        series = Series(study, 1, "CR", "Right knee AP", "KNEE")
        image = radiograph(series, 1, phantoms.knee(768, 0.28, gap, seed=9), position="AP")
        image.Laterality = "R"
        images.append(image)
    return _Sample((before, after), "Radiographs of a knee, a year apart: two accession numbers", images)

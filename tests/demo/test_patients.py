import hashlib
from pathlib import Path

import pytest
from pydicom import dcmread

from pacsbridge.demo.patients import CT_SLICES, SamplePatient, write_sample_patients
from tests.peers import require, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("patients")


@pytest.fixture(scope="module")
def patients(folder: Path) -> list[SamplePatient]:
    return write_sample_patients(folder)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.dcm"))


def test_every_accession_number_names_a_study_of_its_patient(
    folder: Path, patients: list[SamplePatient]
) -> None:
    for patient in patients:
        assert patient.shows
        pairs = zip(patient.accession_numbers, patient.StudyInstanceUIDs, strict=True)
        for accession_number, StudyInstanceUID in pairs:
            for path in files(folder / accession_number):
                ds = dcmread(path, stop_before_pixels=True)
                assert ds.AccessionNumber == accession_number
                assert ds.StudyInstanceUID == StudyInstanceUID
                assert ds.PatientID == patient.PatientID
                assert str(ds.PatientName) == patient.PatientName


def test_the_samples_hold_what_discs_hold(folder: Path, patients: list[SamplePatient]) -> None:
    modalities = {dcmread(path, stop_before_pixels=True).Modality for path in files(folder)}
    assert modalities == {"CT", "MR", "US", "CR", "SR", "ECG"}
    assert len(files(folder / "CT1001")) == CT_SLICES
    assert dcmread(folder / "US1003" / "0000.dcm").file_meta.TransferSyntaxUID.is_compressed
    assert any(len(patient.accession_numbers) == 2 for patient in patients)
    assert any("林" in patient.PatientName for patient in patients)
    assert any("ü" in patient.PatientName for patient in patients)


def test_two_runs_write_the_same_bytes(folder: Path, patients: list[SamplePatient], tmp_path: Path) -> None:
    assert write_sample_patients(tmp_path) == patients
    for path in files(folder):
        again = tmp_path / path.relative_to(folder)
        assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(path.read_bytes()).digest()


def test_every_sop_instance_uid_is_unique(folder: Path, patients: list[SamplePatient]) -> None:
    uids = [dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID for path in files(folder)]
    assert len(set(uids)) == len(uids)


def test_pixels_can_be_decoded_and_show_something(folder: Path, patients: list[SamplePatient]) -> None:
    for path in (files(one)[0] for one in sorted(folder.iterdir())):
        ds = dcmread(path)
        if "PixelData" in ds:
            assert ds.pixel_array.std() > 10


def test_dciodvfy_finds_no_error(folder: Path, patients: list[SamplePatient]) -> None:
    dciodvfy = require("dciodvfy")
    series: dict[str, Path] = {}
    for path in files(folder):
        ds = dcmread(path, specific_tags=["SeriesInstanceUID"])
        series.setdefault(ds.SeriesInstanceUID, path)
    for path in series.values():
        verdict = run(dciodvfy, path).stdout
        errors = [line for line in verdict.splitlines() if line.startswith("Error")]
        assert not errors, path

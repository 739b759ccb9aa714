"""Which records there are: who is whose, what is there twice, what contradicts, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pacsbridge.media.dicomdir import encode_dicomdir
from tests.media.directory import Record, directory_of, put, walk
from tests.samples import dataset

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pydicom import Dataset


def in_study(number: int, **attributes: Any) -> Dataset:
    """Make an instance in a study and series of its own."""
    uids: dict[str, Any] = {
        "StudyInstanceUID": f"1.{number}",
        "SeriesInstanceUID": f"1.{number}.1",
        "SOPInstanceUID": f"1.{number}.1.1",
    }
    return dataset(**{**uids, **attributes})


def patients(records: Iterable[Record]) -> list[tuple[str, str, int]]:
    """Give ID, issuer and number of studies of each patient."""
    return [
        (each.keys.PatientID, each.keys.get("IssuerOfPatientID", ""), len(each.below)) for each in records
    ]


def test_one_patient_for_each_id(tmp_path: Path) -> None:
    made = [in_study(1, PatientID="B"), in_study(2, PatientID="A"), in_study(3, PatientID="B ")]
    assert patients(directory_of(tmp_path, made)) == [("A", "", 1), ("B", "", 2)]


def test_an_id_of_two_issuers_is_two_patients_with_ids_of_their_own(tmp_path: Path) -> None:
    made = [
        in_study(1, PatientID="A", IssuerOfPatientID="X"),
        in_study(2, PatientID="A", IssuerOfPatientID="Y"),
        in_study(3, PatientID="A-2"),
    ]
    assert patients(directory_of(tmp_path, made)) == [("A", "X", 1), ("A-3", "Y", 1), ("A-2", "", 1)]


def test_an_issuer_that_only_some_instances_name_is_no_other_patient(tmp_path: Path) -> None:
    made = [in_study(1, PatientID="A"), in_study(2, PatientID="A", IssuerOfPatientID="X")]
    assert patients(directory_of(tmp_path, made)) == [("A", "X", 2)]


def test_patients_without_id_are_told_apart_by_name_and_birth_date(tmp_path: Path) -> None:
    made = [
        in_study(1, PatientID=None, PatientName="Doe^Jane"),
        in_study(2, PatientID="", PatientName="Doe^John"),
        in_study(3, PatientID=None, PatientName="Doe^Jane"),
        in_study(4, PatientID=None, PatientName="Doe^Jane", PatientBirthDate="20000101"),
        in_study(5, PatientID="UNKNOWN-2"),
    ]
    expected = [("UNKNOWN-1", "", 2), ("UNKNOWN-3", "", 1), ("UNKNOWN-4", "", 1), ("UNKNOWN-2", "", 1)]
    assert patients(directory_of(tmp_path, made)) == expected


def test_an_id_may_hold_a_percent_sign(tmp_path: Path) -> None:
    made = [in_study(number, PatientID="%d%s", IssuerOfPatientID=str(number)) for number in (1, 2)]
    assert patients(directory_of(tmp_path, made)) == [("%d%s", "1", 1), ("%d%s-2", "2", 1)]


def test_the_same_instance_twice_is_one_record(tmp_path: Path) -> None:
    first, second = put(tmp_path, [dataset(), dataset()])
    [patient] = walk(encode_dicomdir([first, second], "TEST"))
    [image] = patient.leaves()
    assert image.FileID == "\\".join(first.ReferencedFileID)


def test_a_study_of_two_patients_is_one_record(tmp_path: Path) -> None:
    made = [
        dataset(PatientID="B", SOPInstanceUID="1.1"),
        dataset(PatientID="A", SOPInstanceUID="1.2", SeriesInstanceUID="1.2.9"),
    ]
    [patient] = directory_of(tmp_path, made)
    assert patient.keys.PatientID == "A"
    [study] = patient.below
    assert len(study.below) == 2


def test_a_series_of_two_studies_is_one_record(tmp_path: Path) -> None:
    made = [dataset(SOPInstanceUID="1.1"), dataset(SOPInstanceUID="1.2", StudyInstanceUID="1.2.9")]
    [patient] = directory_of(tmp_path, made)
    assert [len(study.below) for study in patient.below] == [1]
    assert len(list(patient.leaves())) == 2


def test_a_value_that_the_first_series_lacks_comes_from_another(tmp_path: Path) -> None:
    made = [
        dataset(StudyDescription=None, SeriesNumber="1", SeriesInstanceUID="1.1", SOPInstanceUID="1.1.1"),
        dataset(StudyDescription="Thorax", SeriesNumber="2", SeriesInstanceUID="1.2", SOPInstanceUID="1.2.1"),
    ]
    [patient] = directory_of(tmp_path, made)
    assert patient.below[0].keys.StudyDescription == "Thorax"


def test_texts_of_two_character_sets_are_not_mixed(tmp_path: Path) -> None:
    made = [
        dataset(
            SpecificCharacterSet="ISO_IR 100",
            PatientName="Müller",
            StudyDescription=None,
            SeriesNumber="1",
            SeriesInstanceUID="1.1",
            SOPInstanceUID="1.1.1",
        ),
        dataset(
            SpecificCharacterSet="ISO_IR 192",
            PatientName="Müller",
            StudyDescription="Schädel",
            AccessionNumber="A2",
            SeriesNumber="2",
            SeriesInstanceUID="1.2",
            SOPInstanceUID="1.2.1",
        ),
    ]
    [patient] = directory_of(tmp_path, made)
    [study] = patient.below
    assert patient.keys.PatientName == "Müller"
    assert study.keys.StudyDescription in ("", "Schädel")


def test_everything_is_in_order(tmp_path: Path) -> None:
    made = [
        dataset(
            PatientID=patient,
            StudyInstanceUID=f"1.{patient}.{date}",
            StudyDate=f"202401{date:02}",
            SeriesInstanceUID=f"1.{patient}.{date}.{series}",
            SeriesNumber=str(series),
            SOPInstanceUID=f"1.{patient}.{date}.{series}.{instance}",
            InstanceNumber=str(instance),
        )
        for patient in "21"
        for date in (10, 9)
        for series in (10, 9)
        for instance in (10, 9)
    ]
    root = directory_of(tmp_path, made)
    assert [patient.keys.PatientID for patient in root] == ["1", "2"]
    for patient in root:
        assert [study.keys.StudyDate for study in patient.below] == ["20240109", "20240110"]
        for study in patient.below:
            assert [series.keys.SeriesNumber for series in study.below] == [9, 10]
            for series in study.below:
                assert [image.keys.InstanceNumber for image in series.below] == [9, 10]


@pytest.mark.parametrize("number", [None, "", "A", "1.5", "1\\2"])
def test_what_has_no_number_comes_last_with_the_next(tmp_path: Path, number: str | None) -> None:
    made = [
        dataset(SOPInstanceUID="1.1", InstanceNumber=None),
        dataset(SOPInstanceUID="1.2", InstanceNumber="7"),
        dataset(SOPInstanceUID="1.3", InstanceNumber="-3"),
        dataset(SOPInstanceUID="1.4", SeriesInstanceUID="1.2.3.9", SeriesNumber="5"),
    ]
    put(tmp_path, made)
    first, *others = sorted(tmp_path.rglob("I0*"))
    if number is not None:  # pydicom writes no such number: it goes behind the last element
        value = (number + " " * (len(number) % 2)).encode()
        first.write_bytes(
            first.read_bytes() + b"\x20\x00\x13\x00IS" + len(value).to_bytes(2, "little") + value
        )
    [patient] = directory_of(tmp_path / "again", [first, *others])
    [study] = patient.below
    assert [series.keys.SeriesNumber for series in study.below] == [2, 5]
    images = study.below[0].below
    assert [image.keys.InstanceNumber for image in images] == [-3, 7, 8]
    assert images[-1].keys.ReferencedSOPInstanceUIDInFile == "1.1"

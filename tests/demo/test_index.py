from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from pacsbridge.demo.index import IdentifierError, Index, Level
from tests.studies import Patient, make_study


@pytest.fixture
def index(tmp_path: Path) -> Index:
    make_study(tmp_path, "A1", series=2, instances=3)
    make_study(tmp_path, "A2", instances=1)
    make_study(tmp_path, "B1", patient=Patient("TEST-2", "Other^Person"), instances=2)
    index = Index()
    assert index.scan(tmp_path) == 9
    return index


def identifier(level: str, **keys: object) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    return ds


def find(index: Index, level: str, root: Level = Level.STUDY, **keys: object) -> list[Dataset]:
    return list(index.find(root, identifier(level, **keys)))


def test_a_study_is_found_with_its_counts(index: Index) -> None:
    (study,) = find(
        index,
        "STUDY",
        AccessionNumber="A1",
        StudyInstanceUID="",
        ModalitiesInStudy="",
        NumberOfStudyRelatedSeries=None,
        NumberOfStudyRelatedInstances=None,
        NumberOfPatientRelatedStudies=None,
    )
    assert study.NumberOfStudyRelatedSeries == 2
    assert study.NumberOfStudyRelatedInstances == 6
    assert study.NumberOfPatientRelatedStudies == 2
    assert study.ModalitiesInStudy == "CT"
    assert study.SpecificCharacterSet == "ISO_IR 192"
    assert study.QueryRetrieveLevel == "STUDY"


def test_an_answer_may_be_changed_and_the_index_stays(index: Index) -> None:
    for _ in range(2):
        (study,) = find(index, "STUDY", AccessionNumber="A1")
        study.AccessionNumber = "changed"


def test_series_and_images_are_found_below_a_study(index: Index) -> None:
    (study,) = find(index, "STUDY", AccessionNumber="A1", StudyInstanceUID="")
    series = find(
        index,
        "SERIES",
        StudyInstanceUID=study.StudyInstanceUID,
        SeriesInstanceUID="",
        NumberOfSeriesRelatedInstances=None,
    )
    assert [one.NumberOfSeriesRelatedInstances for one in series] == [3, 3]
    images = find(
        index,
        "IMAGE",
        StudyInstanceUID=study.StudyInstanceUID,
        SeriesInstanceUID=series[1].SeriesInstanceUID,
        SOPInstanceUID="",
        InstanceNumber=None,
    )
    assert sorted(one.InstanceNumber for one in images) == [1, 2, 3]


def test_patients_are_found_in_the_patient_root_only(index: Index) -> None:
    patients = find(index, "PATIENT", Level.PATIENT, PatientName="*", PatientID="")
    assert {one.PatientID for one in patients} == {"TEST-1", "TEST-2"}
    with pytest.raises(IdentifierError, match="Level"):
        find(index, "PATIENT", Level.STUDY, PatientName="*")


def test_a_key_of_a_lower_level_comes_back_empty_and_excludes_nothing(index: Index) -> None:
    studies = find(index, "STUDY", InstanceNumber="77", NumberOfSeriesRelatedInstances=None)
    assert len(studies) == 3
    assert studies[0].InstanceNumber is None
    assert studies[0].NumberOfSeriesRelatedInstances is None


@pytest.mark.parametrize("level", ["SERIES", "IMAGE"])
def test_the_unique_keys_above_are_required(index: Index, level: str) -> None:
    with pytest.raises(IdentifierError, match="StudyInstanceUID"):
        find(index, level, SeriesInstanceUID="")


@pytest.mark.parametrize("level", ["", "FRAME"])
def test_an_unknown_level_is_refused(index: Index, level: str) -> None:
    with pytest.raises(IdentifierError, match="Level"):
        find(index, level)


def test_a_move_is_by_unique_keys_only(index: Index) -> None:
    (a1,) = find(index, "STUDY", AccessionNumber="A1", StudyInstanceUID="")
    (b1,) = find(index, "STUDY", AccessionNumber="B1", StudyInstanceUID="")
    both = identifier("STUDY", StudyInstanceUID=[a1.StudyInstanceUID, b1.StudyInstanceUID])
    assert len(index.select(Level.STUDY, both)) == 8
    with pytest.raises(IdentifierError, match="StudyInstanceUID"):
        index.select(Level.STUDY, identifier("STUDY", AccessionNumber="A1"))
    with pytest.raises(IdentifierError, match="PatientID"):
        index.select(Level.PATIENT, identifier("STUDY", StudyInstanceUID=a1.StudyInstanceUID))


def test_a_file_that_is_no_dicom_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert Index().scan(tmp_path) == 0
    with pytest.raises(InvalidDicomError):
        Index().add(tmp_path / "notes.txt")

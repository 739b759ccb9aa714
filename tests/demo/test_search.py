from pathlib import Path

import pytest
from pydicom import Dataset

from pacsbridge.demo.index import Index, Level
from pacsbridge.demo.search import SearchError, find, understand
from tests.studies import MadeStudy, Patient, make_study


@pytest.fixture
def made(tmp_path: Path) -> dict[str, MadeStudy]:
    other = Patient("TEST-2", "Other^Person")
    return {
        "A1": make_study(tmp_path, "A1", series=2, instances=3),
        "A2": make_study(tmp_path, "A2", instances=1),
        "B1": make_study(tmp_path, "B1", patient=other, instances=2),
    }


@pytest.fixture
def index(tmp_path: Path, made: dict[str, MadeStudy]) -> Index:
    index = Index()
    assert index.scan(tmp_path) == 9
    return index


def search(index: Index, level: Level, *query: tuple[str, str], **parents: str) -> list[Dataset]:
    return find(index, understand(level, parents, query))


def numbers(index: Index, *query: tuple[str, str]) -> list[str]:
    return sorted(row.AccessionNumber for row in search(index, Level.STUDY, *query))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PatientID", "TEST-1", ["A1", "A2"]),
        ("00100020", "TEST-2", ["B1"]),
        ("PatientName", "oth*", ["B1"]),
        ("StudyDate", "20250101-20250131", ["A1", "A2", "B1"]),
        ("StudyDate", "20250201-", []),
        ("ModalitiesInStudy", "CT", ["A1", "A2", "B1"]),
        ("ModalitiesInStudy", "MR", []),
        ("AccessionNumber", "", ["A1", "A2", "B1"]),
        ("NoSuchKeyword", "x", ["A1", "A2", "B1"]),
        ("00091001", "x", ["A1", "A2", "B1"]),
        ("fuzzymatching", "true", ["A1", "A2", "B1"]),
        ("RequestAttributesSequence", "x", ["A1", "A2", "B1"]),
        ("00400275.00401001", "x", ["A1", "A2", "B1"]),
    ],
)
def test_studies_are_found_by_keyword_and_by_tag(
    index: Index, name: str, value: str, expected: list[str]
) -> None:
    assert numbers(index, (name, value)) == expected


def test_a_list_of_uids_finds_them_all(index: Index, made: dict[str, MadeStudy]) -> None:
    both = [made["A1"].StudyInstanceUID, made["B1"].StudyInstanceUID]
    for separator in (",", "\\"):
        assert numbers(index, ("StudyInstanceUID", separator.join(both))) == ["A1", "B1"]


def test_what_is_returned_unasked_and_what_is_asked_for(index: Index) -> None:
    (plain,) = search(index, Level.STUDY, ("AccessionNumber", "A1"))
    assert plain.NumberOfStudyRelatedSeries == 2
    assert plain.ModalitiesInStudy == "CT"
    assert "StudyDescription" not in plain
    (more,) = search(
        index, Level.STUDY, ("AccessionNumber", "A1"), ("includefield", "00081030,AccessionNumber")
    )
    assert more.StudyDescription == "Generated CT"
    assert more.AccessionNumber == "A1"  # the key is still one
    (whole,) = search(index, Level.STUDY, ("includefield", "all"), ("AccessionNumber", "A2"))
    assert whole.StudyDescription == "Generated CT"


def test_pages_follow_each_other(index: Index) -> None:
    whole = [row.SOPInstanceUID for row in search(index, Level.IMAGE)]
    assert len(whole) == 9
    paged = [
        row.SOPInstanceUID
        for start in range(0, 12, 4)
        for row in search(index, Level.IMAGE, ("offset", str(start)), ("limit", "4"))
    ]
    assert paged == whole
    assert search(index, Level.IMAGE, ("limit", "0")) == []


def test_levels_that_the_path_leaves_out_are_searched_too(index: Index, made: dict[str, MadeStudy]) -> None:
    uid = made["A1"].StudyInstanceUID
    assert len(search(index, Level.SERIES)) == 4
    assert len(search(index, Level.SERIES, StudyInstanceUID=uid)) == 2
    instances = search(index, Level.IMAGE, StudyInstanceUID=uid)
    assert len(instances) == 6
    assert {row.StudyInstanceUID for row in instances} == {uid}
    assert {row.Rows for row in instances} == {64}
    below = search(index, Level.IMAGE, StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.2")
    assert [row.InstanceNumber for row in below] == [1, 2, 3]
    assert search(index, Level.IMAGE, StudyInstanceUID="1.2", SeriesInstanceUID=f"{uid}.2") == []


def test_the_path_is_stronger_than_the_query(index: Index, made: dict[str, MadeStudy]) -> None:
    uid, other = made["A1"].StudyInstanceUID, made["B1"].StudyInstanceUID
    rows = search(index, Level.SERIES, ("StudyInstanceUID", other), StudyInstanceUID=uid)
    assert {row.StudyInstanceUID for row in rows} == {uid}


@pytest.mark.parametrize("pair", [("limit", "x"), ("offset", "-1"), ("SeriesNumber", "a"), ("limit", "")])
def test_what_can_not_be_understood_is_told(pair: tuple[str, str]) -> None:
    with pytest.raises(SearchError, match=pair[0]):
        understand(Level.SERIES, {}, [pair])

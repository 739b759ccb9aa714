import pytest
from pydicom import DataElement, Dataset

from pacsbridge.demo.matching import matches


def key(vr: str, value: object) -> DataElement:
    return DataElement(0x00100010, vr, value)


@pytest.mark.parametrize(
    ("vr", "pattern", "stored", "expected"),
    [
        ("SH", "A1", "A1", True),
        ("SH", "A1", "A12", False),
        ("SH", "A?", "A1", True),
        ("SH", "A*", "A123", True),
        ("SH", "A.", "A1", False),
        ("SH", "", "anything", True),
        ("SH", "A1", "", False),
        ("SH", "A1", None, False),
        ("UI", "1.2.3", "1.2.3", True),
        ("UI", ["1.2.3", "1.2.4"], "1.2.4", True),
        ("UI", "1.2", "1.2.3", False),
        ("DA", "20250102", "20250102", True),
        ("DA", "20250101-20250131", "20250102", True),
        ("DA", "20250103-", "20250102", False),
        ("DA", "-20250102", "20250102", True),
        ("DA", "-20250101", "20250102", False),
        ("TM", "10-1030", "103059.123", True),
        ("TM", "103100-", "103059", False),
        ("TM", "1030", "103059", True),
        ("IS", "1", "01", True),
        ("IS", "1", "2", False),
        ("CS", "CT", ["MR", "CT"], True),
        ("CS", "US", ["MR", "CT"], False),
    ],
)
def test_a_key_matches(vr: str, pattern: object, stored: object, *, expected: bool) -> None:
    assert matches(key(vr, pattern), stored) is expected


@pytest.mark.parametrize("pattern", ["kobayashi*", "小林^遥", "*はるか", "Kobayashi^Haruka^^^"])
def test_a_name_matches_in_any_component_group_and_case(pattern: str) -> None:
    ds = Dataset()
    ds.PatientName = "Kobayashi^Haruka=小林^遥=こばやし^はるか"
    assert matches(key("PN", pattern), ds.PatientName)
    assert not matches(key("PN", "Tanaka*"), ds.PatientName)


def test_a_sequence_key_matches_everything() -> None:
    assert matches(DataElement(0x00081115, "SQ", [Dataset()]), None)

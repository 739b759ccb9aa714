import itertools
from io import BytesIO

import pytest
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacsbridge.errors import MixedPatients
from pacsbridge.instance import Instance
from pacsbridge.media.contents import arrange
from pacsbridge.media.patients import check_one_patient

# pydicom warns of the old form of a date
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR DA:UserWarning")

SAME = None
DIFFERENT = MixedPatients


def instance(
    study: str = "1.1",
    ID: str | bytes = "P1",
    birth_date: str = "19700101",
    name: str = "Miller^Ann",
    number: int = 1,
    split: bool = True,
) -> Instance:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientBirthDate = name, birth_date
    dataset.PatientID = ID if isinstance(ID, str) else "?" * len(ID)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    encoded = BytesIO(buffer.getvalue()).getvalue()
    if isinstance(ID, bytes):
        encoded = encoded.replace(b"?" * len(ID), ID)
    uids = f"{study}.{number}", "1.2.840.10008.1.2.1", study, f"{study}.0"
    return Instance("", 1, "1.2", *uids, b"" if split else encoded, encoded if split else b"")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({}, {}, SAME),
        ({}, {"ID": "P2"}, DIFFERENT),
        ({}, {"birth_date": "19700102"}, DIFFERENT),
        ({}, {"name": "Smith^Ann"}, SAME),  # married: ID and birth date say who it is
        ({"ID": "p1 "}, {"ID": "P1"}, SAME),
        ({"ID": "P1"}, {"ID": "P11"}, DIFFERENT),
        ({"ID": "P1"}, {"ID": "0P1"}, DIFFERENT),
        ({"birth_date": "1970.01.01"}, {}, SAME),
        ({"birth_date": ""}, {}, SAME),  # by the name
        ({"birth_date": ""}, {"name": "MILLER^ANN^"}, SAME),
        ({"birth_date": ""}, {"name": "Miller^Anna"}, DIFFERENT),
        ({"birth_date": "", "name": ""}, {}, DIFFERENT),
        ({"birth_date": "", "name": ""}, {"birth_date": "", "name": ""}, DIFFERENT),
        ({"birth_date": "", "name": "Yamada^Tarou=山田^太郎"}, {"name": "YAMADA^TARO=山田^太郎"}, SAME),
        ({"ID": ""}, {}, DIFFERENT),
        ({"ID": ""}, {"ID": ""}, SAME),
        ({"ID": "", "name": "X^Y"}, {"ID": ""}, DIFFERENT),
        ({"ID": "", "name": ""}, {"ID": "", "name": ""}, DIFFERENT),
        ({"ID": "", "birth_date": ""}, {"ID": "", "birth_date": ""}, DIFFERENT),
        ({"ID": b"P\xff1"}, {"ID": b"P\xff2"}, DIFFERENT),
        ({"ID": b"P\xff1"}, {"ID": b"P\xff1"}, SAME),
    ],
)
@pytest.mark.parametrize("split", [True, False])
def test_two_studies(
    one: dict[str, str], other: dict[str, str], expected: type[Exception] | None, split: bool
) -> None:
    pair = [instance("1.1", **one, split=split), instance("1.2", **other, split=split)]  # type: ignore[arg-type]  # texts only
    for instances in (pair, pair[::-1]):
        if expected:
            with pytest.raises(expected):
                check_one_patient(instances)
        else:
            check_one_patient(instances)


def test_a_stranger_among_the_instances_of_a_study_is_found_wherever_it_is() -> None:
    own = [instance(number=number) for number in range(50)]
    for stranger in (instance(ID="P2", number=99), instance(birth_date="19710101", number=99)):
        for position in (0, 25, 50):
            with pytest.raises(MixedPatients, match="PACS"):
                check_one_patient([*own[:position], stranger, *own[position:]])


def test_an_instance_that_lacks_values_belongs_to_its_study() -> None:
    check_one_patient([instance(), instance(ID="", birth_date="", name="", number=2)])


def test_one_study_without_any_identity_is_a_disc() -> None:
    check_one_patient([instance(ID="", birth_date="", name="")])


def test_two_studies_that_equal_a_third_must_equal_each_other() -> None:
    dated = instance("1.1", birth_date="19700101")
    undated = instance("1.2", birth_date="")
    other = instance("1.3", birth_date="19800101")
    check_one_patient([dated, undated])
    check_one_patient([undated, other])
    for instances in itertools.permutations((undated, dated, other)):
        with pytest.raises(MixedPatients):
            check_one_patient(instances)


def test_the_messages_name_nobody() -> None:
    for pair in ((instance(), instance(ID="P2")), (instance("1.1"), instance("1.2", ID="P2"))):
        with pytest.raises(MixedPatients) as raised:
            check_one_patient(pair)
        assert not any(word in raised.value.message for word in ("P1", "P2", "Miller", "1970"))


def test_patients_are_told_apart_when_they_may_be_mixed() -> None:
    instances = [instance("1.1"), instance("1.2", ID="P0"), instance("1.3")]
    contents = arrange(instances, one_patient=False)
    assert [(patient.PatientID, len(patient.studies)) for patient in contents.patients] == [
        ("P0", 1),
        ("P1", 2),
    ]
    assert len(arrange(instances, one_patient=True).patients) == 1

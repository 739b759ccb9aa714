"""Which record an instance has, against pydicom's table."""

from __future__ import annotations

import pytest
from pydicom import Dataset, fileset, uid
from pydicom._uid_dict import UID_dictionary

from pacsbridge.records import RECORD_KEYS, RECORD_TYPES, record_type, tag_of

STORAGE = [
    value
    for value, (_, kind, _, _, keyword) in UID_dictionary.items()
    if kind == "SOP Class" and "Storage" in keyword
]
#: The record types of PS3.3 F.5 that stand below a SERIES.
TYPES = set(RECORD_KEYS) - {"PATIENT", "STUDY", "SERIES"}
#: Templates and the like: they belong to no patient.
OF_NO_PATIENT = set(fileset._SINGLE_LEVEL_SOP_CLASSES)


@pytest.mark.parametrize("SOPClassUID", sorted(fileset._FOUR_LEVEL_SOP_CLASSES))
def test_types_are_those_of_pydicom(SOPClassUID: str) -> None:
    whole = Dataset()
    whole.SOPClassUID = SOPClassUID
    assert record_type(SOPClassUID, has_rows=False) == fileset._four_level_record_type(whole)


@pytest.mark.parametrize("SOPClassUID", STORAGE)
def test_every_storage_class_has_a_type(SOPClassUID: str) -> None:
    kind = record_type(SOPClassUID, has_rows=True)
    assert kind in TYPES
    keyword = uid.UID(SOPClassUID).keyword
    if "ImageStorage" in keyword:
        assert record_type(SOPClassUID, has_rows=False) == "IMAGE"
    if "SRStorage" in keyword and "Trial" not in keyword:
        assert kind == "SR DOCUMENT"
    if "WaveformStorage" in keyword and "Trial" not in keyword:
        assert kind == "WAVEFORM"
    if "PresentationStateStorage" in keyword:
        assert kind == "PRESENTATION"
    if keyword.startswith("Encapsulated"):
        assert kind == "ENCAP DOC"


def test_a_private_class_is_an_image_if_it_has_rows() -> None:
    assert record_type("1.3.12.2.1107.5.9.1", has_rows=False) == "PRIVATE"
    assert record_type("1.3.12.2.1107.5.9.1", has_rows=True) == "IMAGE"


def test_templates_have_no_record_below_a_series() -> None:
    assert not OF_NO_PATIENT & RECORD_TYPES.keys()


def test_keys_are_in_the_order_of_their_tags() -> None:
    for keys in RECORD_KEYS.values():
        assert [key.tag for key in keys] == sorted(key.tag for key in keys)


def test_an_unknown_keyword_has_no_tag() -> None:
    with pytest.raises(KeyError):
        tag_of("NoSuchKeyword")

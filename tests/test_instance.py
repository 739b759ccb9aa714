"""Reading a received instance: against pydicom's reader, and against what a hostile or broken file can hold."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue
from pydicom.uid import (
    BasicTextSRStorage,
    BlendingSoftcopyPresentationStateStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pacsbridge import part10 as part10_module
from pacsbridge.instance import COMMON_KEYWORDS, OWN_KEYWORDS, Instance, InvalidInstance, read_instance
from pacsbridge.records import RECORD_KEYS, RECORD_TYPES
from tests.samples import dataset, part10, real_file, real_files

SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
#: These are filtered on purpose; their own tests say how.
FILTERED = {"ContentSequence", "VerificationDateTime", "BlendingSequence"}
UNDEFINED = b"\xff\xff\xff\xff"
ITEM = b"\xfe\xff\x00\xe0"


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def keywords_of(instance: Instance) -> set[str]:
    keys = RECORD_KEYS[RECORD_TYPES.get(instance.SOPClassUID, "IMAGE")]
    return {*COMMON_KEYWORDS, *OWN_KEYWORDS, *(key.keyword for key in keys)} - FILTERED


def is_usable(path: Path) -> bool:
    """Tell whether pydicom finds all the UIDs that an instance must have."""
    try:
        whole = dcmread(path, stop_before_pixels=True)
        meta = whole.file_meta
        uids = (
            meta.MediaStorageSOPClassUID,
            meta.MediaStorageSOPInstanceUID,
            meta.TransferSyntaxUID,
            whole.StudyInstanceUID,
            whole.SeriesInstanceUID,
        )
    except AttributeError:
        return False
    return all(uids)


def or_none(value: object) -> object:
    """Empty is as good as absent: an empty sequence, a text of no characters."""
    if isinstance(value, Dataset | MultiValue | int):
        return value
    return value or None


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about what is wrong with its own samples
@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.name)
def test_reads_what_pydicom_reads(path: Path) -> None:
    if not is_usable(path):
        with pytest.raises(InvalidInstance):
            read_instance(path)
        return
    expected = dcmread(path, stop_before_pixels=True)
    instance = read_instance(path)
    assert instance.path == str(path)
    assert instance.size == path.stat().st_size
    assert instance.SOPClassUID == expected.file_meta.MediaStorageSOPClassUID
    assert instance.SOPInstanceUID == expected.file_meta.MediaStorageSOPInstanceUID
    assert instance.TransferSyntaxUID == expected.file_meta.TransferSyntaxUID
    assert instance.StudyInstanceUID == expected.StudyInstanceUID
    assert instance.SeriesInstanceUID == expected.SeriesInstanceUID
    got = instance.dataset()
    for keyword in keywords_of(instance):
        assert or_none(got.get(keyword)) == or_none(expected.get(keyword)), keyword


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_samples_have_every_encoding() -> None:
    usable = {read_instance(path).TransferSyntaxUID for path in real_files() if is_usable(path)}
    assert set(SYNTAXES) <= usable


def report() -> Dataset:
    def code(value: str) -> Dataset:
        one = Dataset()
        one.CodeValue, one.CodingSchemeDesignator, one.CodeMeaning = value, "DCM", "Büro"
        return one

    def content(relationship: str, value: str) -> Dataset:
        one = Dataset()
        one.RelationshipType = relationship
        one.ConceptNameCodeSequence = [code(value)]
        one.ContentSequence = [Dataset()]
        one.ContentSequence[0].NumericValue = "1"
        return one

    first, last = Dataset(), Dataset()
    first.VerificationDateTime, last.VerificationDateTime = "20200101", "20210101120000"
    return dataset(
        BasicTextSRStorage,
        SpecificCharacterSet="ISO_IR 100",
        PatientName="Müller^Jürgen",
        ContentDate="20240301",
        CompletionFlag="COMPLETE",
        VerificationFlag="VERIFIED",
        ConceptNameCodeSequence=[code("1")],
        VerifyingObserverSequence=[first, last],
        ContentSequence=[content("CONTAINS", "2"), content("HAS CONCEPT MOD", "3")],
    )


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined_lengths", [False, True])
def test_a_report_is_the_same_in_every_encoding(tmp_path: Path, syntax: str, undefined_lengths: bool) -> None:
    whole = report()
    for element in whole.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined_lengths
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined_lengths
    read = read_instance(write(tmp_path / "a", part10(whole, syntax)))
    plain = read_instance(write(tmp_path / "b", part10(report())))
    assert (read.attributes, read.common) == (plain.attributes, plain.common)
    got = read.dataset()
    assert got.PatientName == "Müller^Jürgen"
    assert got.VerificationDateTime == "20210101120000"
    assert "VerifyingObserverSequence" not in got
    assert got.ConceptNameCodeSequence[0].CodeMeaning == "Büro"
    assert [item.ConceptNameCodeSequence[0].CodeValue for item in got.ContentSequence] == ["3"]
    assert got.ContentSequence[0].ContentSequence[0].NumericValue == 1


def test_only_the_references_of_a_blending_are_kept(tmp_path: Path) -> None:
    blending, series = Dataset(), Dataset()
    series.SeriesInstanceUID = "1.2.9.1"
    blending.StudyInstanceUID = "1.2.9"
    blending.ReferencedSeriesSequence = [series]
    blending.BlendingPosition = "SUPERIMPOSED"
    whole = dataset(BlendingSoftcopyPresentationStateStorage, BlendingSequence=[blending])
    [kept] = read_instance(write(tmp_path / "a", part10(whole))).dataset().BlendingSequence
    assert kept.StudyInstanceUID == "1.2.9"
    assert kept.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.9.1"
    assert "BlendingPosition" not in kept


def test_numbers_are_turned_around_from_big_endian(tmp_path: Path) -> None:
    whole = dataset(Rows=513, Columns=2, NumberOfFrames="3")
    got = read_instance(write(tmp_path / "a", part10(whole, ExplicitVRBigEndian))).dataset()
    assert (got.Rows, got.Columns, got.NumberOfFrames) == (513, 2, 3)


@pytest.mark.parametrize(
    "missing", ["MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID"]
)
def test_a_file_without_a_uid_in_its_meta_is_refused(tmp_path: Path, missing: str) -> None:
    meta = {"MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID"} - {missing}
    content = part10(dataset(), meta=sorted(meta))
    with pytest.raises(InvalidInstance, match="lacks a UID"):
        read_instance(write(tmp_path / "a", content))


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, ""])
def test_an_instance_of_no_study_or_series_is_refused(
    tmp_path: Path, keyword: str, value: str | None
) -> None:
    attributes: dict[str, Any] = {keyword: value}
    with pytest.raises(InvalidInstance, match="lacks a UID"):
        read_instance(write(tmp_path / "a", part10(dataset(**attributes))))


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(132), bytes(128) + b"DICM", b"\x89PNG" * 100])
def test_what_is_no_part_10_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidInstance):
        read_instance(write(tmp_path / "a", content))


def test_a_file_that_is_not_there_is_no_invalid_instance(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_instance(tmp_path / "a")


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "test-SR.dcm", "rtplan.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm"]
)
def test_a_truncated_file_is_refused_or_read_whole(tmp_path: Path, name: str) -> None:
    whole = real_file(name).read_bytes()
    expected = read_instance(real_file(name))
    head = whole[:12_000]
    for length in range(0, len(head), 37):
        path = write(tmp_path / "a", head[:length])
        try:
            got = read_instance(path)
        except InvalidInstance:
            continue
        # A file that ends where an element does can't be told from one that is whole.
        assert expected.attributes.startswith(got.attributes), length
        assert expected.common.startswith(got.common), length


def element(tag: int, vr: bytes, length: bytes, value: bytes = b"") -> bytes:
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + length + value


def with_first(content: bytes, first: bytes) -> bytes:
    """Put an element before the data set of an Explicit VR Little Endian file."""
    at = content.index(b"\x08\x00\x16\x00UI")
    return content[:at] + first + content[at:]


@pytest.mark.parametrize(
    "first",
    [
        element(0x00080005, b"CS", b"\xff\xff", b"ISO_IR 100"),
        element(0x00080005, b"CS", b"\xfe\xff", b"ISO_IR 100"),
        element(0x00080001, b"UN", b"\0\0\xfe\xff\xff\xff"),
        element(0x00080001, b"SQ", b"\0\0\xf0\xff\xff\x7f"),
        element(0x00080001, b"SQ", b"\0\0" + UNDEFINED, b"garbage-garbage"),
        element(0x00080001, b"SQ", b"\0\0" + UNDEFINED, ITEM + b"\xf0\xff\xff\xff"),
        element(0x00080001, b"UN", b"\0\0" + UNDEFINED, ITEM + UNDEFINED),
        element(0x00080001, b"SQ", b"\0\0" + UNDEFINED, ITEM),
        element(0x00080001, b"OB", b"\0"),
    ],
)
def test_a_length_that_lies_is_refused(tmp_path: Path, first: bytes) -> None:
    with pytest.raises(InvalidInstance):
        read_instance(write(tmp_path / "a", with_first(part10(dataset()), first)))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("SOPClassUID", [CTImageStorage, BasicTextSRStorage])
def test_sequences_a_thousand_deep_are_refused(tmp_path: Path, syntax: str, SOPClassUID: str) -> None:
    explicit = element(0x00081115, b"SQ", b"\0\0" + UNDEFINED)
    implicit = element(0x00081115, b"", UNDEFINED)
    level = (explicit if syntax == ExplicitVRLittleEndian else implicit) + ITEM + UNDEFINED
    content = part10(dataset(SOPClassUID), syntax)
    at = content.index(b"\x08\x00\x16\x00")
    with pytest.raises(InvalidInstance, match="deep"):
        read_instance(write(tmp_path / "a", content[:at] + level * 1000 + content[at:]))


def test_sequences_of_defined_length_may_not_be_deep_where_they_are_kept(tmp_path: Path) -> None:
    value = b""
    for _ in range(200):
        item = ITEM + struct.pack("<I", len(value)) + value
        value = element(0x0040A043, b"SQ", b"\0\0" + struct.pack("<I", len(item)), item)
    with pytest.raises(InvalidInstance, match="deep"):
        read_instance(write(tmp_path / "a", with_first(part10(dataset(BasicTextSRStorage)), value)))


def deflated_meta() -> bytes:
    """Give all that comes before a deflated data set."""
    content = part10(dataset(), DeflatedExplicitVRLittleEndian)
    syntax = DeflatedExplicitVRLittleEndian.encode("ascii")
    return content[: content.index(syntax) + len(syntax)]


def test_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    zeros = 1 << 28
    bomb = element(0x00080001, b"UN", b"\0\0" + struct.pack("<I", zeros)) + bytes(zeros)
    deflater = zlib.compressobj(9, wbits=-15)
    deflated = deflater.compress(bomb) + deflater.flush()
    with pytest.raises(InvalidInstance, match="inflates"):
        read_instance(write(tmp_path / "a", deflated_meta() + deflated))


def test_deflated_garbage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInstance, match="inflated"):
        read_instance(write(tmp_path / "a", deflated_meta() + b"\xff" * 100))


class Reads:
    """Counts the bytes that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.pread = os.pread
        monkeypatch.setattr(os, "pread", self)

    def __call__(self, descriptor: int, length: int, offset: int) -> bytes:
        read = self.pread(descriptor, length, offset)
        self.count += len(read)
        return read


def test_of_a_large_file_only_the_head_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a", part10(dataset(), pixels=b"\0\0"))
    size = 500_000_000
    os.truncate(path, size)
    reads = Reads(monkeypatch)
    assert read_instance(path).size == size
    assert reads.count <= part10_module.HEAD_LENGTH


@pytest.mark.parametrize("undefined_length", [False, True])
def test_a_head_of_a_megabyte_is_read_in_linear_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undefined_length: bool
) -> None:
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2"
    whole = dataset(ReferencedImageSequence=[item] * 50_000)
    whole["ReferencedImageSequence"].is_undefined_length = undefined_length
    path = write(tmp_path / "a", part10(whole))
    reads = Reads(monkeypatch)
    assert read_instance(path).StudyInstanceUID == "1.2.3"
    assert reads.count <= (4 * path.stat().st_size if undefined_length else 2 * part10_module.HEAD_LENGTH)


def test_an_element_beyond_all_reason_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part10_module, "LONGEST_ELEMENT", 100_000)
    whole = dataset(ReferencedImageSequence=[Dataset()] * 50_000)
    whole["ReferencedImageSequence"].is_undefined_length = True
    with pytest.raises(InvalidInstance, match="too long"):
        read_instance(write(tmp_path / "a", part10(whole)))


def test_a_sequence_that_is_kept_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a", part10(report()))
    monkeypatch.setattr(part10_module, "LONGEST_KEPT", 10)
    with pytest.raises(InvalidInstance, match="too long"):
        read_instance(path)


def test_a_text_that_is_too_long_is_refused(tmp_path: Path) -> None:
    content = part10(dataset(), ImplicitVRLittleEndian)
    name = b"\x10\x00\x10\x00\x08\x00\x00\x00Doe^Jane"
    assert name in content
    long = b"\x10\x00\x10\x00" + struct.pack("<I", 70_000) + b"x" * 70_000
    with pytest.raises(InvalidInstance, match="too long"):
        read_instance(write(tmp_path / "a", content.replace(name, long)))


def test_a_text_that_is_no_text_counts_as_absent(tmp_path: Path) -> None:
    content = part10(dataset())
    name = b"\x10\x00\x10\x00PN\x08\x00Doe^Jane"
    for other in (b"US\x08\x00Doe^Jane", b"SQ\0\0\0\0\0\0"):
        replaced = content.replace(name, name[:4] + other)
        assert "PatientName" not in read_instance(write(tmp_path / "a", replaced)).dataset()


def test_a_file_may_be_filled_up_with_zeros(tmp_path: Path) -> None:
    content = part10(dataset())
    for zeros in (1, 7, 8, 100_000):
        read_instance(write(tmp_path / "a", content + bytes(zeros)))


def test_an_implicit_data_set_that_is_called_explicit_is_read(tmp_path: Path) -> None:
    content = part10(dataset(), ImplicitVRLittleEndian)
    renamed = content.replace(b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.4.50"[:17] + b"\0")
    lying = part10(dataset())
    at, start = lying.index(b"\x08\x00\x16\x00"), renamed.index(b"\x08\x00\x16\x00")
    path = write(tmp_path / "a", lying[:at] + content[start:])
    assert read_instance(path).dataset().PatientName == "Doe^Jane"


def test_a_text_of_unknown_vr_gets_the_right_one(tmp_path: Path) -> None:
    content = part10(dataset(PatientName="Doe^Jane"))
    name = b"\x10\x00\x10\x00PN\x08\x00Doe^Jane"
    unknown = b"\x10\x00\x10\x00UN\x00\x00\x08\x00\x00\x00Doe^Jane"
    assert name in content
    got = read_instance(write(tmp_path / "a", content.replace(name, unknown))).dataset()
    assert got["PatientName"].VR == "PN"
    assert got.PatientName == "Doe^Jane"


def test_an_odd_length_is_made_even(tmp_path: Path) -> None:
    content = part10(dataset())
    odd = content.replace(b"\x10\x00\x20\x00LO\x02\x00P1", b"\x10\x00\x20\x00LO\x03\x00P12")
    instance = read_instance(write(tmp_path / "a", odd))
    assert instance.dataset().PatientID == "P12"
    assert b"LO\x04\x00P12 " in instance.common


def test_instances_of_a_series_share_what_they_have_in_common(tmp_path: Path) -> None:
    first, second = (
        read_instance(
            write(tmp_path / number, part10(dataset(SOPInstanceUID=f"1.{number}", InstanceNumber=number)))
        )
        for number in "12"
    )
    assert first.common is second.common
    assert first.StudyInstanceUID is second.StudyInstanceUID
    assert first.attributes != second.attributes
    assert len(first.attributes) < 100


def test_no_file_stays_open(tmp_path: Path) -> None:
    good = write(tmp_path / "a", part10(dataset()))
    bad = write(tmp_path / "b", part10(dataset())[:400])
    before = len(list(Path("/proc/self/fd").iterdir()))
    read_instance(good)
    with pytest.raises(InvalidInstance):
        read_instance(bad)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


BASES = [
    real_file(name).read_bytes()[:8_000]
    for name in ("CT_small.dcm", "test-SR.dcm", "rtplan.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm")
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.sampled_from(BASES),
    changes=st.lists(
        st.tuples(st.integers(128, 7_999), st.binary(min_size=1, max_size=6)), min_size=1, max_size=8
    ),
    length=st.integers(0, 8_000),
)
def test_mutated_files_are_read_or_refused(
    tmp_path: Path, base: bytes, changes: list[tuple[int, bytes]], length: int
) -> None:
    content = bytearray(base)
    for at, change in changes:
        content[at : at + len(change)] = change
    path = write(tmp_path / "a", bytes(content[: max(length, 2_000)]))
    try:
        instance = read_instance(path)
    except InvalidInstance:
        return
    assert instance.StudyInstanceUID
    assert len(instance.attributes) + len(instance.common) <= 2 * len(content)

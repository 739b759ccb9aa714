"""Reading a data set's UIDs from its first bytes, against pydicom and against nonsense."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, Sequence, dcmread
from pydicom.uid import (
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pacsbridge.dimse.identity import Identity, read_identity
from tests.dimse.support import Sample, encode
from tests.studies import real_files


def identity_of(sample: Sample) -> Identity:
    return Identity(sample.SOPClassUID, sample.SOPInstanceUID, sample.StudyInstanceUID)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_reads_each_encoding(syntax: str) -> None:
    sample = Sample()
    assert read_identity(sample.encoded(syntax), syntax) == identity_of(sample)


def test_reads_a_deflated_data_set() -> None:
    sample = Sample()
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(sample.encoded()) + deflater.flush()
    assert read_identity(deflated, DeflatedExplicitVRLittleEndian) == identity_of(sample)
    assert read_identity(deflated[: len(deflated) - 8], DeflatedExplicitVRLittleEndian) == identity_of(sample)
    assert read_identity(b"\xff" * 100, DeflatedExplicitVRLittleEndian) == Identity()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("undefined", [False, True])
def test_is_not_fooled_by_what_a_sequence_holds(syntax: str, undefined: bool) -> None:
    sample, other = Sample(), Sample()
    dataset = sample.dataset()
    inner = Dataset()
    inner.SOPClassUID, inner.SOPInstanceUID = other.SOPClassUID, other.SOPInstanceUID
    inner.StudyInstanceUID = other.StudyInstanceUID
    deeper = Dataset()
    deeper.ReferencedSOPSequence = Sequence([inner, inner])
    dataset.LanguageCodeSequence = Sequence([deeper])  # (0008,0006): before the SOP UIDs
    dataset.SourceImageSequence = Sequence([deeper, inner])
    if undefined:
        for element in (dataset["LanguageCodeSequence"], dataset["SourceImageSequence"]):
            element.is_undefined_length = True
        for item in (deeper, inner):
            item.is_undefined_length_sequence_item = True
        deeper["ReferencedSOPSequence"].is_undefined_length = True
    assert read_identity(encode(dataset, syntax), syntax) == identity_of(sample)


def test_reads_a_sequence_of_unknown_vr() -> None:
    """UN of undefined length holds implicit VR (PS3.5, 6.2.2)."""
    sample, other = Sample(), Sample()
    inner = encode(other.dataset(), ImplicitVRLittleEndian)
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner + b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"
    unknown = b"\x08\x00\x06\x00UN\x00\x00\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    assert read_identity(unknown + sample.encoded(), ExplicitVRLittleEndian) == identity_of(sample)


def test_a_likely_study_is_taken_at_its_word() -> None:
    sample = Sample()
    data = sample.encoded()
    assert read_identity(data, ExplicitVRLittleEndian, ["1.9", sample.StudyInstanceUID]) == identity_of(
        sample
    )
    assert read_identity(data, ExplicitVRLittleEndian, ["1.9"]) == identity_of(sample)


def test_what_is_cut_off_is_absent() -> None:
    sample = Sample()
    data = sample.encoded()
    whole = data.index(sample.StudyInstanceUID.encode()) + len(sample.StudyInstanceUID)
    whole += whole % 2
    for length in range(whole):
        identity = read_identity(data[:length], ExplicitVRLittleEndian)
        assert not identity.complete
        assert identity.SOPInstanceUID in ("", sample.SOPInstanceUID)
    assert read_identity(data[:whole], ExplicitVRLittleEndian).complete


@pytest.mark.parametrize(
    ("named", "written"),
    [(ExplicitVRLittleEndian, ImplicitVRLittleEndian), (ImplicitVRLittleEndian, ExplicitVRLittleEndian)],
)
def test_sees_through_a_wrong_transfer_syntax(named: str, written: str) -> None:
    sample = Sample()
    assert read_identity(sample.encoded(written), named) == identity_of(sample)


@pytest.mark.filterwarnings("ignore::UserWarning")  # the files are odd on purpose, and pydicom says so
def test_agrees_with_pydicom_on_its_own_files() -> None:
    compared = 0
    for path in real_files(unique=False):
        dataset = dcmread(path, stop_before_pixels=True)
        expected = Identity(dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.StudyInstanceUID)
        syntax = dataset.file_meta.TransferSyntaxUID
        head = path.read_bytes()[144 + dataset.file_meta.FileMetaInformationGroupLength :][: 1 << 16]
        assert read_identity(head, syntax) == expected, path.name
        compared += 1
    assert compared > 100


@given(data=st.binary(max_size=400), syntax=st.sampled_from(sorted(AllTransferSyntaxes)))
def test_takes_any_bytes(data: bytes, syntax: str) -> None:
    read_identity(data, syntax)


@given(st.data())
def test_takes_mutated_data_sets(data: st.DataObject) -> None:
    encoded = bytearray(Sample("1.2.3", "1.2.4", "1.2.5", pixels=250).encoded())
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    read_identity(encoded, ExplicitVRLittleEndian)

import io
import os
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, FileDataset
from pydicom.data import get_testdata_file, get_testdata_files
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from pacsbridge.errors import SourceChanged, SpoolFull
from pacsbridge.instance import Instance
from pacsbridge.media import transcode as module
from pacsbridge.media.decompress import Undecodable
from pacsbridge.media.transcode import transcode
from tests.peers import require

# pydicom's files are broken in many ways on purpose, and it warns of each.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

MPEG4 = "1.2.840.10008.1.2.4.102"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
#: What pydicom's own plugins can't decode, or what is broken.
UNDECODABLE = {
    "JPEG-lossy.dcm",  # a scan header that libjpeg refuses
    "JPEG2000-embedded-sequence-delimiter.dcm",  # cut off
    "SC_rgb_jpeg.dcm",  # Implicit VR under a transfer syntax of Explicit VR
    "emri_small_jpeg_2k_lossless_too_short.dcm",  # a file that ends within its pixel data
    "rtplan_truncated.dcm",
    "rtdose_expb.dcm",  # Big Endian pixels of 32 bits
    "rtdose_expb_1frame.dcm",
    "SC_rgb_expb_16bit.dcm",  # Big Endian pixels of 16 bits under OB
    "SC_rgb_expb_16bit_2frame.dcm",
    "SC_rgb_expb_32bit.dcm",
    "SC_rgb_expb_32bit_2frame.dcm",
}


def real_files() -> list[Path]:
    found: dict[str, Path] = {}
    for name in sorted(get_testdata_files("**/*.dcm")):
        path = Path(name)
        data = path.read_bytes()[:2000]
        syntax = data.partition(b"UI")[0] and pydicom_syntax(path) if data[128:132] == b"DICM" else ""
        if syntax and syntax != ExplicitVRLittleEndian:
            found.setdefault(path.name, path)
    return list(found.values())


def pydicom_syntax(path: Path) -> str:
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
    except (pydicom.errors.InvalidDicomError, ValueError):
        return ""
    return str(meta.get("TransferSyntaxUID", ""))


def instance_of(path: Path) -> Instance:
    return Instance(str(path), path.stat().st_size, "", "", pydicom_syntax(path), "", "", b"")


def copy_of(source: Path, folder: Path) -> Path:
    path = folder / "I0000001"
    path.write_bytes(source.read_bytes())
    return path


def new_image(**attributes: object) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CT_IMAGE_STORAGE
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = 4
    dataset.Columns = 6
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.PixelData = np.arange(24, dtype="<u2").tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def write(dataset: Dataset, path: Path, syntax: str) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.UID(CT_IMAGE_STORAGE)
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3.4")
    uid = meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    meta.ImplementationClassUID = pydicom.uid.UID("1.2.3")
    file = FileDataset(
        path,
        dataset,
        file_meta=meta,
        preamble=bytes(128),
        is_implicit_VR=uid.is_implicit_VR,
        is_little_endian=uid.is_little_endian,
    )
    file.save_as(path, enforce_file_format=True)
    return path


def without_pixels(dataset: Dataset) -> dict[int, object]:
    ignored = {0x7FE00010, 0x00280004, 0x00280006, 0x00282110, 0x00282112, 0x00282114}
    return {
        int(element.tag): (element.VR, element.value)
        for element in dataset
        if element.tag.element != 0 and int(element.tag) not in ignored and "Lookup" not in element.name
    }


@pytest.mark.parametrize("source", real_files(), ids=lambda path: path.name)
def test_real_files_keep_their_pixels_and_elements(source: Path, tmp_path: Path) -> None:
    path = copy_of(source, tmp_path)
    if source.name in UNDECODABLE:
        with pytest.raises(Undecodable):
            transcode(instance_of(path))
        assert path.read_bytes() == source.read_bytes()
        assert list(tmp_path.iterdir()) == [path]
        return
    made = transcode(instance_of(path))
    before, after = pydicom.dcmread(source), pydicom.dcmread(path)
    assert made.TransferSyntaxUID == ExplicitVRLittleEndian == after.file_meta.TransferSyntaxUID
    assert made.size == path.stat().st_size
    assert list(tmp_path.iterdir()) == [path]
    assert without_pixels(after) == without_pixels(before)
    if "PixelData" in before and "Rows" in before and "BitsAllocated" in before:
        np.testing.assert_array_equal(after.pixel_array, before.pixel_array)
        if source.name != "GDCMJ2K_TextGBR.dcm":  # the file itself has an odd name for its colours
            assert after.PhotometricInterpretation in {
                *("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL")
            }


@pytest.mark.parametrize(
    "name",
    ["CT_small.dcm", "MR_small_implicit.dcm", "693_J2KR.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm"],
)
def test_again_changes_nothing(name: str, tmp_path: Path) -> None:
    path = copy_of(Path(str(get_testdata_file(name))), tmp_path)
    instance = instance_of(path)
    first = transcode(instance)
    content = path.read_bytes()
    assert transcode(instance) == first  # by the record of before
    assert transcode(first) == first
    assert path.read_bytes() == content


def test_explicit_little_endian_goes_through_byte_for_byte(tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("CT_small.dcm")))
    path = copy_of(source, tmp_path)
    before = path.stat().st_mtime_ns
    transcode(instance_of(path))
    assert path.read_bytes() == source.read_bytes()
    assert path.stat().st_mtime_ns == before


def dump(path: Path) -> list[str]:
    done = subprocess.run(
        [require("dcmdump"), "+L", "-q", str(path)], capture_output=True, text=True, check=True
    )
    return [line for line in done.stdout.splitlines() if line.startswith((" ", "("))]


@pytest.mark.parametrize(
    "name", ["MR_small_implicit.dcm", "MR_small_bigendian.dcm", "rtplan.dcm", "rtdose.dcm"]
)
def test_dcmtk_makes_the_same_of_it(name: str, tmp_path: Path) -> None:
    path = copy_of(Path(str(get_testdata_file(name))), tmp_path)
    subprocess.run([require("dcmconv"), "+te", "-g", str(path), str(tmp_path / "dcmtk")], check=True)
    transcode(instance_of(path))
    ours, theirs = (
        [line for line in dump(file) if "UN " not in line and "(0002," not in line]
        for file in (path, tmp_path / "dcmtk")
    )
    private = {line.strip()[:11] for line in dump(path) if line.strip()[11:14] == " UN"}
    assert [strip_sizes(line) for line in ours] == [
        strip_sizes(line) for line in theirs if line.strip()[:11] not in private
    ]


def strip_sizes(line: str) -> str:
    """Leave out the lengths of sequences and items: dcmconv writes them anew."""
    text = line.partition("#")[0].strip()
    return text.partition(" (")[0] if " SQ " in text or "(fffe," in text else text


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("signed", [0, 1])
def test_elements_whose_vr_depends_on_others(syntax: str, signed: int, tmp_path: Path) -> None:
    dataset = new_image(PixelRepresentation=signed)
    vr = "SS" if signed else "US"
    dataset.add_new(0x00280106, vr, 5)
    dataset.add_new(0x00280120, vr, 7)
    item = Dataset()
    item.add_new(0x00283002, "US", [3, 0, 16])
    item.add_new(0x00283006, "OW", struct.pack("<3H", 1, 2, 3))
    single = Dataset()
    single.add_new(0x00283002, "US", [1, 0, 16])
    single.add_new(0x00283006, "US", 9)
    dataset.ModalityLUTSequence = Sequence([item])
    dataset.VOILUTSequence = Sequence([single])
    mapping = Dataset()
    mapping.add_new(0x00409211, vr, 12)
    dataset.RealWorldValueMappingSequence = Sequence([mapping])
    icon = new_image(BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=bytes(24), Columns=6)
    del icon.SOPClassUID
    dataset.IconImageSequence = Sequence([icon])
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.arange(24, dtype=">u2").tobytes()
        item.LUTData = struct.pack(">3H", 1, 2, 3)
        icon["PixelData"].VR = "OB"
    path = write(dataset, tmp_path / "I", syntax)
    transcode(instance_of(path))
    after = pydicom.dcmread(path)
    assert (after[0x00280106].VR, after[0x00280106].value) == (vr, 5)
    assert (after[0x00280120].VR, after[0x00280120].value) == (vr, 7)
    assert vr == after.RealWorldValueMappingSequence[0][0x00409211].VR
    lut = after.ModalityLUTSequence[0]["LUTData"]
    assert (lut.VR, lut.value) == ("OW", struct.pack("<3H", 1, 2, 3))
    assert (after.VOILUTSequence[0]["LUTData"].VR, after.VOILUTSequence[0]["LUTData"].value) == ("US", 9)
    assert after["PixelData"].VR == "OW"
    assert after.IconImageSequence[0]["PixelData"].VR == "OB"
    np.testing.assert_array_equal(after.pixel_array, np.arange(24).reshape(4, 6))


def test_private_and_unknown_elements_of_implicit_vr_are_un(tmp_path: Path) -> None:
    dataset = new_image()
    dataset.add_new(0x00091001, "UN", b"\x01\x02\x03\x04")
    dataset.private_block(0x0009, "MAKER", create=True)
    dataset.add_new(0x00081234, "UN", b"??")
    path = write(dataset, tmp_path / "I", ImplicitVRLittleEndian)
    transcode(instance_of(path))
    after = pydicom.dcmread(path)
    assert (after[0x00090010].VR, after[0x00090010].value) == ("LO", "MAKER")
    assert (after[0x00091001].VR, after[0x00091001].value) == ("UN", b"\x01\x02\x03\x04")
    assert after[0x00081234].VR == "UN"


def test_texts_are_copied_even_when_they_do_not_decode(tmp_path: Path) -> None:
    dataset = new_image(PatientName="MARK")
    dataset.SpecificCharacterSet = "ISO_IR 192"
    path = write(dataset, tmp_path / "I", ImplicitVRLittleEndian)
    path.write_bytes(path.read_bytes().replace(b"MARK", b"\xff\xfe\\\xe9"))
    transcode(instance_of(path))
    assert b"\x10\x00\x10\x00PN\x04\x00\xff\xfe\\\xe9" in path.read_bytes()


def test_a_long_value_of_a_short_vr_becomes_un(tmp_path: Path) -> None:
    dataset = new_image()
    dataset.add_new(0x00081160, "UN", b"1\\" * 40_000)  # IS in the dictionary
    path = write(dataset, tmp_path / "I", ImplicitVRLittleEndian)
    transcode(instance_of(path))
    assert pydicom.dcmread(path)["PixelData"].VR == "OW"
    assert b"\x08\x00\x60\x11UN\0\0" + struct.pack("<L", 80_000) in path.read_bytes()


def test_group_lengths_are_dropped(tmp_path: Path) -> None:
    path = write(new_image(), tmp_path / "I", ImplicitVRLittleEndian)
    subprocess.run([require("dcmconv"), "+g", "+ti", str(path), str(tmp_path / "J")], check=True)
    assert b"\x28\x00\x00\x00\x04\x00\x00\x00" in (tmp_path / "J").read_bytes()
    transcode(instance_of(tmp_path / "J"))
    assert all(element.tag.element for element in pydicom.dcmread(tmp_path / "J"))


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_sequences_keep_their_kind_of_length(undefined: bool, syntax: str, tmp_path: Path) -> None:
    inner = Dataset()
    inner.CodeValue = "1"
    outer = Dataset()
    outer.ConceptCodeSequence = Sequence([inner, inner])
    dataset = new_image(ContentSequence=Sequence([outer]))
    for held, keyword in ((dataset, "ContentSequence"), (outer, "ConceptCodeSequence")):
        held[keyword].is_undefined_length = undefined
    for item in (inner, outer):
        item.is_undefined_length_sequence_item = undefined
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.arange(24, dtype=">u2").tobytes()
    path = write(dataset, tmp_path / "I", syntax)
    transcode(instance_of(path))
    after = pydicom.dcmread(path)
    assert after["ContentSequence"].is_undefined_length == undefined
    assert [code.CodeValue for code in after.ContentSequence[0].ConceptCodeSequence] == ["1", "1"]


def test_un_of_undefined_length_is_a_sequence_in_implicit_vr(tmp_path: Path) -> None:
    path = write(new_image(PixelData=bytes(48)), tmp_path / "I", ExplicitVRBigEndian)
    content = path.read_bytes()
    private = (
        b"\x00\x09\x00\x10LO\x00\x04MAKE"
        b"\x00\x09\x10\x01UN\0\0\xff\xff\xff\xff"
        + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
        + struct.pack("<HHL4s", 0x0008, 0x0100, 4, b"CODE")
        + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
        + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    )
    at = content.index(b"\x00\x28\x00\x02")
    path.write_bytes(content[:at] + private + content[at:])
    transcode(instance_of(path))
    assert pydicom.dcmread(path)[0x00091001].value[0].CodeValue == "CODE"


def compressed(tmp_path: Path, frames: int = 3, **attributes: object) -> Path:
    """Write an RLE image of several frames."""
    dataset = new_image(NumberOfFrames=frames, **attributes)
    pixels = np.arange(frames * 24, dtype="<u2").reshape(frames, 4, 6)
    dataset.PixelData = pixels.tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.compress(RLELossless, pixels if frames > 1 else pixels[0], generate_instance_uid=False)
    return write(dataset, tmp_path / "I", RLELossless)


def test_frames_are_decoded_one_by_one(tmp_path: Path) -> None:
    path = compressed(tmp_path, 5)
    calls = []
    transcode(instance_of(path), lambda: calls.append(path.stat().st_size))
    assert len(calls) > 5
    np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array.ravel(), np.arange(120))


@pytest.mark.parametrize("frames", ["2", "4", "x"])
def test_more_or_fewer_frames_than_said_are_left_alone(frames: str, tmp_path: Path) -> None:
    path = compressed(tmp_path, 3)
    content = path.read_bytes().replace(
        b"\x28\x00\x08\x00IS\x02\x003 ", b"\x28\x00\x08\x00IS\x02\x00" + frames.encode() + b" "
    )
    path.write_bytes(content)
    with pytest.raises(Undecodable):
        transcode(instance_of(path))
    assert path.read_bytes() == content


def test_what_stands_behind_the_pixels_stays(tmp_path: Path) -> None:
    path = compressed(tmp_path)
    with path.open("ab") as file:
        file.write(struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, 4) + bytes(4))
    transcode(instance_of(path))
    assert pydicom.dcmread(path)[0xFFFCFFFC].value == bytes(4)


def test_a_compressed_icon_goes_and_a_plain_one_stays(tmp_path: Path) -> None:
    icon = Dataset()
    icon.Rows = 1
    icon.add_new(0x7FE00010, "OB", encapsulate([b"1234"]))
    icon["PixelData"].is_undefined_length = True
    path = compressed(tmp_path, IconImageSequence=Sequence([icon]))
    transcode(instance_of(path))
    assert "IconImageSequence" not in pydicom.dcmread(path)
    icon.add_new(0x7FE00010, "OB", b"1234")
    icon["PixelData"].is_undefined_length = False
    path = compressed(tmp_path, IconImageSequence=Sequence([icon]))
    transcode(instance_of(path))
    assert pydicom.dcmread(path).IconImageSequence[0].PixelData == b"1234"


def test_compressed_pixels_in_another_sequence_are_left_alone(tmp_path: Path) -> None:
    item = Dataset()
    item.add_new(0x7FE00010, "OB", encapsulate([b"1234"]))
    item["PixelData"].is_undefined_length = True
    outer = Dataset()
    outer.ReferencedImageSequence = Sequence([item])
    path = compressed(tmp_path, ContentSequence=Sequence([outer]))
    with pytest.raises(Undecodable, match="sequence"):
        transcode(instance_of(path))


LOSSY_FILES: dict[str, str] = {
    JPEGBaseline8Bit: "SC_rgb_jpeg_dcmtk.dcm",
    JPEG2000: "693_J2KI.dcm",
    JPEG2000Lossless: "693_J2KR.dcm",
}


@pytest.mark.parametrize("lossy", [None, "", "00", "01"])
@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000, JPEG2000Lossless])
def test_lossy_compression_is_not_forgotten(syntax: str, lossy: str | None, tmp_path: Path) -> None:
    name = LOSSY_FILES[syntax]
    dataset = pydicom.dcmread(str(get_testdata_file(name)))
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        dataset.pop(keyword, None)
    if lossy is not None:
        dataset.LossyImageCompression = lossy
    path = tmp_path / "I"
    dataset.save_as(path)
    transcode(instance_of(path))
    after = pydicom.dcmread(path)
    if syntax == JPEG2000Lossless:
        assert after.get("LossyImageCompression") == lossy
    elif syntax == JPEG2000 and lossy == "00":
        assert after.LossyImageCompression == "00"  # the transfer syntax allows lossless coding too
    else:
        assert after.LossyImageCompression == "01"
    if syntax == JPEGBaseline8Bit and lossy != "01":
        assert after.LossyImageCompressionMethod == "ISO_10918_1"
        assert float(after.LossyImageCompressionRatio) > 1


def test_a_compressed_syntax_without_pixels_is_only_named_anew(tmp_path: Path) -> None:
    dataset = new_image()
    del dataset.PixelData
    path = write(dataset, tmp_path / "I", JPEGBaseline8Bit)
    transcode(instance_of(path))
    after = pydicom.dcmread(path)
    assert after.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert after.Rows == 4


@pytest.mark.parametrize("syntax", [MPEG4, "1.2.840.10008.1.2.4.94", "1.2.3.4.5"])
@pytest.mark.parametrize("pixels", [True, False])
def test_video_and_unknown_syntaxes_are_left_alone(syntax: str, pixels: bool, tmp_path: Path) -> None:
    path = compressed(tmp_path)
    if not pixels:
        dataset = new_image()
        del dataset.PixelData
        write(dataset, path, RLELossless)
    content = path.read_bytes()
    uid = RLELossless.encode() + b"\0" * (len(RLELossless) % 2)
    padded = syntax.encode() + b"\0" * (len(syntax) % 2)
    content = content.replace(struct.pack("<H", len(uid)) + uid, struct.pack("<H", len(padded)) + padded)
    path.write_bytes(content)
    with pytest.raises(Undecodable):
        transcode(instance_of(path))
    assert path.read_bytes() == content


def deflated(data_set: bytes, path: Path) -> Path:
    write(new_image(), path, DeflatedExplicitVRLittleEndian)
    whole = path.read_bytes()
    meta = 132 + 12 + struct.unpack_from("<L", whole, 140)[0]
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path.write_bytes(whole[:meta] + deflater.compress(data_set) + deflater.flush())
    return path


def test_deflated_data_sets_are_inflated(tmp_path: Path) -> None:
    plain = write(new_image(PixelData=bytes(10_000_000)), tmp_path / "plain", ExplicitVRLittleEndian)
    whole = plain.read_bytes()
    meta = 132 + 12 + struct.unpack_from("<L", whole, 140)[0]
    path = deflated(whole[meta:], tmp_path / "I")
    transcode(instance_of(path))
    assert path.read_bytes()[-len(whole) + meta :] == whole[meta:]


@pytest.mark.parametrize("cut", [1, 20])
def test_a_cut_deflated_data_set_is_left_alone(cut: int, tmp_path: Path) -> None:
    path = deflated(os.urandom(1000), tmp_path / "I")
    os.truncate(path, path.stat().st_size - cut)
    with pytest.raises(Undecodable):
        transcode(instance_of(path))


def test_an_inflated_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_INFLATED", 1_000_000)
    path = deflated(bytes(10_000_000), tmp_path / "I")
    with pytest.raises(Undecodable, match="4 GiB"):
        transcode(instance_of(path))
    assert list(tmp_path.iterdir()) == [path]


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    "make", [compressed, lambda folder: write(new_image(), folder / "I", ImplicitVRLittleEndian)]
)
def test_stopping_leaves_the_file_as_it_was(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    content = path.read_bytes()

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        transcode(instance_of(path), stop)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_spool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compressed(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "decompress", full)
    with pytest.raises(SpoolFull):
        transcode(instance_of(path))
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    path = compressed(tmp_path)
    instance = instance_of(path)
    path.unlink()
    with pytest.raises(SourceChanged):
        transcode(instance)


SEEDS = ["MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "rtplan.dcm", "priv_SQ.dcm"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
    cut=st.floats(0.1, 1),
)
def test_broken_files_are_left_alone_or_become_readable(
    tmp_path: Path, name: str, changes: list[tuple[float, bytes]], cut: float
) -> None:
    data = bytearray(Path(str(get_testdata_file(name))).read_bytes()[:9000])
    for where, patch in changes:
        at = 132 + int(where * (len(data) - 140))
        data[at : at + len(patch)] = patch
    content = bytes(data[: int(cut * len(data))])
    path = tmp_path / "I"
    path.write_bytes(content)
    try:
        transcode(Instance(str(path), len(content), "", "", "", "", "", b""))
    except Undecodable:
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_deeply_nested_file_is_left_alone(tmp_path: Path) -> None:
    path = write(new_image(), tmp_path / "I", ImplicitVRLittleEndian)
    nest = struct.pack("<HHL", 0x0040, 0xA730, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    path.write_bytes(path.read_bytes() + nest * 5000)
    with pytest.raises(Undecodable, match="deep"):
        transcode(instance_of(path))


def test_a_length_that_lies_takes_no_memory(tmp_path: Path) -> None:
    path = write(new_image(), tmp_path / "I", ImplicitVRLittleEndian)
    buffer = io.BytesIO(path.read_bytes())
    buffer.seek(0, os.SEEK_END)
    buffer.write(struct.pack("<HHL", 0x7FE1, 0x1010, 0xFFFFFFF0))
    path.write_bytes(buffer.getvalue())
    with pytest.raises(Undecodable):
        transcode(instance_of(path))

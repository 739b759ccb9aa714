"""What others say of an image: isoinfo, xorriso, 7z, dcmtk, dicom3tools, pydicom; its files beside their sources."""

from __future__ import annotations

import subprocess
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEG2000Lossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from tests.media.directory import walk
from tests.media.test_dicomdir import dcmmkdir, differences, errors_of_dciodvfy, instances_of_pydicom, shape
from tests.peers import require

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

    from tests.media.directory import Record

#: What decoding pixels may change (PS3.5 8.2, PS3.3 C.7.6.3): the rest of the data set stays.
_OF_PIXELS = {
    "PixelData", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
}  # fmt: skip
#: Bytes without a meaning (PS3.10 7.2): Orthanc drops them.
_PADDING = "DataSetTrailingPadding"
_LOSSLESS = {JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless}
#: Decoders of lossy JPEG round differently (ITU-T T.83), and colour conversion adds to it.
_LOSSY_TOLERANCE = 4


@dataclass(frozen=True)
class Opened:
    """An image that was opened, and where its files are."""

    folder: Path

    @property
    def DICOMDIR(self) -> Path:
        return self.folder / "DICOMDIR"

    @property
    def dicom_files(self) -> list[Path]:
        return sorted(path for path in (self.folder / "DICOM").rglob("*") if path.is_file())

    def records(self) -> tuple[Record, ...]:
        return walk(self.DICOMDIR.read_bytes())

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def by_uid(self) -> dict[str, Path]:
        """Give the file of each SOP Instance UID."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {
                str(dcmread(path, stop_before_pixels=True).file_meta.MediaStorageSOPInstanceUID): path
                for path in self.dicom_files
            }


def open_image(content: bytes, folder: Path) -> Opened:
    """Open an image with isoinfo, xorriso and 7z, and extract it."""
    folder.mkdir(parents=True)
    image = folder / "disc.iso"
    image.write_bytes(content)
    listed = _judge("isoinfo", "-f", "-i", image).splitlines()
    assert "/DICOMDIR.;1" in listed
    described = _judge("isoinfo", "-d", "-i", image)
    assert "Joliet with UCS level 3 found" in described
    found = _judge("xorriso", "-indev", image, "-find", "/", "-type", "f")
    assert "FAILURE" not in found
    assert "Everything is Ok" in _judge("7z", "t", image)
    _judge("7z", "x", f"-o{folder / 'files'}", image)
    return Opened(folder / "files")


def judge_dicomdir(opened: Opened, instances: int) -> None:
    """Let dcmtk, dicom3tools and pydicom read the DICOMDIR, and dcmmkdir make one of the same tree."""
    ours = opened.records()
    leaves = [leaf for record in ours for leaf in record.leaves()]
    assert len(leaves) == instances == len(opened.dicom_files)
    dump = _judge("dcmdump", "-q", opened.DICOMDIR)
    assert dump.count("(0004,1500)") == instances
    assert errors_of_dciodvfy(opened.DICOMDIR) == []
    assert len(instances_of_pydicom(opened.DICOMDIR)) == instances
    theirs = dcmmkdir(opened.folder)
    assert _sorted(shape(ours)) == _sorted(shape(theirs))
    assert list(differences(ours, theirs)) == []


def encoded(path: Path) -> bytes:
    """Give the data set of a Part 10 file, as it is encoded there."""
    content = path.read_bytes()
    group_length = int.from_bytes(content[140:144], "little")
    return content[144 + group_length :]


def compare(made: Path, source: Path) -> str:
    """Say how a file of a disc differs from its source: empty when it doesn't."""
    if encoded(made) == encoded(source):
        return ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the real files are odd on purpose
        ours, theirs = dcmread(made), dcmread(source)
        decoded = ours.file_meta.TransferSyntaxUID != theirs.file_meta.TransferSyntaxUID
        of_pixels = _OF_PIXELS if decoded else set()
        differing = [
            keyword
            for keyword in sorted(_keywords(ours) | _keywords(theirs))
            if keyword not in of_pixels and _value(ours, keyword) != _value(theirs, keyword)
        ]
        if differing:
            return f"differs in {differing}"
        if not decoded or ours.get("PixelData") == theirs.get("PixelData"):
            return ""
        return _compare_pixels(made, source)


def _compare_pixels(made: Path, source: Path) -> str:
    ours, theirs = (pixel_array(str(path)) for path in (made, source))
    if ours.shape != theirs.shape:
        return f"has pixels of shape {ours.shape}, not {theirs.shape}"
    syntax = dcmread(source, stop_before_pixels=True).file_meta.TransferSyntaxUID
    tolerance = _LOSSY_TOLERANCE if syntax.is_compressed and syntax not in _LOSSLESS else 0
    furthest = int(np.abs(ours.astype(np.int64) - theirs.astype(np.int64)).max(initial=0))
    return f"has pixels that differ by {furthest}" if furthest > tolerance else ""


def _sorted(records: list[Any]) -> list[Any]:
    """Sort each level: studies are by date on our discs, dcmmkdir takes the files as they come."""
    return sorted(([kind, name, _sorted(below)] for kind, name, below in records), key=str)


def _keywords(ds: Dataset) -> set[str]:
    """Name the elements by keyword or tag; group lengths say nothing of the content (PS3.5 7.2)."""
    return {element.keyword or str(element.tag) for element in ds if element.tag.element != 0} - {_PADDING}


def _value(ds: Dataset, keyword: str) -> object:
    for element in ds:
        if keyword in (element.keyword, str(element.tag)):
            return element.value
    return None


def _judge(program: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [require(program), *map(str, arguments)],
        capture_output=True, text=True, errors="replace", timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    return done.stdout + done.stderr

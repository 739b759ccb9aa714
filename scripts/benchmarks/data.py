"""The studies that are measured with, generated: CT 600 × 527 KB in 3 series, MR 2,000 × 132 KB in 8."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import dcmread, dcmwrite
from pydicom.uid import UID

from pacsbridge.instance import Instance
from tests.studies import make_ct_series

#: Stands in the first file for the number of the instance, in its UID too; each other file has another there.
_FIRST = 1_000_000
_PIXELS_AT = b"\xe0\x7f\x10\x00OW"


@dataclass(frozen=True)
class Shape:
    """A study's size: `instances` in `series`, each a square of `pixels` × `pixels` of 16 bits."""

    series: int
    instances: int
    pixels: int


CT = Shape(series=3, instances=600, pixels=512)
MR = Shape(series=8, instances=2000, pixels=256)


@dataclass(frozen=True)
class Study:
    """A generated study."""

    AccessionNumber: str
    StudyInstanceUID: str
    folder: Path
    instances: tuple[Instance, ...]

    @property
    def paths(self) -> list[Path]:
        """Its files."""
        return [Path(instance.path) for instance in self.instances]

    @property
    def bytes(self) -> int:
        """The length of all its files."""
        return sum(instance.size for instance in self.instances)

    @property
    def series(self) -> dict[str, int]:
        """How many instances each series has, by SeriesInstanceUID."""
        counts: dict[str, int] = {}
        for instance in self.instances:
            counts[instance.SeriesInstanceUID] = counts.get(instance.SeriesInstanceUID, 0) + 1
        return counts


def make(folder: Path, accession_number: str, shape: Shape) -> Study:
    """Write a study below `folder`; a second call gives the same one, written anew."""
    instances: list[Instance] = []
    for number in range(1, shape.series + 1):
        share = shape.instances // shape.series + (number <= shape.instances % shape.series)
        place = folder / f"{accession_number}-{number}"
        instances += _write_series(place, accession_number, number, share, shape.pixels)
    return Study(accession_number, instances[0].StudyInstanceUID, folder, tuple(instances))


def _write_series(
    folder: Path, accession_number: str, number: int, count: int, pixels: int
) -> list[Instance]:
    """Write one series. The header is encoded once and then only numbered: 40,000 files take seconds."""
    [sample] = make_ct_series(folder, 1, accession_number=accession_number, size=pixels, number=number)
    whole = sample.read_bytes()
    sample.unlink()
    tail = whole[whole.rindex(_PIXELS_AT) :]
    ds = dcmread(BytesIO(whole), stop_before_pixels=True)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"{ds.SeriesInstanceUID}.{_FIRST}")
    ds.InstanceNumber = _FIRST
    buffer = BytesIO()
    dcmwrite(buffer, ds)
    head, first = buffer.getvalue(), str(_FIRST).encode()
    made = []
    for index in range(count):
        path = folder / f"{index:06}.dcm"
        with path.open("wb", buffering=0) as file:
            file.write(head.replace(first, str(_FIRST + index).encode()) + tail)
        made.append(
            Instance(
                path=str(path),
                size=len(head) + len(tail),
                SOPClassUID=ds.SOPClassUID,
                SOPInstanceUID=f"{ds.SeriesInstanceUID}.{_FIRST + index}",
                TransferSyntaxUID=ds.file_meta.TransferSyntaxUID,
                StudyInstanceUID=ds.StudyInstanceUID,
                SeriesInstanceUID=ds.SeriesInstanceUID,
                attributes=b"",
            )
        )
    return made

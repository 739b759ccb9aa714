"""A DICOMDIR walked by its offsets, for tests: what a viewer sees of it, and whether every link is right."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from pydicom import Dataset, dcmread

from pacsbridge.instance import read_instance
from pacsbridge.media.dicomdir import DirectoryEntry, encode_dicomdir
from tests.samples import part10

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

ITEM_TAG = b"\xfe\xff\x00\xe0"
LEVELS = ("PATIENT", "STUDY", "SERIES")
IN_USE = 0xFFFF


@dataclass(frozen=True)
class Record:
    """A directory record and those below it, in the order of the links."""

    kind: str
    keys: Dataset
    below: tuple[Record, ...]

    @property
    def FileID(self) -> str:
        value = self.keys.ReferencedFileID
        return value if isinstance(value, str) else "\\".join(value)

    def leaves(self) -> Iterator[Record]:
        if not self.below:
            yield self
        for record in self.below:
            yield from record.leaves()


def walk(content: bytes) -> tuple[Record, ...]:
    """Follow the offsets from the root; every record of the sequence has to be met once, at the right level."""
    whole = dcmread(BytesIO(content))
    assert whole.file_meta.MediaStorageSOPClassUID.name == "Media Storage Directory Storage"
    assert whole.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"
    assert whole.FileSetConsistencyFlag == 0
    items = {item.seq_item_tell: item for item in whole.DirectoryRecordSequence}
    met: list[int] = []

    def entity(offset: int, level: int) -> tuple[Record, ...]:
        found = []
        while offset:
            assert content[offset : offset + 4] == ITEM_TAG
            item = items[offset]
            met.append(offset)
            assert item.RecordInUseFlag == IN_USE
            assert (
                (item.DirectoryRecordType == LEVELS[level])
                if level < len(LEVELS)
                else ("ReferencedFileID" in item)
            )
            tags = [element.tag for element in item]
            assert tags == sorted(tags)
            below = entity(item.OffsetOfReferencedLowerLevelDirectoryEntity, level + 1)
            assert bool(below) == (level < len(LEVELS))
            found.append(Record(item.DirectoryRecordType, item, below))
            last = offset
            offset = item.OffsetOfTheNextDirectoryRecord
        if level == 0 and found:
            assert whole.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity == last
        return tuple(found)

    root = entity(whole.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity, 0)
    assert sorted(met) == sorted(items)
    return root


def put(folder: Path, datasets: Iterable[Dataset | Path]) -> list[DirectoryEntry]:
    """Write data sets, or copy files, below `folder` as they would be on a disc."""
    entries = []
    for number, source in enumerate(datasets, 1):
        FileID = ("DICOM", f"S{(number - 1) // 100 + 1:07}", f"I{number:07}")
        path = folder.joinpath(*FileID)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(part10(source) if isinstance(source, Dataset) else source.read_bytes())
        instance = read_instance(path)
        entries.append(DirectoryEntry(instance, FileID, instance.TransferSyntaxUID))
    return entries


def directory_of(folder: Path, datasets: Iterable[Dataset | Path]) -> tuple[Record, ...]:
    """Write data sets as on a disc, make their DICOMDIR, and walk it."""
    content = encode_dicomdir(put(folder, datasets), "TEST")
    (folder / "DICOMDIR").write_bytes(content)
    return walk(content)

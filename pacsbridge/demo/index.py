"""What the demo PACS holds: the headers of its files, and how they are queried (PS3.4 Annex C)."""

from __future__ import annotations

import threading
from copy import copy
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.errors import InvalidDicomError

from pacsbridge.demo.matching import matches, texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pydicom.uid import UID


class Level(IntEnum):
    """The levels of the Query/Retrieve information models, from the top (PS3.4 C.3)."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    IMAGE = 3


class IdentifierError(ValueError):
    """An identifier that breaks the rules of a hierarchical query (PS3.4 C.4.1.2.1)."""


#: The unique key of each level.
UNIQUE_KEYS = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}

#: Which attributes describe the patient, the study and the series; every other is the instance's own.
_LEVEL_OF = {
    keyword: level
    for level, keywords in {
        Level.PATIENT: "PatientID PatientName PatientBirthDate PatientSex IssuerOfPatientID OtherPatientIDs",
        Level.STUDY: (
            "StudyInstanceUID StudyDate StudyTime StudyID StudyDescription AccessionNumber "
            "ReferringPhysicianName PatientAge PatientSize PatientWeight InstitutionName"
        ),
        Level.SERIES: (
            "SeriesInstanceUID SeriesDate SeriesTime SeriesNumber SeriesDescription Modality "
            "BodyPartExamined ProtocolName Laterality PerformingPhysicianName Manufacturer StationName"
        ),
    }.items()
    for keyword in keywords.split()
}

#: What is counted or collected: of which entity, and which unique values of its instances.
_COUNTED = {
    "NumberOfPatientRelatedStudies": (Level.PATIENT, "StudyInstanceUID"),
    "NumberOfPatientRelatedSeries": (Level.PATIENT, "SeriesInstanceUID"),
    "NumberOfPatientRelatedInstances": (Level.PATIENT, "SOPInstanceUID"),
    "NumberOfStudyRelatedSeries": (Level.STUDY, "SeriesInstanceUID"),
    "NumberOfStudyRelatedInstances": (Level.STUDY, "SOPInstanceUID"),
    "NumberOfSeriesRelatedInstances": (Level.SERIES, "SOPInstanceUID"),
}
_COLLECTED = {
    "ModalitiesInStudy": (Level.STUDY, "Modality"),
    "SOPClassesInStudy": (Level.STUDY, "SOPClassUID"),
}
#: They say how to read an identifier, and are no keys.
_NO_KEYS = frozenset({"QueryRetrieveLevel", "SpecificCharacterSet"})


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One file of the PACS, with its header as it was."""

    path: Path
    TransferSyntaxUID: UID
    SOPClassUID: UID
    header: Dataset
    unique: tuple[str, str, str, str]
    """Its unique keys, by level."""


class Index:
    """The instances of a PACS, in the order in which they came; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._instances: dict[str, StoredInstance] = {}

    def __len__(self) -> int:
        with self._lock:
            return len(self._instances)

    def add(self, path: Path) -> StoredInstance:
        """Take in a Part 10 file; one with the same SOP Instance UID is replaced.

        Raises
        ------
        pydicom.errors.InvalidDicomError
            It is no DICOM file, or lacks one of the UIDs.
        """
        header = dcmread(path, stop_before_pixels=True)
        try:
            instance = StoredInstance(
                path,
                header.file_meta.TransferSyntaxUID,
                header.SOPClassUID,
                header,
                (
                    str(header.get("PatientID", "")),
                    str(header.StudyInstanceUID),
                    str(header.SeriesInstanceUID),
                    str(header.SOPInstanceUID),
                ),
            )
        except AttributeError as error:
            raise InvalidDicomError(f"{path.name}: {error}") from error
        with self._lock:
            self._instances[instance.unique[Level.IMAGE]] = instance
        return instance

    def scan(self, folder: Path) -> int:
        """Take in every DICOM file below `folder`, and give their number; other files are passed over."""
        count = 0
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                try:
                    self.add(path)
                    count += 1
                except InvalidDicomError:
                    continue
        return count

    def instances(self) -> list[StoredInstance]:
        """Give what is stored now."""
        with self._lock:
            return list(self._instances.values())

    def select(self, root: Level, identifier: Dataset) -> list[StoredInstance]:
        """Choose the instances that a C-MOVE identifier names by unique keys (PS3.4 C.4.2.2.1).

        Parameters
        ----------
        root
            The top of the information model: PATIENT or STUDY.

        Raises
        ------
        IdentifierError
            The level or a unique key is missing.
        """
        level = _level_of(root, identifier)
        _require(identifier, [UNIQUE_KEYS[one] for one in Level if root <= one <= level])
        return self._with_unique_keys(identifier, level)

    def find(self, root: Level, identifier: Dataset) -> Iterator[Dataset]:
        """Give the entities that match a C-FIND identifier, with the attributes that it asks for.

        Raises
        ------
        IdentifierError
            The level, or the unique key of a level above it, is missing.
        """
        level = _level_of(root, identifier)
        _require(identifier, [UNIQUE_KEYS[one] for one in Level if root <= one < level])
        entities: dict[tuple[str, ...], StoredInstance] = {}
        for instance in self._with_unique_keys(identifier, level):
            entities.setdefault(instance.unique[: level + 1], instance)
        for instance in entities.values():
            answer = self._answer(level, identifier, instance)
            if answer is not None:
                yield answer

    def _with_unique_keys(self, identifier: Dataset, level: Level) -> list[StoredInstance]:
        """Choose by UIDs first: cheap, and most queries name some."""
        wanted = {
            one: set(texts(identifier.get(UNIQUE_KEYS[one])))
            for one in Level
            if Level.STUDY <= one <= level and identifier.get(UNIQUE_KEYS[one])
        }
        chosen = [
            instance
            for instance in self.instances()
            if all(instance.unique[one] in uids for one, uids in wanted.items())
        ]
        if identifier.get("PatientID"):
            key = identifier["PatientID"]
            chosen = [instance for instance in chosen if matches(key, instance.unique[Level.PATIENT])]
        return chosen

    def _answer(self, level: Level, identifier: Dataset, instance: StoredInstance) -> Dataset | None:
        """Make the answer for one entity; None when it doesn't match."""
        answer = Dataset()
        if "SpecificCharacterSet" in instance.header:
            answer.SpecificCharacterSet = instance.header.SpecificCharacterSet
        answer.QueryRetrieveLevel = level.name
        for key in identifier:
            keyword = keyword_for_tag(key.tag)
            if keyword in _NO_KEYS or key.tag.element == 0:
                continue
            element = self._element(level, keyword, key, instance)
            if element is None:
                # An optional key that isn't supported at this level: returned empty, not matched.
                answer.add(DataElement(key.tag, key.VR, [] if key.VR == "SQ" else None))
            elif matches(key, element.value):
                answer.add(copy(element))  # whoever changes the answer must not change the index
            else:
                return None
        return answer

    def _element(
        self, level: Level, keyword: str, key: DataElement, instance: StoredInstance
    ) -> DataElement | None:
        """Give the entity's own attribute for a key; None where this level has none such."""
        scope, source = _COUNTED.get(keyword) or _COLLECTED.get(keyword) or (None, "")
        if scope is not None:
            if scope > level:
                return None
            values = _distinct(source, self._siblings(scope, instance))
            return DataElement(key.tag, key.VR, len(values) if keyword in _COUNTED else values)
        if _LEVEL_OF.get(keyword, Level.IMAGE) > level or key.tag not in instance.header:
            return None
        return instance.header[key.tag]

    def _siblings(self, scope: Level, instance: StoredInstance) -> Iterable[StoredInstance]:
        prefix = instance.unique[: scope + 1]
        return (one for one in self.instances() if one.unique[: scope + 1] == prefix)


def _distinct(keyword: str, instances: Iterable[StoredInstance]) -> list[str]:
    values = (one.header.get(keyword) for one in instances)
    return list(dict.fromkeys(str(value) for value in values if value))


def _level_of(root: Level, identifier: Dataset) -> Level:
    name = str(identifier.get("QueryRetrieveLevel", ""))
    if name not in Level.__members__ or Level[name] < root:
        raise IdentifierError("Query/Retrieve Level is missing or not of this model")
    return Level[name]


def _require(identifier: Dataset, keywords: list[str]) -> None:
    missing = [keyword for keyword in keywords if not identifier.get(keyword)]
    if missing:
        raise IdentifierError(f"Unique keys are missing: {', '.join(missing)}")

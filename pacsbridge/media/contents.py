"""What is on a disc: patients, their studies, series and instances, in the order in which they are shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.multival import MultiValue

from pacsbridge.elements import Malformed, split, value_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom.valuerep import PersonName

    from pacsbridge.instance import Instance

_INSTANCE_NUMBER = 0x00200013
_NUMBER_OF_FRAMES = 0x00280008
_ROWS = 0x00280010
_NUMBER = re.compile(rb"\s*([+-]?\d{1,12})[\s\0]*")


@dataclass(frozen=True, slots=True)
class Series:
    """A series; `instances` by InstanceNumber, and beside each in `frames` how many it has, 0 if no image."""

    SeriesInstanceUID: str
    Modality: str
    SeriesNumber: str
    SeriesDescription: str
    instances: tuple[Instance, ...]
    frames: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """A study; `series` by SeriesNumber."""

    StudyInstanceUID: str
    StudyDate: str
    StudyTime: str
    StudyDescription: str
    AccessionNumber: str
    InstitutionName: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient; `studies` by date."""

    PatientID: str
    PatientName: PersonName | None
    PatientBirthDate: str
    PatientSex: str
    studies: tuple[Study, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything on a disc."""

    patients: tuple[Patient, ...]

    @property
    def studies(self) -> tuple[Study, ...]:
        """All studies."""
        return tuple(study for patient in self.patients for study in patient.studies)

    @property
    def series(self) -> tuple[Series, ...]:
        """All series."""
        return tuple(series for study in self.studies for series in study.series)

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All instances."""
        return tuple(instance for series in self.series for instance in series.instances)


def arrange(instances: Iterable[Instance], *, one_patient: bool) -> Contents:
    """Arrange instances; one that is there twice is taken once.

    Study and series have the texts of their first instance.

    Parameters
    ----------
    instances
        All of the disc's instances.
    one_patient
        Whether they are known to be of one patient, however the attributes differ; else Patient ID and birth
        date of the studies make the patients.
    """
    by_study: dict[str, dict[str, list[Instance]]] = {}
    seen: set[str] = set()
    for instance in instances:
        if instance.SOPInstanceUID not in seen:
            seen.add(instance.SOPInstanceUID)
            studies = by_study.setdefault(instance.StudyInstanceUID, {})
            studies.setdefault(instance.SeriesInstanceUID, []).append(instance)
    grouped: dict[tuple[str, str], list[tuple[Dataset, Study]]] = {}
    for StudyInstanceUID, series in sorted(by_study.items()):
        made = [_series(SeriesInstanceUID, found) for SeriesInstanceUID, found in series.items()]
        made.sort(key=lambda item: (_as_number(item.SeriesNumber), item.SeriesInstanceUID))
        attributes = described(made[0].instances[0])
        study = _study(StudyInstanceUID, attributes, tuple(made))
        identity = (text(attributes, "PatientID"), text(attributes, "PatientBirthDate"))
        grouped.setdefault(("", "") if one_patient else identity, []).append((attributes, study))
    return Contents(tuple(_patient(found) for _, found in sorted(grouped.items(), key=lambda pair: pair[0])))


def described(instance: Instance) -> Dataset:
    """Decode an instance's attributes; none when they can't be decoded."""
    try:
        return instance.dataset()
    except Exception:  # noqa: BLE001 - pydicom raises what it likes; a title is no reason to stop
        return Dataset()


def text(attributes: Dataset, keyword: str) -> str:
    """Return an attribute as text, empty when absent or not decodable; several values with a backslash."""
    try:
        value = attributes.get(keyword)
    except Exception:  # noqa: BLE001 - as above: values are decoded here
        return ""
    if value is None:
        return ""
    if isinstance(value, MultiValue):
        return "\\".join(str(part) for part in value).strip()
    return str(value).strip(" \0")


def _series(SeriesInstanceUID: str, instances: list[Instance]) -> Series:
    numbered = [(*_numbers(instance), instance.SOPInstanceUID, instance) for instance in instances]
    numbered.sort(key=lambda entry: (entry[0], entry[2]))
    attributes = described(numbered[0][3])
    return Series(
        SeriesInstanceUID=SeriesInstanceUID,
        Modality=text(attributes, "Modality"),
        SeriesNumber=text(attributes, "SeriesNumber"),
        SeriesDescription=text(attributes, "SeriesDescription"),
        instances=tuple(instance for _, _, _, instance in numbered),
        frames=tuple(frames for _, frames, _, _ in numbered),
    )


def _study(StudyInstanceUID: str, attributes: Dataset, series: tuple[Series, ...]) -> Study:
    return Study(
        StudyInstanceUID=StudyInstanceUID,
        StudyDate=text(attributes, "StudyDate"),
        StudyTime=text(attributes, "StudyTime"),
        StudyDescription=text(attributes, "StudyDescription"),
        AccessionNumber=text(attributes, "AccessionNumber"),
        InstitutionName=text(attributes, "InstitutionName"),
        series=series,
    )


def _patient(found: list[tuple[Dataset, Study]]) -> Patient:
    known = [attributes for attributes, _ in found]
    studies = sorted((study for _, study in found), key=lambda study: (study.StudyDate, study.StudyTime))
    return Patient(
        PatientID=_first(text(attributes, "PatientID") for attributes in known),
        PatientName=next(filter(None, map(_person_name, known)), None),
        PatientBirthDate=_first(text(attributes, "PatientBirthDate") for attributes in known),
        PatientSex=_first(text(attributes, "PatientSex") for attributes in known),
        studies=tuple(studies),
    )


def _first(texts: Iterable[str]) -> str:
    return next(filter(None, texts), "")


def _person_name(attributes: Dataset) -> PersonName | None:
    try:
        name: PersonName | None = attributes.get("PatientName")
        str(name)  # decodes it
    except Exception:  # noqa: BLE001 - as above
        return None
    return name


def _numbers(instance: Instance) -> tuple[int, int]:
    """Return InstanceNumber and number of frames, read from the bytes: there may be 20,000 of them."""
    try:
        elements = split(instance.attributes)
    except Malformed:
        return 0, 0
    frames = max(1, _integer(elements.get(_NUMBER_OF_FRAMES), 1)) if _ROWS in elements else 0
    return _integer(elements.get(_INSTANCE_NUMBER), 0), frames


def _integer(encoded: bytes | None, default: int) -> int:
    found = _NUMBER.fullmatch(value_of(encoded)) if encoded else None
    return int(found[1]) if found else default


def _as_number(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        return 0

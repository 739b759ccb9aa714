"""The tree of a DICOMDIR: patients, their studies, series and instances, each one once and in order.

- A patient is a PatientID with its IssuerOfPatientID: two issuers may give the same ID to two people. Where a
  PatientID has one issuer at most on the disc, instances without an issuer belong to it. A PatientID may stand
  in one PATIENT record only (F.5.1): in the records of further issuers it gets ``-2``, ``-3`` and so on.
- A study, a series and an instance is its UID. One that contradictory data puts under two parents stands
  under the first of them; an instance that is given twice is there once, as it was given first.
- Patients are in the order of their IDs, studies of date and time, series and instances of their numbers;
  then of UIDs. The order in which instances arrived changes nothing.
- The keys of a patient, study or series are those of its first series that has a value; a text that is not
  ASCII is only taken if it is in the same character set as the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

from pacsbridge.elements import encode, split
from pacsbridge.media.record_contents import all_attributes, first_value, leaf_content, upper_content
from pacsbridge.media.record_filling import (
    NO_DATE,
    NO_TIME,
    UNKNOWN_PATIENT,
    Attributes,
    fill,
    integer,
    moment,
)
from pacsbridge.records import RECORD_KEYS, tag_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pacsbridge.instance import Instance
    from pacsbridge.media.record_contents import DirectoryEntry, Leaf

PATIENT_LEVEL: Final = 0
STUDY_LEVEL: Final = 1
SERIES_LEVEL: Final = 2
INSTANCE_LEVEL: Final = 3

_PATIENT_ID: Final = tag_of("PatientID")
_ISSUER: Final = tag_of("IssuerOfPatientID")
_PATIENT_TAGS: Final = (_PATIENT_ID, _ISSUER, tag_of("PatientName"), tag_of("PatientBirthDate"))
_STUDY_DATE: Final = tag_of("StudyDate")
_STUDY_TIME: Final = tag_of("StudyTime")
_SERIES_NUMBER: Final = tag_of("SeriesNumber")
_STUDY_KEYS: Final = {key.keyword: key for key in RECORD_KEYS["STUDY"]}


@dataclass(slots=True)
class _Study:
    uid: str
    sources: list[Attributes] = field(default_factory=list)
    instances: list[tuple[Attributes, Instance]] = field(default_factory=list)
    series: list[_Series] = field(default_factory=list)
    date: bytes = b""
    time: bytes = b""


@dataclass(slots=True)
class _Series:
    uid: str
    study: _Study
    sources: list[Attributes] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)


@dataclass(slots=True)
class _Patient:
    PatientID: bytes
    sources: list[Attributes] = field(default_factory=list)
    studies: list[_Study] = field(default_factory=list)


def directory_records(entries: Iterable[DirectoryEntry]) -> Iterator[tuple[int, bytes]]:
    """Give the level and the content of each directory record, each one before those below it.

    The content is all that follows the offset of the lower-level directory entity: DirectoryRecordType and
    on.

    Raises
    ------
    ValueError
        A ReferencedFileID is none.
    """
    patients = _tree(entries)
    for patient, PatientID in zip(patients, _unique_ids(patients), strict=True):
        own = Attributes({**patient.sources[0].elements, _PATIENT_ID: encode(_PATIENT_ID, b"LO", PatientID)})
        yield PATIENT_LEVEL, upper_content("PATIENT", [own, *patient.sources[1:]], {})
        for study in patient.studies:
            _date(study)
        patient.studies.sort(key=lambda study: (study.date, study.time, study.uid))
        for place, study in enumerate(patient.studies, 1):
            yield STUDY_LEVEL, _study_record(study, place)
            yield from _series_records(study)


def _unique_ids(patients: Sequence[_Patient]) -> Iterator[bytes]:
    """Give each patient an ID that no other has: their own, wherever possible."""
    taken = {patient.PatientID for patient in patients}
    given: set[bytes] = set()
    for patient in patients:
        PatientID = patient.PatientID
        if not PatientID or PatientID in given:
            stem, first = (PatientID, 2) if PatientID else (UNKNOWN_PATIENT, 1)
            PatientID = next(
                other for number in count(first) if (other := b"%b-%d" % (stem, number)) not in taken
            )
            taken.add(PatientID)
        given.add(PatientID)
        yield PatientID


def _tree(entries: Iterable[DirectoryEntry]) -> list[_Patient]:
    sources = _sources(entries)
    issuers: dict[bytes, set[bytes]] = {}
    for source, _ in sources:
        issuers.setdefault(source.value(_PATIENT_ID), set()).add(source.value(_ISSUER))
    patients: dict[tuple[bytes, ...], _Patient] = {}
    studies: dict[str, _Study] = {}
    series: dict[str, _Series] = {}
    for source, group in sources:
        instance = group[0].instance
        identity = _identity(source, issuers)
        one = series.get(instance.SeriesInstanceUID)
        study = one.study if one else studies.get(instance.StudyInstanceUID)
        if study is None:
            study = studies[instance.StudyInstanceUID] = _Study(instance.StudyInstanceUID)
            patients.setdefault(identity, _Patient(source.value(_PATIENT_ID))).studies.append(study)
        if one is None:
            one = series[instance.SeriesInstanceUID] = _Series(instance.SeriesInstanceUID, study)
            study.series.append(one)
        if identity in patients:
            patients[identity].sources.append(source)
        study.sources.append(source)
        study.instances.extend((source, entry.instance) for entry in group)
        one.sources.append(source)
        one.leaves.extend(leaf_content(entry, source) for entry in group)
    return list(patients.values())


def _sources(entries: Iterable[DirectoryEntry]) -> list[tuple[Attributes, list[DirectoryEntry]]]:
    """Group the entries by what their patient, study and series say, in an order of its own."""
    seen: set[str] = set()
    groups: dict[tuple[str, str, bytes], list[DirectoryEntry]] = {}
    for entry in entries:
        instance = entry.instance
        if instance.SOPInstanceUID not in seen:
            seen.add(instance.SOPInstanceUID)
            key = (
                instance.StudyInstanceUID,
                instance.SeriesInstanceUID,
                instance.common or instance.attributes,
            )
            groups.setdefault(key, []).append(entry)
    parsed = ((key, Attributes(split(key[-1])), group) for key, group in groups.items())
    return [(source, group) for key, source, group in sorted(parsed, key=_order)]


def _order(group: tuple[tuple[str, str, bytes], Attributes, list[DirectoryEntry]]) -> tuple[object, ...]:
    key, source, _ = group
    number = integer(source.value(_SERIES_NUMBER))
    patient_and_study = (source.value(tag) for tag in (*_PATIENT_TAGS, _STUDY_DATE, _STUDY_TIME))
    return (*patient_and_study, key[0], number is None, number or 0, *key[1:])


def _identity(source: Attributes, issuers: Mapping[bytes, set[bytes]]) -> tuple[bytes, ...]:
    PatientID, issuer = source.value(_PATIENT_ID), source.value(_ISSUER)
    if not PatientID:
        return tuple(source.value(tag) for tag in _PATIENT_TAGS)
    known = issuers[PatientID] - {b""}
    return (PatientID, issuer or next(iter(known))) if len(known) == 1 else (PatientID, issuer)


def _date(study: _Study) -> None:
    """Find the date and time of a study; if it has none, the earliest of its instances."""
    study.date, study.time = (
        first_value(_STUDY_KEYS[keyword], study.sources) for keyword in ("StudyDate", "StudyTime")
    )
    if study.date and study.time:
        return
    moments = [moment(all_attributes(source, instance)) for source, instance in study.instances]
    known = sorted(one for one in moments if one[0] == (study.date or one[0]) and one[0] != NO_DATE)
    study.date = study.date or (known[0][0] if known else NO_DATE)
    study.time = study.time or (known[0][1] if known else NO_TIME)


def _study_record(study: _Study, place: int) -> bytes:
    filled = {
        "StudyDate": study.date,
        "StudyTime": study.time,
        "StudyInstanceUID": study.uid.encode("ascii"),
        "StudyID": b"%d" % place,
    }
    return upper_content("STUDY", study.sources, filled)


def _series_records(study: _Study) -> Iterator[tuple[int, bytes]]:
    numbers = {one.uid: _first_integer(one.sources) for one in study.series}
    highest = max((number for number in numbers.values() if number is not None), default=0)
    study.series.sort(key=lambda one: (numbers[one.uid] is None, numbers[one.uid] or 0, one.uid))
    for series in study.series:
        highest += numbers[series.uid] is None
        filled = {
            "Modality": fill("Modality", series.sources[0], ""),
            "SeriesInstanceUID": series.uid.encode("ascii"),
            "SeriesNumber": b"%d" % highest,
        }
        yield SERIES_LEVEL, upper_content("SERIES", series.sources, filled)
        yield from _leaf_records(series)


def _first_integer(sources: Sequence[Attributes]) -> int | None:
    numbers = (integer(source.value(_SERIES_NUMBER)) for source in sources)
    return next((number for number in numbers if number is not None), None)


def _leaf_records(series: _Series) -> Iterator[tuple[int, bytes]]:
    highest = max((leaf.number for leaf in series.leaves if leaf.number is not None), default=0)
    series.leaves.sort(key=lambda leaf: (leaf.number is None, leaf.number or 0, leaf.SOPInstanceUID))
    for leaf in series.leaves:
        highest += leaf.after is not None
        yield INSTANCE_LEVEL, leaf.content(highest)

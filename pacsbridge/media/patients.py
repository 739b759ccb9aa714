"""One disc, one patient: a disc with someone else's images on it is the worst that this software can do.

Two studies are of one patient when

1. their Patient IDs are equal, and not empty; letter case and padding don't count, and
2. their birth dates are equal; or, where one of them has none, their names are equal in at least one
   component group (alphabetic, ideographic, phonetic), letter case and punctuation not counted.

Without a Patient ID on both sides, both name and birth date have to be there and equal. What can't be shown
to be equal counts as different: a clerk can make two discs, nobody can take one back.

Within a study, values that are there must not contradict each other; an instance that lacks one (a report,
a secondary capture) belongs to the patient of its study. Every instance is looked at, not one of each series.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacsbridge.elements import split, value_of
from pacsbridge.errors import MixedPatients
from pacsbridge.media.contents import described, text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pacsbridge.instance import Instance

_PATIENT_ID = 0x00100020
_PATIENT_BIRTH_DATE = 0x00100030
_PUNCTUATION = re.compile(r"[\s^,.]+")
_NO_DIGIT = re.compile(r"\D+")


@dataclass(slots=True)
class _Identity:
    """What the instances of a study say of its patient."""

    ids: set[str] = field(default_factory=set)
    birth_dates: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


def check_one_patient(instances: Iterable[Instance]) -> None:
    """Check that all instances are of one patient.

    Raises
    ------
    MixedPatients
        They are not, or it can't be shown that they are.
    """
    studies = _identities(instances)
    for identity in studies:
        if len(identity.ids) > 1 or len(identity.birth_dates) > 1:
            raise MixedPatients(
                "One of the studies holds images of different patients. Have it corrected in the PACS."
            )
    # Each with each: what equals the first need not equal the second, when one of them lacks a birth date.
    for index, one in enumerate(studies):
        for other in studies[index + 1 :]:
            if not _same(one, other):
                raise MixedPatients(
                    "The accession numbers belong to different patients, or to one whose ID and birth date "
                    "differ between the studies. Make a disc for each, or have the PACS corrected."
                )


def _same(one: _Identity, other: _Identity) -> bool:
    same_name = bool(one.names & other.names)
    same_birth_date = bool(one.birth_dates & other.birth_dates)
    if one.ids and other.ids:
        known = one.birth_dates and other.birth_dates
        return one.ids == other.ids and (same_birth_date if known else same_name)
    if one.ids or other.ids:
        return False
    return same_name and same_birth_date


def _identities(instances: Iterable[Instance]) -> list[_Identity]:
    studies: dict[str, _Identity] = {}
    seen: set[tuple[str, bytes]] = set()
    for instance in instances:
        # What the instances of a series share is one object: it is decoded once.
        key = (instance.StudyInstanceUID, instance.common or instance.attributes)
        if key in seen:
            continue
        seen.add(key)
        identity = studies.setdefault(instance.StudyInstanceUID, _Identity())
        # As bytes: what does not decode must count too.
        elements = split(instance.common) | split(instance.attributes)
        if PatientID := _bytes(elements, _PATIENT_ID):
            identity.ids.add(" ".join(PatientID.split()).casefold())
        if digits := _NO_DIGIT.sub("", _bytes(elements, _PATIENT_BIRTH_DATE)):
            identity.birth_dates.add(digits)
        identity.names.update(_groups(text(described(instance), "PatientName")))
    return list(studies.values())


def _groups(name: str) -> set[str]:
    groups = (_PUNCTUATION.sub(" ", group).strip().casefold() for group in name.split("="))
    return {group for group in groups if group}


def _bytes(elements: dict[int, bytes], tag: int) -> str:
    encoded = elements.get(tag)
    return value_of(encoded).decode("latin-1").strip(" \0") if encoded else ""

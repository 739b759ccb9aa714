"""Searches of DICOMweb over the demo's index (QIDO-RS: PS3.18, 10.6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword

from pacsbridge.demo.index import UNIQUE_KEYS, Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pacsbridge.demo.index import Index


class SearchError(ValueError):
    """A search that can't be understood."""


#: What a search gives unasked (PS3.18, Tables 10.6.3-3 to 10.6.3-5), from the study down.
_RETURNED = {
    Level.STUDY: (
        "StudyDate StudyTime AccessionNumber ModalitiesInStudy ReferringPhysicianName PatientName PatientID "
        "PatientBirthDate PatientSex StudyInstanceUID StudyID NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances"
    ),
    Level.SERIES: "Modality SeriesDescription SeriesInstanceUID SeriesNumber NumberOfSeriesRelatedInstances",
    Level.IMAGE: "SOPClassUID SOPInstanceUID InstanceNumber Rows Columns BitsAllocated NumberOfFrames",
}
#: What ``includefield=all`` gives beside it.
_ALL = {
    Level.STUDY: "StudyDescription InstitutionName PatientAge",
    Level.SERIES: "SeriesDate SeriesTime BodyPartExamined Laterality Manufacturer ProtocolName",
    Level.IMAGE: "ImageType ContentDate ContentTime",
}
_HEX_TAG = re.compile(r"[0-9A-Fa-f]{8}", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)
_LIST_SEPARATORS = re.compile(r"[,\\]")


@dataclass(frozen=True, slots=True)
class Search:
    """A search, understood.

    Parameters
    ----------
    keys
        The identifier of a C-FIND: what has a value is matched, the rest is only given.
    limit
        None where all are asked for.
    """

    level: Level
    keys: Dataset
    offset: int = 0
    limit: int | None = None


def understand(level: Level, parents: Mapping[str, str], query: Iterable[tuple[str, str]]) -> Search:
    """Read a search from its path and its query string.

    What isn't known, a key in a sequence for one, is passed over (PS3.18, 8.3.4.1).

    Parameters
    ----------
    parents
        The unique keys that the path names.
    query
        The parameters, decoded.

    Raises
    ------
    SearchError
        A value can't be one of its attribute; a limit or an offset is no number.
    """
    keys, paging = Dataset(), {"offset": 0, "limit": -1}
    for keyword in _keywords(_RETURNED, level):
        _ask(keys, keyword, "")
    for name, value in query:
        if name in paging:
            paging[name] = _count(name, value)
        elif name == "includefield":
            fields = _keywords(_ALL, level) if value == "all" else value.split(",")
            for field in fields:
                _ask(keys, field, "")
        else:
            _ask(keys, name, value)
    for keyword, uid in parents.items():
        _ask(keys, keyword, uid)
    return Search(level, keys, paging["offset"], None if paging["limit"] < 0 else paging["limit"])


def find(index: Index, search: Search) -> list[Dataset]:
    """Give what matches, one data set for each study, series or instance."""
    found = list(_find(index, search.keys, search.level))
    stop = None if search.limit is None else search.offset + search.limit
    return found[search.offset : stop]


def _find(index: Index, keys: Dataset, level: Level) -> Iterator[Dataset]:
    """Search level by level: the index knows hierarchical queries only (PS3.4, C.4.1.3.1.1)."""
    for above in (Level.STUDY, Level.SERIES):
        unique = UNIQUE_KEYS[above]
        if above < level and not keys.get(unique):
            upper = Dataset()
            for one in Level:
                if Level.STUDY <= one <= above:
                    _ask(upper, UNIQUE_KEYS[one], keys.get(UNIQUE_KEYS[one]) or "")
            for parent in _find(index, upper, above):
                narrowed = Dataset()  # pydicom's shallow copy shares its elements
                narrowed.update(keys)
                narrowed[unique] = parent[unique]
                yield from _find(index, narrowed, level)
            return
    keys.QueryRetrieveLevel = level.name
    yield from index.find(Level.STUDY, keys)


def _keywords(by_level: Mapping[Level, str], level: Level) -> list[str]:
    return [keyword for one, keywords in by_level.items() if one <= level for keyword in keywords.split()]


def _count(name: str, value: str) -> int:
    if not _COUNT.fullmatch(value):
        raise SearchError(f"{name} is no number")
    return int(value)


def _ask(keys: Dataset, name: str, value: str) -> None:
    """Add a key, by keyword or by tag; an attribute that is only wanted doesn't replace a value."""
    tag = int(name, 16) if _HEX_TAG.fullmatch(name) else tag_for_keyword(name)
    if tag is None or (not value and tag in keys):
        return
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return
    if vr == "SQ":
        return
    values = _LIST_SEPARATORS.split(value) if vr == "UI" and value else value
    try:
        keys.add(DataElement(tag, vr, values or None, validation_mode=IGNORE))
    except (ValueError, TypeError, ArithmeticError) as error:
        raise SearchError(f"{name} can't have this value") from error

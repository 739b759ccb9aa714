"""The grammar of DICOMweb paths (PS3.18, 8.2 and 10.1): what a client may ask for, and nothing else.

A path is never passed on as the client sent it: ``/studies/1.2/%2e%2e/9.9`` is study 1.2 for one program and
study 9.9 for the next. Each part is matched here, and the path for upstream is built from what matched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from pacsbridge.errors import NotFound

_UID_LENGTH = 64
_UID_PATTERN = r"[0-9]+(?:\.[0-9]+)*"
_UID = re.compile(_UID_PATTERN, re.ASCII)
#: The UIDs from the study down, and whatever follows them.
_PATH = re.compile(
    rf"(?:/studies/({_UID_PATTERN})(?:/series/({_UID_PATTERN})(?:/instances/({_UID_PATTERN}))?)?(?=/|\Z))?"
    r"((?:/[0-9A-Za-z,]+)*)",
    re.ASCII,
)
#: PS3.18, 10.1.2: frame numbers from 1, with commas between them.
_FRAMES = re.compile(r"[1-9][0-9]{0,9}(,[1-9][0-9]{0,9})*", re.ASCII)
#: An attribute, or one in an item of a sequence: ``00420011``, ``0040A730/1/0040A160``. The standard leaves the
#: form to the server; Google, Orthanc and dcm4chee use this one.
_ATTRIBUTE = re.compile(r"[0-9A-Fa-f]{8}(/[0-9]{1,9}/[0-9A-Fa-f]{8})*", re.ASCII)
_LONGEST = 4096


class Kind(Enum):
    """What a path names."""

    SEARCH_STUDIES = "search for studies"
    SEARCH_SERIES = "search for series of all studies"
    SEARCH_INSTANCES = "search for instances of all studies"
    SEARCH_IN_STUDY = "search within a study"
    RETRIEVE = "retrieve"
    METADATA = "retrieve metadata"
    RENDERED = "retrieve rendered"
    BULK_DATA = "retrieve frames or bulk data"


#: A tuple: an Enum's hash is slow, and this is asked a thousand times for a study.
_SEARCHES = (Kind.SEARCH_STUDIES, Kind.SEARCH_SERIES, Kind.SEARCH_INSTANCES, Kind.SEARCH_IN_STUDY)


class Level(Enum):
    """Which level of the information model a resource belongs to (PS3.4, C.6.2.1)."""

    ROOT = 0
    STUDY = 1
    SERIES = 2
    INSTANCE = 3


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource that the path of a request names.

    Attributes
    ----------
    path
        Below the DICOMweb root, with a leading slash, made of nothing but what the grammar knows.
    StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID
        Empty where the path doesn't name them.
    """

    kind: Kind
    path: str
    StudyInstanceUID: str = ""
    SeriesInstanceUID: str = ""
    SOPInstanceUID: str = ""

    @property
    def level(self) -> Level:
        """The deepest level that the path names by UID."""
        if self.SOPInstanceUID:
            return Level.INSTANCE
        if self.SeriesInstanceUID:
            return Level.SERIES
        return Level.STUDY if self.StudyInstanceUID else Level.ROOT

    @property
    def is_search(self) -> bool:
        """Whether it is a search (PS3.18, 10.6), so that its query string holds keys."""
        return self.kind in _SEARCHES

    @property
    def has_addresses(self) -> bool:
        """Whether its answer may hold addresses of the server that gives it (`rewrite`)."""
        return self.is_search or self.kind is Kind.METADATA

    @property
    def takes_instances(self) -> bool:
        """Whether instances may be stored there (PS3.18, 10.5.1)."""
        if self.kind is Kind.SEARCH_STUDIES:
            return True
        return self.kind is Kind.RETRIEVE and self.level is Level.STUDY

    @property
    def can_be_deleted(self) -> bool:
        """Whether it is a study, series or instance as a whole: Google's and dcm4chee's DELETE."""
        return self.kind is Kind.RETRIEVE


_WHOLE = {
    (): Kind.RETRIEVE,
    ("metadata",): Kind.METADATA,
    ("rendered",): Kind.RENDERED,
    ("thumbnail",): Kind.RENDERED,
    ("bulkdata",): Kind.BULK_DATA,
    ("pixeldata",): Kind.BULK_DATA,
}
#: What may follow so many UIDs: none, a study's, a series' too, an instance's too.
_TAILS: tuple[dict[tuple[str, ...], Kind], ...] = (
    {
        ("studies",): Kind.SEARCH_STUDIES,
        ("series",): Kind.SEARCH_SERIES,
        ("instances",): Kind.SEARCH_INSTANCES,
    },
    _WHOLE | {("series",): Kind.SEARCH_IN_STUDY, ("instances",): Kind.SEARCH_IN_STUDY},
    _WHOLE | {("instances",): Kind.SEARCH_IN_STUDY},
    _WHOLE,
)
_VIEWS_OF_FRAMES = {(): Kind.BULK_DATA, ("rendered",): Kind.RENDERED, ("thumbnail",): Kind.RENDERED}


def parse_path(path: str) -> Resource:
    """Match the path of a request, as it stands on the request line.

    Parameters
    ----------
    path
        Below the DICOMweb root, with its leading slash, percent-encoding untouched, without the query string.

    Raises
    ------
    NotFound
        It is no path of DICOMweb, whatever it might mean after decoding or normalising.
    """
    match = _PATH.fullmatch(path) if len(path) <= _LONGEST else None
    if match is None:
        raise NotFound(_NO_SUCH_RESOURCE)
    study, series, instance, rest = match.groups("")
    kind = _kind(bool(study) + bool(series) + bool(instance), tuple(rest.split("/")[1:]))
    for uid in (study, series, instance):
        if len(uid) > _UID_LENGTH:
            raise NotFound(_NO_SUCH_RESOURCE)
    # What matched is what was sent, to the letter: nothing in it can be read in another way.
    return Resource(kind, path, study, series, instance)


def is_uid(text: str) -> bool:
    """Tell whether a text is a UID (PS3.5, 9.1), leading zeros let through: archives hold such."""
    return len(text) <= _UID_LENGTH and _UID.fullmatch(text) is not None


def _kind(uids: int, tail: tuple[str, ...]) -> Kind:
    kind = _TAILS[uids].get(tail)
    if kind is None and uids == len(_TAILS) - 1:
        kind = _kind_below_instance(tail)
    if kind is None:
        raise NotFound(_NO_SUCH_RESOURCE)
    return kind


def _kind_below_instance(tail: tuple[str, ...]) -> Kind | None:
    word, *rest = tail
    if word == "frames" and rest and _FRAMES.fullmatch(rest[0]):
        return _VIEWS_OF_FRAMES.get(tuple(rest[1:]))
    if word in {"bulk", "bulkdata"} and _ATTRIBUTE.fullmatch("/".join(rest)):
        return Kind.BULK_DATA
    return None


_NO_SUCH_RESOURCE = "There is no such DICOMweb resource."

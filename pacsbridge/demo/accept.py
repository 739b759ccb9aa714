"""The header ``Accept`` of DICOMweb: media types with the types of their parts (PS3.18, 8.7)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: One element of a list; a comma in quotes is part of it (RFC 9110, 5.6.1).
_ELEMENT = re.compile(r'(?:[^,"]|"[^"]*")+')
_MULTIPART = "multipart/related"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One media type that a client takes.

    Attributes
    ----------
    media_type
        In lower case; of the parts, where `multipart`. ``*/*`` where the client doesn't mind.
    transfer_syntax
        A UID or ``*``; empty where none is named.
    """

    media_type: str
    multipart: bool
    transfer_syntax: str


def wanted(headers: Iterable[str]) -> list[Wanted]:
    """Read what a client takes; everything where it doesn't say."""
    texts = [element for header in headers for element in _ELEMENT.findall(header) if element.strip()]
    return [_wanted(text) for text in texts or ["*/*"]]


def takes(ranges: Iterable[Wanted], *media_types: str) -> bool:
    """Tell whether one of some single-part media types will do."""
    return any(
        not one.multipart and _covers(one.media_type, media_type)
        for one in ranges
        for media_type in media_types
    )


def part_type(
    ranges: Iterable[Wanted], stored: str, *, plain: bool, media_types: Iterable[str]
) -> str | None:
    """Choose the media type of the parts of a multipart answer; None where nothing will do.

    Parameters
    ----------
    stored
        The transfer syntax that the parts have.
    plain
        Whether it is the one that is meant where none is named (PS3.18, 8.7.3.5.2).
    media_types
        What the parts may be called; what names a compression itself needs no transfer syntax.
    """
    offered = list(media_types)
    for one in ranges:
        if one.media_type == "*/*":
            return offered[0]
        if not one.multipart or one.media_type not in offered:
            continue
        named = one.transfer_syntax
        if named in {"*", stored} or (not named and (plain or one.media_type.startswith("image/"))):
            return one.media_type
    return None


def _wanted(text: str) -> Wanted:
    media_type, *parameters = (part.strip() for part in text.split(";"))
    given = {}
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        given[name.strip().lower()] = value.strip().strip('"')
    media_type = media_type.lower()
    multipart = media_type == _MULTIPART
    if multipart:
        media_type = given.get("type", "*/*").lower()
    return Wanted(media_type, multipart, given.get("transfer-syntax", ""))


def _covers(pattern: str, media_type: str) -> bool:
    kind, _, subtype = pattern.partition("/")
    return pattern == media_type or (subtype == "*" and kind in {"*", media_type.partition("/")[0]})

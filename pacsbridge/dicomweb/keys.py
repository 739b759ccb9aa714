"""The query string of a search (PS3.18, 8.3.4), in one spelling.

An attribute can be named by keyword, by its eight hex digits and, in a sequence, by a path of either with dots;
servers take other letter case too. A filter that decides about access has to be found under each of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode

from pydicom.datadict import keyword_dict

from pacsbridge.errors import InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEX_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?", re.ASCII)
_MOST_FIELDS = 200
#: What may stand on a request line as it is (RFC 3986, 3.4); browsers leave a few more unescaped.
_QUERY = re.compile(r"[!-~]*", re.ASCII)
#: PS3.18, 8.3.5.1 and 8.3.3.1. Presentation states are not among them: they are instances of their own.
_RENDERING = frozenset({"accept", "annotation", "iccprofile", "quality", "viewport", "window"})
#: Left as it is in what is written here. A caret should be escaped (RFC 3986, 3.4), but Orthanc 1.10 doesn't
#: unescape values, and every browser sends it so.
_UNESCAPED = "!$'()*,/:;=?@^"
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SearchKeys:
    """A search, in one spelling.

    Attributes
    ----------
    filters
        Attribute and value, in the order in which they came; an attribute may come again.
    fields
        What ``includefield`` asks for: attributes, or ``all``.
    limit
        None for no limit.
    """

    filters: tuple[tuple[str, str], ...] = ()
    fields: tuple[str, ...] = ()
    limit: int | None = None
    offset: int = 0
    fuzzy: bool = False

    def values(self, keyword: str) -> list[str]:
        """Give the values that an attribute is filtered by; an empty one matches all (PS3.4, C.2.2.2.3)."""
        return [value for name, value in self.filters if name == keyword and value]

    def without(self, *keywords: str) -> SearchKeys:
        """Leave filters away."""
        kept = tuple((name, value) for name, value in self.filters if name not in keywords)
        return SearchKeys(kept, self.fields, self.limit, self.offset, self.fuzzy)

    def query(self, extra: Iterable[tuple[str, str]] = (), fields: Iterable[str] = ()) -> str:
        """Write it as a query string, with more filters and fields, without limit and offset."""
        pairs = [(name, value) for name, value in self.filters if value]
        pairs += extra
        if self.fuzzy:
            pairs.append(("fuzzymatching", "true"))
        pairs += [("includefield", field) for field in dict.fromkeys((*self.fields, *fields))]
        return urlencode(pairs, quote_via=quote, safe=_UNESCAPED)


def checked_query(query: str) -> str:
    """Return a query string that can stand on a request line as it is.

    Raises
    ------
    InvalidParameter
        It holds spaces, control characters or characters that must be percent-encoded.
    """
    if not _QUERY.fullmatch(query) or "#" in query:
        raise InvalidParameter("The query string holds characters that must be percent-encoded.")
    return query


def rendering_query(query: str) -> str:
    """Keep of a query string what says how to render (PS3.18, 8.3.5), and nothing that could name an image."""
    pairs = [(name.lower(), value) for name, value in _pairs(query)]
    return urlencode([pair for pair in pairs if pair[0] in _RENDERING], quote_via=quote, safe=",/;=*")


def parse_keys(query: str) -> SearchKeys:
    """Read a query string; what is no attribute and no known parameter is left away.

    Raises
    ------
    InvalidParameter
        It can't be decoded; ``limit`` or ``offset`` is no number; it is far too long.
    """
    filters: list[tuple[str, str]] = []
    fields: list[str] = []
    settings: dict[str, str] = {}
    for name, value in _pairs(query):
        lowered = name.strip().lower()
        if lowered == "includefield":
            fields += [field for part in value.split(",") if (field := _field(part))]
        elif lowered in {"limit", "offset", "fuzzymatching"}:
            if settings.setdefault(lowered, value) != value:
                raise InvalidParameter(f"Give {lowered} once.")
        elif keyword := canonical(name):
            filters.append((keyword, value))
    return SearchKeys(
        tuple(filters),
        tuple(dict.fromkeys(fields)),
        _number(settings["limit"], "limit") if "limit" in settings else None,
        _number(settings.get("offset", "0"), "offset"),
        settings.get("fuzzymatching", "").lower() == "true",
    )


def _pairs(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query, keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise InvalidParameter("The query string can't be decoded, or is far too long.") from None


@lru_cache(maxsize=1024)
def canonical(name: str) -> str:
    """Name an attribute as the standard does: by keyword, where it has none by 8 hex digits; empty: no attribute.

    A path into sequences is named part by part.
    """
    parts = [_canonical_part(part.strip()) for part in name.strip().split(".")]
    return ".".join(parts) if all(parts) else ""


def _canonical_part(part: str) -> str:
    match = _HEX_TAG.fullmatch(part)
    if match:
        tag = (match[1] + match[2]).upper()
        return _keywords_by_tag().get(tag, tag)
    return _keywords_by_lower_case().get(part.lower(), "")


def _field(text: str) -> str:
    return "all" if text.strip().lower() == "all" else canonical(text)


def _number(text: str, name: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise InvalidParameter(f"{name} must be a number.")
    return int(text)


@cache
def _keywords_by_lower_case() -> dict[str, str]:
    return {keyword.lower(): keyword for keyword in keyword_dict}


@cache
def _keywords_by_tag() -> dict[str, str]:
    return {f"{tag:08X}": keyword for keyword, tag in keyword_dict.items()}

"""Attribute matching of C-FIND (PS3.4 C.2.2.2): single value, list, wildcard, range, universal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from pydicom.valuerep import PersonName

if TYPE_CHECKING:
    from pydicom import DataElement

#: Value representations in which ``-`` makes a range (PS3.4 C.2.2.2.5).
_RANGE_VRS = frozenset({"DA", "TM", "DT"})
#: Value representations in which ``*`` and ``?`` are wildcards (PS3.4 C.2.2.2.4).
_WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_NUMBER_VRS = frozenset({"DS", "IS"})


def texts(value: Any) -> list[str]:
    """Give the values of an element as texts without padding; empty ones are left out."""
    if value is None:
        return []
    single = isinstance(value, str | PersonName) or not isinstance(value, Iterable)
    several = [value] if single else list(value)
    stripped = [str(one).strip(" \0") for one in several]
    return [text for text in stripped if text]


def matches(key: DataElement, value: Any) -> bool:
    """Tell whether a stored value satisfies a key of a C-FIND identifier.

    A key with several values (a list of UIDs, for one) matches when one of them does; so does a stored
    attribute with several values. An empty key matches everything. Sequences are not matched.
    """
    wanted = [] if key.VR == "SQ" else texts(key.value)
    if not wanted:
        return True
    stored = texts(value)
    return any(_matches_one(key.VR, pattern, text) for pattern in wanted for text in stored)


def _matches_one(vr: str, pattern: str, text: str) -> bool:
    if vr in _RANGE_VRS:
        return _in_range(pattern, text) if "-" in pattern else _same_start(pattern, text)
    if vr in _NUMBER_VRS:
        return _same_number(pattern, text)
    if vr == "PN":
        return _matches_name(pattern, text)
    return _wildcard(pattern).fullmatch(text) is not None if vr in _WILDCARD_VRS else pattern == text


def _in_range(pattern: str, text: str) -> bool:
    first, _, last = (part.replace(":", "").strip() for part in pattern.partition("-"))
    moment = text.replace(":", "")
    return moment.ljust(len(first), "0") >= first and (not last or moment[: len(last)] <= last)


def _same_start(pattern: str, text: str) -> bool:
    """Compare dates and times with the precision of the key: 1030 is any second of 10:30."""
    return text.replace(":", "").startswith(pattern.replace(":", ""))


def _same_number(pattern: str, text: str) -> bool:
    try:
        return Decimal(pattern) == Decimal(text)
    except InvalidOperation:
        return pattern == text


def _matches_name(pattern: str, text: str) -> bool:
    """Match a person name as a whole or one of its component groups, in any case (PS3.4 C.2.2.2.1)."""
    expression = _wildcard(pattern.rstrip("^"))
    return any(expression.fullmatch(group.rstrip("^")) for group in (text, *text.split("=")))


def _wildcard(pattern: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    return re.compile(
        "".join(parts.get(char, re.escape(char)) for char in pattern), re.IGNORECASE | re.DOTALL
    )

"""Values of DICOM attributes as people write them."""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.valuerep import PersonName

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_SEXES = {"F": "Female", "M": "Male", "O": "Other"}
_DATE = re.compile(r"(\d{4})[.]?(\d{2})[.]?(\d{2})")  # with dots it is ACR-NEMA's
#: What has no decomposition in Unicode.
_TRANSLITERATIONS = str.maketrans(
    {"ß": "ss", "Æ": "AE", "æ": "ae", "Ø": "O", "ø": "o", "Œ": "OE", "œ": "oe", "Đ": "D", "đ": "d"}
    | {"Ł": "L", "ł": "l", "Þ": "Th", "þ": "th", "ı": "i", "–": "-", "—": "-", "’": "'", "‘": "'"}
    | {"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "…": "..."}
    | {"Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ä": "ae", "ö": "oe", "ü": "ue"}
)


def person_names(name: PersonName | None) -> tuple[str, ...]:
    """Write each component group of a PN: alphabetic, ideographic, phonetic (PS3.5 6.2.1).

    The first as ``Family, Prefix Given Middle, Suffix``; the others family name first, as in the languages
    that use them.
    """
    if not name:
        return ()
    groups = str(name).split("=")
    written = [_alphabetic(groups[0]), *(" ".join(group.replace("^", " ").split()) for group in groups[1:3])]
    return tuple(text for text in written if text)


def _alphabetic(group: str) -> str:
    family, given, middle, prefix, suffix = (group.split("^") + [""] * 5)[:5]
    forenames = " ".join(part.strip() for part in (prefix, given, middle) if part.strip())
    return ", ".join(part for part in (family.strip(), forenames, suffix.strip()) if part)


def readable_date(value: str) -> str:
    """Write a DA as ``1 February 1970``; what is no date stays as it is (PS3.5 6.2)."""
    text = value.strip()
    parts = _DATE.fullmatch(text)
    if not parts:
        return text
    try:
        day = date(*(int(part) for part in parts.groups()))
    except ValueError:
        return text
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def readable_time(value: str) -> str:
    """Write a TM as ``14:05``; what is no time stays as it is (PS3.5 6.2)."""
    text = value.strip()
    return f"{text[:2]}:{text[2:4]}" if re.fullmatch(r"\d{4}.*", text) else text


def readable_datetime(value: str) -> str:
    """Write a DT as ``1 February 1970, 14:05``."""
    text = value.strip()
    return ", ".join(part for part in (readable_date(text[:8]), readable_time(text[8:])) if part)


def readable_sex(value: str) -> str:
    """Write a PatientSex out (PS3.3 C.2.3)."""
    return _SEXES.get(value.strip().upper(), value.strip())


def ascii_text(text: str) -> str:
    """Write a text in printable ASCII: accents go, other scripts become question marks."""
    plain = unicodedata.normalize("NFKD", text.translate(_TRANSLITERATIONS))
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    return "".join(char if " " <= char <= "~" else "?" for char in plain)


def megabytes(count: int, *, up: bool = True) -> str:
    """Write a size as discs are labelled, in millions of bytes.

    A size is rounded up and a limit down: what is over the limit never reads as if it were not.
    """
    tenths = -(-count // 100_000) if up else count // 100_000
    return f"{tenths / 10:,.1f} MB"

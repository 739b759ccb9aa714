"""What callers send, checked: accession numbers."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from pacsbridge.errors import InvalidParameter, MissingParameter

if TYPE_CHECKING:
    from multidict import MultiMapping

#: The VR SH holds 16 characters (PS3.5, 6.2).
_MAX_LENGTH = 16
_WILDCARDS = frozenset("*?")
_MAX_NUMBERS = 100


def one_accession_number(query: MultiMapping[str], name: str = "accession_number") -> str:
    """Take the one accession number of a query string.

    Raises
    ------
    MissingParameter, InvalidParameter
        It is absent or empty; it can't be an accession number.
    """
    return accession_number(_only(query, name), name)


def accession_numbers(query: MultiMapping[str], name: str = "accession_numbers") -> tuple[str, ...]:
    """Take a comma-separated list of accession numbers; repeated ones count once.

    Raises
    ------
    MissingParameter, InvalidParameter
        There is none; one of them can't be an accession number.
    """
    return distinct_accession_numbers(_only(query, name).split(","), name)


def distinct_accession_numbers(texts: list[str], name: str) -> tuple[str, ...]:
    """Check each of several accession numbers; empty ones are passed over, repeated ones count once."""
    numbers = tuple(dict.fromkeys(accession_number(text, name) for text in texts if text.strip()))
    if not numbers:
        raise MissingParameter(f"Give the parameter {name}: accession numbers with commas between them.")
    if len(numbers) > _MAX_NUMBERS:
        raise InvalidParameter(f"{name} holds {len(numbers)} numbers; at most {_MAX_NUMBERS} go on one disc.")
    return numbers


def accession_number(text: str, name: str) -> str:
    """Check one accession number (VR SH): 1 to 16 characters, no wildcard, backslash or control character."""
    number = text.strip(" ")
    if not number:
        raise MissingParameter(f"Give the parameter {name}: it is empty.")
    if len(number) > _MAX_LENGTH:
        raise InvalidParameter(
            f"{name} has {len(number)} characters; an accession number has at most {_MAX_LENGTH}."
        )
    if _WILDCARDS & set(number):
        raise InvalidParameter(f"{name} may not contain the wildcards * and ?.")
    if "\\" in number or any(unicodedata.category(character)[0] == "C" for character in number):
        raise InvalidParameter(f"{name} may not contain a backslash or control characters.")
    return number


def _only(query: MultiMapping[str], name: str) -> str:
    values = query.getall(name, [])
    if not values:
        raise MissingParameter(f"Give the parameter {name}.")
    if len(values) > 1:
        raise InvalidParameter(f"Give the parameter {name} once.")
    return values[0]

"""The values that accounts are made of, and what makes them valid."""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from pacsbridge.db.schema import (
    ACCESSION_NUMBER_LENGTH,
    ADDRESS_LENGTH,
    EMAIL_LENGTH,
    NAME_LENGTH,
    UID_LENGTH,
)
from pacsbridge.errors import InvalidParameter, MissingParameter

Clock = Callable[[], datetime]
"""Tells the time, timezone-aware; tests pass their own."""

USER_AGENT_LENGTH = 255
REQUEST_ID_LENGTH = 64
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_WILDCARDS = frozenset("*?\\")


class Role(StrEnum):
    """What somebody is to the hospital."""

    PATIENT = "patient"
    DOCTOR = "doctor"
    STAFF = "staff"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request comes from, for audit records and for counting attempts."""

    address: str
    user_agent: str = ""
    request_id: str = ""

    def __post_init__(self) -> None:
        for name, length in (
            ("address", ADDRESS_LENGTH),
            ("user_agent", USER_AGENT_LENGTH),
            ("request_id", REQUEST_ID_LENGTH),
        ):
            object.__setattr__(self, name, storable(getattr(self, name))[:length])


@dataclass(frozen=True, slots=True)
class Grants:
    """The studies that somebody may see: named themselves, or by their accession numbers."""

    study_iuids: tuple[str, ...] = ()
    accession_numbers: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.study_iuids or self.accession_numbers)


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who has proven who they are, with what they may see as it is now.

    Parameters
    ----------
    subject
        ``user:<id>``, ``static:<email>`` or ``link:<id>``: unique and stable, in tokens and audit records.
    session_id
        The sign-in that this is part of.
    """

    subject: str
    session_id: str
    role: Role
    email: str = ""
    name: str = ""
    ref_doctor: str = ""
    grants: Grants = Grants()

    @property
    def id(self) -> str:
        """The subject without its kind."""
        return self.subject.partition(":")[2]


def utc_now() -> datetime:
    """Tell the time."""
    return datetime.now(UTC)


def new_id() -> str:
    """Make an identifier of 128 random bits in hex."""
    return secrets.token_hex(16)


def sha256(value: str) -> str:
    """Hash a random token for keeping: it has too many bits to be guessed, so a fast hash is enough."""
    # A JSON string may hold half of a surrogate pair, which is no text but must not be an error of ours.
    return hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()


def storable(text: str) -> str:
    """Drop what isn't text: control characters and halves of surrogate pairs."""
    return "".join(character for character in text if unicodedata.category(character) not in ("Cc", "Cs"))


SHELL = Caller(address="shell")
"""The engineer at the command line."""


def valid_email(value: str) -> str:
    """Return the email in the one form in which it is kept: case and composition of letters don't matter.

    Raises
    ------
    MissingParameter, InvalidParameter
        Nothing there, or it is no email.
    """
    email = unicodedata.normalize("NFC", value.strip()).casefold()
    if not email:
        raise MissingParameter("An email is needed.")
    if len(email) > EMAIL_LENGTH or storable(email) != email or not _EMAIL.fullmatch(email):
        raise InvalidParameter("That is not an email.")
    return email


def valid_name(value: str, what: str = "name") -> str:
    """Return a person's name without the space around it; it may be empty."""
    name = unicodedata.normalize("NFC", value.strip())
    if len(name) > NAME_LENGTH or storable(name) != name:
        raise InvalidParameter(f"The {what} must be at most {NAME_LENGTH} characters on one line.")
    return name


def valid_study_iuid(value: str) -> str:
    """Check a Study Instance UID (PS3.5 9.1): numbers with dots, at most 64 characters.

    Leading zeros are let through: archives hold such UIDs, whatever the standard says.
    """
    uid = value.strip()
    if not uid:
        raise MissingParameter("A Study Instance UID is needed.")
    if len(uid) > UID_LENGTH or not _UID.fullmatch(uid):
        raise InvalidParameter("A Study Instance UID is made of numbers and dots, at most 64 characters.")
    return uid


def valid_accession_number(value: str) -> str:
    """Check an accession number (VR SH, PS3.5 6.2): no wildcard, so that it names one exam only."""
    number = value.strip()
    if not number:
        raise MissingParameter("An accession number is needed.")
    if (
        len(number) > ACCESSION_NUMBER_LENGTH
        or storable(number) != number
        or not _WILDCARDS.isdisjoint(number)
    ):
        raise InvalidParameter(
            f"An accession number has at most {ACCESSION_NUMBER_LENGTH} characters, without * ? or backslash."
        )
    return number


def valid_grants(study_iuids: tuple[str, ...], accession_numbers: tuple[str, ...]) -> Grants:
    """Check both kinds; what is named twice counts once, the order stays."""
    return Grants(
        tuple(dict.fromkeys(valid_study_iuid(uid) for uid in study_iuids)),
        tuple(dict.fromkeys(valid_accession_number(number) for number in accession_numbers)),
    )

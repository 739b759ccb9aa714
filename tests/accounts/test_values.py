from __future__ import annotations

import pytest

from pacsbridge.accounts.values import (
    Caller,
    Grants,
    valid_accession_number,
    valid_email,
    valid_grants,
    valid_study_iuid,
)
from pacsbridge.errors import InvalidParameter, MissingParameter


@pytest.mark.parametrize("uid", ["1.2.840.10008", "0", "1.02", "9" * 64, " 1.2 "])
def test_a_study_iuid(uid: str) -> None:
    assert valid_study_iuid(uid) == uid.strip()


@pytest.mark.parametrize(
    "uid", ["1..2", ".1", "1.", "1.2*", "1.2?", "1/2", "1\\2", "9" * 65, "１.２", "1.2\n3"]
)
def test_no_study_iuid(uid: str) -> None:
    with pytest.raises(InvalidParameter):
        valid_study_iuid(uid)


@pytest.mark.parametrize("number", ["A1", "2026-0001/7", "x" * 16, " A 1 ", "Ä1"])
def test_an_accession_number(number: str) -> None:
    assert valid_accession_number(number) == number.strip()


@pytest.mark.parametrize("number", ["A*", "A?", "A\\B", "A\nB", "A\0", "x" * 17])
def test_no_accession_number(number: str) -> None:
    with pytest.raises(InvalidParameter):
        valid_accession_number(number)


def test_nothing_is_missing() -> None:
    for check in (valid_study_iuid, valid_accession_number, valid_email):
        with pytest.raises(MissingParameter):
            check("  ")


def test_what_is_granted_twice_counts_once() -> None:
    assert valid_grants(("1.3", "1.2", " 1.3"), ("B", "A", "B")) == Grants(("1.3", "1.2"), ("B", "A"))
    assert not valid_grants((), ())


def test_a_caller_fits_in_its_columns() -> None:
    caller = Caller("1" * 100, "x\r\n" * 200, "\x00" + "r" * 100)
    assert (len(caller.address), len(caller.user_agent), len(caller.request_id)) == (45, 200, 64)

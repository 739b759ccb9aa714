"""Accession numbers as callers send them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from pacsbridge.errors import InvalidParameter, MissingParameter
from pacsbridge.http.parameters import accession_numbers, one_accession_number


@pytest.mark.parametrize("text", ["A1", " A1 ", "1234567890123456", "ÄÖ-7", "A,B", "a b", "%41", "A/B"])
def test_an_accession_number_is_taken_as_it_is(text: str) -> None:
    assert one_accession_number(MultiDict(accession_number=text)) == text.strip()


@pytest.mark.parametrize(
    "text",
    ["*", "A*", "?", "A?B", "A\\B", "12345678901234567", "A\x00B", "A\nB", "A\x7f", "A\u200bB", "A\udcff"],
)
def test_what_no_accession_number_can_be_is_invalid(text: str) -> None:
    with pytest.raises(InvalidParameter):
        one_accession_number(MultiDict(accession_number=text))


@pytest.mark.parametrize(
    "query", [{}, {"accession_number": ""}, {"accession_number": "  "}, {"accession": "A"}]
)
def test_an_absent_or_empty_one_is_missing(query: dict[str, str]) -> None:
    with pytest.raises(MissingParameter):
        one_accession_number(MultiDict(query))


def test_a_parameter_given_twice_is_invalid() -> None:
    with pytest.raises(InvalidParameter, match="once"):
        one_accession_number(MultiDict([("accession_number", "A"), ("accession_number", "B")]))


def test_a_list_is_split_and_freed_of_repetitions() -> None:
    assert accession_numbers(MultiDict(accession_numbers="A, B,,A,C,")) == ("A", "B", "C")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", MissingParameter),
        (",", MissingParameter),
        ("A,*", InvalidParameter),
        ("A,B\\C", InvalidParameter),
    ],
)
def test_one_bad_number_spoils_the_list(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        accession_numbers(MultiDict(accession_numbers=text))


@given(st.text())
def test_any_text_is_either_an_accession_number_or_a_clear_error(text: str) -> None:
    try:
        number = one_accession_number(MultiDict(accession_number=text))
    except (MissingParameter, InvalidParameter):
        return
    assert 1 <= len(number) <= 16
    assert not set(number) & set("*?\\\n\r\0")

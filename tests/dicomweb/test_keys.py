from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from pacsbridge.dicomweb.keys import canonical, checked_query, parse_keys, rendering_query
from pacsbridge.errors import InvalidParameter


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("StudyInstanceUID", "StudyInstanceUID"),
        ("studyinstanceuid", "StudyInstanceUID"),
        (" STUDYINSTANCEUID ", "StudyInstanceUID"),
        ("0020000D", "StudyInstanceUID"),
        ("0020000d", "StudyInstanceUID"),
        ("(0020,000d)", "StudyInstanceUID"),
        ("00400275.00400009", "RequestAttributesSequence.ScheduledProcedureStepID"),
        ("RequestAttributesSequence.00400009", "RequestAttributesSequence.ScheduledProcedureStepID"),
        ("00091001", "00091001"),
        ("limit", ""),
        ("nothing", ""),
        ("", ""),
        (".", ""),
        ("StudyInstanceUID.", ""),
        ("StudyInstanceUID\0", ""),
    ],
)
def test_an_attribute_has_one_name(given: str, name: str) -> None:
    assert canonical(given) == name


def test_a_search_is_read() -> None:
    keys = parse_keys(
        "0020000d=1.2&PATIENTNAME=A%5EB&IncludeField=00081030,PatientID&includefield=ALL&limit=5&offset=2&FuzzyMatching=true&x=1"
    )
    assert keys.filters == (("StudyInstanceUID", "1.2"), ("PatientName", "A^B"))
    assert keys.fields == ("StudyDescription", "PatientID", "all")
    assert (keys.limit, keys.offset, keys.fuzzy) == (5, 2, True)
    written = parse_qsl(keys.without("StudyInstanceUID").query([("AccessionNumber", "A&B")], ["PatientID"]))
    assert written == [
        ("PatientName", "A^B"),
        ("AccessionNumber", "A&B"),
        ("fuzzymatching", "true"),
        ("includefield", "StudyDescription"),
        ("includefield", "PatientID"),
        ("includefield", "all"),
    ]


def test_an_empty_value_filters_nothing() -> None:
    keys = parse_keys("PatientID=&StudyInstanceUID=")
    assert keys.values("StudyInstanceUID") == []
    assert keys.query() == ""


@pytest.mark.parametrize(
    "query",
    ["limit=x", "limit=-1", "offset=1.5", "limit=1&limit=2", "a=%ff", "limit=", "&".join(["a=1"] * 201)],
)
def test_a_search_that_cannot_be_read_is_told(query: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_keys(query)


@pytest.mark.parametrize("query", ["a b", "a\tb", "a\r\nX: y", "é", "#x", "a=\x7f"])
def test_a_query_that_would_end_the_line_is_refused(query: str) -> None:
    with pytest.raises(InvalidParameter):
        checked_query(query)


def test_a_query_passes_as_it_is() -> None:
    assert checked_query("a=[1]&b={c}|d^e%20`") == "a=[1]&b={c}|d^e%20`"


def test_rendering_keeps_what_says_how_and_not_what() -> None:
    query = "Window=40,400,linear&viewport=512,512&presentationUID=9.9&objectUID=9.9&QUALITY=90&x=1&accept=image/jpeg"
    assert rendering_query(query) == "window=40,400,linear&viewport=512,512&quality=90&accept=image/jpeg"

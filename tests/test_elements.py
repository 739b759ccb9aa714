"""Encoded elements, against what pydicom writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacsbridge.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    LONGEST_SHORT_VALUE,
    Encoding,
    Malformed,
    encode,
    reencode,
    split,
    value_of,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ENCODINGS = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG)


def written(whole: Dataset, encoding: Encoding) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = encoding.implicit, not encoding.big_endian
    write_dataset(buffer, whole)
    return buffer.getvalue()


@st.composite
def datasets(draw: st.DrawFn, depth: int = 3) -> Dataset:
    """Make data sets of text, numbers and sequences of them, with defined and undefined lengths."""
    whole = Dataset()
    setters: list[tuple[str, Callable[[], object]]] = [
        ("SOPInstanceUID", lambda: draw(st.sampled_from(["1.2", "1.2.3"]))),
        ("CodeMeaning", lambda: draw(st.text("abc ", max_size=5)).strip()),
        ("Rows", lambda: draw(st.integers(0, 65_535))),
        ("DataPointRows", lambda: draw(st.integers(0, 2**32 - 1))),
        ("RecommendedDisplayFrameRateInFloat", lambda: draw(st.floats(width=32, allow_nan=False))),
        ("TextValue", lambda: draw(st.text("xyz", max_size=9))),
    ]
    for keyword, value in setters:
        if draw(st.booleans()):
            setattr(whole, keyword, value())
    if depth and draw(st.booleans()):
        whole.ConceptNameCodeSequence = draw(st.lists(datasets(depth=depth - 1), max_size=2))
        undefined = draw(st.booleans())
        whole["ConceptNameCodeSequence"].is_undefined_length = undefined
        for item in whole.ConceptNameCodeSequence:
            item.is_undefined_length_sequence_item = draw(st.booleans())
    return whole


@given(whole=datasets())
def test_all_encodings_are_encoded_again_as_one(whole: Dataset) -> None:
    results = set()
    for encoding in ENCODINGS:
        encoded = written(whole, encoding)
        results.add(reencode(encoded, walk(encoded, 0, len(encoded), encoding), encoding))
    [result] = results
    for element in whole.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = False
            for item in element.value:
                item.is_undefined_length_sequence_item = False
    assert result == written(whole, EXPLICIT_LITTLE)
    assert b"".join(split(result).values()) == result
    assert list(split(result)) == [element.tag for element in whole]


@pytest.mark.parametrize(
    ("vr", "value", "expected"),
    [
        (b"LO", b"", b""),
        (b"LO", b"A", b"A "),
        (b"UI", b"1.2", b"1.2\0"),
        (b"UN", b"A", b"A\0"),
        (b"UT", b"A", b"A "),
        (b"US", b"\0\1", b"\0\1"),
    ],
)
def test_values_are_made_even(vr: bytes, value: bytes, expected: bytes) -> None:
    encoded = encode(0x00080005, vr, value)
    assert value_of(encoded) == expected
    assert split(encoded) == {0x00080005: encoded}


def test_a_value_that_is_too_long_is_refused() -> None:
    encode(0x00080005, b"LO", bytes(LONGEST_SHORT_VALUE))
    with pytest.raises(Malformed):
        encode(0x00080005, b"LO", bytes(LONGEST_SHORT_VALUE + 1))

"""Range and conditional requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacsbridge.http.ranges import Part, choose_part

ETAG = '"abc"'


@pytest.mark.parametrize(
    ("headers", "part"),
    [
        ({}, Part(200, 0, 100)),
        ({"Range": "bytes=0-9"}, Part(206, 0, 10)),
        ({"Range": "bytes=90-"}, Part(206, 90, 100)),
        ({"Range": "bytes=-10"}, Part(206, 90, 100)),
        ({"Range": "bytes=-1000"}, Part(206, 0, 100)),
        ({"Range": "bytes=50-1000"}, Part(206, 50, 100)),
        ({"Range": "bytes=100-"}, Part(416, 0, 0)),
        ({"Range": "bytes=-0"}, Part(416, 0, 0)),
        ({"Range": "bytes=9-0"}, Part(200, 0, 100)),
        ({"Range": "bytes=-"}, Part(200, 0, 100)),
        ({"Range": f"bytes={'9' * 5000}-"}, Part(200, 0, 100)),
        ({"Range": "bytes=0-1,5-6"}, Part(200, 0, 100)),
        ({"Range": "lines=0-1"}, Part(200, 0, 100)),
        ({"Range": "bytes=0-9", "If-Range": ETAG}, Part(206, 0, 10)),
        ({"Range": "bytes=0-9", "If-Range": '"other"'}, Part(200, 0, 100)),
        ({"Range": "bytes=0-9", "If-Range": 'W/"abc"'}, Part(200, 0, 100)),
        ({"If-None-Match": ETAG}, Part(304, 0, 0)),
        ({"If-None-Match": 'W/"abc", "x"'}, Part(304, 0, 0)),
        ({"If-None-Match": '"x"'}, Part(200, 0, 100)),
        ({"If-Match": '"x"'}, Part(412, 0, 0)),
        ({"If-Match": "*"}, Part(200, 0, 100)),
    ],
)
def test_part(headers: dict[str, str], part: Part) -> None:
    assert choose_part(headers, ETAG, 100) == part


def test_what_is_resumed_is_not_glued_to_a_new_image() -> None:
    """curl resumes without If-Range: the image that it began may be another than the one made for it now."""
    resumed = {"Range": "bytes=90-"}
    assert choose_part(resumed, ETAG, 100, brand_new=True) == Part(200, 0, 100)
    assert choose_part(resumed | {"If-Range": ETAG}, ETAG, 100, brand_new=True) == Part(206, 90, 100)
    for harmless in ("bytes=0-", "bytes=0-9", "bytes=-10"):
        assert choose_part({"Range": harmless}, ETAG, 100, brand_new=True).status == 206


@given(st.text(), st.integers(0, 1000))
def test_any_range_header_gives_a_part_of_the_whole(text: str, size: int) -> None:
    part = choose_part({"Range": f"bytes={text}"}, ETAG, size)
    assert 0 <= part.start <= part.stop <= size

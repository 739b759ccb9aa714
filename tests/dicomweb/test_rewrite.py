from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacsbridge.dicomweb.rewrite import Inflating, Rewriter, is_json

OURS = "https://images.example.org/dicomWeb"
ROOT = "/v1/projects/p/dicomStores/s/dicomWeb"
REWRITER = Rewriter(ROOT, OURS)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (f"https://healthcare.example{ROOT}/studies/1.2", f"{OURS}/studies/1.2"),
        (
            f"http://10.0.0.1:8042{ROOT}/studies/1/series/2/instances/3/bulkdata/7FE00010",
            f"{OURS}/studies/1/series/2/instances/3/bulkdata/7FE00010",
        ),
        (f"https://healthcare.example{ROOT}", None),
        ("https://elsewhere.example/studies/1.2", None),
        (f"a text with https://healthcare.example{ROOT}/studies/1.2 in it", None),
        (f"ftp://x{ROOT}/studies/1.2", None),
    ],
)
def test_addresses_below_the_root_become_ours(given: str, expected: str | None) -> None:
    body = json.dumps([{"BulkDataURI": given}])
    rewritten = REWRITER.whole(body.encode())
    assert json.loads(rewritten) == [{"BulkDataURI": expected or given}]
    escaped = REWRITER.whole(body.replace("/", "\\/").encode())
    assert json.loads(escaped) == [{"BulkDataURI": expected or given}]


def test_a_server_that_answers_at_its_root() -> None:
    assert Rewriter("", OURS).whole(b'"http://pacs/studies/1"') == f'"{OURS}/studies/1"'.encode()


@given(st.lists(st.integers(1, 200)), st.integers(0, 5))
def test_an_address_may_be_cut_anywhere(cuts: list[int], count: int) -> None:
    body = json.dumps(
        [{"BulkDataURI": f"https://h{ROOT}/studies/{n}", "vr": "x" * (n * 3)} for n in range(count)]
    ).encode()
    stream = REWRITER.stream()
    rewritten, position = b"", 0
    for cut in [*cuts, len(body)]:
        rewritten += stream.feed(memoryview(body)[position : position + cut])
        position += cut
    rewritten += stream.end()
    assert rewritten == REWRITER.whole(body)


def test_a_long_value_is_not_held_back() -> None:
    stream = REWRITER.stream()
    stream.feed(b'{"InlineBinary": "')
    given_out = sum(len(stream.feed(b"A" * 10_000)) for _ in range(100))
    assert given_out > 900_000


def test_gzip_is_taken_off_in_bounded_pieces() -> None:
    bomb = gzip.compress(bytes(5_000_000))
    pieces = list(Inflating().feed(bomb))
    assert sum(map(len, pieces)) == 5_000_000
    assert max(map(len, pieces)) <= 262_144


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/dicom+json; charset=utf-8", True),
        ("Application/JSON", True),
        ("multipart/related", False),
        ("", False),
    ],
)
def test_json_is_known_by_its_type(content_type: str, expected: bool) -> None:
    assert is_json(content_type) == expected

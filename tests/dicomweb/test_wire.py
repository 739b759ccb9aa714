from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacsbridge.dicomweb.wire import ChunkedBody, Framing, ProtocolError, framing, parse_head


def test_a_head_is_read() -> None:
    head = parse_head(b"HTTP/1.1 200 OK\r\nContent-Type:  a/b \r\nVary: x\r\nVARY: y\r\nEmpty:")
    assert (head.status, head.minor_version) == (200, 1)
    assert head.headers == {"content-type": "a/b", "vary": "x, y", "empty": ""}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/2 200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"SSH-2.0-x",
        b"HTTP/1.1 200 OK\r\n folded: x",
        b"HTTP/1.1 200 OK\r\nA : x",
        b"HTTP/1.1 200 OK\r\n: x",
        b"HTTP/1.1 200 OK\r\nA: x\ny",
        b"HTTP/1.1 200 OK\r\nA: x\ry",
        b"HTTP/1.1 200 OK\r\nA: \x00",
        b"HTTP/1.1 200 OK\r\nA\x7f: x",
        b"HTTP/1.1 200 OK\r\n\tA: x",
    ],
)
def test_what_is_no_head_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_head(data)


@pytest.mark.parametrize(
    ("version", "headers", "keeps"),
    [
        (1, {}, True),
        (1, {"connection": "Close"}, False),
        (0, {}, False),
        (0, {"connection": "Keep-Alive"}, True),
    ],
)
def test_a_connection_is_kept_as_the_head_says(version: int, headers: dict[str, str], keeps: bool) -> None:
    lines = "".join(f"\r\n{name}: {value}" for name, value in headers.items())
    assert parse_head(f"HTTP/1.{version} 200 OK{lines}".encode()).keeps_alive == keeps


@pytest.mark.parametrize(
    ("method", "head", "expected"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5", (Framing.LENGTH, 5)),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5", (Framing.LENGTH, 5)),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5", (Framing.LENGTH, 0)),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5", (Framing.LENGTH, 0)),
        ("GET", b"HTTP/1.1 204 No Content", (Framing.LENGTH, 0)),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked", (Framing.CHUNKED, 0)),
        ("GET", b"HTTP/1.1 200 OK", (Framing.UNTIL_CLOSE, 0)),
    ],
)
def test_the_end_of_a_body_is_known(method: str, head: bytes, expected: tuple[Framing, int]) -> None:
    assert framing(method, parse_head(head)) == expected


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: -5",
        b"Content-Length: 0x5",
        b"Content-Length: +5",
        b"Content-Length:",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity",
        b"Content-Length: 9999999999999999999999",
    ],
)
def test_a_body_with_two_ends_is_refused(lines: bytes) -> None:
    with pytest.raises(ProtocolError):
        framing("GET", parse_head(b"HTTP/1.1 200 OK\r\n" + lines))


@given(st.lists(st.binary(min_size=1, max_size=300)), st.lists(st.integers(1, 40)), st.booleans())
def test_chunks_are_taken_off_wherever_they_are_cut(
    pieces: list[bytes], cuts: list[int], trailer: bool
) -> None:
    coded = b"".join(b"%X;x=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    coded += b"0\r\n" + (b"Trailer: x\r\n" if trailer else b"") + b"\r\n"
    body = ChunkedBody()
    content, position = b"", 0
    for cut in [*cuts, len(coded)]:
        content += b"".join(bytes(part) for part in body.feed(memoryview(coded[position : position + cut])))
        position += cut
    assert content == b"".join(pieces)
    assert body.ended


@pytest.mark.parametrize(
    "coded",
    [
        b"x\r\n",
        b"-1\r\n",
        b"\r\n",
        b"5\r\nhelloX\r\n",
        b"1" * 2000,
        b"0\r\n\r\nmore",
        b"1\r\nab\r\n",
        b"0\r\n" + b"a: b\r\n" * 9000,
        b"F" * 16 + b"\r\n",
        b"0x5\r\nhello\r\n",
    ],
)
def test_what_is_no_chunk_is_refused(coded: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(ChunkedBody().feed(memoryview(coded)))


@given(st.binary(max_size=400))
def test_garbage_ends_in_a_protocol_error_or_not_at_all(data: bytes) -> None:
    for reads in (lambda: parse_head(data), lambda: list(ChunkedBody().feed(memoryview(data)))):
        try:
            reads()
        except ProtocolError:
            continue

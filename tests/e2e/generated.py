"""Requests made up from the API's description: right ones, and such as programs and people get wrong."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_from_bytes

from hypothesis import strategies as st

from pacsbridge.http.openapi import resolve
from tests.peers import HOST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.http.description import Endpoint

#: Who asks.
CREDENTIALS = (
    "nobody", "key", "wrong key", "patient", "doctor", "staff", "admin", "admin", "cookie", "cookie elsewhere",
    "nonsense", "link",
)  # fmt: skip
ODD_TEXTS = (
    "", " ", "*", "A?", "\\", "\0", "\n", "a\r\nX-Evil: 1", "\ud800", "ÿ", "山田^太郎", "../..", "%00", "1" * 17,
    "A" * 300, "-1", "1e999", "null", "'; DROP TABLE users; --", "{{7*7}}", "٣", "CT1001,MR2001", "CT1001,CT1002", ",,",
)  # fmt: skip
#: Pieces of a path as they stand on the request line.
ODD_PIECES = (
    "", ".", "..", "%2e%2e", "%2F", "%00", "%ff", "%", "%zz", "a;b=c", "%5C", "a" * 5000, "%F0%9F%A9%BB", "{id}", "*",
    "~",
)  # fmt: skip
ODD_HEADERS: tuple[tuple[str, bytes], ...] = (
    ("Accept", b"text/html"),
    ("Accept", b"*/*;q=x, ,,"),
    ("Accept", b"application/json"),
    ("Accept-Language", b"id;q=high, en;;q=2"),
    ("Authorization", b"Bearer"),
    ("Authorization", b"Basic Zm9v"),
    ("Authorization", b"Bearer \xff\xfe.\x80"),
    ("Content-Encoding", b"gzip"),
    ("Content-Encoding", b"deflate"),
    ("Content-Encoding", b"br"),
    ("Content-Encoding", b"klingon"),
    ("Content-Type", b"application/json; charset=klingon"),
    ("Content-Type", b"application/json; charset=utf-16"),
    ("Content-Type", b"text/plain"),
    ("Content-Type", b"multipart/form-data"),
    ("Content-Type", b"multipart/form-data; boundary=x"),
    ("Content-Type", b"application/x-www-form-urlencoded"),
    ("Content-Type", b";;;"),
    ("Cookie", b"pacsbridge_session=\xff; =; pacsbridge_lang=xx"),
    ("Cookie", b'pacsbridge_session="'),
    ("Expect", b"100-continue"),
    ("Expect", b"a miracle"),
    ("If-Match", b'"other"'),
    ("If-Modified-Since", b"never"),
    ("If-None-Match", b"*"),
    ("If-Range", b'W/"x"'),
    ("Last-Event-ID", b"\xff" * 9),
    ("Origin", b"null"),
    ("Origin", b"http://localhost:3000"),
    ("Origin", b"https://evil.example"),
    ("Range", b"bytes=0-9"),
    ("Range", b"bytes=99999999999999999999-"),
    ("Range", b"bytes=999999999999-"),
    ("Range", b"bytes=-0,5-"),
    ("User-Agent", b"\xff\x80" * 300),
    ("X-Forwarded-For", b"1.2.3.4, x, ,"),
    ("X-Request-ID", b"mine-1"),
    ("X-Request-ID", b"\xff" * 200),
)
_ODD_BODIES = (
    b"", b"{", b"null", b"[]", b"0", b'"', b"\xff\xfe", b"\xef\xbb\xbf{}", b"NaN", b'{"a":1}' * 2, b"[" * 5000, b"\0",
    b'{"kind": "iso", "kind": "print"}', b"a=b&c=%ff&=&&", b"--x\r\n\r\n", b"--x--", b"email=%00&password=%zz",
    b'--x\r\nContent-Disposition: form-data; name="email"; filename="f"\r\n\r\nx\r\n--x--\r\n',
)  # fmt: skip

any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(ODD_TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@dataclass(frozen=True)
class Made:
    """A request: what stands on its line, who sends it, and whether its path names the endpoint."""

    endpoint: Endpoint = field(repr=False)
    method: str
    target: str
    credentials: str
    headers: tuple[tuple[str, bytes], ...]
    body: bytes
    straight: bool


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]


def values(document: Mapping[str, Any], schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Make values that a schema of a request lets through, or nearly."""
    schema = resolve(document, schema)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema.get("type", "string")
    return st.one_of(
        [_of_kind(document, schema, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    )


def _of_kind(document: Mapping[str, Any], schema: Mapping[str, Any], kind: str) -> st.SearchStrategy[Any]:
    match kind:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum"))
        case "number":
            return st.floats(schema.get("minimum", 0), schema.get("maximum"))
        case "array":
            items = values(document, schema["items"]) | st.sampled_from(("CT1001", "CT1002", "1.2.3"))
            return st.lists(items, max_size=3)
        case "object":
            properties = schema.get("properties", {})
            needed = {name: values(document, properties[name]) for name in schema.get("required", ())}
            others = {name: values(document, each) for name, each in properties.items() if name not in needed}
            return st.fixed_dictionaries(needed, optional=others)
        case _:
            return st.text(min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", 30))


@st.composite
def requests(
    draw: st.DrawFn,
    document: Mapping[str, Any],
    endpoints: list[Endpoint],
    known: Mapping[str, tuple[str, ...]],
) -> Made:
    """Make a request to one of the endpoints.

    Parameters
    ----------
    known
        For each parameter of a path, values that there are.
    """
    endpoint = draw(st.sampled_from(endpoints))
    method = draw(st.sampled_from((endpoint.method,) * 12 + ("HEAD", "OPTIONS", "PUT", "get", "BREW")))
    target, straight = endpoint.path, True
    for parameter in endpoint.parameters:
        if parameter["in"] == "path":
            there = draw(st.sampled_from((True, True, False)))
            piece = draw(st.sampled_from(known[parameter["name"]] if there else ODD_PIECES))
            straight = straight and there
            target = target.replace(f"{{{parameter['name']}}}", piece)
    query = draw(_queries(document, endpoint))
    return Made(
        endpoint,
        method,
        f"{target}?{query}" if query else target,
        draw(st.sampled_from(CREDENTIALS)) if draw(st.booleans()) else _right_credentials(endpoint),
        draw(st.just(()) | st.lists(st.sampled_from(ODD_HEADERS), max_size=3, unique_by=_name).map(tuple)),
        draw(_bodies(document, endpoint))
        if endpoint.operation.get("requestBody") or draw(st.integers(0, 9)) == 0
        else b"",
        straight,
    )


def _right_credentials(endpoint: Endpoint) -> str:
    if endpoint.operation["tags"] == ["Pages"]:
        return "cookie"
    schemes = {name for each in endpoint.operation["security"] for name in each}
    return "key" if "ApiKey" in schemes else "admin" if schemes else "nobody"


def _name(header: tuple[str, bytes]) -> str:
    return header[0]


@st.composite
def _queries(draw: st.DrawFn, document: Mapping[str, Any], endpoint: Endpoint) -> str:
    pairs: list[tuple[str, str]] = []
    for parameter in endpoint.parameters:
        if parameter["in"] != "query":
            continue
        right = st.just(str(parameter.get("example", "1")))
        odd = st.sampled_from(ODD_TEXTS) | st.text(max_size=20)
        times = draw(st.sampled_from((1, 1, 1, 1, 0, 2)))
        pairs += [(parameter["name"], draw(st.one_of(right, right, odd))) for _ in range(times)]
    if draw(st.integers(0, 5)) == 0:
        name = draw(st.sampled_from(("expires", "signature", "next", "lang", "x", "")))
        pairs.append((name, draw(st.sampled_from(ODD_TEXTS))))
    written = "&".join(f"{name}={quote(value, errors='surrogatepass')}" for name, value in pairs)
    tail: str = draw(st.sampled_from(("",) * 8 + ("&", "&&=", "%ff", "&%zz=1", "&a=%00", ";x")))
    return written + tail


@st.composite
def _bodies(draw: st.DrawFn, document: Mapping[str, Any], endpoint: Endpoint) -> bytes:
    body = endpoint.body
    if not body or draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(_ODD_BODIES) | st.binary(max_size=40))
    value = dict(body["example"]) if draw(st.booleans()) else draw(values(document, body["schema"]))
    for _ in range(draw(st.sampled_from((0, 0, 1, 2)))):
        name = draw(st.sampled_from([*value, "x"]))
        if draw(st.booleans()):
            value[name] = draw(any_json)
        else:
            value.pop(name, None)
    return json.dumps(value).encode()


def send(port: int, made: Made, headers: Mapping[str, bytes]) -> Answer:
    """Send a request just as it was made, and read the answer to its end.

    `headers` give way to those of the request.
    """
    own = {name.lower(): value for name, value in made.headers}
    if made.body:
        own.setdefault("content-type", b"application/json")
        own["content-length"] = str(len(made.body)).encode()
    merged = {"host": f"{HOST}:{port}".encode(), "connection": b"close"} | dict(headers) | own
    target = quote_from_bytes(made.target.encode("utf-8", "surrogatepass"), safe="%/?#[]@!$&'()*+,;=:~{}")
    head = f"{made.method} {target} HTTP/1.1\r\n".encode()
    head += b"".join(name.encode() + b": " + value + b"\r\n" for name, value in merged.items())
    with socket.create_connection((HOST, port), timeout=30) as connection:
        connection.sendall(head + b"\r\n" + made.body)
        response = http.client.HTTPResponse(connection, method=made.method)
        try:
            response.begin()
            content = response.read()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, named, content)
        finally:
            response.close()

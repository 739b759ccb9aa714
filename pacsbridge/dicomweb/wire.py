"""Answers on the wire (RFC 9112): the head of a response, and where its body ends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD_LIMIT = 65_536
#: The size of a chunk in hex, with its extensions; and all trailers together.
_CHUNK_LINE_LIMIT = 1024
_TRAILER_LIMIT = 16_384
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?", re.ASCII)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
#: What may not stand in a head: controls, and line ends that are not CR LF.
_FORBIDDEN = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)

NO_CONTENT = 204
NOT_MODIFIED = 304
#: An answer for which no body follows, whatever its head says (RFC 9112, 6.3).
_BODILESS = frozenset({NO_CONTENT, NOT_MODIFIED})


class ProtocolError(Exception):
    """What came is not HTTP/1.1, or contradicts itself."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer.

    Attributes
    ----------
    headers
        By name in lower case; the values of a name that came several times have commas between them.
    """

    minor_version: int
    status: int
    headers: dict[str, str]

    @property
    def keeps_alive(self) -> bool:
        """Whether another request may follow on the connection (RFC 9112, 9.3)."""
        connection = self.headers.get("connection", "").lower()
        if self.minor_version == 0:
            return "keep-alive" in connection
        return "close" not in connection


class Framing(Enum):
    """How the end of a body is known (RFC 9112, 6.3)."""

    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()


def parse_head(data: bytes) -> Head:
    """Read a head, without the empty line at its end.

    Raises
    ------
    ProtocolError
        It is none.
    """
    text = data.decode("utf-8", "replace")
    if _FORBIDDEN.search(text):
        raise ProtocolError("a control character in the head")
    status_line, *lines = text.split("\r\n")
    match = _STATUS_LINE.fullmatch(status_line)
    if match is None:
        raise ProtocolError("no status line")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise ProtocolError("a header that is none")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Head(int(match[1]), int(match[2]), headers)


def framing(method: str, head: Head) -> tuple[Framing, int]:
    """Tell how the body ends, and its length where that is known.

    Raises
    ------
    ProtocolError
        The head says two things at once: whoever believes the other one reads another message.
    """
    if method == "HEAD" or head.status in _BODILESS:
        return Framing.LENGTH, 0
    coding, length = head.headers.get("transfer-encoding"), head.headers.get("content-length")
    if coding is not None:
        if length is not None or coding.lower() != "chunked" or head.minor_version == 0:
            raise ProtocolError("a transfer coding that can't be followed")
        return Framing.CHUNKED, 0
    if length is None:
        return Framing.UNTIL_CLOSE, 0
    values = {value.strip() for value in length.split(",")}
    if len(values) != 1 or not _LENGTH.fullmatch(value := values.pop()):
        raise ProtocolError("a Content-Length that is none")
    return Framing.LENGTH, int(value)


class _Part(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()
    END = auto()


class ChunkedBody:
    """Takes the chunked coding off a body (RFC 9112, 7.1), piece by piece, without copying what is in it."""

    def __init__(self) -> None:
        self._part = _Part.SIZE
        self._left = 0
        self._line = b""
        self._trailer = 0

    @property
    def ended(self) -> bool:
        """Whether the last chunk and the trailer have come."""
        return self._part is _Part.END

    def feed(self, data: memoryview) -> Iterator[memoryview]:
        """Take what came, and give the parts of it that are content.

        Raises
        ------
        ProtocolError
            It is not the chunked coding, or there is something after its end.
        """
        position = 0
        while position < len(data):
            if self._part is _Part.DATA:
                piece = data[position : position + self._left]
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._part = _Part.DATA_END
                yield piece
            elif self._part is _Part.END:
                raise ProtocolError("more than one answer")
            else:
                position = self._take_line(data, position)

    def _take_line(self, data: memoryview, position: int) -> int:
        """Take a line, or as much of it as is there; give where it ends."""
        taken = bytes(data[position : position + _CHUNK_LINE_LIMIT])
        line = self._line + taken
        end = line.find(b"\r\n")
        if end < 0:
            if len(line) > _CHUNK_LINE_LIMIT:
                raise ProtocolError("a chunk without a size")
            self._line = line
            return position + len(taken)
        position += end + 2 - len(self._line)
        self._line = b""
        self._understand(line[:end])
        return position

    def _understand(self, line: bytes) -> None:
        if self._part is _Part.DATA_END:
            if line:
                raise ProtocolError("a chunk longer than its size")
            self._part = _Part.SIZE
        elif self._part is _Part.SIZE:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise ProtocolError("a chunk without a size")
            self._left = int(match[1], 16)
            self._part = _Part.DATA if self._left else _Part.TRAILER
        else:
            self._trailer += len(line)
            if self._trailer > _TRAILER_LIMIT:
                raise ProtocolError("a trailer without end")
            if not line:
                self._part = _Part.END

"""Addresses in answers: ``BulkDataURI`` and ``RetrieveURL`` name the upstream server, and have to name this one.

PS3.18, F.2.2 and 10.6.3: both are absolute. The text of the JSON is rewritten, not its structure, so that a
series' metadata of many megabytes passes through in pieces.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_JSON_TYPES = frozenset({"application/dicom+json", "application/json"})
#: An address that has not become recognisable after so many bytes is none of ours.
_LONGEST_PREFIX = 4096
_INFLATED_BYTES = 262_144
_GZIP = zlib.MAX_WBITS | 16


def is_json(content_type: str) -> bool:
    """Tell whether a body is JSON, and so may hold addresses."""
    return content_type.partition(";")[0].strip().lower() in _JSON_TYPES


class Rewriter:
    """Rewrites addresses below one root.

    Parameters
    ----------
    path
        The path of the upstream root; the scheme and host before it may be any: servers behind proxies don't
        know their own.
    public_root
        The root by which clients know this server: ``https://images.example.org/dicomWeb``.
    """

    def __init__(self, path: str, public_root: str) -> None:
        slash = rb"(?:\\?/)"  # JSON lets a slash be escaped (RFC 8259, 7)
        below = slash.join(re.escape(part) for part in path.encode().split(b"/"))
        self._pattern = re.compile(
            rb'"https?:'
            + slash
            + rb'{2}[^"\\/\s]+'
            + below
            + rb"(?=\\?/(?:studies|series|instances|bulkdata)\\?/)"
        )
        self._replacement = json.dumps(public_root)[:-1].encode()

    def whole(self, body: bytes) -> bytes:
        """Rewrite a body that is there whole."""
        if b"http" not in body:
            return body
        return self._pattern.sub(lambda _: self._replacement, body)

    def stream(self) -> RewrittenStream:
        """Begin a body that comes in pieces."""
        return RewrittenStream(self)


class RewrittenStream:
    """Rewrites a body piece by piece; an address may be cut anywhere."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter
        self._held = b""

    def feed(self, piece: bytes | memoryview) -> bytes:
        """Take a piece, and give what is certain by now."""
        text = self._held + piece
        cut = text.rfind(b'"')
        if cut < 0 or len(text) - cut > _LONGEST_PREFIX:
            cut = len(text)
        self._held = text[cut:]
        return self._rewriter.whole(text[:cut])

    def end(self) -> bytes:
        """Give what is left."""
        held, self._held = self._held, b""
        return self._rewriter.whole(held)


class Inflating:
    """Takes gzip off, never more at a time than fits in memory."""

    def __init__(self) -> None:
        self._decompressor = zlib.decompressobj(_GZIP)

    def feed(self, piece: bytes | memoryview) -> Iterator[bytes]:
        """Give what a piece inflates to.

        Raises
        ------
        zlib.error
            It is not gzip.
        """
        data, full = bytes(piece), False
        while data or full:
            inflated = self._decompressor.decompress(data, _INFLATED_BYTES)
            full = len(inflated) == _INFLATED_BYTES
            data = self._decompressor.unconsumed_tail
            yield inflated

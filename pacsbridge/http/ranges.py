"""Range and conditional requests for one representation with a strong ETag (RFC 9110, 13 and 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """What to send: a status, and the bytes from `start` up to, not including, `stop`."""

    status: int
    start: int
    stop: int


def choose_part(headers: Mapping[str, str], etag: str, size: int, *, brand_new: bool = False) -> Part:
    """Decide what a GET or HEAD request gets of a representation of `size` bytes.

    A request for several ranges, or one that can't be read, gets the whole (RFC 9110, 14.2).

    Parameters
    ----------
    etag
        The strong entity tag, quotes included.
    brand_new
        Whether the representation was made for this request. What is resumed without If-Range (curl does so)
        can't be the rest of it then: the whole is sent, lest two images be glued together.
    """
    if "If-Match" in headers and not _matches(headers["If-Match"], etag, weak=False):
        return Part(412, 0, 0)
    if "If-None-Match" in headers and _matches(headers["If-None-Match"], etag, weak=True):
        return Part(304, 0, 0)
    whole = Part(200, 0, size)
    match = _RANGE.fullmatch(headers.get("Range", ""))
    if match is None or headers.get("If-Range", etag) != etag:
        return whole
    first, last = match.groups()
    if not first and not last:
        return whole
    if not first:
        start, stop = max(size - int(last), 0), size
    elif brand_new and int(first) and not last and "If-Range" not in headers:
        return whole
    else:
        start = int(first)
        stop = min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return whole
    return Part(206, start, stop) if start < stop else Part(416, 0, 0)


def _matches(header: str, etag: str, *, weak: bool) -> bool:
    tags = [tag.strip() for tag in header.split(",")]
    return "*" in tags or etag in tags or (weak and f"W/{etag}" in tags)

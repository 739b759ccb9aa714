"""Which headers pass, in either direction: those that DICOMweb uses (PS3.18, 8.4), and no other.

What is left away matters: the client's credentials and cookies, hop-by-hop headers (RFC 9110, 7.6.1), headers
that change the method or say who pays (``X-HTTP-Method-Override``, ``X-Goog-*``); from upstream its cookies, its
CORS rules (ours are added), its alternative services, and whatever names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TO_UPSTREAM = {
    name.lower(): name
    for name in (
        "Accept",
        "Accept-Charset",
        "Accept-Encoding",
        "Accept-Language",
        "Content-Language",
        "Content-Type",
        "If-Match",
        "If-Modified-Since",
        "If-None-Match",
        "If-Range",
        "If-Unmodified-Since",
        "Prefer",
        "Range",
    )
}
_TO_CLIENT = {
    name.lower(): name
    for name in (
        "Accept-Ranges",
        "Age",
        "Allow",
        "Content-Disposition",
        "Content-Encoding",
        "Content-Language",
        "Content-Length",
        "Content-Range",
        "Content-Type",
        "ETag",
        "Expires",
        "Last-Modified",
        "Retry-After",
        "Vary",
        "Warning",
    )
}
#: What a browser would run or draw in our own origin, beside the cookie, if upstream holds such a document.
_ACTIVE = ("text/html", "image/svg", "text/xml", "application/xml", "application/xhtml")


def for_upstream(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Give the headers of a request that pass; what came several times has commas between (RFC 9110, 5.3)."""
    passed: dict[str, str] = {}
    for given, value in headers:
        name = _TO_UPSTREAM.get(given.lower())
        if name is not None:
            passed[name] = f"{passed[name]}, {value}" if name in passed else value
    return passed


def for_client(headers: Mapping[str, str], *, shared: bool = False) -> dict[str, str]:
    """Give the headers of an answer that pass, and those that keep it private.

    Parameters
    ----------
    headers
        By name in lower case.
    shared
        Whether it was given without sign-in, so that caches may keep it as upstream says.
    """
    passed = {name: headers[lower] for lower, name in _TO_CLIENT.items() if lower in headers}
    passed["X-Content-Type-Options"] = "nosniff"
    if shared and "cache-control" in headers:
        passed["Cache-Control"] = headers["cache-control"]
    elif not shared:
        # Asked for again at each use, so that a study that is taken away is gone at once.
        stored = "no-store" not in headers.get("cache-control", "")
        passed["Cache-Control"] = "private, no-cache" if stored else "no-store"
    if headers.get("content-type", "").lower().startswith(_ACTIVE):
        passed["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return passed

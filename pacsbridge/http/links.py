"""Signed links: the HIS puts them into its pages without the API key in them.

A link is one of the URLs below with two more parameters::

    expires     seconds since 1970-01-01 UTC after which it is refused
    signature   hex of HMAC-SHA256 (RFC 2104) over  purpose LF numbers LF expires

``purpose`` is ``download``, ``print`` or ``desk``; ``numbers`` is the value of the parameter
``accession_number`` (or ``accession_numbers``) as it stands before it is percent-encoded. The key is
``auth.link_secret``, or ``auth.api_key`` where that is empty. All of it is UTF-8.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from pacsbridge.errors import Unauthorized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multidict import MultiMapping

    from pacsbridge.config import AuthConfig


class Purpose(StrEnum):
    """What a link is good for."""

    DOWNLOAD = "download"
    PRINT = "print"
    DESK = "desk"


_PATHS = {Purpose.PRINT: "/api/iso/print", Purpose.DESK: "/discs"}
_NUMBERS = ("accession_number", "accession_numbers")


def make_link(
    auth: AuthConfig, public_url: str, purpose: Purpose, numbers: Sequence[str], *, expires: int
) -> str:
    """Make a link that is good until `expires`, in seconds since 1970."""
    name, path = _NUMBERS[0], _PATHS.get(purpose, "/api/iso/download")
    if purpose is Purpose.DOWNLOAD and len(numbers) > 1:
        name, path = _NUMBERS[1], "/api/iso/download-multiple"
    value = ",".join(numbers)
    signature = _sign(auth, purpose, value, str(expires))
    return f"{public_url}{path}?{urlencode({name: value, 'expires': expires, 'signature': signature})}"


def is_signed(query: MultiMapping[str]) -> bool:
    """Whether a query string carries a signature."""
    return "signature" in query


def check_link(auth: AuthConfig, purpose: Purpose, query: MultiMapping[str]) -> str:
    """Check a signed query string and return the numbers that it names, as they stand in it.

    Raises
    ------
    Unauthorized
        The signature is not ours, or is for something else, or has expired.
    """
    values = [value for name in _NUMBERS for value in query.getall(name, [])]
    expires = query.get("expires", "")
    if len(values) != 1 or not expires.isascii() or not expires.isdigit():
        raise Unauthorized("This link is not complete. Open it from the HIS again.")
    expected = _sign(auth, purpose, values[0], expires)
    if not hmac.compare_digest(expected.encode(), query["signature"].encode()):
        raise Unauthorized("This link was changed, or is for something else. Open it from the HIS again.")
    if time.time() > int(expires):
        raise Unauthorized("This link has expired. Open it from the HIS again.")
    return values[0]


def _sign(auth: AuthConfig, purpose: Purpose, value: str, expires: str) -> str:
    secret = auth.link_secret.get_secret_value() or auth.api_key.get_secret_value()
    message = f"{purpose}\n{value}\n{expires}"
    return hmac.new(secret.encode(), message.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

"""Who may call the endpoints of discs: whoever has the API key, or a signed link for just what it names."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING

from aiohttp import web

from pacsbridge.errors import Forbidden, Unauthorized
from pacsbridge.http.links import Purpose, check_link, is_signed
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

API_KEY_HEADER = "X-API-Key"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: `name` for the record, `numbers` the accession numbers that a link limits the caller to."""

    name: str
    numbers: frozenset[str] | None = None

    def may(self, numbers: Iterable[str]) -> bool:
        """Whether the caller may have to do with these accession numbers."""
        return self.numbers is None or self.numbers.issuperset(numbers)

    def require(self, numbers: Iterable[str]) -> None:
        """Refuse what the caller may not have to do with.

        Raises
        ------
        Forbidden
            The caller's link names other accession numbers.
        """
        if not self.may(numbers):
            raise Forbidden("This link is for other accession numbers. Open the one for these from the HIS.")


CALLER: web.RequestKey[Caller] = web.RequestKey("caller")


def guarded(handler: Handler, purpose: Purpose) -> Handler:
    """Let a handler be called with the API key, or a link signed for `purpose`, where ``auth.enabled`` is set."""

    @wraps(handler)
    async def guard(request: web.Request) -> web.StreamResponse:
        request[CALLER] = _identify(request, purpose)
        return await handler(request)

    return guard


def _identify(request: web.Request, purpose: Purpose) -> Caller:
    auth = request.app[SERVICES].config.auth
    if not auth.enabled:
        return Caller("anyone")
    given = request.headers.get(API_KEY_HEADER)
    if given is not None:
        if hmac.compare_digest(
            given.encode("utf-8", "surrogateescape"), auth.api_key.get_secret_value().encode()
        ):
            return Caller("api key")
        raise Unauthorized(f"The API key in the header {API_KEY_HEADER} is wrong.")
    if is_signed(request.query):
        value = check_link(auth, purpose, request.query)
        return Caller("link", frozenset(number.strip() for number in (value, *value.split(","))))
    raise Unauthorized(f"Send the API key in the header {API_KEY_HEADER}, or use a signed link.")

"""Who may call the endpoints of discs and links: the API key, a signed link for just what it names, staff."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING

from aiohttp import web

from pacsbridge.accounts.policy import Action
from pacsbridge.errors import Forbidden, Unauthorized
from pacsbridge.http.identity import permitted, principal_of
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


def guarded(handler: Handler, purpose: Purpose | None, action: Action = Action.MAKE_DISC) -> Handler:
    """Guard a handler where ``auth.enabled`` is set.

    It may be called with the API key, with a link signed for `purpose`, or by somebody who has signed in and
    whom the policy lets do `action`.
    """

    @wraps(handler)
    async def guard(request: web.Request) -> web.StreamResponse:
        request[CALLER] = await _identify(request, purpose, action)
        return await handler(request)

    return guard


async def _identify(request: web.Request, purpose: Purpose | None, action: Action) -> Caller:
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
    if purpose is not None and is_signed(request.query):
        value = check_link(auth, purpose, request.query)
        return Caller("link", frozenset(number.strip() for number in (value, *value.split(","))))
    if await principal_of(request) is not None:
        return Caller((await permitted(request, action)).subject)
    raise Unauthorized(f"Send the API key in the header {API_KEY_HEADER}, use a signed link, or sign in.")

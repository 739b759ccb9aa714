"""Who may call the endpoints of discs and links: the API key, or a signed-in member of staff."""

from __future__ import annotations

import hmac
from functools import wraps
from typing import TYPE_CHECKING

from pacsbridge.accounts.policy import Action
from pacsbridge.errors import Unauthorized
from pacsbridge.http.identity import permitted, principal_of
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

API_KEY_HEADER = "X-API-Key"


def guarded(handler: Handler, action: Action = Action.MAKE_DISC) -> Handler:
    """Where ``auth.enabled`` is set, let a handler be called with the API key or by whom the policy lets only."""

    @wraps(handler)
    async def guard(request: web.Request) -> web.StreamResponse:
        auth = request.app[SERVICES].config.auth
        if auth.enabled:
            given = request.headers.get(API_KEY_HEADER, "").encode(errors="surrogateescape")
            if not hmac.compare_digest(given, auth.api_key.get_secret_value().encode()):
                await _check_signed_in(request, action)
        return await handler(request)

    return guard


async def _check_signed_in(request: web.Request, action: Action) -> None:
    if await principal_of(request) is None:
        raise Unauthorized(f"Send the API key in the header {API_KEY_HEADER}, or sign in.")
    await permitted(request, action)

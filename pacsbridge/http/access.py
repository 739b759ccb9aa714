"""Who may call: the API key on the endpoints of discs."""

from __future__ import annotations

import hmac
from functools import wraps
from typing import TYPE_CHECKING

from pacsbridge.errors import Unauthorized
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

API_KEY_HEADER = "X-API-Key"


def guarded(handler: Handler) -> Handler:
    """Let a handler be called with the API key only, where ``auth.enabled`` is set."""

    @wraps(handler)
    async def guard(request: web.Request) -> web.StreamResponse:
        auth = request.app[SERVICES].config.auth
        if auth.enabled:
            given = request.headers.get(API_KEY_HEADER, "")
            if not hmac.compare_digest(given.encode(), auth.api_key.get_secret_value().encode()):
                raise Unauthorized(f"Send the API key in the header {API_KEY_HEADER}.")
        return await handler(request)

    return guard

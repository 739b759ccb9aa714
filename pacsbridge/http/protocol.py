"""The server below the handlers: what can't be read as HTTP is answered in JSON, and logged without a word of it."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import hdrs, web

from pacsbridge.http.middleware import REQUEST_ID
from pacsbridge.http.services import SERVICES
from pacsbridge.http.shortway import ShortWay

if TYPE_CHECKING:
    from pacsbridge.http.services import Services

log = structlog.get_logger(__name__)

_NOT_READABLE = (
    "This is not a request that can be read as HTTP: it is malformed, or a line of it is too long."
)


class JsonRunner(web.AppRunner):
    """An application's runner that answers unreadable requests as the contract says errors, and images quickly.

    aiohttp's own answer is plain text, and its log line repeats the request, accession numbers included.
    """

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            self.app[SERVICES],
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,  # noqa: SLF001 - what the runner was given; aiohttp has no other place for a protocol
        )

    async def stop_listening(self) -> None:
        """Accept no connection any more; those that stand go on."""
        for site in list(self.sites):
            await site.stop()


class _Server(web.Server):
    def __init__(self, services: Services, handler: Any, **options: Any) -> None:
        super().__init__(handler, **options)
        self._services = services

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self._services, self, loop=self._loop, **self._kwargs)


class _Protocol(web.RequestHandler):
    __slots__ = ("short_way",)

    def __init__(self, services: Services, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self.short_way = ShortWay(services, self)

    # What asyncio calls.

    def data_received(self, data: bytes) -> None:
        """Take what was received: the short way where it can go, else aiohttp's."""
        if self._force_close or self._close or not self.short_way.takes(data):
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop whatever is done for the client."""
        self.short_way.lost()
        super().connection_lost(exc)

    # What the short way calls.

    @property
    def is_idle(self) -> bool:
        """Whether aiohttp is neither reading nor answering a request."""
        return not self._messages and self._current_request is None and not self._request_in_progress

    def take(self, data: bytes) -> None:
        """Have aiohttp take data as it was received."""
        super().data_received(data)

    def rest(self) -> None:
        """Count the time until the connection is closed as idle from now on."""
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    async def drain(self) -> None:
        """Wait until the client has taken what was written."""
        await self._drain_helper()

    # What aiohttp calls.

    def _process_keepalive(self) -> None:
        if self.short_way.is_busy:
            self.rest()
        super()._process_keepalive()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what no handler saw, or what broke below one; the connection ends."""
        del message  # it repeats what was sent
        request_id = secrets.token_hex(8)
        log.warning(
            "a request could not be answered",
            status=status,
            reason=type(exc).__name__,
            request_id=request_id,
        )
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is on its way already")
        readable = status >= 500
        return _answer(
            status,
            "internal_error" if readable else "invalid_request",
            "Something went wrong here. The log tells more." if readable else _NOT_READABLE,
            request_id,
        )

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Put what aiohttp answers before any middleware in our form: an Expect that nobody can meet is one."""
        if isinstance(resp, web.HTTPException) and REQUEST_ID not in request:
            resp = _answer(resp.status, "invalid_request", resp.reason, secrets.token_hex(8))
        self.short_way.drop_begun()
        return await super().finish_response(request, resp, start_time)


def _answer(status: int, code: str, message: str, request_id: str) -> web.Response:
    error = {"code": code, "message": message, "request_id": request_id}
    response = web.Response(
        status=status,
        text=json.dumps({"error": error}),
        content_type="application/json",
        headers={"X-Request-ID": request_id, hdrs.CACHE_CONTROL: "no-store"},
    )
    response.force_close()
    return response

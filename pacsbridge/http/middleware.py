"""What every request goes through: an id, the log line, CORS, errors as JSON."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import structlog
from aiohttp import hdrs, web

from pacsbridge import metrics
from pacsbridge.errors import Busy, PacsbridgeError
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from prometheus_client import Counter, Histogram

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger("pacsbridge.access")
_plain_log = logging.getLogger("pacsbridge.access")

REQUEST_ID_HEADER = "X-Request-ID"
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id")

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_QUIET_PATHS = frozenset({"/api/health", "/api/ready", "/metrics"})
IMAGES_ROUTE = "/dicomWeb{tail}"
_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    412: "precondition_failed",
    413: "too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
}
#: Headers that say more about an error (RFC 9110, 10.2.1 and 14.4).
_TELLING = (hdrs.ALLOW, hdrs.CONTENT_RANGE)
_ALLOWED_HEADERS = "Authorization, Content-Type, Accept, Range, If-Range, X-API-Key, X-Request-ID"
_EXPOSED_HEADERS = (
    "X-Request-ID, Content-Disposition, Content-Range, Accept-Ranges, ETag, Retry-After, Location"
)
_ALLOWED_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


@web.middleware
async def identify(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id (the caller's, if it is a sane one), and log its end without its query string."""
    request_id = sane_request_id(request.headers.get(REQUEST_ID_HEADER, ""))
    request[REQUEST_ID] = request_id
    began = time.monotonic()
    with _noted(request), structlog.contextvars.bound_contextvars(request_id=request_id):
        status: int | str = "client left"
        try:
            response = await handler(request)
            status = response.status
        finally:
            route = _route(request)
            quiet = request.path in _QUIET_PATHS
            note_end(_method(request), route, status, time.monotonic() - began, quiet=quiet)
    return response


def note_end(
    method: str, route: str, status: int | str, seconds: float, *, quiet: bool = False, **more: str
) -> None:
    """Count a request that has ended, and log it; `quiet` or as one of a thousand images, for debugging only."""
    requests, durations = _counters(method, route, status)
    requests.inc()
    durations.observe(seconds)
    # An image that was seen is one of a thousand; the audit trail has the study.
    seen = route == IMAGES_ROUTE and isinstance(status, int) and status < 400
    level = logging.DEBUG if seen or quiet else logging.INFO
    # Asked first: a line that nobody reads costs a tenth of the time of a small answer.
    if level > logging.DEBUG or _plain_log.isEnabledFor(level):
        milliseconds = round(seconds * 1000, 1)
        log.log(
            level, "request", method=method, route=route, status=status, milliseconds=milliseconds, **more
        )


@contextmanager
def _noted(request: web.Request) -> Iterator[None]:
    """Note the request as being handled: at the end of the service it is waited for, and cancelled."""
    handling, task = request.app[SERVICES].handling, asyncio.current_task()
    if task is None:
        raise RuntimeError("a request is handled in a task")
    handling.add(task)
    try:
        yield
    finally:
        handling.discard(task)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever goes wrong into the JSON error of the contract; the service lives on."""
    try:
        _refuse_when_stopping(request)
        return await handler(request)
    except PacsbridgeError as error:
        return error_response(request, error.status, error.code, error.message, error.retry_after)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = error_response(
            request, error.status, _CODES.get(error.status, "invalid_request"), error.reason
        )
        for name in _TELLING:
            if name in error.headers:
                response.headers[name] = error.headers[name]
        return response
    except web.RequestPayloadError:
        told = "The body of the request can't be read: it is not coded as its headers say, or not whole."
        return error_response(request, 400, "invalid_request", told)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:
        if request.transport is None or request.transport.is_closing():
            raise
        log.exception("a handler failed", route=_route(request))
        return error_response(
            request, 500, "internal_error", "Something went wrong here. The log tells more."
        )


@web.middleware
async def cors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer preflights of the configured origins; `add_headers` does the rest."""
    asked = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    if request.method == hdrs.METH_OPTIONS and asked and _allowed_origin(request):
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: _ALLOWED_METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _ALLOWED_HEADERS,
                hdrs.ACCESS_CONTROL_MAX_AGE: "600",
            },
        )
    return await handler(request)


def sane_request_id(given: str) -> str:
    """Give the caller's id where it is a sane one, else a new one."""
    return given if _SANE_ID.fullmatch(given) else secrets.token_hex(8)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put on every answer, errors and streams included: the request id, and CORS for a configured origin."""
    if REQUEST_ID in request:
        response.headers[REQUEST_ID_HEADER] = request[REQUEST_ID]
    for name, value in cors_headers(
        request.app[SERVICES].config.server.allowed_origins, request.headers.get(hdrs.ORIGIN)
    ):
        response.headers.add(name, value)


def cors_headers(allowed_origins: Sequence[str], origin: str | None) -> tuple[tuple[str, str], ...]:
    """Give the headers that let a page of another origin read an answer (Fetch, 3.3.3)."""
    if not allowed_origins:
        return ()
    if origin is None or origin not in allowed_origins:
        return ((hdrs.VARY, hdrs.ORIGIN),)
    return (
        (hdrs.VARY, hdrs.ORIGIN),
        (hdrs.ACCESS_CONTROL_ALLOW_ORIGIN, origin),
        (hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
        (hdrs.ACCESS_CONTROL_EXPOSE_HEADERS, _EXPOSED_HEADERS),
    )


def error_response(
    request: web.Request, status: int, code: str, message: str, retry_after: int | None = None
) -> web.Response:
    """Build the error answer of the contract."""
    body = {"error": {"code": code, "message": message, "request_id": request.get(REQUEST_ID, "")}}
    headers = {"Cache-Control": "no-store"}
    if retry_after is not None:
        headers[hdrs.RETRY_AFTER] = str(retry_after)
    return web.json_response(body, status=status, headers=headers)


def _refuse_when_stopping(request: web.Request) -> None:
    if request.app[SERVICES].draining and request.path not in _QUIET_PATHS:
        raise Busy("The service is stopping. Try again in a moment.", retry_after=30)


def _allowed_origin(request: web.Request) -> str | None:
    origin = request.headers.get(hdrs.ORIGIN)
    return origin if origin in request.app[SERVICES].config.server.allowed_origins else None


@lru_cache(maxsize=1000)
def _counters(method: str, route: str, status: int | str) -> tuple[Counter, Histogram]:
    return metrics.HTTP_REQUESTS.labels(method, route, status), metrics.HTTP_SECONDS.labels(route)


def _method(request: web.Request) -> str:
    """Name the method; whatever else a client made up is one label, not thousands."""
    return request.method if request.method in hdrs.METH_ALL else "other"


def _route(request: web.Request) -> str:
    """Name the route, not the path: a path may hold what must not be logged."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "none"

"""Passing an answer on from the upstream server to the client: streamed, rewritten where it names upstream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import zlib
from typing import TYPE_CHECKING

import structlog
from aiohttp import hdrs, web

from pacsbridge.dicomweb.headers import for_client
from pacsbridge.dicomweb.rewrite import Inflating, is_json
from pacsbridge.dicomweb.studies import JSON_TYPE
from pacsbridge.errors import InvalidParameter, UpstreamError, UpstreamUnreachable
from pacsbridge.http.middleware import error_response
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from pacsbridge.dicomweb.rewrite import Rewriter
    from pacsbridge.dicomweb.service import Dicomweb
    from pacsbridge.dicomweb.studies import Row
    from pacsbridge.dicomweb.upstream import Answer, Answered, Question

log = structlog.get_logger(__name__)

_WHOLE_BYTES = 1_000_000
_UNAUTHORIZED = 401
_SWITCHING = frozenset({300, 301, 302, 303, 305, 307, 308})
_MESSAGES = {
    404: ("not_found", "The image archive does not have this."),
    406: ("not_acceptable", "The image archive does not have this in the form that was asked for."),
    429: ("too_many_requests", "The image archive is asked too often. Try again in a moment."),
    503: ("busy", "The image archive is busy. Try again in a moment."),
}


async def pass_on(
    request: web.Request,
    proxy: Dicomweb,
    question: Question,
    *,
    strict: bool,
    shared: bool,
    begun: Answered = None,
) -> web.StreamResponse:
    """Ask upstream and pass its answer on, in whatever sizes it comes.

    The upstream read ends with the client's connection, and an answer that breaks off breaks the client's
    connection too, so that nobody takes a part for the whole.

    Parameters
    ----------
    strict
        Whether to say upstream's errors in our own words: theirs may name the project.
    shared
        Whether caches may keep the answer.
    begun
        What has come of the question already, if it was asked.

    Raises
    ------
    UpstreamError, Busy
        Upstream can't be asked.
    """
    if isinstance(begun, UpstreamError):
        raise begun
    async with begun or await proxy.upstream.ask(question) as answer:
        status = answer.status
        if status == _UNAUTHORIZED:
            log.error("upstream refuses our credentials")
            raise UpstreamUnreachable(
                "The image archive does not let this service in. Tell the administrator."
            )
        if status in _SWITCHING:
            raise UpstreamUnreachable("The image archive wants to be asked elsewhere: check the URL.")
        if strict and status >= 400:
            return upstream_refused(request, status, answer.headers.get("retry-after", ""))
        headers = for_client(answer.headers, shared=shared)
        if is_json(answer.headers.get("content-type", "")):
            return await _pass_json(request, answer, headers, proxy.rewriter)
        if answer.complete:
            return web.Response(status=status, headers=headers, body=await answer.read(_WHOLE_BYTES))
        response = web.StreamResponse(status=status, headers=headers)
        async with cutting_off(request.transport):
            await _stream(request, response, answer)
        return response


def upstream_refused(request: web.Request, status: int, retry_after: str) -> web.Response:
    """Say in our own words that upstream answered with an error."""
    code, message = _MESSAGES.get(status, ("upstream_refused", f"The image archive answered {status}."))
    if status == _UNAUTHORIZED or status < 400:
        status = UpstreamUnreachable.status
    response = error_response(request, status, code, message)
    if retry_after:
        response.headers[hdrs.RETRY_AFTER] = retry_after
    return response


def rows_answer(rows: list[Row], rewriter: Rewriter) -> web.Response:
    """Answer a search; with nothing found too it is 200 and a list: a viewer takes less for a fault."""
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    return web.Response(body=rewriter.whole(text), headers=for_client({"content-type": JSON_TYPE}))


async def request_body(request: web.Request, patience: float) -> AsyncIterator[bytes]:
    """Give the body of a request as it comes.

    Raises
    ------
    InvalidParameter
        Nothing came for `patience` seconds.
    """
    while True:
        try:
            async with asyncio.timeout(patience):
                piece = await request.content.readany()
        except TimeoutError:
            raise InvalidParameter("The body of the request stopped coming.") from None
        if not piece:
            return
        yield piece


async def _stream(request: web.Request, response: web.StreamResponse, answer: Answer) -> None:
    writer = await response.prepare(request)
    counted = hdrs.CONTENT_LENGTH in response.headers and request.method != hdrs.METH_HEAD
    transport = request.transport
    if writer is None or transport is None:
        return  # the client has left
    patience = request.app[SERVICES].config.server.write_timeout_seconds
    if counted:
        writer.send_headers()
        # What follows goes from socket to socket, its length being known.
        await answer.relay(transport, lambda: drained(transport, writer.drain, patience))
    else:
        async for piece in answer.pieces():
            await response.write(piece)
    await response.write_eof()


async def _pass_json(
    request: web.Request, answer: Answer, headers: dict[str, str], rewriter: Rewriter
) -> web.StreamResponse:
    headers.pop("Content-Length", None)
    coding = headers.pop("Content-Encoding", "identity").lower()
    if coding not in {"identity", "gzip"}:
        raise UpstreamUnreachable("The image archive's answer can't be read.")
    if answer.complete and coding == "identity":
        body = rewriter.whole(await answer.read(_WHOLE_BYTES))
        return web.Response(status=answer.status, headers=headers, body=body)
    response = web.StreamResponse(status=answer.status, headers=headers)
    if coding == "gzip" and "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
        response.enable_compression(web.ContentCoding.gzip)
    async with cutting_off(request.transport):
        await response.prepare(request)
        stream = rewriter.stream()
        async for piece in _inflated(answer, coding):
            rewritten = stream.feed(piece)
            if rewritten:
                await response.write(rewritten)
        await response.write_eof(stream.end())
    return response


async def _inflated(answer: Answer, coding: str) -> AsyncIterator[bytes | memoryview]:
    inflating = Inflating() if coding == "gzip" else None
    try:
        async for piece in answer.pieces():
            if inflating is None:
                yield piece
            else:
                for inflated in inflating.feed(piece):
                    yield inflated
    except zlib.error:
        raise UpstreamUnreachable("The image archive's answer can't be read.") from None


async def drained(
    transport: asyncio.WriteTransport, drain: Callable[[], Awaitable[None]], patience: float
) -> None:
    """Wait until the client has taken what was sent; one that takes nothing at all is given up."""
    while True:
        waiting = transport.get_write_buffer_size()
        try:
            async with asyncio.timeout(patience):
                await drain()
            return
        except TimeoutError:
            if transport.get_write_buffer_size() >= waiting:
                log.warning("a client stopped taking an image and was cut off")
                raise


@contextlib.asynccontextmanager
async def cutting_off(transport: asyncio.Transport | None) -> AsyncIterator[None]:
    """Break the client's connection when an answer can't be ended as it was begun."""
    try:
        yield
    except (UpstreamError, TimeoutError):
        if transport is not None:
            raw = transport.get_extra_info("socket")
            if raw is not None:
                # A reset, not an end: an answer that lasts until the connection's end would look complete.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        raise

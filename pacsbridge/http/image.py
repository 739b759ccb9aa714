"""A disc image as an HTTP answer: exact length, ranges, never a total time-out."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast

import structlog
from aiohttp import web

from pacsbridge.http.ranges import choose_part
from pacsbridge.http.streaming import ClientStalled, send_segments

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from pacsbridge.media.disc import Disc
    from pacsbridge.media.image import Segment

log = structlog.get_logger(__name__)

CONTENT_TYPE = "application/x-iso9660-image"

_BEHIND_THE_END = "The range begins behind the image's end."
#: How often it is looked whether the head of the answer is on its way, in seconds.
_LOOK_SECONDS = 0.005


async def send_image(
    request: web.Request,
    disc: Disc,
    disposition: str,
    write_timeout_seconds: float,
    *,
    brand_new: bool = False,
) -> web.StreamResponse:
    """Answer a GET or HEAD with the image, or the part of it that was asked for.

    A client that takes nothing for `write_timeout_seconds` is cut off; so is the connection when a file of the
    spool can't be read any more, so that nobody takes half an image for a whole one. `brand_new`: the disc was
    made for this request; see `choose_part`.
    """
    etag = f'"{disc.etag}"'
    part = choose_part(request.headers, etag, disc.size, brand_new=brand_new)
    headers = {
        "Content-Type": CONTENT_TYPE,
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Content-Disposition": disposition,
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
    }
    if part.status == 206:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{disc.size}"
    elif part.status == 416:
        raise web.HTTPRequestRangeNotSatisfiable(
            headers={"Content-Range": f"bytes */{disc.size}"}, reason=_BEHIND_THE_END
        )
    elif part.status == 412:
        raise web.HTTPPreconditionFailed(reason="The image was made anew: download it from its beginning.")
    response = web.StreamResponse(status=part.status, headers=headers)
    if part.status != 304:
        response.content_length = part.stop - part.start
    await response.prepare(request)
    if request.method != "HEAD":
        await _stream(request, disc.segments(part.start, part.stop), write_timeout_seconds)
    await response.write_eof()
    return response


async def _stream(request: web.Request, segments: Iterator[Segment], patience: float) -> None:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    try:
        await _flush(cast("asyncio.WriteTransport", transport), patience)
        connection: socket.socket = transport.get_extra_info("socket").dup()
        await send_segments(connection, segments, patience)
    except ClientStalled:
        log.warning("a client stopped taking the image and was cut off")
        transport.abort()
        raise ConnectionResetError("the client took nothing any more") from None
    except OSError as error:
        if not isinstance(error, ConnectionError):
            log.exception("the image can't be read from the spool any more", reason=type(error).__name__)
            transport.abort()
        raise


async def _flush(transport: asyncio.WriteTransport, patience: float) -> None:
    """Wait until the head of the answer is with the kernel, as it is at once but for a client that stopped reading."""
    deadline = time.monotonic() + patience
    while transport.get_write_buffer_size():
        if time.monotonic() > deadline:
            raise ClientStalled
        await asyncio.sleep(_LOOK_SECONDS)

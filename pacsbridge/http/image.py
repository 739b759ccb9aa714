"""A disc image as an HTTP answer: exact length, ranges, never a total time-out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from pacsbridge.http.ranges import choose_part

if TYPE_CHECKING:
    from pacsbridge.media.disc import Disc

log = structlog.get_logger(__name__)

CONTENT_TYPE = "application/x-iso9660-image"

#: Read from the spool in one go, in a thread.
_READ_BYTES = 1 << 20
_BEHIND_THE_END = "The range begins behind the image's end."
#: Handed to the socket in one go: the write time-out runs for each of these.
_WRITE_BYTES = 1 << 17


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
        await _stream(request, response, disc, part.start, part.stop, write_timeout_seconds)
    await response.write_eof()
    return response


async def _stream(
    request: web.Request, response: web.StreamResponse, disc: Disc, start: int, stop: int, patience: float
) -> None:
    chunks = disc.read_chunks(start, stop, _READ_BYTES)
    try:
        while chunk := await asyncio.to_thread(next, chunks, b""):
            view = memoryview(chunk)
            for offset in range(0, len(view), _WRITE_BYTES):
                async with asyncio.timeout(patience):
                    await response.write(view[offset : offset + _WRITE_BYTES])
    except TimeoutError:
        log.warning("a client stopped taking the image and was cut off")
        _cut_off(request)
        raise
    except OSError as error:
        if not isinstance(error, ConnectionError):
            log.exception("the image can't be read from the spool any more", reason=type(error).__name__)
            _cut_off(request)
        raise
    finally:
        chunks.close()


def _cut_off(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()

"""The demo's DICOMweb server, beside its PACS: search, metadata, frames, pictures, bulk data (PS3.18, 10).

It is what stands behind the proxy of the demo, in place of a hospital's own or Google's: anyone on this machine
may ask it, it stores nothing, and it answers from the same index as the PACS.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import hdrs, web
from pydicom.uid import ExplicitVRLittleEndian

from pacsbridge.demo import contents
from pacsbridge.demo.accept import part_type, takes, wanted
from pacsbridge.demo.index import UNIQUE_KEYS, Level
from pacsbridge.demo.search import SearchError, find, understand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from pydicom import Dataset

    from pacsbridge.demo.accept import Wanted
    from pacsbridge.demo.contents import Row
    from pacsbridge.demo.index import Index, StoredInstance
    from pacsbridge.demo.search import Search

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HOST = "127.0.0.1"
_ROOT = "/dicom-web"
_JSON = "application/dicom+json"
_JPEG = "image/jpeg"
_OCTETS = "application/octet-stream"
_DICOM = "application/dicom"
_STUDY, _SERIES, _INSTANCE = (
    "/studies/{StudyInstanceUID}",
    "/series/{SeriesInstanceUID}",
    "/instances/{SOPInstanceUID}",
)
#: The path of one study, one series, one instance.
_PATHS = {Level.STUDY: _STUDY, Level.SERIES: _STUDY + _SERIES, Level.IMAGE: _STUDY + _SERIES + _INSTANCE}
_FRAME_NUMBERS = re.compile(r"[1-9][0-9]{0,5}(,[1-9][0-9]{0,5})*", re.ASCII)
_RETRIEVE_URL = "00081190"
_INSTANCE_AVAILABILITY = "00080056"
_QUERY_RETRIEVE_LEVEL = "00080052"
_SPECIFIC_CHARACTER_SET = "00080005"
_SHUTDOWN_SECONDS = 1.0

Part = tuple[str, bytes]
"""A part of a multipart answer: its media type and its content."""


@asynccontextmanager
async def running_dicomweb_server(index: Index) -> AsyncIterator[str]:
    """Answer for an index on a free port of this machine, and give the root of the addresses."""
    server = DicomwebServer(index)
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, _HOST, 0).start()
        yield f"http://{_HOST}:{runner.addresses[0][1]}{_ROOT}"
    finally:
        await runner.cleanup()


class DicomwebServer:
    """The handlers over an index. Whatever reads files or decodes does it in a thread."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def app(self) -> web.Application:
        """Make the application."""
        app = web.Application()
        get = app.router.add_get
        for path, level in (
            ("/studies", Level.STUDY),
            ("/series", Level.SERIES),
            ("/instances", Level.IMAGE),
            (f"{_STUDY}/series", Level.SERIES),
            (f"{_STUDY}/instances", Level.IMAGE),
            (f"{_STUDY}{_SERIES}/instances", Level.IMAGE),
        ):
            get(_ROOT + path, self._searching(level))
        for path in _PATHS.values():
            get(_ROOT + path, self._retrieve)
            get(f"{_ROOT}{path}/metadata", self._metadata)
        one = _ROOT + _PATHS[Level.IMAGE]
        get(f"{one}/frames/{{frames}}", self._frames)
        get(f"{one}/bulkdata/{{attribute:.+}}", self._bulk_data)
        for path in ("/rendered", "/thumbnail", "/frames/{frames}/rendered", "/frames/{frames}/thumbnail"):
            get(one + path, self._rendered)
        return app

    def _searching(self, level: Level) -> Handler:
        async def search(request: web.Request) -> web.Response:
            _require_json(request)
            try:
                asked = understand(level, request.match_info, request.query.items())
            except SearchError as error:
                raise web.HTTPBadRequest(text=str(error)) from error
            rows = await asyncio.to_thread(_rows, self._index, asked, _base(request))
            # PS3.18, 10.6.3.1: nothing found is no content.
            return _json(rows) if rows else web.Response(status=204)

        return search

    async def _metadata(self, request: web.Request) -> web.Response:
        _require_json(request)
        chosen, base = self._chosen(request), _base(request)
        return _json(await asyncio.to_thread(_all_metadata, chosen, base))

    async def _retrieve(self, request: web.Request) -> web.StreamResponse:
        """Give whole files, each with the transfer syntax that it has."""
        chosen, ranges = self._chosen(request), _wanted(request)
        for syntax in {instance.TransferSyntaxUID for instance in chosen}:
            plain = syntax == ExplicitVRLittleEndian
            if part_type(ranges, syntax, plain=plain, media_types=[_DICOM]) is None:
                raise web.HTTPNotAcceptable(text="files are given as they are stored")
        parts = (
            (f"{_DICOM}; transfer-syntax={one.TransferSyntaxUID}", one.path.read_bytes()) for one in chosen
        )
        return await _multipart(request, _DICOM, parts)

    async def _frames(self, request: web.Request) -> web.StreamResponse:
        instance = self._one(request)
        return await _send_frames(request, instance, _frame_numbers(request, instance))

    async def _bulk_data(self, request: web.Request) -> web.StreamResponse:
        instance, attribute = self._one(request), request.match_info["attribute"]
        count = contents.frame_count(instance)
        if attribute.upper() == contents.PIXEL_DATA and count:
            return await _send_frames(request, instance, range(1, count + 1))
        value = await asyncio.to_thread(contents.bulk_data, instance, attribute)
        if value is None:
            raise web.HTTPNotFound(text="no such bulk data")
        ranges = _wanted(request)
        if part_type(ranges, ExplicitVRLittleEndian, plain=True, media_types=[_OCTETS]) is None:
            raise web.HTTPNotAcceptable(text=f"bulk data is {_OCTETS}")
        return await _multipart(request, _OCTETS, iter([(_OCTETS, value)]))

    async def _rendered(self, request: web.Request) -> web.Response:
        instance = self._one(request)
        if not takes(_wanted(request), _JPEG):
            raise web.HTTPNotAcceptable(text=f"pictures are {_JPEG}")
        number = _frame_numbers(request, instance)[0] if "frames" in request.match_info else 1
        jpeg = await asyncio.to_thread(contents.rendered, instance, number)
        if jpeg is None:
            raise web.HTTPNotAcceptable(text="there is no picture of this")
        return web.Response(body=jpeg, content_type=_JPEG)

    def _chosen(self, request: web.Request) -> list[StoredInstance]:
        """Give the instances that the path names.

        Raises
        ------
        web.HTTPNotFound
            There are none; one that lies in another study or series counts as none.
        """
        named = {
            level: request.match_info[keyword]
            for level, keyword in UNIQUE_KEYS.items()
            if keyword in request.match_info
        }
        chosen = [
            instance
            for instance in self._index.instances()
            if all(instance.unique[level] == uid for level, uid in named.items())
        ]
        if not chosen:
            raise web.HTTPNotFound(text="no such study, series or instance")
        return chosen

    def _one(self, request: web.Request) -> StoredInstance:
        return self._chosen(request)[0]


def _wanted(request: web.Request) -> list[Wanted]:
    return wanted(request.headers.getall(hdrs.ACCEPT, []))


def _base(request: web.Request) -> str:
    """Give the root of the addresses, by the name by which we were asked."""
    return f"{request.scheme}://{request.host}{_ROOT}"


def _rows(index: Index, asked: Search, base: str) -> list[Row]:
    return [_row(data_set, asked.level, base) for data_set in find(index, asked)]


def _row(data_set: Dataset, level: Level, base: str) -> Row:
    uids = {keyword: str(data_set.get(keyword, "")) for keyword in UNIQUE_KEYS.values()}
    row: Row = data_set.to_json_dict()
    del row[_QUERY_RETRIEVE_LEVEL]
    row[_SPECIFIC_CHARACTER_SET] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    row[_INSTANCE_AVAILABILITY] = {"vr": "CS", "Value": ["ONLINE"]}
    row[_RETRIEVE_URL] = {"vr": "UR", "Value": [base + _PATHS[level].format(**uids)]}
    return dict(sorted(row.items()))


def _all_metadata(chosen: Iterable[StoredInstance], base: str) -> list[Row]:
    path = _PATHS[Level.IMAGE]
    return [
        contents.metadata(
            instance,
            base + path.format(**{UNIQUE_KEYS[level]: instance.unique[level] for level in Level}),
        )
        for instance in chosen
    ]


def _require_json(request: web.Request) -> None:
    if not takes(_wanted(request), _JSON, "application/json"):
        raise web.HTTPNotAcceptable(text=f"this is {_JSON}")


def _json(rows: list[Row]) -> web.Response:
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    return web.Response(body=text.encode(), content_type=_JSON)


def _frame_numbers(request: web.Request, instance: StoredInstance) -> list[int]:
    """Read the numbers in the path.

    Raises
    ------
    web.HTTPBadRequest, web.HTTPNotFound
        They are no numbers; there is no such frame.
    """
    text = request.match_info["frames"]
    if not _FRAME_NUMBERS.fullmatch(text):
        raise web.HTTPBadRequest(text="frame numbers are counted from 1, with commas between them")
    numbers = [int(number) for number in text.split(",")]
    if max(numbers) > contents.frame_count(instance):
        raise web.HTTPNotFound(text="no such frame")
    return numbers


async def _send_frames(
    request: web.Request, instance: StoredInstance, numbers: Iterable[int]
) -> web.StreamResponse:
    """Give frames as they are stored; nothing is decoded here."""
    syntax = instance.TransferSyntaxUID
    offered = [_OCTETS, *filter(None, [contents.IMAGE_TYPES.get(syntax)])]
    ranges = _wanted(request)
    media_type = part_type(ranges, syntax, plain=syntax in contents.PLAIN, media_types=offered)
    if media_type is None:
        raise web.HTTPNotAcceptable(text=f"frames are given as they are stored: transfer-syntax={syntax}")
    label = f"{media_type}; transfer-syntax={syntax}"
    frames = contents.read_frames(instance, list(numbers))
    return await _multipart(request, media_type, ((label, frame) for frame in frames))


async def _multipart(request: web.Request, media_type: str, parts: Iterator[Part]) -> web.StreamResponse:
    """Send parts as they are read (RFC 2387)."""
    boundary = secrets.token_hex(16)
    response = web.StreamResponse(
        headers={hdrs.CONTENT_TYPE: f'multipart/related; type="{media_type}"; boundary={boundary}'}
    )
    await response.prepare(request)
    while (part := await asyncio.to_thread(next, parts, None)) is not None:
        label, content = part
        head = f"--{boundary}\r\nContent-Type: {label}\r\nContent-Length: {len(content)}\r\n\r\n"
        await response.write(head.encode() + content + b"\r\n")
    await response.write_eof(f"--{boundary}--\r\n".encode())
    return response

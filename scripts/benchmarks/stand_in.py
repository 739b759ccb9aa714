"""A DICOMweb server with canned answers, much faster than any proxy: ``python -m scripts.benchmarks.stand_in PORT``."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

STUDY, SERIES, INSTANCE = "1.2.826.0.1.1", "1.2.826.0.1.1.1", "1.2.826.0.1.1.1.1"
IMAGE_PATH = f"/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}/frames/1"
SMALL_PATH = f"/studies/{STUDY}/series/{SERIES}/metadata"
SEARCH_PATH = f"/studies?StudyInstanceUID={STUDY}&limit=101&offset=0"
_IMAGE_BYTES = 512 << 10
_SMALL_BYTES = 2_700


def _answer(kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _image() -> bytes:
    opening, closing = b"--b\r\nContent-Type: application/octet-stream\r\n\r\n", b"\r\n--b--\r\n"
    body = opening + bytes(_IMAGE_BYTES - len(opening) - len(closing)) + closing
    return _answer("multipart/related; type=application/octet-stream; boundary=b", body)


def _small() -> bytes:
    row = {
        "0020000D": {"vr": "UI", "Value": [STUDY]},
        "0020000E": {"vr": "UI", "Value": [SERIES]},
        "00080018": {"vr": "UI", "Value": [INSTANCE]},
        "00204000": {"vr": "LT", "Value": [""]},
    }
    row["00204000"]["Value"] = ["x" * (_SMALL_BYTES - len(json.dumps([row])))]
    return _answer("application/dicom+json", json.dumps([row]).encode())


IMAGE, SMALL = _image(), _small()


class StandIn(asyncio.Protocol):
    """One connection: an answer for each request's end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._head = b""

    def data_received(self, data: bytes) -> None:
        """Answer what is whole."""
        self._head += data
        while b"\r\n\r\n" in self._head:
            head, _, self._head = self._head.partition(b"\r\n\r\n")
            self._transport.write(IMAGE if b"/frames/" in head.split(b"\r\n", 1)[0] else SMALL)


async def serve(port: int) -> None:
    """Answer on a port until the process ends."""
    server = await asyncio.get_running_loop().create_server(StandIn, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))

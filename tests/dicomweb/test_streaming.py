"""Large, many, slow and broken bodies through the whole proxy, from an upstream that does as it is told."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

from pacsbridge.accounts.values import Grants, Role
from pacsbridge.http.shortway import ShortWay
from tests.dicomweb.raw import RawClient, request
from tests.dicomweb.scripted import answer, running_script
from tests.dicomweb.viewing import running_viewing
from tests.peers import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.dicomweb.scripted import Exchange, Script, Scripted
    from tests.dicomweb.viewing import Viewing

STUDY = "1.2.3"
FRAME = f"/studies/{STUDY}/series/4.5/instances/6.7/frames/1"
WARM = f"/studies/{STUDY}/series/4.5/instances/9.9/frames/1"
MEGABYTE = 1 << 20
PIECE = bytes(range(256)) * 4096
#: So soon upstream has to be rid of a client that left; measured on an idle machine: 1 to 7 ms.
LEAVING_SECONDS = 1
#: What may be in memory beside the buffers: answers of other sizes come and go.
FLAT_BYTES = 100 * MEGABYTE


@pytest.fixture(autouse=True, params=["short way", "long way"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, fast_hashes: None) -> None:
    """Have what is warm go the short way, or everything the long one; make users quickly."""
    if request.param == "long way":
        monkeypatch.setattr(ShortWay, "takes", lambda *_: False)


@asynccontextmanager
async def before(
    script: Script, folder: Path, **server: object
) -> AsyncIterator[tuple[Viewing, Scripted, str]]:
    """Run pacsbridge before a scripted upstream, with a patient who has begun to read the study."""

    async def warm_script(exchange: Exchange) -> None:
        await (exchange.send(answer(b"warm")) if exchange.target.endswith(WARM) else script(exchange))

    async with running_script(warm_script) as upstream:
        section = {"upstream": "dicomweb", "url": upstream.url, "read_timeout_seconds": 5}
        async with running_viewing(folder, dicomweb=section, server=dict(server)) as viewing:
            token = await viewing.user("patient@example.org", Role.PATIENT, Grants((STUDY,)))
            await viewing.ask(token, WARM)
            yield viewing, upstream, token


def memory() -> int:
    """Give the memory in use, in bytes (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_two_gigabytes_pass_with_flat_memory(tmp_path: Path) -> None:
    pieces = 2048

    async def script(exchange: Exchange) -> None:
        await exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: multipart/related\r\nContent-Length: %d\r\n\r\n"
            % (pieces * MEGABYTE)
        )
        for _ in range(pieces):
            await exchange.send(PIECE)

    async with before(script, tmp_path) as (viewing, _, token):
        reader, writer = await asyncio.open_connection(HOST, viewing.port, limit=MEGABYTE)
        writer.write(request("GET", f"/dicomWeb{FRAME}", token))
        await reader.readuntil(b"\r\n\r\n")
        began, most, received = memory(), 0, 0
        while received < pieces * MEGABYTE:
            got = await reader.read(MEGABYTE)
            assert got
            start = received % MEGABYTE
            if received % (64 * MEGABYTE) < MEGABYTE:
                assert got[: MEGABYTE - start] == PIECE[start : start + len(got)]
                most = max(most, memory())
            received += len(got)
        assert received == pieces * MEGABYTE
        assert most - began < FLAT_BYTES
        writer.close()


async def test_five_thousand_frames_by_a_hundred_and_twenty_five_connections(tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        number = int(exchange.target.rpartition("/")[2])
        await exchange.send(
            answer(number.to_bytes(4, "big") * (number % 4000 + 1), "Content-Type: multipart/related")
        )

    async with before(script, tmp_path) as (viewing, upstream, token):
        numbers = iter(range(1, 5001))
        began = memory()

        async def fetch() -> int:
            count = 0
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
                for number in numbers:
                    url = f"{viewing.url}/dicomWeb{FRAME.removesuffix('1')}{number}"
                    async with session.get(url) as got:
                        assert await got.read() == number.to_bytes(4, "big") * (number % 4000 + 1)
                    count += 1
            return count

        assert sum(await asyncio.gather(*(fetch() for _ in range(125)))) == 5000
        assert memory() - began < 2 * FLAT_BYTES
        assert upstream.connections <= 256
        assert viewing.proxy.upstream._pool.busy == 0


@pytest.mark.parametrize("coding", ["length", "chunked", "json"])
async def test_an_upstream_that_dies_in_the_middle_is_noticed(tmp_path: Path, coding: str) -> None:
    async def script(exchange: Exchange) -> None:
        head = "Content-Length: 9999999" if coding == "length" else "Transfer-Encoding: chunked"
        kind = "application/dicom+json" if coding == "json" else "image/jpeg"
        await exchange.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{head}\r\n\r\n".encode())
        await exchange.send(PIECE if coding == "length" else b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
        exchange.writer.close()

    path = f"/studies/{STUDY}/metadata" if coding == "json" else FRAME
    async with before(script, tmp_path) as (viewing, _, token):
        with pytest.raises((aiohttp.ClientPayloadError, ConnectionError)):
            await viewing.ask(token, path)
        rows = [
            (row["event"], row["outcome"]) for row in await viewing.audited() if row["study_iuid"] == STUDY
        ]
        assert ("read a study", "failed") in rows


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_broken_answer_never_looks_whole(tmp_path: Path, version: str) -> None:
    """To a client of HTTP/1.0 the end of the connection is the end of the body: it has to be a reset."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        )
        await asyncio.sleep(0.1)
        exchange.writer.transport.abort()

    async with before(script, tmp_path) as (viewing, _, token):
        reader, writer = await asyncio.open_connection(HOST, viewing.port)
        writer.write(
            request("GET", f"/dicomWeb{FRAME}", token).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
        )
        got = b""
        async with asyncio.timeout(10):
            try:
                while piece := await reader.read(1000):
                    got += piece
                ended = "closed"
            except ConnectionResetError:
                ended = "reset"
        assert ended == "reset" or version == "1.1"
        assert not got.endswith(b"0\r\n\r\n")
        writer.close()


@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_a_client_that_leaves_ends_the_upstream_read(tmp_path: Path, coding: str) -> None:
    gone = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        head = b"Content-Length: 99999999999" if coding == "length" else b"Transfer-Encoding: chunked"
        await exchange.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        try:
            while True:
                await exchange.send(PIECE if coding == "length" else b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    async with before(script, tmp_path) as (viewing, upstream, token):
        reader, writer = await asyncio.open_connection(HOST, viewing.port)
        writer.write(request("GET", f"/dicomWeb{FRAME}", token))
        await reader.readexactly(2 * MEGABYTE)
        writer.close()
        async with asyncio.timeout(LEAVING_SECONDS):
            await gone.wait()
            while upstream.open:
                await asyncio.sleep(0.01)
        assert viewing.proxy.upstream._pool.busy == 0


@pytest.mark.parametrize("path", [FRAME, f"/studies/{STUDY}/metadata", "/studies"])
@pytest.mark.parametrize("begun", [True, False])
async def test_a_client_that_leaves_does_not_wait_for_a_slow_upstream(
    tmp_path: Path, path: str, begun: bool
) -> None:
    """It sends nothing that could fail: the leaving alone has to end it, in a scoped search too."""
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(exchange: Exchange) -> None:
        asked.set()
        if begun:
            kind = "image/jpeg" if path == FRAME else "application/dicom+json"
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 999999\r\n\r\n["
            await exchange.send(head.encode())
        assert await exchange.reader.read() == b""  # until the connection ends
        gone.set()

    async with before(script, tmp_path) as (viewing, _, token):
        _, writer = await asyncio.open_connection(HOST, viewing.port)
        writer.write(request("GET", f"/dicomWeb{path}", token))
        async with asyncio.timeout(10):
            await asked.wait()
        writer.close()
        async with asyncio.timeout(LEAVING_SECONDS):
            await gone.wait()
        assert viewing.proxy.upstream._pool.busy == 0


async def test_a_client_that_takes_nothing_is_cut_off_and_the_upstream_waits(tmp_path: Path) -> None:
    sent = 0

    async def script(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        while True:
            await exchange.send(PIECE)
            sent += len(PIECE)

    async with before(script, tmp_path, write_timeout_seconds=1) as (viewing, upstream, token):
        reader, writer = await asyncio.open_connection(HOST, viewing.port, limit=1000)
        writer.write(request("GET", f"/dicomWeb{FRAME}", token))
        async with asyncio.timeout(15):
            while not upstream.open:
                await asyncio.sleep(0.01)
            while upstream.open:
                await asyncio.sleep(0.05)
        assert sent < 100 * MEGABYTE
        writer.close()
        del reader


async def test_a_client_that_reads_slowly_is_not_cut_off(tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(PIECE * 24))

    async with before(script, tmp_path, write_timeout_seconds=0.5) as (viewing, _, token):
        reader, writer = await asyncio.open_connection(HOST, viewing.port, limit=65_536)
        writer.write(request("GET", f"/dicomWeb{FRAME}", token))
        await reader.readuntil(b"\r\n\r\n")
        got = 0
        while got < 24 * MEGABYTE:
            got += len(await reader.read(262_144))
            await asyncio.sleep(0.01)
        assert got == 24 * MEGABYTE
        writer.close()


async def test_a_silent_upstream_is_given_up(tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(60)

    async with before(script, tmp_path) as (viewing, _, token):
        got = await viewing.ask(token, FRAME)
        assert (got.status, got.json["error"]["code"]) == (504, "upstream_timeout")
        assert "Retry-After" in got.headers


async def test_an_answer_without_a_length_reaches_an_old_client(tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + PIECE)
        exchange.writer.close()

    async with before(script, tmp_path) as (viewing, _, token):
        reader, writer = await asyncio.open_connection(HOST, viewing.port)
        writer.write(request("GET", f"/dicomWeb{FRAME}", token).replace(b"HTTP/1.1", b"HTTP/1.0"))
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        assert b"200" in head
        assert body == PIECE
        writer.close()


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_passes(tmp_path: Path, status: int) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(f'HTTP/1.1 {status} X\r\nETag: "e"\r\n\r\n'.encode())

    async with before(script, tmp_path) as (viewing, upstream, token), RawClient(viewing.port) as client:
        for _ in range(2):
            asked = request("GET", f"/dicomWeb{FRAME}", token, 'If-None-Match: "e"')
            got = await client.ask(asked)
            assert (got.status, got.body) == (status, b"")
            assert b'ETag: "e"' in got.head
        assert b"If-None-Match" in upstream.heads[-1]
        head = await client.ask(request("HEAD", f"/dicomWeb{FRAME}", token), method="HEAD")
        assert head.status == status


async def test_metadata_of_many_megabytes_is_rewritten_in_pieces(tmp_path: Path) -> None:
    count = 40_000

    async def script(exchange: Exchange) -> None:
        await exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(count):
            text = b'%c{"7FE00010":{"vr":"OW","BulkDataURI":"http://pacs/rs/studies/1.2.3/x/%d"}}' % (
                b"[,"[number > 0],
                number,
            )
            await exchange.send(b"%x\r\n%b\r\n" % (len(text), text))
        await exchange.send(b"1\r\n]\r\n0\r\n\r\n")

    async with before(script, tmp_path) as (viewing, _, token):
        got = await viewing.ask(token, f"/studies/{STUDY}/metadata")
        rows = got.json
        assert len(rows) == count
        expected = "https://images.example.org/dicomWeb/studies/1.2.3/x/7"
        assert rows[7]["7FE00010"]["BulkDataURI"] == expected
        assert b"http://pacs" not in got.body

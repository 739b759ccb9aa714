from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacsbridge.config import ConfigError
from pacsbridge.dicomweb.credentials import FixedCredentials, configured_credentials
from pacsbridge.dicomweb.pool import Pool, Root
from pacsbridge.dicomweb.upstream import Body, Question, Upstream
from pacsbridge.errors import Busy, UpstreamTimeout, UpstreamUnreachable
from tests.dicomweb.scripted import answer, running_script
from tests.peers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.dicomweb.scripted import Exchange, Script, Scripted

GET = Question("GET", "/studies")
LIMIT = 1_000_000


@asynccontextmanager
async def upstream(
    script: Script, *, silence: float = 20, limit: int = 20
) -> AsyncIterator[tuple[Upstream, Pool, Scripted]]:
    async with running_script(script) as server, Pool(Root.parse(server.url, "url"), silence, limit) as pool:
        yield Upstream(pool, FixedCredentials("Bearer t")), pool, server


async def body_of(upstream: Upstream, question: Question = GET) -> bytes:
    async with await upstream.ask(question) as got:
        return await got.read(LIMIT)


async def test_what_goes_out() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"hello"))

    async with upstream(script) as (up, _, server):
        question = Question("GET", "/studies/1.2", "a=1", (("Accept", "x/y"),))
        assert await body_of(up, question) == b"hello"
        host = f"127.0.0.1:{server.port}".encode()
        expected = (
            b"GET /rs/studies/1.2?a=1 HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer t\r\nAccept: x/y\r\n\r\n"
        )
        assert server.heads == [expected % host]


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/é"])
async def test_a_request_line_cannot_be_ended_early(path: str) -> None:
    async with upstream(_never) as (up, pool, _):
        with pytest.raises(ValueError):
            await up.ask(Question("GET", path))
        with pytest.raises(ValueError):
            await up.ask(Question("GET", "/x", "", (("Accept", "a\r\nX: y"),)))
        assert pool.busy == 0


async def test_a_connection_is_used_again() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"x"))

    async with upstream(script) as (up, pool, server):
        for _ in range(5):
            assert await body_of(up) == b"x"
        assert (server.connections, pool.busy) == (1, 0)


@given(
    st.binary(max_size=2000),
    st.lists(st.integers(1, 300), max_size=8),
    st.sampled_from(["length", "chunked", "close"]),
)
@settings(max_examples=60, deadline=None)
def test_a_body_arrives_whole_however_it_is_cut(body: bytes, cuts: list[int], coding: str) -> None:
    if coding == "length":
        sent = answer(body)
    elif coding == "chunked":
        chunks = [body[start : start + 7] for start in range(0, len(body), 7)]
        coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        sent = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"
    else:
        sent = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body

    async def script(exchange: Exchange) -> None:
        rest = sent
        for cut in cuts:
            await exchange.send(rest[:cut])
            rest = rest[cut:]
            await asyncio.sleep(0)
        await exchange.send(rest)
        if coding == "close":
            exchange.writer.close()

    async def run() -> None:
        async with upstream(script) as (up, _, _server):
            assert await body_of(up) == body
            assert await body_of(up) == body

    asyncio.run(run())


async def test_an_idle_connection_that_was_closed_is_replaced() -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.number == 2:
            exchange.writer.close()  # at the moment when it is used again
        else:
            await exchange.send(answer(b"x"))

    async with upstream(script) as (up, _, server):
        assert await body_of(up) == b"x"
        assert await body_of(up) == b"x"
        assert len(server.heads) == 3


async def test_a_body_is_never_sent_twice() -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.number == 1:
            await exchange.send(answer(b"x"))
        else:
            exchange.writer.close()

    async with upstream(script) as (up, _, server):
        await body_of(up)
        with pytest.raises(UpstreamUnreachable):
            await body_of(up, Question("POST", "/studies", body=Body(_pieces(b"x"), 1)))
        assert (len(server.heads), server.connections) == (2, 2)


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"X" * 70_000,
    ],
)
async def test_an_answer_that_is_broken_is_told(sent: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(sent)
        exchange.writer.close()

    async with upstream(script) as (up, pool, _):
        with pytest.raises(UpstreamUnreachable):
            await body_of(up)
        assert pool.busy == 0


async def test_an_answer_that_goes_silent_is_given_up() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")
        await asyncio.sleep(60)

    async with upstream(script, silence=0.5) as (up, pool, _):
        with pytest.raises(UpstreamTimeout):
            await body_of(up)
        assert pool.busy == 0


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async with upstream(_never, silence=0.5) as (up, pool, _):
        with pytest.raises(UpstreamTimeout):
            await body_of(up)
        assert pool.busy == 0


async def test_a_server_that_is_away_is_told() -> None:
    async with Pool(Root.parse(f"http://127.0.0.1:{free_port()}/rs", "url"), 5) as pool:
        with pytest.raises(UpstreamUnreachable):
            await Upstream(pool, FixedCredentials()).ask(GET)


async def test_a_body_over_the_limit_is_not_read() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"x" * 2000))

    async with upstream(script) as (up, pool, _):
        with pytest.raises(UpstreamUnreachable):
            async with await up.ask(GET) as got:
                await got.read(1000)
        assert pool.busy == 0


async def test_who_leaves_ends_the_reading() -> None:
    gone = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n")
        try:
            while True:
                await exchange.send(bytes(65_536))
        finally:
            gone.set()

    async with upstream(script) as (up, pool, _):
        async with await up.ask(GET) as got:
            async for _piece in got.pieces():
                break
        async with asyncio.timeout(5):
            await gone.wait()
        assert pool.busy == 0


async def test_who_is_cancelled_while_waiting_leaves_nothing_behind() -> None:
    async with upstream(_never) as (up, pool, server):
        asking = asyncio.create_task(up.ask(GET))
        while not server.heads:
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert pool.busy == 0


async def test_a_body_goes_out_and_an_early_refusal_is_heard() -> None:
    async def script(exchange: Exchange) -> None:
        if b"chunked" in exchange.head:
            await exchange.send(answer(b"too much", status="413 Payload Too Large"))
            await asyncio.sleep(60)
        else:
            await exchange.send(answer(await exchange.reader.readexactly(10)))

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(65_536)
            await asyncio.sleep(0)

    async with upstream(script) as (up, pool, _):
        assert (
            await body_of(up, Question("POST", "/studies", body=Body(_pieces(b"01234", b"56789"), 10)))
            == b"0123456789"
        )
        async with await up.ask(Question("POST", "/studies", body=Body(endless(), None))) as got:
            assert (got.status, await got.read(LIMIT)) == (413, b"too much")
        assert pool.busy == 0


async def test_a_client_that_leaves_while_it_stores_is_not_an_answer() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"01234"
        raise ConnectionResetError

    async with upstream(_never) as (up, pool, _):
        with pytest.raises(ConnectionResetError):
            await up.ask(Question("POST", "/studies", body=Body(broken(), 10)))
        assert pool.busy == 0


async def test_more_at_once_than_there_are_connections_wait() -> None:
    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(0.02)
        await exchange.send(answer(b"x"))

    async with upstream(script, limit=3) as (up, pool, server):
        assert await asyncio.gather(*(body_of(up) for _ in range(20))) == [b"x"] * 20
        assert (server.connections, pool.busy) == (3, 0)
    async with upstream(_never, limit=1, silence=0.3) as (up, pool, _):
        first = asyncio.create_task(up.ask(GET))
        await asyncio.sleep(0.05)
        with pytest.raises((Busy, UpstreamTimeout)):
            await up.ask(GET)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


class Recorder:
    """Takes bytes as slowly as the test wants."""

    def __init__(self) -> None:
        self.taken = bytearray()
        self.waiting = 0
        self.most = 0

    def write(self, data: memoryview) -> None:
        self.taken += data
        self.waiting += len(data)
        self.most = max(self.most, self.waiting)

    def get_write_buffer_size(self) -> int:
        return self.waiting


async def test_a_slow_client_slows_the_upstream_read() -> None:
    body = b"".join(number.to_bytes(4, "big") for number in range(2_000_000))

    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(body))

    recorder = Recorder()

    async def drain() -> None:
        await asyncio.sleep(0.001)
        recorder.waiting = 0

    async with upstream(script) as (up, _, _server), await up.ask(GET) as got:
        await got.relay(recorder, drain)
    assert bytes(recorder.taken) == body
    assert recorder.most < 2_000_000


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://pacs/dicom-web/", ("http", "pacs", 80, "/dicom-web")),
        ("https://pacs:8443", ("https", "pacs", 8443, "")),
        ("http://[::1]:80/rs", ("http", "::1", 80, "/rs")),
    ],
)
def test_a_root_is_read(url: str, parts: tuple[str, str, int, str]) -> None:
    assert Root.parse(url, "dicomweb.url") == Root(*parts)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "pacs",
        "ftp://pacs",
        "http://",
        "http://u:p@pacs",
        "http://pacs?x",
        "http://pacs:x",
        "http://pa cs",
        "http://é",
    ],
)
def test_a_root_that_cannot_be_one_is_told_by_its_key(url: str) -> None:
    with pytest.raises(ConfigError, match=r"dicomweb\.url"):
        Root.parse(url, "dicomweb.url")


async def test_credentials_are_basic_or_bearer_or_none() -> None:
    assert await configured_credentials("u", "p").header() == "Basic dTpw"
    assert await configured_credentials("", "t").header() == "Bearer t"
    assert await configured_credentials("", "").header() == ""


async def _never(exchange: Exchange) -> None:
    await asyncio.sleep(60)


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("size", [5, 100_000, 266_240, 700_000])
async def test_a_body_begins_with_the_clients_head_wherever_it_is(waits: bool, size: int) -> None:
    """The head is written in front of the body where there is room, and only where the body is what came first."""
    body = random.Random(size).randbytes(size)

    async def script(exchange: Exchange) -> None:
        whole = answer(body)
        head_end = whole.index(b"\r\n\r\n") + 4
        for piece in (whole[:head_end], whole[head_end:]) if waits else (whole,):
            await exchange.send(piece)
            await asyncio.sleep(0.05)

    class Sink:
        def __init__(self) -> None:
            self.taken = b""

        def write(self, data: bytes | memoryview) -> None:
            self.taken += bytes(data)

        def get_write_buffer_size(self) -> int:
            return 0

    async def no_wait() -> None:
        pass

    for head in (b"h" * 20, b"h" * 300, b"h" * 5000):
        async with upstream(script) as (up, _, _):
            for _ in range(2):
                sink = Sink()
                async with await up.ask(GET) as got:
                    await asyncio.sleep(0.1)
                    sink.write(got.begin_with(head))
                    await got.relay(sink, no_wait)
                assert sink.taken == head + body

"""The short way of an image says what the long way says, to the letter, and hands over what it can't do."""

from __future__ import annotations

import asyncio
import gzip
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from pacsbridge.accounts.values import Grants, Role
from pacsbridge.http.shortway import ShortWay
from tests.accounts.examples import ENGINEER, PASSWORD
from tests.dicomweb.conftest import archive, fast_hashes, google, google_viewing, key, viewing
from tests.dicomweb.raw import RawClient, request
from tests.dicomweb.scripted import answer
from tests.dicomweb.test_leaks import hand_made
from tests.dicomweb.test_streaming import FRAME, PIECE, STUDY, WARM, before
from tests.peers import HOST

if TYPE_CHECKING:
    from pathlib import Path

    from tests.dicomweb.conftest import Archive
    from tests.dicomweb.raw import RawAnswer
    from tests.dicomweb.scripted import Exchange
    from tests.dicomweb.viewing import Viewing
    from tests.google import GoogleFront

__all__ = ["archive", "fast_hashes", "google", "google_viewing", "key", "viewing"]

#: What differs from one answer to the next, and how the end of a body is told.
_OWN_HEADERS = {b"date", b"x-request-id", b"server", b"content-length", b"transfer-encoding"}


class Seen:
    """How many requests went the short way, to their end or to where they were handed over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = self.handed_over = 0
        begin, hand_over = ShortWay._begin, ShortWay._hand_over

        def count_begun(way: ShortWay, *arguments: Any) -> bool:
            began = begin(way, *arguments)
            self.begun += began
            return began

        def count_handed_over(way: ShortWay, *arguments: Any) -> None:
            self.handed_over += 1
            hand_over(way, *arguments)

        monkeypatch.setattr(ShortWay, "_begin", count_begun)
        monkeypatch.setattr(ShortWay, "_hand_over", count_handed_over)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, fast_hashes: None) -> Seen:
    return Seen(monkeypatch)


@pytest.fixture
def only_long(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a context in which nothing goes the short way."""
    takes = ShortWay.takes

    class Long:
        def __enter__(self) -> None:
            monkeypatch.setattr(ShortWay, "takes", lambda *_: False)

        def __exit__(self, *_: object) -> None:
            monkeypatch.setattr(ShortWay, "takes", takes)

    return Long()


def comparable(got: RawAnswer) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Leave away what differs from one answer to the next."""
    lines = [line.partition(b": ") for line in got.head.split(b"\r\n")[1:]]
    headers = [(name.lower(), value) for name, _, value in lines if name.lower() not in _OWN_HEADERS]
    request_id = got.head.partition(b"X-Request-ID: ")[2][:16]
    return got.status, sorted(headers), got.body.replace(request_id, b"")


async def test_both_ways_say_the_same_to_a_patient(
    viewing: Viewing, archive: Archive, seen: Seen, only_long: Any
) -> None:
    own, other = archive.ann.StudyInstanceUID, archive.bob.StudyInstanceUID
    token = await viewing.user("ann@example.org", Role.PATIENT, Grants((own,)))
    different = []
    for method, target, status, headers in hand_made(own, other):
        asked = request(
            method, target.encode(), token, *headers, f"Origin: {viewing.config.server.public_url}"
        )
        async with RawClient(viewing.port) as client:
            await client.ask(request("GET", f"/dicomWeb/studies/{own}/series", token))
            short = await client.ask(asked, method=method)
        with only_long:
            async with RawClient(viewing.port) as client:
                long = await client.ask(asked, method=method)
        assert short.status == status
        # Orthanc makes up the boundary anew each time.
        if b"multipart" in short.head and short.status == long.status:
            continue
        if comparable(short) != comparable(long):
            different.append((method, target, comparable(short)[:2], comparable(long)[:2]))
    assert not different, different[:3]
    assert seen.begun > 10


async def test_both_ways_say_the_same_to_a_doctor(
    viewing: Viewing, archive: Archive, only_long: Any, seen: Seen
) -> None:
    token = await viewing.user("doctor@example.org", Role.DOCTOR)
    uid = archive.bob.StudyInstanceUID
    path = f"/dicomWeb/studies/{uid}"
    for target in (
        f"{path}/metadata",
        f"{path}/series",
        f"{path}/series?limit=1",
        f"{path}/series/9.9/metadata",
    ):
        asked = request("GET", target, token, "Origin: https://viewer.example", "Accept-Encoding: gzip, br")
        async with RawClient(viewing.port) as client:
            await client.ask(request("GET", f"{path}/series", token))
            short = await client.ask(asked)
        with only_long:
            async with RawClient(viewing.port) as client:
                long = await client.ask(asked)
        assert comparable(short) == comparable(long)
    assert seen.begun > 2


async def test_a_frame_goes_the_short_way_and_a_search_does_not(tmp_path: Path, seen: Seen) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(PIECE, "Content-Type: image/jpeg", "Server: secret", "Set-Cookie: a=b"))

    async with before(script, tmp_path) as (viewing, upstream, token), RawClient(viewing.port) as client:
        for number in range(3):
            got = await client.ask(request("GET", f"/dicomWeb{FRAME}", token))
            assert (got.status, got.body, seen.begun) == (200, PIECE, number + 1)
            assert b"secret" not in got.head
            assert b"a=b" not in got.head
        await client.ask(request("GET", "/dicomWeb/studies", token))
        await client.ask(request("GET", "/dicomWeb/studies/9.9/metadata", token))
        assert (seen.begun, seen.handed_over) == (3, 0)
        assert token.encode() not in b"".join(upstream.heads)


@pytest.mark.parametrize("seed", range(6))
async def test_bodies_arrive_as_they_were_sent_however_they_are_cut(
    tmp_path: Path, seen: Seen, seed: int
) -> None:
    """Heads alone, bodies with them, in pieces, with waits, larger than every buffer: to the byte."""
    dice = random.Random(seed)
    bodies: dict[str, bytes] = {}

    async def script(exchange: Exchange) -> None:
        body = bodies[exchange.target.rpartition("/")[2]]
        everything = answer(body, "Content-Type: image/jpeg", "X: " + "y" * dice.choice([1, 300, 3000]))
        cuts = sorted(dice.randrange(len(everything)) for _ in range(dice.randrange(5)))
        head_end = everything.index(b"\r\n\r\n") + 4
        for start, stop in (
            zip([0, *cuts, head_end], [*cuts, head_end, len(everything)], strict=True)
            if dice.random() < 0.3 and all(c < head_end for c in cuts)
            else [(0, len(everything))]
            if not cuts
            else zip([0, *cuts], [*cuts, len(everything)], strict=True)
        ):
            await exchange.send(everything[start:stop])
            await asyncio.sleep(dice.choice([0, 0, 0.001, 0.01]))

    async with before(script, tmp_path) as (viewing, _, token):

        async def look(first: int) -> None:
            async with RawClient(viewing.port) as client:
                for number in range(first, first + 12):
                    bodies[str(number)] = dice.randbytes(
                        dice.choice([1, 500, 20_000, 263_000, 266_240, 524_407, 1_500_000])
                    )
                    got = await client.ask(request("GET", f"/dicomWeb{FRAME[:-1]}{number}", token))
                    assert (got.status, got.body) == (200, bodies[str(number)])

        await asyncio.gather(*(look(start) for start in (100, 200, 300, 400)))
    assert seen.begun > 20


async def test_a_request_in_pieces_goes_the_long_way_and_so_does_its_connection(
    tmp_path: Path, seen: Seen
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"body", "Content-Type: image/jpeg"))

    async with before(script, tmp_path) as (viewing, upstream, token):
        reader, writer = await asyncio.open_connection(HOST, viewing.port)
        asked = request("GET", f"/dicomWeb{FRAME}", token)
        for cut in (30, len(asked) - 3):
            writer.write(asked[:cut])
            await asyncio.sleep(0.05)
            # To somebody who doesn't know what came before, this looks like a request of its own.
            writer.write(asked[cut:])
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(4) == b"body"
        writer.write(b"GET /dicomWeb/studies/1 HTTP/1.1\r\nHost: a\r\nX-Y: ")
        await asyncio.sleep(0.05)
        writer.write(asked)
        assert b" 400 " in await reader.readuntil(b"\r\n\r\n") or True
        writer.close()
        assert seen.begun == 0
        assert sum(b"frames/1 " in head for head in upstream.heads) == 3


async def test_requests_sent_ahead_are_answered_in_their_order(tmp_path: Path, seen: Seen) -> None:
    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(0.05)
        await exchange.send(answer(exchange.target.rpartition("/")[2].encode(), "Content-Type: image/jpeg"))

    async with before(script, tmp_path) as (viewing, _, token):
        reader, writer = await asyncio.open_connection(HOST, viewing.port)
        asked = [request("GET", f"/dicomWeb{FRAME[:-1]}{number}", token) for number in range(1, 9)]
        writer.write(asked[0])
        await asyncio.sleep(0.01)
        writer.write(asked[1])
        await asyncio.sleep(0.01)
        writer.write(b"".join(asked[2:5]))
        await asyncio.sleep(0.4)
        writer.write(b"".join(asked[5:]))
        async with asyncio.timeout(10):
            for number in range(1, 9):
                assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(1) == str(number).encode()
        writer.close()
    assert seen.begun >= 2


async def test_what_is_taken_away_is_gone_at_the_next_request(tmp_path: Path, seen: Seen) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"body", "Content-Type: image/jpeg"))

    async with before(script, tmp_path) as (viewing, _, token), RawClient(viewing.port) as client:
        asked = request("GET", f"/dicomWeb{FRAME}", token)
        assert (await client.ask(asked)).status == 200
        [user] = await viewing.accounts.users.find("patient@example.org")
        await viewing.accounts.users.unassign(user.id, Grants((STUDY,)), ENGINEER)
        for _ in range(3):  # the second one finds at hand whose token it is
            assert (await client.ask(asked)).status == 403
        await viewing.accounts.users.assign(user.id, Grants((STUDY,)), ENGINEER)
        assert (await client.ask(asked)).status == 200
        await viewing.accounts.users.disable(user.id, ENGINEER)
        assert (await client.ask(asked)).status == 401
    assert seen.begun >= 1


async def test_an_idle_connection_that_upstream_closed_is_not_noticed(tmp_path: Path, seen: Seen) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.number == 2:
            exchange.writer.close()
            return
        await exchange.send(answer(b"body", "Content-Type: image/jpeg"))

    async with before(script, tmp_path) as (viewing, upstream, token), RawClient(viewing.port) as client:
        got = await client.ask(request("GET", f"/dicomWeb{FRAME}", token))
        assert (got.status, got.body) == (200, b"body")
        assert (seen.begun, seen.handed_over, len(upstream.heads)) == (1, 1, 3)
        assert viewing.proxy.upstream._pool.busy == 0


@pytest.mark.parametrize("status", [404, 406, 429, 500, 503])
async def test_a_refusal_is_handed_over_and_upstream_asked_once(
    tmp_path: Path, seen: Seen, status: int
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"project-x", "Retry-After: 7", status=f"{status} X"))

    async with before(script, tmp_path) as (viewing, upstream, token), RawClient(viewing.port) as client:
        got = await client.ask(request("GET", f"/dicomWeb{FRAME}", token))
        assert (got.status, len(upstream.heads)) == (status, 2)
        assert b"project-x" not in got.everything
        assert b"Retry-After: 7" in got.head
        assert (seen.begun, seen.handed_over) == (1, 1)
        assert viewing.proxy.upstream._pool.busy == 0


@pytest.mark.parametrize("kind", ["gzip", "chunked", "large", "empty"])
async def test_an_answer_that_is_not_plain_is_handed_over_whole(
    tmp_path: Path, seen: Seen, kind: str
) -> None:
    rows = b'[{"00081190":{"vr":"UR","Value":["http://127.0.0.1/rs/studies/1.2.3"]}}]'
    rows = rows * 20_000 if kind == "large" else rows

    async def script(exchange: Exchange) -> None:
        json = "Content-Type: application/dicom+json"
        if kind == "gzip":
            await exchange.send(answer(gzip.compress(rows), json, "Content-Encoding: gzip"))
        elif kind == "empty":
            await exchange.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        elif kind == "chunked":
            await exchange.send(f"HTTP/1.1 200 OK\r\n{json}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            for start in range(0, len(rows), 30):
                piece = rows[start : start + 30]
                await exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await asyncio.sleep(0.001)
            await exchange.send(b"0\r\n\r\n")
        else:
            await exchange.send(answer(rows, json))

    async with before(script, tmp_path) as (viewing, upstream, token), RawClient(viewing.port) as client:
        got = await client.ask(
            request("GET", f"/dicomWeb/studies/{STUDY}/metadata", token, "Accept-Encoding: gzip")
        )
        body = gzip.decompress(got.body) if b"Content-Encoding: gzip" in got.head else got.body
        assert (got.status, seen.begun, seen.handed_over, len(upstream.heads)) == (
            204 if kind == "empty" else 200,
            1,
            1,
            2,
        )
        assert body == (
            b""
            if kind == "empty"
            else rows.replace(b"http://127.0.0.1/rs", b"https://images.example.org/dicomWeb")
        )
        assert viewing.proxy.upstream._pool.busy == 0


async def test_a_refused_google_token_is_replaced(
    google_viewing: Viewing, google: GoogleFront, archive: Archive, seen: Seen
) -> None:
    doctor = await google_viewing.user("doctor@example.org", Role.DOCTOR)
    path = f"/dicomWeb/studies/{archive.ann.StudyInstanceUID}/series"
    async with RawClient(google_viewing.port) as client:
        for _ in range(2):
            assert (await client.ask(request("GET", path, doctor))).status == 200
        google.tokens.clear()
        assert (await client.ask(request("GET", path, doctor))).status == 200
    assert google.tokens_given == 2
    assert seen.handed_over == 1


@pytest.mark.parametrize("when", ["before the answer", "in the body"])
async def test_a_client_that_leaves_ends_it_upstream_and_is_recorded(
    tmp_path: Path, seen: Seen, when: str
) -> None:
    async def script(exchange: Exchange) -> None:
        if when == "in the body":
            await exchange.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 999999\r\n\r\nbegin"
            )
        await exchange.reader.read()  # until the connection ends

    async with before(script, tmp_path) as (viewing, upstream, token):
        reader, writer = await asyncio.open_connection(HOST, viewing.port)
        writer.write(request("GET", f"/dicomWeb{FRAME}", token))
        while len(upstream.heads) < 2:
            await asyncio.sleep(0.01)
        if when == "in the body":
            await reader.readuntil(b"begin")
        writer.close()
        async with asyncio.timeout(5):
            while upstream.open:
                await asyncio.sleep(0.01)
        rows = [
            (row["event"], row["outcome"]) for row in await viewing.audited() if row["study_iuid"] == STUDY
        ]
        assert rows[-2:] == [("read a study", "ok"), ("read a study", "failed")]
        assert viewing.proxy.upstream._pool.busy == 0
    assert seen.begun == 1


async def test_a_client_that_leaves_as_the_body_begins_leaves_nothing_behind(
    tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task that would pass the body on is cancelled before its first step."""
    answered = ShortWay._answered

    def lose(way: ShortWay, *arguments: Any) -> None:
        answered(way, *arguments)
        if way.is_busy and way._connection.transport is not None:
            way._connection.transport.abort()
            way.lost()

    monkeypatch.setattr(ShortWay, "_answered", lose)

    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(PIECE, "Content-Type: image/jpeg"))

    async with before(script, tmp_path) as (viewing, upstream, token):
        reader, writer = await asyncio.open_connection(HOST, viewing.port)
        writer.write(request("GET", f"/dicomWeb{FRAME}", token))
        with suppress(ConnectionError):
            assert await reader.read() == b""
        async with asyncio.timeout(5):
            while upstream.open:
                await asyncio.sleep(0.01)
        assert viewing.proxy.upstream._pool.busy == 0
        writer.close()
    assert seen.begun == 1


async def test_a_connection_that_waits_for_upstream_is_not_idle_and_later_is(
    tmp_path: Path, seen: Seen
) -> None:
    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(1.5)
        await exchange.send(answer(b"body", "Content-Type: image/jpeg"))

    async with before(script, tmp_path, idle_timeout_seconds=0.5) as (viewing, _, token):
        reader, writer = await asyncio.open_connection(HOST, viewing.port)
        writer.write(request("GET", f"/dicomWeb{FRAME}", token))
        async with asyncio.timeout(10):
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            assert await reader.read() == b"body"  # and then the end
        writer.close()
    assert seen.begun == 1


async def test_the_service_ends_after_what_is_on_its_way(tmp_path: Path, seen: Seen) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 10\r\n\r\nhello")
        await asyncio.sleep(0.4)
        await exchange.send(b"world")

    async with before(script, tmp_path, shutdown_timeout_seconds=5) as (viewing, _, token):
        reader, writer = await asyncio.open_connection(HOST, viewing.port)
        writer.write(request("GET", f"/dicomWeb{FRAME}", token))
        await reader.readuntil(b"hello")
    assert await reader.readexactly(5) == b"world"
    writer.close()
    assert seen.begun == 1


async def test_a_cookie_goes_the_short_way_until_it_is_time_for_a_new_one(
    tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"body", "Content-Type: image/jpeg"))

    async with before(script, tmp_path) as (viewing, _, _token), RawClient(viewing.port) as client:
        body = {"email": "patient@example.org", "password": PASSWORD}
        async with viewing.session.post(f"{viewing.url}/auth/login", json=body) as signed_in:
            cookie = f"Cookie: a=b; pacsbridge_session={signed_in.cookies['pacsbridge_session'].value}"
        await client.ask(request("GET", f"/dicomWeb{WARM}", "", cookie))
        assert (await client.ask(request("GET", f"/dicomWeb{FRAME}", "", cookie))).status == 200
        assert seen.begun == 1
        monkeypatch.setattr(viewing.accounts, "_access_lifetime", type(viewing.accounts._access_lifetime)(0))
        renewed = await client.ask(request("GET", f"/dicomWeb{FRAME}", "", cookie))
        assert (renewed.status, seen.begun) == (200, 1)
        assert b"Set-Cookie: pacsbridge_session=" in renewed.head

"""Downloads as clients make them: curl that resumes, ranges, old clients, stalled ones, names, keys, links, errors."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import pytest
from aiohttp import web

from pacsbridge.http.links import Purpose, make_link
from tests.e2e.service import make_config, running
from tests.misbehaving import Misbehaviour
from tests.peers import HOST, free_port, require
from tests.studies import Patient, make_study

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.conftest import MakePacs
    from tests.e2e.service import Service

DOWNLOAD = "/api/iso/download"
MULTIPLE = "/api/iso/download-multiple"
PEER = {"connect_timeout_seconds": 10, "response_timeout_seconds": 30}
BIG = {"instances": 24, "size": 512}  # 12 MB: more than sockets hold by themselves
NAMES = ("Müller^Jörg", "小林^遥")

MakeService = Any


@pytest.fixture
async def start(make_pacs: MakePacs, tmp_path: Path) -> AsyncIterator[MakeService]:
    """Give a maker of services over one PACS with the study A1."""
    stack: list[Any] = []

    async def make(*, study: dict[str, Any] | None = None, **sections: Any) -> Service:
        make_study(tmp_path / "pacs", "A1", **(study or {}))
        pacs = make_pacs(folder=tmp_path / "pacs")
        context = running(make_config(tmp_path, pacs, **({"pacs": PEER} | sections)))
        stack.append(context)
        service: Service = await context.__aenter__()
        service.pacs = pacs  # type: ignore[attr-defined]  # for the tests that count C-MOVEs
        return service

    yield make
    for context in stack:
        await context.__aexit__(None, None, None)


async def curl(*arguments: str) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        require("curl"), "-sS", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out


async def test_curl_that_stops_half_way_resumes_to_the_same_bytes(start: MakeService, tmp_path: Path) -> None:
    service = await start(study=BIG)
    url = f"{service.url}{DOWNLOAD}?accession_number=A1"
    part = tmp_path / "A1.iso"
    code, _ = await curl("--limit-rate", "500k", "--max-time", "1.5", "-o", str(part), url)
    assert code == 28, "it was to stop by its time-out"
    _, headers, whole = await service.get(DOWNLOAD, accession_number="A1")
    assert 0 < part.stat().st_size < len(whole)
    code, said = await curl("-C", "-", "-o", str(part), url)
    assert code == 0, said
    assert part.read_bytes() == whole
    assert len(service.pacs.moves) == 1
    assert int(headers["Content-Length"]) == len(whole)


async def test_curl_is_not_given_the_rest_of_another_image(start: MakeService, tmp_path: Path) -> None:
    """With nothing kept, what is resumed is another image: curl is told so, instead of gluing two together."""
    media = {"keep_minutes": 0, "spool_dir": str(tmp_path / "spool")}
    service = await start(media=media)
    part = tmp_path / "A1.iso"
    part.write_bytes(bytes(5000))
    code, said = await curl("-C", "-", "-o", str(part), f"{service.url}{DOWNLOAD}?accession_number=A1")
    assert code == 33, said
    assert part.stat().st_size == 5000


async def test_ranges_and_conditions(start: MakeService) -> None:
    service = await start()
    _, headers, whole = await service.get(DOWNLOAD, accession_number="A1")
    etag = headers["ETag"]
    assert headers["Accept-Ranges"] == "bytes"
    last = len(whole) - 1
    for asked, first, stop in (
        ("bytes=0-0", 0, 1),
        ("bytes=2047-2048", 2047, 2049),
        ("bytes=-1", last, last + 1),
        (f"bytes=40000-{last + 100}", 40000, last + 1),
    ):
        status, headers, body = await service.get(DOWNLOAD, accession_number="A1", headers={"Range": asked})
        assert (status, headers["Content-Range"]) == (206, f"bytes {first}-{stop - 1}/{len(whole)}")
        assert body == whole[first:stop]
        assert int(headers["Content-Length"]) == stop - first
    status, headers, body = await service.get(
        DOWNLOAD, accession_number="A1", headers={"Range": f"bytes={len(whole)}-"}
    )
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(whole)}")
    assert json.loads(body)["error"]["code"] == "range_not_satisfiable"
    for condition, expected in (
        ({"Range": "bytes=0-9", "If-Range": etag}, 206),
        ({"Range": "bytes=0-9", "If-Range": '"other"'}, 200),
        ({"If-None-Match": etag}, 304),
        ({"If-Match": '"other"'}, 412),
        ({"Range": "bytes=" + "9" * 5000 + "-"}, 200),
    ):
        status, headers, body = await service.get(DOWNLOAD, accession_number="A1", headers=condition)
        assert status == expected
        assert status == 412 or headers["ETag"] == etag
    assert len(service.pacs.moves) == 1


async def test_head_says_what_get_gives(start: MakeService) -> None:
    service = await start()
    async with service.session.head(f"{service.url}{DOWNLOAD}?accession_number=A1") as response:
        head = response.headers
        assert (response.status, await response.read()) == (200, b"")
    _, get, body = await service.get(DOWNLOAD, accession_number="A1")
    for name in ("Content-Length", "Content-Type", "Content-Disposition", "ETag", "Accept-Ranges"):
        assert head[name] == get[name]
    assert int(head["Content-Length"]) == len(body)


async def test_a_client_of_http_1_0(start: MakeService) -> None:
    service = await start()
    _, _, whole = await service.get(DOWNLOAD, accession_number="A1")
    code, body = await curl("-0", f"{service.url}{DOWNLOAD}?accession_number=A1")
    assert (code, body) == (0, whole)
    answer = await raw(service, b"GET /api/iso/download?accession_number=A1 HTTP/1.0\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == b"200"
    assert b"transfer-encoding" not in head.lower()
    assert body == whole


async def test_a_client_that_stops_reading_is_cut_off_and_harms_nobody(start: MakeService) -> None:
    service = await start(study=BIG, server={"write_timeout_seconds": 1, "host": HOST, "port": 0})
    reader, writer = await asyncio.open_connection(HOST, int(service.url.rsplit(":", 1)[1]), limit=2**12)
    writer.write(b"GET /api/iso/download?accession_number=A1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" in await reader.readline()
    others = await asyncio.gather(*(service.get(DOWNLOAD, accession_number="A1") for _ in range(3)))
    assert len({body for _, _, body in others}) == 1
    (job,) = service.services.engine.jobs
    async with asyncio.timeout(20):
        while job.disc.readers:
            await asyncio.sleep(0.1)
    received = 0
    with suppress(ConnectionResetError):  # an end without it is as good
        while piece := await reader.read(2**16):
            received += len(piece)
    assert received < len(others[0][2])
    writer.close()


async def test_names_in_other_scripts(start: MakeService, make_pacs: MakePacs, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        make_study(tmp_path / "pacs", f"N{number}", patient=Patient(f"P{number}", name))
    service = await start()
    _, headers, _ = await service.get(MULTIPLE, accession_numbers="N0")
    assert headers["Content-Disposition"] == (
        "attachment; filename=\"Muller_Jorg.iso\"; filename*=UTF-8''" + quote("Müller_Jörg.iso")
    )
    _, headers, _ = await service.get(MULTIPLE, accession_numbers="N1")
    assert headers["Content-Disposition"] == (
        "attachment; filename=\"N1.iso\"; filename*=UTF-8''" + quote("小林_遥.iso")
    )


class His:
    """A patient-data API: the answers that it is to give, one after the other, the last one for ever."""

    def __init__(self, *answers: Callable[[], Awaitable[web.StreamResponse]]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []
        self.port = free_port()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/patients", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self.port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.query["accession_number"], request.headers.get("X-API-Key", "")))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer()


def says(status: int = 200, body: Any = None, text: str | None = None) -> Any:
    async def answer() -> web.StreamResponse:
        return web.Response(status=status, text=json.dumps(body) if text is None else text)

    return answer


def is_silent() -> Any:
    async def answer() -> web.StreamResponse:
        await asyncio.sleep(3)
        return web.Response()

    return answer


GOOD = says(body={"data": {"name": "山田 太郎", "id": 7}})
FROM_HIS = quote("山田_太郎.iso")


@pytest.mark.parametrize(
    ("answers", "asked", "named"),
    [
        ([GOOD], 1, True),
        ([says(503), says(500), GOOD], 3, True),
        ([says(500)], 3, False),
        ([says(404)], 1, False),
        ([says(text="<html>")], None, False),
        ([says(text="[" * 100_000)], None, False),
        ([says(body={"data": []})], 1, False),
        ([is_silent()], None, False),
    ],
    ids=["good", "good at last", "broken", "unknown", "no JSON", "deep JSON", "other JSON", "silent"],
)
async def test_the_his_names_the_patient_or_the_images_do(
    answers: list[Any], asked: int | None, named: bool, start: MakeService
) -> None:
    async with His(*answers) as his:
        service = await start(
            patient_api={
                "base_url": f"http://{HOST}:{his.port}", "timeout_seconds": 0.5, "retries": 2, "api_key": "k3y",
                "fields": {"name": "data.name"},
            }
        )  # fmt: skip
        status, headers, _ = await service.get(MULTIPLE, accession_numbers="A1")
        assert status == 200
        assert (FROM_HIS in headers["Content-Disposition"]) == named
        if not named:
            assert headers["Content-Disposition"] == 'attachment; filename="Test_Patient.iso"'
        if asked is not None:
            assert his.asked == [("A1", "k3y")] * asked


async def test_a_his_that_is_down_costs_the_name_only(start: MakeService) -> None:
    service = await start(patient_api={"base_url": f"http://{HOST}:{free_port()}", "retries": 1})
    status, headers, _ = await service.get(MULTIPLE, accession_numbers="A1")
    assert (status, headers["Content-Disposition"]) == (200, 'attachment; filename="Test_Patient.iso"')
    _, _, body = await service.get("/api/health")
    assert json.loads(body)["checks"]["patient_api"]["status"] == "failed"


async def test_the_api_key_and_signed_links(start: MakeService) -> None:
    service = await start(auth={"enabled": True, "api_key": "s3cret"})
    auth = service.config.auth
    assert await service.error(DOWNLOAD, accession_number="A1") == (401, "unauthorized")
    for key, expected in (("s3cret", 200), ("wrong", 401), ("s3cre\u00fc", 401), ("", 401)):
        status, _, _ = await service.get(DOWNLOAD, accession_number="A1", headers={"X-API-Key": key})
        assert status == expected
    soon, past = int(time.time()) + 60, int(time.time()) - 1

    async def follow(link: str) -> int:
        async with service.session.get(link) as response:
            return int(response.status)

    good = make_link(auth, service.url, Purpose.DOWNLOAD, ["A1"], expires=soon)
    assert await follow(good) == 200
    assert await follow(good.replace("A1", "A2")) == 401
    assert await follow(good.replace(str(soon), str(soon + 1))) == 401
    assert await follow(make_link(auth, service.url, Purpose.DOWNLOAD, ["A1"], expires=past)) == 401
    assert await follow(good.replace(DOWNLOAD, "/api/iso/print")) == 401
    printing = make_link(auth, service.url, Purpose.PRINT, ["A1"], expires=soon)
    assert await follow(printing.replace("/api/iso/print", DOWNLOAD)) == 401
    assert await follow(f"{good}&accession_number=A2") == 401
    for path in ("/api/health", "/api/ready", "/metrics"):
        status, _, _ = await service.get(path)
        assert status == 200


@pytest.mark.parametrize("enabled", [True, False])
async def test_the_php_routes(enabled: bool, start: MakeService) -> None:
    service = await start(server={"legacy_php_routes": enabled, "host": HOST, "port": 0})
    _, _, whole = await service.get(DOWNLOAD, accession_number="A1")
    for path in ("/mkiso.php", "/mkiso2.php"):
        status, _, body = await service.get(path, accession_number="A1")
        assert (status, body == whole) == ((200, True) if enabled else (404, False))
    status, headers, body = await service.get("/mkiso_multiple.php", accession_numbers="A1")
    if enabled:
        assert (status, body == whole) == (200, True)
        assert "Test_Patient.iso" in headers["Content-Disposition"]
        assert await service.error("/send_rimage_multiple.php", accession_number="A1") == (
            503, "not_configured",
        )  # fmt: skip
    else:
        assert status == 404


async def test_cors_is_for_the_configured_origins_only(start: MakeService) -> None:
    origin = "https://his.example"
    service = await start(server={"allowed_origins": [origin], "host": HOST, "port": 0})
    for path, parameters in ((DOWNLOAD, {"accession_number": "A1"}), (DOWNLOAD, {}), ("/nowhere", {})):
        _, headers, _ = await service.get(path, **parameters, headers={"Origin": origin})
        assert headers["Access-Control-Allow-Origin"] == origin
        assert "Content-Disposition" in headers["Access-Control-Expose-Headers"]
        _, headers, _ = await service.get(path, **parameters, headers={"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in headers
    asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    async with service.session.options(service.url + DOWNLOAD, headers=asked) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert "X-API-Key" in response.headers["Access-Control-Allow-Headers"]


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (b"GET /nowhere HTTP/1.1", (404, "not_found")),
        (b"POST /api/iso/download HTTP/1.1", (405, "method_not_allowed")),
        (b"GET /api/iso/download?accession_number=%00 HTTP/1.1", (400, "invalid_parameter")),
        (b"GET /api/iso/download?accession_number=A%0AB HTTP/1.1", (400, "invalid_parameter")),
        (b"GET /api/iso/download?accession_number=%ff HTTP/1.1", (404, "no_dicom_data")),
        (b"GET /api/iso/download?accession_number=%E2%80%8B HTTP/1.1", (400, "invalid_parameter")),
        (
            b"GET /api/iso/download?accession_number=A1&accession_number=A2 HTTP/1.1",
            (400, "invalid_parameter"),
        ),
        (b"GET /api/iso/download?accession_number=" + b"9" * 7000 + b" HTTP/1.1", (400, "invalid_parameter")),
        (b"GET /api/iso/download-multiple?accession_numbers=,,, HTTP/1.1", (400, "missing_parameter")),
        (b"GET /api/jobs/%2e%2e%2f HTTP/1.1", (404, "not_found")),
        (b"GET /%ff%fe HTTP/1.1", (404, "not_found")),
        (b"GET /api/iso/download?accession_number=" + b"9" * 20_000 + b" HTTP/1.1", (400, "invalid_request")),
        (b"GET /api/iso/download?accession_number=A1 HTTP/one", (400, "invalid_request")),
        (b"G\x01T /api/iso/download?accession_number=A1 HTTP/1.1", (400, "invalid_request")),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400, "invalid_request")),
    ],
    ids=range(15),
)
async def test_every_error_is_json(
    request_line: bytes, expected: tuple[int, str], start: MakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    service = await start()
    answer = await raw(service, request_line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert (int(head.split()[1]), error["code"]) == expected
    assert error["message"]
    assert f"X-Request-ID: {error['request_id']}".encode() in head
    assert b"application/json" in head
    assert "accession_number=A1" not in "".join(capsys.readouterr())


async def test_an_idle_connection_is_closed(start: MakeService) -> None:
    service = await start(server={"idle_timeout_seconds": 0.5, "host": HOST, "port": 0})
    for sent in (b"", b"GET /api/iso/download?acc"):
        assert await raw(service, sent) in {b"", b"HTTP/1.1 408"}


async def test_what_is_kept_is_served_without_asking_again(start: MakeService, tmp_path: Path) -> None:
    service = await start()
    _, first, body = await service.get(DOWNLOAD, accession_number="A1")
    for _ in range(2):
        _, again, same = await service.get(DOWNLOAD, accession_number="A1")
        assert (again["ETag"], same) == (first["ETag"], body)
    assert len(service.pacs.moves) == 1
    for kept in service.services.engine.jobs:
        kept.disc.finished_at -= 31 * 60  # as the keep_minutes' default is 30
    async with asyncio.timeout(10):
        while service.spooled():
            await asyncio.to_thread(service.services.engine._shelf.sweep)
    _, again, _ = await service.get(DOWNLOAD, accession_number="A1")
    assert again["ETag"] != first["ETag"]
    assert len(service.pacs.moves) == 2


async def test_nothing_is_kept_when_that_is_wanted(start: MakeService, tmp_path: Path) -> None:
    service = await start(media={"keep_minutes": 0, "spool_dir": str(tmp_path / "spool")})
    answers = await asyncio.gather(*(service.get(DOWNLOAD, accession_number="A1") for _ in range(6)))
    assert {status for status, _, _ in answers} == {200}
    assert len({headers["ETag"] for _, headers, _ in answers}) == len(service.pacs.moves)
    async with asyncio.timeout(10):
        while service.spooled():
            await asyncio.sleep(0.05)


async def test_the_oldest_disc_gives_way_never_one_that_is_read(start: MakeService, tmp_path: Path) -> None:
    for number in range(3):
        make_study(tmp_path / "pacs", f"B{number}", instances=4, size=256)  # 0.53 MB of images, and a little
    media = {"spool_max_bytes": 1_300_000, "spool_dir": str(tmp_path / "spool")}
    service = await start(media=media)
    discs = {}
    async with service.disc("B0") as oldest:
        for name in ("B1", "B2"):  # B2 needs the room of B1, which is younger than B0 but not being read
            async with service.disc(name) as kept:
                discs[name] = kept
        assert (oldest.gone, discs["B1"].gone, discs["B2"].gone) == (False, True, False)
        assert len(b"".join(oldest.disc.read_chunks())) == oldest.disc.size
        async with service.disc("B2"):
            answer = await service.error(DOWNLOAD, accession_number="B1")
            assert answer == (507, "spool_full")
        assert service.services.works.spool.used <= 1_300_000
    status, _, _ = await service.get(DOWNLOAD, accession_number="B1")
    assert status == 200
    assert oldest.gone


async def test_the_readme_of_a_partial_disc_says_what_is_missing(start: MakeService, tmp_path: Path) -> None:
    service = await start(
        study={"instances": 12}, media={"allow_partial": True, "spool_dir": str(tmp_path / "spool")}
    )
    service.pacs.misbehaviour = Misbehaviour(fewer=2)
    status, _, body = await service.get(DOWNLOAD, accession_number="A1")
    assert status == 200
    at = body.index(b"10 of 12")
    assert b"README" not in body[at : at + 20]


async def raw(service: Service, request: bytes) -> bytes:
    """Send bytes, and give all that comes back until the connection ends."""

    def talk() -> bytes:
        with socket.create_connection((HOST, int(service.url.rsplit(":", 1)[1])), timeout=20) as connection:
            connection.sendall(request)
            answer = b""
            try:
                while piece := connection.recv(2**16):
                    answer += piece
            except ConnectionResetError:
                return answer
            return answer

    return await asyncio.to_thread(talk)

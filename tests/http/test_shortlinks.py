"""Short links over HTTP: for the HIS that makes them, for the patient who opens one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from structlog.testing import capture_logs

from pacsbridge.accounts.catalog import FoundStudy
from pacsbridge.accounts.values import Role
from pacsbridge.http.catalog import PacsCatalog
from tests.http.desk import API_KEY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.http.desk import Answer, Desk

LINK = {"reference": "visit-1", "study_iuids": ["1.2.4", "1.2.3"], "patient_name": "Doe^Jane"}
KEY = {"X-API-Key": API_KEY}


async def opened(desk: Desk, code: str, **more: Any) -> Answer:
    return await desk.ask("GET", f"/s/{code}", **more)


async def me(desk: Desk, answer: Answer) -> Any:
    cookie = {"Cookie": f"pacsbridge_session={answer.cookie}"}
    return (await desk.ask("GET", "/auth/me", headers=cookie)).json


async def test_make_and_open(desk: Desk) -> None:
    made = await desk.post("/api/shortlinks", LINK)
    assert made.status == 201
    assert made.json["url"] == f"http://localhost:8080/s/{made.json['code']}"
    assert made.headers["Location"] == made.json["links"]["self"]
    answer = await opened(desk, made.json["code"])
    assert answer.status == 302
    assert answer.headers["Location"] == "/viewer?StudyInstanceUIDs=1.2.4"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    who = await me(desk, answer)
    assert (who["role"], who["name"]) == ("patient", "Doe^Jane")
    assert who["study_iuids"] == ["1.2.4", "1.2.3"]


async def test_the_same_reference_updates(desk: Desk) -> None:
    first = await desk.post("/api/shortlinks", LINK)
    answer = await opened(desk, first.json["code"])
    second = await desk.post("/api/shortlinks", LINK | {"study_iuids": ["1.2.9"]})
    assert second.status == 200
    assert second.json["code"] == first.json["code"]
    assert (await me(desk, answer))["study_iuids"] == ["1.2.9"]


async def test_accession_numbers_are_resolved_and_strangers_dropped(desk: Desk) -> None:
    desk.catalog.studies = {
        "A1": [FoundStudy("1.5.1", "A10"), FoundStudy("1.5.2", "A1"), FoundStudy("1.5.3", "A1 ")],
        "A2": [FoundStudy("1.5.2", "A2"), FoundStudy("1.5.4", "A2")],
    }
    body = {"reference": "r", "accession_numbers": ["A1", "A2"]}
    code = (await desk.post("/api/shortlinks", body)).json["code"]
    answer = await opened(desk, code)
    assert answer.headers["Location"].endswith("=1.5.2")
    page = (await desk.ask("GET", f"/s/{code}/studies")).body.decode()
    assert [uid for uid in ("1.5.1", "1.5.2", "1.5.3", "1.5.4") if f"={uid}" in page] == [
        "1.5.2",
        "1.5.3",
        "1.5.4",
    ]


async def test_images_that_are_not_there_yet(desk: Desk) -> None:
    body = {"reference": "r", "accession_numbers": ["A1"]}
    code = (await desk.post("/api/shortlinks", body)).json["code"]
    answer = await opened(desk, code)
    assert (answer.status, answer.json["error"]["code"]) == (404, "no_dicom_data")
    desk.catalog.away = True
    answer = await opened(desk, code)
    assert (answer.status, answer.json["error"]["code"]) == (502, "pacs_unreachable")
    desk.catalog.away = False
    desk.catalog.studies["A1"] = [FoundStudy("1.2.3", "A1")]
    assert (await opened(desk, code)).status == 302


async def test_opening_twice_in_one_browser_is_one_session(desk: Desk) -> None:
    code = (await desk.post("/api/shortlinks", LINK)).json["code"]
    first = await opened(desk, code)
    cookie = {"Cookie": f"pacsbridge_session={first.cookie}"}
    again = await opened(desk, code, headers=cookie)
    assert (again.status, again.cookie) == (302, None)
    other = (await desk.post("/api/shortlinks", LINK | {"reference": "r2"})).json["code"]
    switched = await opened(desk, other, headers=cookie)
    assert (switched.status, bool(switched.cookie)) == (302, True)


async def test_unknown_expired_and_revoked_look_the_same(desk: Desk) -> None:
    expired = (await desk.post("/api/shortlinks", LINK | {"reference": "a", "expires_in_hours": 1})).json[
        "code"
    ]
    revoked = (await desk.post("/api/shortlinks", LINK | {"reference": "b"})).json["code"]
    session = await opened(desk, revoked)
    assert (await desk.ask("DELETE", f"/api/shortlinks/{revoked}")).status == 204
    assert (await me(desk, session))["error"]["code"] == "unauthorized"
    desk.clock.forward(hours=1)
    seen = set()
    for code in (expired, revoked, "A" * 22, "x", "%2e%2e%2f", "%00", "ü"):
        for method, path in (
            ("GET", f"/s/{code}"),
            ("GET", f"/s/{code}/studies"),
            ("GET", f"/api/shortlinks/{code}"),
            ("DELETE", f"/api/shortlinks/{code}"),
            ("GET", f"/api/shortlinks/{code}/qr.png"),
        ):
            answer = await desk.ask(method, path)
            seen.add((answer.status, answer.json["error"]["code"], answer.json["error"]["message"]))
    assert seen == {(404, "not_found", "There is no such link, or it is no longer valid.")}


async def test_a_person_sees_a_page_not_json(sqlite_desk: Desk) -> None:
    answer = await opened(sqlite_desk, "A" * 22, headers={"Accept": "text/html,*/*"})
    assert answer.status == 404
    assert "no longer valid" in answer.body.decode()
    assert answer.headers["Content-Type"].startswith("text/html")


async def test_looking_with_head_opens_nothing(desk: Desk) -> None:
    code = (await desk.post("/api/shortlinks", LINK)).json["code"]
    assert (await desk.ask("HEAD", f"/s/{code}")).status == 405
    assert (await desk.ask("GET", f"/api/shortlinks/{code}")).json["opened_count"] == 0


async def test_the_page_escapes_what_it_shows(sqlite_desk: Desk) -> None:
    sqlite_desk.catalog.studies["A1"] = [
        FoundStudy("1.2.3", "A1", "20260102", "<b>CT & chest</b>", ("CT", "SR")),
    ]
    body = {"reference": "r", "accession_numbers": ["A1"], "patient_name": "<script>alert(1)</script>^X=x"}
    code = (await sqlite_desk.post("/api/shortlinks", body)).json["code"]
    page = (await sqlite_desk.ask("GET", f"/s/{code}/studies")).body.decode()
    assert "<script" not in page
    assert "&lt;b&gt;CT &amp; chest&lt;/b&gt;" in page
    assert "2026-01-02" in page
    assert "CT, SR" in page
    assert "=x" not in page


async def test_qr_codes(desk: Desk) -> None:
    links = (await desk.post("/api/shortlinks", LINK)).json["links"]
    png = await desk.ask("GET", links["qr_png"].removeprefix("http://localhost:8080"))
    assert (png.headers["Content-Type"], png.body[:8]) == ("image/png", b"\x89PNG\r\n\x1a\n")
    svg = await desk.ask("GET", links["qr_svg"].removeprefix("http://localhost:8080"))
    assert svg.headers["Content-Type"] == "image/svg+xml"
    assert ET.fromstring(svg.body).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"reference": None}, "missing_parameter"),
        ({"study_iuids": []}, "missing_parameter"),
        ({"study_iuids": ["1.2.*"]}, "invalid_parameter"),
        ({"study_iuids": "1.2.3"}, "invalid_parameter"),
        ({"study_iuids": [1]}, "invalid_parameter"),
        ({"accession_numbers": ["A?"]}, "invalid_parameter"),
        ({"accession_numbers": ["A" * 17]}, "invalid_parameter"),
        ({"expires_in_hours": "1"}, "invalid_parameter"),
        ({"expires_in_hours": True}, "invalid_parameter"),
        ({"expires_in_hours": 0}, "invalid_parameter"),
        ({"expires_in_hours": 10**400}, "invalid_parameter"),
        ({"patient_name": 7}, "invalid_parameter"),
        ({"reference": "\ud800"}, "invalid_parameter"),
    ],
)
async def test_what_cannot_be_made(sqlite_desk: Desk, change: dict[str, Any], code: str) -> None:
    answer = await sqlite_desk.post("/api/shortlinks", LINK | change)
    assert (answer.status, answer.json["error"]["code"]) == (400, code)


async def test_who_may_make_links(locked_desk: Desk) -> None:
    desk = locked_desk

    async def status(headers: dict[str, str]) -> int:
        return (await desk.post("/api/shortlinks", LINK, headers=headers)).status

    assert await status({}) == 401
    assert await status({"X-API-Key": "wrong"}) == 401
    assert await status({"Authorization": "Bearer nonsense"}) == 401
    assert await status(KEY) == 201
    for role, expected in (
        (Role.PATIENT, 403),
        (Role.DOCTOR, 403),
        (Role.STAFF, 200),
        (Role.ADMIN, 200),
    ):
        assert await status(await desk.bearer(f"b{role}@example.org", role)) == expected
        cookie = await desk.cookie(f"c{role}@example.org", role)
        assert await status(cookie) == expected
        assert await status(cookie | {"Origin": "https://evil.example"}) == 403
    code = (await desk.post("/api/shortlinks", LINK, headers=KEY)).json["code"]
    for path in (f"/api/shortlinks/{code}", f"/api/shortlinks/{code}/qr.png"):
        assert (await desk.ask("GET", path)).status == 401
        assert (await desk.ask("GET", path, headers=KEY)).status == 200
    patient = {"Cookie": f"pacsbridge_session={(await opened(desk, code)).cookie}"}
    assert (await desk.ask("GET", f"/api/shortlinks/{code}", headers=patient)).status == 403


async def test_the_code_is_not_logged(desk: Desk) -> None:
    with capture_logs() as lines:
        code = (await desk.post("/api/shortlinks", LINK)).json["code"]
        await opened(desk, code)
        await desk.ask("GET", f"/api/shortlinks/{code}/qr.svg")
    assert "/s/{code}" in [line.get("route") for line in lines]
    for secret in (code, "Doe", "1.2.4"):
        assert secret not in str(lines)


async def test_the_pacs_as_the_catalogue(make_pacs: Any, tmp_path: Path) -> None:
    from tests.e2e.service import make_config
    from tests.studies import make_study

    folder = tmp_path / "images"
    folder.mkdir()
    make_study(folder, "A1")
    make_study(folder, "A2")
    pacs = make_pacs(folder=folder)
    found = await PacsCatalog(make_config(tmp_path, pacs).pacs).of_accession_number("A1")
    assert [study.AccessionNumber for study in found] == ["A1"]
    assert found[0].StudyInstanceUID

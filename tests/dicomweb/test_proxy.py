"""The proxy over HTTP: who gets what, and what goes up and comes down."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pacsbridge.accounts.values import Grants, Role
from pacsbridge.errors import UpstreamUnreachable
from tests.accounts.examples import ENGINEER, PASSWORD
from tests.dicomweb.viewing import ORIGIN, running_viewing
from tests.google import PROJECT
from tests.samples import dataset, part10

if TYPE_CHECKING:
    from pathlib import Path

    from tests.dicomweb.conftest import Archive
    from tests.dicomweb.viewing import Viewing
    from tests.google import GoogleFront

JSON = {"Accept": "application/dicom+json"}
FRAMES = {"Accept": "multipart/related; type=application/octet-stream; transfer-syntax=*"}


def studies_in(answer: Any) -> list[str]:
    return [row["00080050"]["Value"][0] for row in answer.json]


async def patient(viewing: Viewing, *studies: Any, numbers: tuple[str, ...] = ()) -> str:
    uids = tuple(study.StudyInstanceUID for study in studies)
    return await viewing.user("patient@example.org", Role.PATIENT, Grants(uids, numbers))


def image(study: Any) -> str:
    uid = study.StudyInstanceUID
    return f"/studies/{uid}/series/{uid}.1/instances/{uid}.1.1"


# Who gets what.


@pytest.mark.parametrize("role", [Role.DOCTOR, Role.STAFF, Role.ADMIN])
async def test_who_may_see_all_sees_all(viewing: Viewing, archive: Archive, role: Role) -> None:
    token = await viewing.user("all@example.org", role)
    answer = await viewing.ask(token, "/studies")
    assert sorted(studies_in(answer)) == ["ANN1", "ANN2", "BOB1", "CEM1"]
    assert (await viewing.ask(token, "/instances?limit=3")).status == 200
    assert (await viewing.ask(token, f"{image(archive.bob)}/frames/1", headers=FRAMES)).status == 200


async def test_a_patient_sees_what_is_granted_by_uid_and_by_number(
    viewing: Viewing, archive: Archive
) -> None:
    token = await patient(viewing, archive.ann, numbers=("ANN2", "NONE"))
    assert sorted(studies_in(await viewing.ask(token, "/studies"))) == ["ANN1", "ANN2"]
    for study in (archive.ann, archive.ann_too):
        assert (await viewing.ask(token, f"/studies/{study.StudyInstanceUID}/series")).status == 200
        assert (await viewing.ask(token, f"{image(study)}/frames/1", headers=FRAMES)).status == 200
    for study in (archive.bob, archive.cem):
        assert (await viewing.ask(token, f"{image(study)}/frames/1")).status == 403
    uids = f"{archive.ann_too.StudyInstanceUID},{archive.bob.StudyInstanceUID}"
    assert studies_in(await viewing.ask(token, f"/studies?StudyInstanceUID={uids}")) == ["ANN2"]
    assert sorted(studies_in(await viewing.ask(token, "/studies?AccessionNumber=ANN*"))) == ["ANN1", "ANN2"]
    assert (await viewing.ask(token, "/studies?AccessionNumber=BOB1")).json == []


async def test_searches_are_merged_sorted_and_paged_here(viewing: Viewing, archive: Archive) -> None:
    everything = (archive.ann, archive.ann_too, archive.bob, archive.cem)
    token = await patient(viewing, *everything)
    whole = studies_in(await viewing.ask(token, "/studies"))
    assert sorted(whole) == ["ANN1", "ANN2", "BOB1", "CEM1"]
    paged = [studies_in(await viewing.ask(token, f"/studies?limit=1&offset={offset}")) for offset in range(5)]
    assert [number for page in paged for number in page] == whole
    assert paged[4] == []
    assert studies_in(await viewing.ask(token, "/studies?PatientName=Bob*")) == ["BOB1"]
    assert studies_in(await viewing.ask(token, "/studies?00100020=CEM-ID&limit=5")) == ["CEM1"]


async def test_priors_that_are_not_theirs_are_an_empty_list(viewing: Viewing, archive: Archive) -> None:
    token = await patient(viewing, archive.ann)
    answer = await viewing.ask(
        token,
        "/studies?00100020=ANN-ID&limit=101&offset=0&fuzzymatching=true&includefield=00081030%2C00080060",
    )
    assert (answer.status, studies_in(answer)) == (200, ["ANN1"])
    answer = await viewing.ask(token, "/studies?00100020=BOB-ID")
    assert (answer.status, answer.body) == (200, b"[]")
    assert answer.headers["Content-Type"] == "application/dicom+json"


async def test_a_study_that_is_taken_away_is_gone_at_once(viewing: Viewing, archive: Archive) -> None:
    token = await patient(viewing, archive.ann, numbers=("ANN2",))
    for study in (archive.ann, archive.ann_too):
        assert (await viewing.ask(token, f"/studies/{study.StudyInstanceUID}/series")).status == 200
    grants = Grants((archive.ann.StudyInstanceUID,), ("ANN2",))
    await viewing.accounts.users.unassign("patient@example.org", grants, ENGINEER)
    for study in (archive.ann, archive.ann_too):
        assert (await viewing.ask(token, f"/studies/{study.StudyInstanceUID}/series")).status == 403
    assert (await viewing.ask(token, "/studies")).json == []


@pytest.mark.parametrize(
    ("name", "sees"),
    [("REFERRER^RITA", 4), ("Referrer^Rita^^", 4), ("Referrer", 0), ("Referrer^R*", 0), ("", 0)],
)
async def test_a_doctor_may_be_limited_to_referrals(
    archive: Archive, tmp_path: Path, fast_hashes: None, name: str, sees: int
) -> None:
    section = {"upstream": "dicomweb", "url": archive.root, "doctor_scope": "referred"}
    async with running_viewing(tmp_path, dicomweb=section) as viewing:
        doctor = await viewing.user("doctor@example.org", Role.DOCTOR, ref_doctor=name)
        assert len((await viewing.ask(doctor, "/studies")).json) == sees
        allowed = 200 if sees else 403
        assert (await viewing.ask(doctor, f"{image(archive.bob)}/frames/1")).status == allowed
        assert (
            await viewing.ask(doctor, f"/studies/{archive.bob.StudyInstanceUID}/series")
        ).status == allowed
        assert (await viewing.ask(doctor, "/studies/1.2.3/series")).status == 403
        assert (await viewing.ask(doctor, "/series")).status == 403
        assert (await viewing.ask(doctor, "/studies?ReferringPhysicianName=Else")).json == []


async def test_public_paths_need_no_sign_in_and_open_nothing_else(
    archive: Archive, tmp_path: Path, fast_hashes: None
) -> None:
    own, other = archive.ann.StudyInstanceUID, archive.bob.StudyInstanceUID
    section = {"upstream": "dicomweb", "url": archive.root, "public_paths": [f"/studies/{own}"]}
    async with running_viewing(tmp_path, dicomweb=section) as viewing:
        assert (await viewing.ask("", f"/studies/{own}/metadata")).status == 200
        assert (await viewing.ask("", f"{image(archive.ann)}/rendered")).status == 200
        assert (await viewing.ask("", f"/studies/{own}/series?StudyInstanceUID={other}")).json == []
        for path in (
            f"/studies/{other}",
            "/studies",
            f"/studies/{own}1",
            f"/studies/{own[:-1]}",
            "/instances",
        ):
            assert (await viewing.ask("", path)).status == 401
        for method in ("POST", "DELETE"):
            assert (await viewing.ask("", f"/studies/{own}", method)).status == 401


async def test_storing_and_deleting_are_for_the_roles_that_are_named(
    archive: Archive, tmp_path: Path, fast_hashes: None
) -> None:
    section = {"upstream": "dicomweb", "url": archive.root, "store_roles": ["staff", "patient"]}
    file = part10(
        dataset(
            StudyInstanceUID="1.2.77",
            SeriesInstanceUID="1.2.77.1",
            SOPInstanceUID="1.2.77.1.1",
            PatientID="NEW",
        )
    )
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--b--\r\n"
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b', **JSON}
    async with running_viewing(tmp_path, dicomweb=section) as viewing:
        tokens = {role: await viewing.user(f"{role}@example.org", role) for role in Role}
        try:
            for role, path, status in [
                (Role.ADMIN, "/studies", 403),
                (Role.DOCTOR, "/studies", 403),
                (Role.PATIENT, "/studies", 403),
                (Role.PATIENT, "/studies/1.2.77", 403),
                (Role.STAFF, "/studies", 200),
                (Role.STAFF, "/studies/1.2.77", 200),
            ]:
                answer = await viewing.ask(tokens[role], path, "POST", data=body, headers=headers)
                assert answer.status == status, (role, path, answer.body)
            assert "https://images.example.org/dicomWeb/studies/1.2.77" in answer.body.decode()
            chunked = await viewing.ask(
                tokens[Role.STAFF], "/studies", "POST", data=_in_pieces(body), headers=headers
            )
            assert chunked.status == 200
            for token in tokens.values():
                assert (await viewing.ask(token, "/studies/1.2.77", "DELETE")).status == 403
            assert "1.2.77" in archive.orthanc.studies()
        finally:
            for patient_id in archive.orthanc.rest("GET", "/patients?expand"):
                if patient_id["MainDicomTags"]["PatientID"] == "NEW":
                    archive.orthanc.rest("DELETE", f"/patients/{patient_id['ID']}")


async def _in_pieces(body: bytes) -> Any:
    for start in range(0, len(body), 100):
        yield body[start : start + 100]


# What goes up and comes down.


async def test_who_may_see_all_asks_as_they_like(google_viewing: Viewing, google: GoogleFront) -> None:
    doctor = await google_viewing.user("doctor@example.org", Role.DOCTOR)
    query = "PatientName=A%5eB&00080050=x&Limit=5&fuzzymatching=true&x=%2F"
    sent = {
        "Accept": "application/dicom+json;q=0.9",
        "Cookie": "a=b",
        "X-Goog-User-Project": "p",
        "X-HTTP-Method-Override": "DELETE",
    }
    await google_viewing.ask(doctor, f"/studies?{query}", headers=sent)
    method, target = google.requests[-1]
    assert (method, target.partition("?")[2]) == ("GET", query)
    arrived = google.headers[-1]
    assert arrived["Accept"] == "application/dicom+json;q=0.9"
    assert arrived["Authorization"].startswith("Bearer ya29.")
    assert not {"Cookie", "X-Goog-User-Project", "X-HTTP-Method-Override", "Origin"} & set(arrived)


async def test_of_a_patients_query_passes_what_says_how_to_render(
    google_viewing: Viewing, google: GoogleFront, archive: Archive
) -> None:
    token = await patient(google_viewing, archive.ann)
    query = f"StudyInstanceUID={archive.bob.StudyInstanceUID}&quality=50"
    for path, sent in (("rendered", "quality=50"), ("frames/1", ""), ("metadata", "")):
        await google_viewing.ask(token, f"{image(archive.ann)}/{path}?{query}")
        assert google.requests[-1][1].partition("?")[2] == sent


async def test_addresses_in_answers_are_ours(google_viewing: Viewing, archive: Archive) -> None:
    doctor = await google_viewing.user("doctor@example.org", Role.DOCTOR)
    for path in (
        "/studies",
        f"/studies/{archive.ann.StudyInstanceUID}/metadata",
        f"/studies/{archive.ann.StudyInstanceUID}/series",
    ):
        for coding in ("gzip", "identity"):
            answer = await google_viewing.ask(doctor, path, headers={"Accept-Encoding": coding})
            assert answer.status == 200
            assert PROJECT.encode() not in answer.body
            assert b"127.0.0.1" not in answer.body
    assert b"https://images.example.org/dicomWeb/studies/" in answer.body
    assert "Set-Cookie" not in answer.headers


async def test_bulk_data_is_reached_by_its_rewritten_address(viewing: Viewing, archive: Archive) -> None:
    token = await patient(viewing, archive.ann)
    metadata = (await viewing.ask(token, f"{image(archive.ann)}/metadata")).json
    address = metadata[0]["7FE00010"]["BulkDataURI"]
    assert address.startswith("https://images.example.org/dicomWeb/studies/")
    answer = await viewing.ask(token, address.removeprefix("https://images.example.org/dicomWeb"))
    assert answer.status == 200
    assert archive.ann.paths[0].read_bytes()[-400:-300] in answer.body


async def test_the_browser_is_told_what_it_may(viewing: Viewing, archive: Archive) -> None:
    path = f"/studies/{archive.ann.StudyInstanceUID}/metadata"
    asking = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization",
    }
    preflight = await viewing.ask("", path, "OPTIONS", headers=asking)
    assert (preflight.status, preflight.headers["Access-Control-Allow-Origin"]) == (204, ORIGIN)
    refused = await viewing.ask("", path, headers={"Origin": ORIGIN})
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, ORIGIN)
    elsewhere = await viewing.ask("", path, headers={"Origin": "https://elsewhere.example"})
    assert "Access-Control-Allow-Origin" not in elsewhere.headers
    answer = await viewing.ask(await patient(viewing, archive.ann), path, headers={"Origin": ORIGIN})
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)
    assert answer.headers["Cache-Control"] == "private, no-cache"


async def test_the_cookie_opens_it_too_and_stores_nothing_from_elsewhere(
    archive: Archive, tmp_path: Path, fast_hashes: None
) -> None:
    section = {"upstream": "dicomweb", "url": archive.root, "delete_roles": ["staff"]}
    async with running_viewing(tmp_path, dicomweb=section) as viewing:
        await viewing.user("staff@example.org", Role.STAFF)
        body = {"email": "staff@example.org", "password": PASSWORD}
        async with viewing.session.post(f"{viewing.url}/auth/login", json=body) as answer:
            cookie = {"Cookie": f"pacsbridge_session={answer.cookies['pacsbridge_session'].value}"}
        assert (await viewing.ask("", "/studies", headers=cookie)).status == 200
        evil = cookie | {"Origin": "https://evil.example"}
        assert (await viewing.ask("", "/studies/1.2.99", "DELETE", headers=evil)).status == 403


async def test_a_refused_token_is_replaced_and_nobody_notices(
    google_viewing: Viewing, google: GoogleFront
) -> None:
    doctor = await google_viewing.user("doctor@example.org", Role.DOCTOR)
    assert (await google_viewing.ask(doctor, "/studies")).status == 200
    google.tokens.clear()
    answers = await asyncio.gather(*(google_viewing.ask(doctor, "/studies") for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert google.tokens_given == 2


@pytest.mark.parametrize(
    ("status", "seen"),
    [(401, 502), (403, 403), (404, 404), (406, 406), (429, 429), (500, 500), (503, 503), (302, 502)],
)
async def test_what_upstream_refuses_is_said_in_our_words(
    google_viewing: Viewing, google: GoogleFront, archive: Archive, status: int, seen: int
) -> None:
    token = await patient(google_viewing, archive.ann)
    await google_viewing.ask(token, "/studies")
    for path in (
        f"{image(archive.ann)}/frames/1",
        "/studies",
        f"/studies/{archive.ann.StudyInstanceUID}/series",
    ):
        google.faults.statuses = [status] * 4
        answer = await google_viewing.ask(token, path)
        if (status, path) == (404, f"/studies/{archive.ann.StudyInstanceUID}/series") or (status, path) == (
            404,
            "/studies",
        ):
            assert answer.json == []
            continue
        assert answer.status == seen, path
        assert PROJECT.encode() not in answer.body
        assert answer.json["error"]["code"]
        assert answer.headers.get("Retry-After") == ("7" if status in {429, 503} else None)


async def test_an_upstream_that_is_away_is_told(tmp_path: Path, fast_hashes: None) -> None:
    section = {"upstream": "dicomweb", "url": "http://127.0.0.1:1/rs"}
    async with running_viewing(tmp_path, dicomweb=section) as viewing:
        doctor = await viewing.user("doctor@example.org", Role.DOCTOR)
        answer = await viewing.ask(doctor, "/studies")
        assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_unreachable")
        with pytest.raises(UpstreamUnreachable):
            await viewing.proxy.check()


async def test_health_and_check_tell_how_upstream_is(google_viewing: Viewing, google: GoogleFront) -> None:
    assert "answers" in await google_viewing.proxy.check(new_token=True)
    google.faults.statuses = [403]
    with pytest.raises(UpstreamUnreachable, match="role of the service account"):
        await google_viewing.proxy.check()
    google.faults.token_status = 400
    with pytest.raises(UpstreamUnreachable, match="invalid_grant"):
        await google_viewing.proxy.check(new_token=True)


async def test_a_short_link_finds_its_studies_upstream(viewing: Viewing, archive: Archive) -> None:
    body = {"reference": "r", "accession_numbers": ["ANN2"]}
    async with viewing.session.post(f"{viewing.url}/api/shortlinks", json=body) as answer:
        path = (await answer.json())["url"].removeprefix("https://images.example.org")
    async with viewing.session.get(viewing.url + path, allow_redirects=False) as answer:
        assert answer.status == 302
        assert answer.headers["Location"].endswith(archive.ann_too.StudyInstanceUID)


# What is recorded.


async def test_a_line_for_each_study_not_for_each_frame(viewing: Viewing, archive: Archive) -> None:
    token = await patient(viewing, archive.ann)
    await viewing.ask(token, "/studies")
    for _ in range(5):
        assert (await viewing.ask(token, f"{image(archive.ann)}/frames/1")).status == 200
        assert (await viewing.ask(token, f"{image(archive.bob)}/frames/1")).status == 403
    rows = [
        (row["event"], row["outcome"], row["study_iuid"])
        for row in await viewing.audited()
        if row["role"] == "patient"
    ][1:]
    assert rows == [
        ("search", "ok", ""),
        ("read a study", "ok", archive.ann.StudyInstanceUID),
        ("read a study", "refused", archive.bob.StudyInstanceUID),
    ]


async def test_no_image_is_named_in_the_log(
    viewing: Viewing, archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    token = await patient(viewing, archive.ann)
    for path in (
        "/studies?PatientName=Annson",
        f"{image(archive.ann)}/frames/1",
        f"{image(archive.bob)}/frames/1",
        "/nonsense/ANN-ID",
    ):
        await viewing.ask(token, path)
    written = "".join(capsys.readouterr())
    for secret in ("Ann", "ANN", token, archive.ann.StudyInstanceUID, archive.bob.StudyInstanceUID):
        assert secret not in written

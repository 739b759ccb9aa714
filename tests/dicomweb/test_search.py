"""Scoped search before an upstream that answers whatever the test wants."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from pacsbridge.accounts.policy import AccessPolicy, Action
from pacsbridge.accounts.values import Grants, Principal, Role
from pacsbridge.dicomweb import search as search_module
from pacsbridge.dicomweb.credentials import FixedCredentials
from pacsbridge.dicomweb.keys import parse_keys
from pacsbridge.dicomweb.paths import parse_path
from pacsbridge.dicomweb.pool import Pool, Root
from pacsbridge.dicomweb.search import ScopedSearch
from pacsbridge.dicomweb.studies import RowsRefused, Studies, study_of
from pacsbridge.dicomweb.upstream import Upstream
from pacsbridge.errors import Forbidden, UpstreamUnreachable
from tests.dicomweb.scripted import answer, running_script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.dicomweb.scripted import Exchange


def row(uid: str, date: str = "", number: str | None = None, doctor: str | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"0020000D": {"vr": "UI", "Value": [uid]}}
    if date:
        made["00080020"] = {"vr": "DA", "Value": [date]}
    if number is not None:
        made["00080050"] = {"vr": "SH", "Value": [number]}
    if doctor is not None:
        made["00080090"] = {"vr": "PN", "Value": [{"Alphabetic": doctor}]}
    return made


def patient(*uids: str, numbers: tuple[str, ...] = ()) -> Principal:
    return Principal("user:1", "s", Role.PATIENT, grants=Grants(uids, numbers))


DOCTOR = Principal("user:2", "s", Role.DOCTOR, ref_doctor="Smith^Jane")
REFERRED = AccessPolicy(doctor_scope="referred")


class Archive:
    """What the scripted upstream answers, and what it was asked."""

    def __init__(self, rows: Callable[[str], Any]) -> None:
        self._rows = rows
        self.asked: list[str] = []
        self.at_once = 0
        self.most_at_once = 0

    async def __call__(self, exchange: Exchange) -> None:
        self.asked.append(exchange.target)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.01)
        rows = self._rows(exchange.target)
        self.at_once -= 1
        if isinstance(rows, int):
            await exchange.send(answer(b"secret of the project", "Retry-After: 3", status=f"{rows} X"))
        else:
            await exchange.send(answer(json.dumps(rows).encode(), "Content-Type: application/dicom+json"))


@asynccontextmanager
async def searching(
    archive: Archive, policy: AccessPolicy | None = None, *, wildcards: bool = True
) -> AsyncIterator[tuple[ScopedSearch, Studies]]:
    policy = policy or AccessPolicy()
    async with running_script(archive) as server, Pool(Root.parse(server.url, "url"), 5) as pool:
        upstream = Upstream(pool, FixedCredentials())
        studies = Studies(upstream, policy)
        yield ScopedSearch(upstream, policy, studies, wildcards=wildcards), studies


def uids(rows: list[dict[str, Any]]) -> list[str]:
    return [study_of(row).StudyInstanceUID for row in rows]


async def test_rows_that_are_not_theirs_are_left_away() -> None:
    odd = [
        {},
        {"0020000D": {"vr": "UI"}},
        {"0020000D": {"Value": ["1.1", "9.9"]}},
        {"0020000D": {"Value": [None]}},
        {"0020000D": []},
    ]
    archive = Archive(lambda _: [row("9.9"), row("1.1"), row("1.1"), *odd])
    async with searching(archive) as (search, _):
        found = await search.find_studies(patient("1.1"), parse_keys(""))
        assert uids(found) == ["1.1"]
        assert await search.find_studies(patient("1.1"), parse_keys("StudyInstanceUID=9.9")) == []
        assert await search.find_studies(patient(), parse_keys("")) == []


async def test_a_hundred_studies_are_asked_for_a_few_at_a_time() -> None:
    granted = [f"1.{number}" for number in range(1, 101)]
    archive = Archive(lambda target: [row(target.partition("StudyInstanceUID=")[2].partition("&")[0])])
    async with searching(archive) as (search, _):
        found = await search.find_studies(patient(*granted), parse_keys("limit=10&offset=95"))
        assert len(found) == 5
        assert len(archive.asked) == 100
        assert archive.most_at_once <= 8


async def test_the_newest_come_first_and_paging_is_ours() -> None:
    dates = {"1.1": "20200101", "1.2": "20240101", "1.3": "20220101"}
    archive = Archive(lambda target: [row(uid, date) for uid, date in dates.items() if f"={uid}&" in target])
    async with searching(archive) as (search, _):
        assert uids(await search.find_studies(patient(*dates), parse_keys(""))) == ["1.2", "1.3", "1.1"]
        assert uids(await search.find_studies(patient(*dates), parse_keys("limit=1&offset=1"))) == ["1.3"]
        assert await search.find_studies(patient(*dates), parse_keys("limit=0")) == []
        assert not [target for target in archive.asked if "limit=" in target or "offset=" in target]


async def test_filters_and_fields_go_along_and_what_decides_is_asked_for() -> None:
    archive = Archive(lambda _: [])
    async with searching(archive) as (search, _):
        keys = parse_keys("00100010=A%5EB&includefield=00081030&fuzzymatching=true&x=1&limit=9")
        await search.find_studies(patient("1.1", numbers=("A 1",)), keys)
    by_uid, by_number = archive.asked
    for target, which in ((by_uid, "StudyInstanceUID=1.1"), (by_number, "AccessionNumber=A%201")):
        fields = [
            part.removeprefix("includefield=")
            for part in target.split("&")
            if part.startswith("includefield=")
        ]
        assert "PatientName=A^B" in target
        assert which in target
        assert "fuzzymatching=true" in target
        assert {"StudyDescription", "StudyInstanceUID", "AccessionNumber", "ReferringPhysicianName"} <= set(
            fields
        )


async def test_one_question_that_fails_fails_the_search() -> None:
    archive = Archive(lambda target: 503 if "=1.3&" in target else [row("1.1")])
    async with searching(archive) as (search, _):
        with pytest.raises(RowsRefused) as told:
            await search.find_studies(patient("1.1", "1.2", "1.3"), parse_keys(""))
    assert (told.value.status, told.value.retry_after) == (503, "3")


@pytest.mark.parametrize("rows", ["text", {"a": 1}, [1], [[]]])
async def test_an_answer_that_is_no_list_of_rows_is_told(rows: Any) -> None:
    async with searching(Archive(lambda _: rows)) as (search, _):
        with pytest.raises(UpstreamUnreachable):
            await search.find_studies(patient("1.1"), parse_keys(""))


async def test_within_a_study_rows_of_others_are_left_away() -> None:
    mine, unsaid = {"0020000E": {"Value": ["1.1.1"]}}, {"00080060": {"Value": ["CT"]}}
    rows = [row("1.1") | mine, row("9.9"), unsaid, mine, {"0020000E": {"Value": ["9.9.9"]}}]
    archive = Archive(lambda _: rows)
    async with searching(archive) as (search, _):
        found = await search.find_within(parse_path("/studies/1.1/series"), parse_keys("limit=3&Modality=CT"))
        assert found == [rows[0], rows[2], rows[3], rows[4]]
        found = await search.find_within(parse_path("/studies/1.1/series/1.1.1/instances"), parse_keys(""))
        assert found == [rows[0], rows[2], rows[3]]
        assert await search.find_within(parse_path("/studies/1.1/series"), parse_keys("0020000d=9.9")) == []
    assert archive.asked[0] == "/rs/studies/1.1/series?Modality=CT&limit=3"


@pytest.mark.parametrize(
    ("doctor", "theirs"),
    [
        ("SMITH^JANE", True),
        (" Smith^Jane ^^", True),
        ("Smith^Jane=", True),
        ("Smith^Janet", False),
        ("Smith", False),
        ("Smith^Jane=Other", False),
        ("", False),
        (None, False),
    ],
)
async def test_a_referral_names_the_doctor_exactly(doctor: str | None, theirs: bool) -> None:
    archive = Archive(lambda _: [row("1.1", number="", doctor=doctor)])
    async with searching(archive, REFERRED) as (search, studies):
        assert uids(await search.find_studies(DOCTOR, parse_keys(""))) == (["1.1"] if theirs else [])
        if theirs:
            await studies.require(DOCTOR, Action.READ_STUDY, "1.1")
        else:
            with pytest.raises(Forbidden):
                await studies.require(DOCTOR, Action.READ_STUDY, "1.1")


@pytest.mark.parametrize(("wildcards", "wanted"), [(True, "Smith^Jane*&"), (False, "Smith^Jane&")])
async def test_referrals_are_asked_for_by_name(wildcards: bool, wanted: str) -> None:
    archive = Archive(lambda _: [])
    async with searching(archive, REFERRED, wildcards=wildcards) as (search, _):
        await search.find_studies(DOCTOR, parse_keys("PatientID=P"))
        assert await search.find_studies(DOCTOR, parse_keys("ReferringPhysicianName=Other*")) == []
        await search.find_studies(DOCTOR, parse_keys("00080090=smith*"))
    assert len(archive.asked) == 2
    assert all(f"ReferringPhysicianName={wanted}" in target for target in archive.asked)
    assert "PatientID=P&" in archive.asked[0]


def offset_of(target: str) -> int:
    return int(target.partition("offset=")[2].partition("&")[0] or 0)


@pytest.mark.parametrize("count", [5, 6, 7])
async def test_referrals_come_page_by_page(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(search_module, "_PAGE_ROWS", 3)
    rows = [row(f"1.{number}", f"202401{number:02}", "", "Smith^Jane") for number in range(1, count + 1)]
    archive = Archive(lambda target: rows[offset_of(target) :][:3])
    async with searching(archive, REFERRED) as (search, _):
        found = await search.find_studies(DOCTOR, parse_keys("limit=2"))
    # The newest are on the last page.
    assert uids(found) == [f"1.{count}", f"1.{count - 1}"]
    assert [offset_of(target) for target in archive.asked] == list(range(0, count + 1, 3))
    assert all("limit=3&" in f"{target}&" for target in archive.asked)


async def test_an_end_is_set_to_referrals_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upstream that ignores the offset would go on for ever."""
    monkeypatch.setattr(search_module, "_PAGE_ROWS", 1)
    archive = Archive(lambda _: [row("1.1", number="", doctor="Smith^Jane")])
    async with searching(archive, REFERRED) as (search, _):
        with capture_logs() as lines:
            assert uids(await search.find_studies(DOCTOR, parse_keys(""))) == ["1.1"]
    assert len(archive.asked) == 10
    assert [(line["log_level"], line["rows"]) for line in lines] == [("warning", 10)]
    assert "Smith" not in str(lines)


async def test_a_study_is_asked_about_once_for_many_frames() -> None:
    archive = Archive(lambda _: [row("1.1", number="A1", doctor="")])
    who = patient(numbers=("A1",))
    async with searching(archive) as (_, studies):
        await asyncio.gather(*(studies.require(who, Action.READ_STUDY, "1.1") for _ in range(50)))
        await studies.require(who, Action.READ_STUDY, "1.1")
        assert len(archive.asked) == 1
        with pytest.raises(Forbidden):
            await studies.require(patient(numbers=("A2",)), Action.READ_STUDY, "1.1")
        assert len(archive.asked) == 1


@pytest.mark.parametrize("rows", [[], [row("9.9", number="A1")], [row("1.1")], [row("1.1", number="A1x")]])
async def test_a_study_that_is_not_told_of_is_refused(rows: list[dict[str, Any]]) -> None:
    async with searching(Archive(lambda _: rows)) as (_, studies):
        with pytest.raises(Forbidden):
            await studies.require(patient(numbers=("A1",)), Action.READ_STUDY, "1.1")


async def test_a_refusal_to_tell_of_a_study_is_no_denial() -> None:
    async with searching(Archive(lambda _: 503)) as (_, studies):
        with pytest.raises(UpstreamUnreachable):
            await studies.require(patient(numbers=("A1",)), Action.READ_STUDY, "1.1")

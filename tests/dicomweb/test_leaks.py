"""A leak hunt: a patient asks in every way for what is another's, and not one byte of that comes back."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pacsbridge.accounts.values import Grants, Role
from tests.dicomweb.raw import RawClient, request
from tests.dicomweb.viewing import running_viewing
from tests.http.desk import cheap_hashes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.dicomweb.conftest import Archive
    from tests.dicomweb.raw import RawAnswer
    from tests.dicomweb.viewing import Viewing
    from tests.google import GoogleFront

OK, BAD, NOBODY, REFUSED, NOT_FOUND, NOT_ALLOWED = 200, 400, 401, 403, 404, 405


class Hunt:
    """A patient who may see Ann's first study, and what gives another patient away."""

    def __init__(self, archive: Archive, token: str) -> None:
        self.token = token
        self.own = archive.ann.StudyInstanceUID
        self.other = archive.bob.StudyInstanceUID
        strangers = (archive.bob, archive.cem, archive.ann_too)
        self.markers = [b"Bobson", b"BOB-ID", b"Cemson", b"CEM-ID", b"BOB1", b"CEM1", b"ANN2"]
        self.markers += [study.StudyInstanceUID.encode() for study in strangers]
        # A row of Bob's image, which is wider than Ann's.
        self.markers.append(archive.bob.paths[0].read_bytes()[-400:-350])

    def check(self, asked: bytes, answer: RawAnswer) -> None:
        if answer.head.startswith(b"HTTP/1.0 400"):
            return  # the parser of HTTP could not read the request, says so with it, and nobody else saw it
        for marker in self.markers:
            assert marker not in answer.everything, (asked, answer.status, answer.body[:300])
        if answer.status == OK and answer.body not in (b"[]", b""):
            self._check_own(asked, answer)

    def _check_own(self, asked: bytes, answer: RawAnswer) -> None:
        """A rendered image has no name in it: what comes back has to have been asked for as one's own."""
        target = asked.split(b" ", 2)[1].decode("latin-1")
        path, _, query = target.partition("?")
        own = re.fullmatch(rf"/dicomWeb/studies/{re.escape(self.own)}(/[a-z0-9./,A-F]*)?", path)
        by_uri = path == "/dicomWeb/wado" and f"studyuid={self.own}" in query.lower()
        search = path == "/dicomWeb/studies" and answer.body.startswith(b"[")
        assert own or by_uri or search, (asked, answer.body[:300])


@pytest.fixture
async def hunt(viewing: Viewing, archive: Archive) -> Hunt:
    grants = Grants((archive.ann.StudyInstanceUID,))
    return Hunt(archive, await viewing.user("ann@example.org", Role.PATIENT, grants))


ROOT = "/dicomWeb"


@dataclass(frozen=True)
class Places:
    """The paths of one's own study and of another's."""

    own: str
    other: str
    listed: list[tuple[str, str, int, tuple[str, ...]]] = field(default_factory=list)

    def paths(self, uid: str) -> tuple[str, str, str]:
        """Give the paths of a study, its first series and its first image."""
        study = f"{ROOT}/studies/{uid}"
        return study, f"{study}/series/{uid}.1", f"{study}/series/{uid}.1/instances/{uid}.1.1"

    def add(self, status: int, *targets: str, method: str = "GET", headers: Sequence[str] = ()) -> None:
        self.listed.extend((method, target, status, tuple(headers)) for target in targets)


def hand_made(own: str, other: str) -> list[tuple[str, str, int, tuple[str, ...]]]:
    """Method, target, expected status and headers of each."""
    places = Places(own, other)
    for section in (_own, _others, _mixed, _steps, _words, _searches, _renderer, _by_uri, _changes, _headers):
        section(places)
    return places.listed


def _own(places: Places) -> None:
    # One's own: it works at all.
    add = places.add
    mine, my_series, my_image = places.paths(places.own)
    add(
        OK,
        mine,
        f"{mine}/metadata",
        f"{mine}/series",
        f"{mine}/instances",
        f"{my_series}/metadata",
        my_series,
    )
    add(OK, f"{my_series}/instances", my_image, f"{my_image}/metadata", f"{my_image}/frames/1")
    add(OK, f"{my_image}/rendered", f"{my_image}/frames/1/rendered", f"{my_image}/bulk/7fe00010")


def _others(places: Places) -> None:
    # Another's, at every level, in every form.
    add = places.add
    theirs, their_series, their_image = places.paths(places.other)
    for base in (theirs, their_series, their_image):
        add(
            REFUSED,
            base,
            *(f"{base}/{tail}" for tail in ("metadata", "rendered", "thumbnail", "bulkdata", "pixeldata")),
        )
    add(
        REFUSED,
        f"{theirs}/series",
        f"{theirs}/instances",
        f"{their_series}/instances",
        f"{their_image}/frames/1",
    )
    add(
        REFUSED,
        f"{their_image}/frames/1,2",
        f"{their_image}/frames/1/rendered",
        f"{their_image}/bulk/7FE00010",
    )
    add(REFUSED, f"{their_image}/bulkdata/00420011", f"{their_image}/bulkdata/0040A730/1/0040A160")
    add(REFUSED, theirs, their_image, method="HEAD")


def _mixed(places: Places) -> None:
    # Another's series or image below one's own study.
    other, add = places.other, places.add
    mine, my_series, _ = places.paths(places.own)
    add(NOT_FOUND, f"{mine}/series/{other}.1/metadata", f"{mine}/series/{other}.1/instances/{other}.1.1")
    add(NOT_FOUND, f"{my_series}/instances/{other}.1.1", f"{my_series}/instances/{other}.1.1/frames/1")
    add(NOT_FOUND, f"{mine}/series/{other}.1/instances/{other}.1.1/rendered")


def _steps(places: Places) -> None:
    # Steps and escapes.
    own, other, add = places.own, places.other, places.add
    mine, _, _ = places.paths(places.own)
    theirs, _, their_image = places.paths(places.other)
    for step in (
        "..",
        "%2e%2e",
        "%2E%2E",
        ".%2e",
        "%2e.",
        "..%2f",
        "%2e%2e%2f",
        "..;",
        "..%00",
        "..%5c",
        "...",
        "%252e%252e",
    ):
        add(
            NOT_FOUND,
            f"{mine}/{step}/{other}",
            f"{mine}/{step}/{other}/series",
            f"{mine}/series/{step}/{step}/{other}",
        )
        add(NOT_FOUND, f"{mine}/series/{own}.1/{step}/{step}/{step}/{other}/metadata")
    for slash in (
        "%2f",
        "%2F",
        "//",
        "/./",
        "%5c",
        "%5C",
        "%252f",
        ";/",
        "/;x=1/",
        "%c0%af",
        "%ef%bc%8f",
        "\\",
    ):
        add(
            NOT_FOUND,
            f"{ROOT}/studies{slash}{other}",
            f"{ROOT}{slash}studies/{other}",
            f"{theirs}{slash}series",
        )
        add(NOT_FOUND, f"{mine}{slash}..{slash}{other}")
    for end in (
        "/",
        "//",
        ";",
        ";x=1",
        "%00",
        "%20",
        "%09",
        "%0a",
        "%0d%0a",
        ".",
        "%2e",
        "%3F",
        "%23",
        "~",
        "*",
        "'",
        '"',
        ",",
        "%2C",
    ):
        add(NOT_FOUND, f"{theirs}{end}", f"{their_image}/frames/1{end}", f"{mine}{end}")


def _words(places: Places) -> None:
    # Other letters and other words.
    own, other, add = places.own, places.other, places.add
    mine, _, my_image = places.paths(places.own)
    theirs, _, _ = places.paths(places.other)
    for word in (
        "Studies",
        "STUDIES",
        "study",
        "patients",
        "workitems",
        "modality-scheduled-procedure-steps",
        "bulkdata",
        "wado-rs",
        "rs",
    ):
        add(NOT_FOUND, f"{ROOT}/{word}/{other}", f"{ROOT}/{word}/{other}/series")
    add(
        NOT_FOUND,
        f"{ROOT}/studies/{own},{other}",
        f"{ROOT}/studies/{own}%2C{other}",
        f"{ROOT}/studies/{own}\\{other}",
        f"{ROOT}/studies/*",
    )
    add(
        NOT_FOUND,
        f"{ROOT}/studies/{own}%5C{other}/series",
        f"{ROOT}/studies/{own}+{other}",
        f"{ROOT}/studies/{own}%00{other}",
    )
    add(
        NOT_FOUND,
        f"{ROOT}/studies/{other}x",
        f"{ROOT}/studies/x{other}",
        f"{ROOT}/studies/.{other}",
        f"{ROOT}/studies/{other}..1",
        f"{ROOT}/studies/-1",
    )
    add(NOT_FOUND, f"{ROOT}/studies/" + "1" * 65, f"{ROOT}/studies/{quote('١.٢')}")
    add(
        NOT_FOUND,
        f"{mine}/series/{own}.1/{other}",
        f"{mine}/Series",
        f"{mine}/metadata/{other}",
        f"{mine}/metadata/..",
    )
    add(
        NOT_FOUND,
        f"{my_image}/frames/0",
        f"{my_image}/frames/-1",
        f"{my_image}/frames/",
        f"{my_image}/frames/1,,2",
        f"{my_image}/frames/a",
    )
    add(
        NOT_FOUND,
        f"{my_image}/frames/1/..",
        f"{my_image}/bulk/../../..",
        f"{my_image}/bulk/xyz",
        f"{my_image}/bulk/",
        f"{my_image}/bulk/7fe00010/..",
    )
    add(
        NOT_FOUND,
        f"{ROOT}/",
        ROOT,
        f"{ROOT}//",
        f"{ROOT}studies/{other}",
        f"{ROOT}x/studies/{other}",
        f"{ROOT}/instances/{other}.1.1",
        f"{ROOT}/series/{other}.1",
    )
    add(
        NOT_FOUND,
        f"{ROOT}/instances/{other}.1.1/frames/1",
        f"{ROOT}/../dicomWeb/studies/{other}",
        f"/x/../dicomWeb/studies/{other}",
    )
    add(
        NOT_FOUND,
        f"/%64icomWeb/studies/{other}",
        f"/dicomweb/studies/{other}",
        f"/DICOMWEB/studies/{other}",
        f"//dicomWeb/studies/{other}",
    )
    add(
        NOT_FOUND,
        f"http://images.example.org{theirs}",
        f"http://127.0.0.1{theirs}",
        f"HTTP://images.example.org{mine}",
    )


def _searches(places: Places) -> None:
    # Searches: the rows are one's own, whatever the query says.
    own, other, add = places.own, places.other, places.add
    mine, my_series, _ = places.paths(places.own)
    add(
        REFUSED,
        f"{ROOT}/series",
        f"{ROOT}/instances",
        f"{ROOT}/series?StudyInstanceUID={other}",
        f"{ROOT}/instances?SOPInstanceUID={other}.1.1",
    )
    add(REFUSED, f"{ROOT}/series?StudyInstanceUID={own}", f"{ROOT}/instances?includefield=all")
    for key in (
        "StudyInstanceUID",
        "studyinstanceuid",
        "STUDYINSTANCEUID",
        "0020000D",
        "0020000d",
        "0020,000D",
        "(0020,000d)",
        "%30020000D",
        "Study%49nstanceUID",
        "+StudyInstanceUID",
    ):
        add(
            OK,
            f"{ROOT}/studies?{key}={other}",
            f"{ROOT}/studies?{key}={own},{other}",
            f"{ROOT}/studies?{key}={own}\\{other}".replace("\\", "%5C"),
        )
        add(
            OK,
            f"{mine}/series?{key}={other}",
            f"{mine}/instances?{key}={other}",
            f"{my_series}/instances?{key}={other}",
        )
        add(
            OK,
            f"{ROOT}/studies?{key}={own}&{key}={other}",
            f"{ROOT}/studies?{key}=",
            f"{ROOT}/studies?{key}=*",
        )
    for query in (
        "PatientID=BOB-ID",
        "00100020=BOB-ID",
        "patientid=BOB-ID",
        "PatientName=Bob*",
        "PatientName=*",
        "PatientName=Bobson%5EBob",
        "AccessionNumber=BOB1",
        "00080050=BOB1",
        "limit=1000",
        "offset=0",
        "limit=0",
        "fuzzymatching=true&PatientName=Bob",
        "includefield=all",
        "includefield=PatientName&includefield=00100020",
        "ModalitiesInStudy=CT",
        "StudyDate=19000101-20991231",
        f"SeriesInstanceUID={other}.1",
        f"SOPInstanceUID={other}.1.1",
        "x=1",
        "%00=1",
        f"studyUID={other}",
        f"study={other}",
        f"_method=GET&StudyInstanceUID={other}",
        f"StudyInstanceUID%00={other}",
        f"StudyInstanceUID[]={other}",
        "RequestAttributesSequence.ScheduledProcedureStepID=1",
        "00400275.00400009=1",
        "StudyInstanceUID=0.0",
        "PatientID=",
        "a&b&c",
    ):
        add(OK, f"{ROOT}/studies?{query}", f"{mine}/series?{query}")
    add(
        BAD,
        f"{ROOT}/studies?limit=-1",
        f"{ROOT}/studies?limit=x",
        f"{ROOT}/studies?offset=1e9",
        f"{ROOT}/studies?limit=1&limit=2",
        f"{ROOT}/studies?x=%ff",
    )
    add(
        BAD,
        f"{ROOT}/studies?a=<b>\x80",
        f"{ROOT}/studies?" + "&".join(["a=1"] * 300),
        f"{ROOT}/studies?limit=",
    )


def _renderer(places: Places) -> None:
    # What a renderer is told may not name another image.
    other, add = places.other, places.add
    mine, _, my_image = places.paths(places.own)
    add(OK, f"{my_image}/rendered?objectUID={other}.1.1&presentationUID={other}.1.1&window=40,400,linear")
    add(OK, f"{mine}/metadata?StudyInstanceUID={other}", f"{my_image}/frames/1?instance={other}.1.1")
    add(BAD, f"{ROOT}/studies/１")  # the parser of HTTP refuses it


def _by_uri(places: Places) -> None:
    # WADO-URI.
    own, other, add = places.own, places.other, places.add
    uri = f"{ROOT}/wado?requestType=WADO"
    add(
        OK,
        f"{uri}&studyUID={own}&seriesUID={own}.1&objectUID={own}.1.1",
        f"{uri}&STUDYUID={own}&SERIESUID={own}.1&OBJECTUID={own}.1.1",
    )
    add(REFUSED, f"{uri}&studyUID={other}&seriesUID={other}.1&objectUID={other}.1.1")
    add(
        REFUSED,
        f"{uri}&studyUID={other}&seriesUID={other}.1&objectUID={other}.1.1&contentType=application/dicom",
    )
    add(
        NOT_FOUND,
        f"{uri}&studyUID={own}&seriesUID={own}.1&objectUID={other}.1.1",
        f"{uri}&studyUID={own}&seriesUID={other}.1&objectUID={other}.1.1",
    )
    add(
        BAD,
        f"{uri}&studyUID={own}&studyUID={other}&seriesUID={own}.1&objectUID={own}.1.1",
        f"{uri}&studyUID={own}",
        ROOT + "/wado",
        f"{ROOT}/wado?studyUID={own}",
    )
    add(
        BAD,
        f"{uri}&studyUID={own}&studyuid={other}&seriesUID={own}.1&objectUID={own}.1.1",
        f"{uri}&studyUID={own}/../{other}&seriesUID=1&objectUID=1",
    )
    add(
        BAD,
        f"{uri}&studyUID=*&seriesUID={own}.1&objectUID={own}.1.1",
        f"{uri}&studyUID={own}&seriesUID={own}.1&objectUID={own}.1.1&presentationUID={other}",
    )
    add(
        NOT_FOUND,
        f"/wado?requestType=WADO&studyUID={other}&seriesUID={other}.1&objectUID={other}.1.1",
        f"{ROOT}?requestType=WADO&studyUID={other}",
    )


def _changes(places: Places) -> None:
    # Changing something.
    add = places.add
    mine, my_series, my_image = places.paths(places.own)
    theirs, _, _ = places.paths(places.other)
    for method in ("PUT", "PATCH", "TRACE", "PROPFIND", "LINK"):
        add(NOT_ALLOWED, mine, theirs, f"{ROOT}/studies", method=method)
    add(REFUSED, mine, theirs, my_series, my_image, method="DELETE")
    add(
        NOT_ALLOWED,
        f"{ROOT}/studies",
        f"{mine}/metadata",
        f"{ROOT}/series",
        f"{mine}/series",
        method="DELETE",
    )
    add(REFUSED, f"{ROOT}/studies", mine, theirs, method="POST")
    add(NOT_ALLOWED, my_series, f"{theirs}/series", f"{ROOT}/instances", f"{mine}/metadata", method="POST")


def _headers(places: Places) -> None:
    # Headers that some servers follow.
    other, add = places.other, places.add
    mine, _, _ = places.paths(places.own)
    theirs, _, _ = places.paths(places.other)
    for header in (
        f"X-Original-URL: {theirs}",
        f"X-Rewrite-URL: {theirs}",
        "X-HTTP-Method-Override: DELETE",
        "X-Forwarded-Prefix: /..",
        f"X-Forwarded-For: 127.0.0.1, {other}",
    ):
        add(REFUSED, theirs, headers=[header])
        add(OK, f"{mine}/series", headers=[header])
    add(REFUSED, theirs, headers=["Range: bytes=0-9"])
    add(REFUSED, theirs, headers=['Accept: multipart/related; type="application/dicom"; transfer-syntax=*'])
    add(406, f"{ROOT}/studies", headers=["Accept: application/dicom+xml"])


async def test_hand_made_requests_get_what_is_expected(hunt: Hunt, viewing: Viewing) -> None:
    listed = hand_made(hunt.own, hunt.other)
    assert len(listed) >= 200
    wrong = []
    async with RawClient(viewing.port) as client:
        for method, target, status, headers in listed:
            asked = request(method, target.encode("utf-8"), hunt.token, *headers)
            answer = await client.ask(asked, method=method)
            hunt.check(asked, answer)
            if answer.status != status:
                wrong.append((method, target, status, answer.status))
    assert not wrong, f"{len(wrong)} of {len(listed)}: {wrong[:20]}"


async def test_nobody_gets_anything_without_signing_in(hunt: Hunt, viewing: Viewing) -> None:
    async with RawClient(viewing.port) as client:
        for method, target, status, headers in hand_made(hunt.own, hunt.other):
            for token in ("", "x.y.z", hunt.token[:-4] + "AAAA"):
                answer = await client.ask(request(method, target.encode(), token, *headers), method=method)
                assert answer.status in {NOBODY, NOT_FOUND, BAD}, (method, target, answer)
                assert answer.status == NOBODY or status in {NOT_FOUND, BAD}, (method, target, answer)
                assert hunt.own.encode() not in answer.everything


async def test_the_other_patient_would_have_been_seen(viewing: Viewing, archive: Archive, hunt: Hunt) -> None:
    """The hunt finds something where there is something to find: as a doctor the same requests show Bob."""
    doctor = await viewing.user("doctor@example.org", Role.DOCTOR)
    for path in ("/studies", f"/studies/{hunt.other}/metadata", f"/studies/{hunt.other}"):
        answer = await viewing.ask(doctor, path)
        assert answer.status == OK
        assert any(marker in answer.body for marker in hunt.markers)


def _targets(own: str, other: str) -> st.SearchStrategy[str]:
    uids = [own, other, f"{own}.1", f"{other}.1", f"{own}.1.1", f"{other}.1.1", "", "1.2", "*", "..", "."]
    words = [
        "studies",
        "series",
        "instances",
        "metadata",
        "frames",
        "1",
        "1,2",
        "rendered",
        "thumbnail",
        "bulk",
        "7fe00010",
    ]
    words += ["bulkdata", "wado", "Studies", "%2e%2e", "%2f", "%00", "pixeldata", "%73tudies"]
    part = st.one_of(
        st.sampled_from(uids), st.sampled_from(words), st.text(st.characters(max_codepoint=255), max_size=4)
    )
    between = st.sampled_from(["/"] * 12 + ["//", "/./", "%2f", "\\", ";", "/../", "?", "#", "%5c"])
    path = st.lists(st.tuples(between, part), max_size=8).map(lambda pairs: "".join(a + b for a, b in pairs))
    good = st.tuples(
        st.sampled_from([f"/studies/{own}", f"/studies/{other}", "/studies", "/wado"]),
        st.sampled_from(
            [
                "",
                "/series",
                "/metadata",
                f"/series/{other}.1/metadata",
                f"/series/{own}.1/instances/{other}.1.1/frames/1",
            ]
        ),
    ).map("".join)
    names = [
        "StudyInstanceUID",
        "0020000d",
        "STUDYinstanceUID",
        "PatientID",
        "00100020",
        "PatientName",
        "includefield",
        "limit",
        "offset",
    ]
    names += [
        "AccessionNumber",
        "SeriesInstanceUID",
        "fuzzymatching",
        "requestType",
        "studyUID",
        "seriesUID",
        "objectUID",
        "contentType",
    ]
    values = [
        *uids,
        "all",
        "5",
        "0",
        "BOB-ID",
        "Bobson^Bob",
        "Bob*",
        "BOB1",
        "true",
        "WADO",
        "application/dicom",
        "PatientName",
        f"{own},{other}",
    ]
    pair = st.tuples(
        st.sampled_from(names) | st.text(max_size=3), st.sampled_from(values) | st.text(max_size=3)
    )
    escape = st.sampled_from(
        [
            quote,
            lambda text: quote(text, safe="*,\\"),
            lambda text: "".join(f"%{b:02x}" for b in text.encode()),
        ]
    )
    query = st.tuples(st.lists(pair, max_size=5), escape).map(_query)
    prefix = st.sampled_from(
        ["/dicomWeb"] * 15
        + ["/dicomweb", "http://images.example.org/dicomWeb", "//dicomWeb", "/./dicomWeb", ""]
    )
    return st.tuples(prefix, path | good, query).map("".join).map(_on_one_line)


def _query(drawn: tuple[list[tuple[str, str]], Any]) -> str:
    pairs, escape = drawn
    return "?" + "&".join(f"{escape(name)}={escape(value)}" for name, value in pairs) if pairs else ""


def _on_one_line(target: str) -> str:
    return re.sub(r"[\0-\x20\x7f]", "_", target) or "/"


_METHODS = st.sampled_from(["GET"] * 12 + ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"])
_HEADERS = st.sampled_from(
    [""] * 8
    + [
        "X-Original-URL: /studies",
        "X-HTTP-Method-Override: GET",
        "Accept: */*",
        "Accept: application/dicom+xml",
        "Range: bytes=0-",
    ]
    + [
        "X-Forwarded-Host: evil",
        "Accept-Encoding: gzip",
        'Accept: multipart/related; type="application/dicom"',
        "Cookie: pacsbridge_session=x",
    ]
)
#: Ten thousand in all: so many parts, so many examples in each, so many requests in each of those.
_PARTS, _EXAMPLES, _BATCH = 4, 260, 10


@pytest.mark.parametrize("part", range(_PARTS))
def test_ten_thousand_generated_requests(
    part: int, archive: Archive, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hypothesis and the event loop don't mix: the loop runs here, a batch of requests is one example."""
    cheap_hashes(monkeypatch)
    asked_in_all = 0
    own, other = archive.ann.StudyInstanceUID, archive.bob.StudyInstanceUID
    one = st.tuples(_METHODS, _targets(own, other), _HEADERS)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        section = {"upstream": "dicomweb", "url": archive.root}
        folder = tmp_path_factory.mktemp("hunt")
        viewing = runner.run(stack.enter_async_context(running_viewing(folder, dicomweb=section)))
        token = runner.run(viewing.user("ann@example.org", Role.PATIENT, Grants((own,))))
        hunt = Hunt(archive, token)

        async def hunt_batch(batch: list[tuple[str, str, str]]) -> None:
            async with RawClient(viewing.port) as client:
                for method, target, header in batch:
                    asked = request(method, target.encode("utf-8"), token, *filter(None, [header]))
                    hunt.check(asked, await client.ask(asked, method=method))

        @settings(
            max_examples=_EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(one, min_size=_BATCH, max_size=_BATCH))
        def example(batch: list[tuple[str, str, str]]) -> None:
            nonlocal asked_in_all
            asked_in_all += len(batch)
            runner.run(hunt_batch(batch))

        try:
            example()
        finally:
            runner.run(stack.aclose())
    assert asked_in_all >= 10_000 / _PARTS


async def test_an_upstream_that_ignores_every_key_gives_nothing_away(
    google_viewing: Viewing, google: GoogleFront, archive: Archive
) -> None:
    grants = Grants((archive.ann.StudyInstanceUID,))
    hunt = Hunt(archive, await google_viewing.user("ann@example.org", Role.PATIENT, grants))
    google.faults.ignores_keys = True
    async with RawClient(google_viewing.port) as client:
        for method, target, _, headers in hand_made(hunt.own, hunt.other):
            if "wado" not in target and "rendered" not in target:
                asked = request(method, target.encode(), hunt.token, *headers)
                hunt.check(asked, await client.ask(asked, method=method))

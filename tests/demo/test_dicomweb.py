from __future__ import annotations

import json
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from io import BytesIO
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from PIL import Image
from pydicom import dcmread

from pacsbridge.demo.dicomweb import running_dicomweb_server
from pacsbridge.demo.index import Index, Level
from tests.samples import real_file
from tests.studies import make_study

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.studies import MadeStudy

#: As OHIF asks: without quotes.
FRAMES = "multipart/related; type=application/octet-stream; transfer-syntax=*"
FILES = 'multipart/related; type="application/dicom"; transfer-syntax=*'
JSON = "application/dicom+json"


@dataclass
class Asked:
    status: int
    content_type: str
    full_type: str
    body: bytes

    @property
    def json(self) -> Any:
        assert (self.status, self.content_type) == (200, JSON)
        return json.loads(self.body)

    @property
    def parts(self) -> list[tuple[str, bytes]]:
        """Read the multipart answer with another's parser."""
        assert (self.status, self.content_type) == (200, "multipart/related")
        head = f"Content-Type: {self.full_type}\r\n\r\n".encode()
        message = BytesParser(policy=HTTP.clone(cte_type="8bit")).parsebytes(head + self.body)
        parts = []
        for part in message.iter_parts():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            parts.append((str(part["Content-Type"]).replace('"', ""), content))
        return parts


@dataclass
class Client:
    root: str
    session: aiohttp.ClientSession

    async def get(self, path: str, accept: str = "*/*") -> Asked:
        url = path if path.startswith("http") else self.root + path
        async with self.session.get(url, headers={"Accept": accept}) as answer:
            kind = answer.headers.get("Content-Type", "")
            return Asked(answer.status, answer.content_type, kind, await answer.read())


@pytest.fixture
def made(tmp_path: Path) -> MadeStudy:
    make_study(tmp_path, "B1", instances=1)
    return make_study(tmp_path, "A1", series=2, instances=2)


@pytest.fixture
def index(tmp_path: Path, made: MadeStudy) -> Index:
    index = Index()
    index.scan(tmp_path)
    for name in ("examples_ybr_color.dcm", "waveform_ecg.dcm", "rtdose.dcm"):
        index.add(real_file(name))
    return index


@pytest.fixture
async def client(index: Index) -> AsyncIterator[Client]:
    async with running_dicomweb_server(index) as root, aiohttp.ClientSession() as session:
        yield Client(root, session)


def path_of(index: Index, name: str) -> str:
    """Give the path of one of pydicom's instances."""
    (one,) = [one for one in index.instances() if one.path == real_file(name)]
    study, series, instance = one.unique[Level.STUDY :]
    return f"/studies/{study}/series/{series}/instances/{instance}"


async def test_a_viewer_finds_its_way_from_the_list_to_the_pixels(client: Client, made: MadeStudy) -> None:
    (study,) = (await client.get("/studies?AccessionNumber=A1&includefield=00081030&limit=101", JSON)).json
    assert study["0020000D"]["Value"] == [made.StudyInstanceUID]
    assert study["00081030"]["Value"] == ["Generated CT"]
    assert study["00100010"]["Value"] == [{"Alphabetic": "Test^Patient"}]
    assert study["00081190"]["Value"] == [f"{client.root}/studies/{made.StudyInstanceUID}"]
    assert "00080052" not in study
    series = (await client.get(f"/studies/{made.StudyInstanceUID}/series")).json
    assert [row["00200011"]["Value"] for row in series] == [[1], [2]]
    rows = (await client.get(f"{series[1]['00081190']['Value'][0]}/metadata", JSON)).json
    assert [row["00200013"]["Value"] for row in rows] == [[1], [2]]
    one = rows[0]["7FE00010"]["BulkDataURI"].partition("/bulkdata")[0]
    assert one.startswith(client.root)
    ((label, frame),) = (await client.get(f"{one}/frames/1", FRAMES)).parts
    assert label == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
    assert frame == dcmread(made.paths[2]).PixelData
    assert (await client.get(rows[0]["7FE00010"]["BulkDataURI"], FRAMES)).parts == [(label, frame)]
    picture = await client.get(f"{one}/rendered", "image/jpeg")
    assert Image.open(BytesIO(picture.body)).size == (64, 64)


async def test_whole_files_are_given_as_they_are(client: Client, made: MadeStudy) -> None:
    parts = (await client.get(f"/studies/{made.StudyInstanceUID}", FILES)).parts
    assert [content for _, content in parts] == [path.read_bytes() for path in made.paths]
    (one,) = (await client.get(f"/studies/{made.StudyInstanceUID}/metadata?limit=1")).json[:1]
    address = one["7FE00010"]["BulkDataURI"].partition("/bulkdata")[0]
    (part,) = (await client.get(address, FILES)).parts
    assert part == ("application/dicom; transfer-syntax=1.2.840.10008.1.2.1", made.paths[0].read_bytes())


async def test_compressed_frames_are_given_to_whoever_takes_them(client: Client, index: Index) -> None:
    one = path_of(index, "examples_ybr_color.dcm")
    parts = (await client.get(f"{one}/frames/1,30", FRAMES)).parts
    assert len(parts) == 2
    assert parts[0][0] == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.50"
    ((label, jpeg),) = (await client.get(f"{one}/frames/2", 'multipart/related; type="image/jpeg"')).parts
    assert label.startswith("image/jpeg")
    assert Image.open(BytesIO(jpeg)).size == (320, 240)
    assert len((await client.get(f"{one}/bulkdata/7fe00010", FRAMES)).parts) == 30
    refused = await client.get(f"{one}/frames/1", "multipart/related; type=application/octet-stream")
    assert refused.status == 406


async def test_bulk_data_is_where_the_metadata_says(client: Client, index: Index) -> None:
    one = path_of(index, "waveform_ecg.dcm")
    (row,) = (await client.get(f"{one}/metadata", JSON)).json
    address = row["54000100"]["Value"][1]["54001010"]["BulkDataURI"]
    expected = dcmread(real_file("waveform_ecg.dcm")).WaveformSequence[1].WaveformData
    ((label, value),) = (await client.get(address, "multipart/related; type=application/octet-stream")).parts
    assert (label, value) == ("application/octet-stream", expected)
    assert (await client.get(address, "text/html")).status == 406


async def test_what_is_not_there_is_not_found(client: Client, index: Index, made: MadeStudy) -> None:
    ecg, echo = path_of(index, "waveform_ecg.dcm"), path_of(index, "examples_ybr_color.dcm")
    study = made.StudyInstanceUID
    strange = f"/studies/{study}{echo[echo.index('/series') :]}"
    for path in (
        "/studies/1.2", "/studies/1.2/metadata", f"/studies/{study}/series/1.2/metadata",
        f"/studies/{study}/rendered", f"{strange}/metadata", f"{strange}/frames/1", f"{strange}/rendered", strange,
        f"{echo}/frames/31", f"{echo}/frames/31/rendered", f"{ecg}/frames/1", f"{ecg}/bulkdata/7FE00010",
        f"{ecg}/bulkdata/54000100/9/54001010", "/nothing",
    ):  # fmt: skip
        assert (await client.get(path)).status == 404, path
    for path in (f"{echo}/frames/0", f"{echo}/frames/x", "/studies?limit=many"):
        assert (await client.get(path)).status == 400, path
    assert (await client.get("/studies?PatientID=NOBODY")).status == 204
    assert (await client.get("/studies/1.2/series")).status == 204


async def test_what_can_not_be_given_is_not_acceptable(client: Client, index: Index, made: MadeStudy) -> None:
    echo, study = path_of(index, "examples_ybr_color.dcm"), f"/studies/{made.StudyInstanceUID}"
    for path, accept in (
        ("/studies", 'multipart/related; type="application/dicom+xml"'),
        (f"{study}/metadata", "text/html"),
        (study, JSON),
        (f"{echo}/rendered", "image/png"),
        (f"{path_of(index, 'waveform_ecg.dcm')}/rendered", "image/jpeg"),
        (echo, 'multipart/related; type="application/dicom"'),
    ):
        assert (await client.get(path, accept)).status == 406, path
    assert (await client.get(study, 'multipart/related; type="application/dicom"')).status == 200

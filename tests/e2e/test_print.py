"""Prints: everything retrieved, then one order at the publisher; nothing told as sent that was not."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import aiohttp
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID

from tests.e2e.program import Program, run_program, write_config
from tests.e2e.service import Service, make_config, running
from tests.misbehaving import Misbehaviour
from tests.peers import HOST, free_port
from tests.studies import Patient, make_study

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePacs, MakeStoreScp
    from tests.dcmtk import StoreScp
    from tests.misbehaving import MisbehavingPacs
    from tests.orthanc import Orthanc

PRINT = "/api/iso/print"


def with_publisher(tmp_path: Path, pacs: Any, port: int, **more: Any) -> Any:
    publisher = {"host": HOST, "port": port, "connect_timeout_seconds": 2, "response_timeout_seconds": 3}
    return make_config(tmp_path, pacs, publisher=publisher, **more)


@pytest.fixture
def pacs(make_pacs: MakePacs, tmp_path: Path) -> MisbehavingPacs:
    make_study(tmp_path / "pacs", "A1", instances=6)
    make_study(tmp_path / "pacs", "A2", instances=4, series=2)
    make_study(tmp_path / "pacs", "B1", patient=Patient("OTHER", "Other^Person"))
    return make_pacs(folder=tmp_path / "pacs")


def after_meta(path: Path) -> bytes:
    """The data set of a file: what follows its File Meta (PS3.10, 7.1)."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]


def by_uid(paths: list[Path]) -> dict[str, Path]:
    return {str(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID): path for path in paths}


async def test_two_numbers_are_one_order_as_it_came(
    orthanc: Orthanc, storescp: MakeStoreScp, tmp_path: Path
) -> None:
    publisher = storescp()
    sources = [
        *make_study(tmp_path / "src", "A1", instances=30).paths,
        *make_study(tmp_path / "src", "A2", instances=10, series=2).paths,
    ]
    orthanc.upload(sources)
    async with running(with_publisher(tmp_path, orthanc, publisher.port)) as service:
        status, body = await ask(service, accession_number="A1,A2")
        assert status == 200, body
        assert body == body | {
            "status": "sent",
            "accession_numbers": ["A1", "A2"],
            "instances": 50,
            "sent": 50,
            "failed": 0,
            "publisher": "RIMAGE",
        }
        assert service.spooled() == []
    assert publisher.associations() == 1
    sent, given = by_uid(publisher.files()), by_uid(sources)
    assert sent.keys() == given.keys()
    for uid, path in given.items():
        assert after_meta(sent[uid]) == after_meta(path)


@pytest.mark.parametrize("option", ["+x=", "+xi"], ids=["uncompressed", "implicit"])
async def test_what_the_publisher_does_not_take_compressed_is_decoded(
    option: str, storescp: MakeStoreScp, make_pacs: MakePacs, tmp_path: Path
) -> None:
    publisher = storescp(option)
    names = ("JPEG2000.dcm", "MR_small_RLE.dcm", "JPEG-LL.dcm", "MR_small_jpeg_ls_lossless.dcm")
    folder = tmp_path / "compressed"
    folder.mkdir()
    for number, name in enumerate(names):
        ds = dcmread(str(get_testdata_file(name)))
        ds.AccessionNumber, ds.PatientID, ds.PatientBirthDate, ds.PatientName = "C1", "P", "19700101", "P^P"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.77{number}")
        ds.save_as(folder / f"{number}.dcm")
    async with running(with_publisher(tmp_path, make_pacs(folder=folder), publisher.port)) as service:
        status, body = await ask(service, accession_number="C1")
        assert (status, body.get("sent")) == (200, len(names)), body
    sent = by_uid(publisher.files())
    for uid, path in by_uid(sorted(folder.iterdir())).items():
        received = dcmread(sent[uid])
        assert not received.file_meta.TransferSyntaxUID.is_compressed
        assert np.array_equal(received.pixel_array, dcmread(path).pixel_array)


async def test_a_double_click_is_one_order(
    pacs: MisbehavingPacs, storescp: MakeStoreScp, tmp_path: Path
) -> None:
    publisher = storescp()
    async with running(with_publisher(tmp_path, pacs, publisher.port)) as service:
        clicks = await asyncio.gather(*(ask(service, accession_number="A1") for _ in range(2)))
        clicks.append(await ask(service, accession_number="A1"))
        assert [status for status, _ in clicks] == [200] * 3
        assert len({body["job_id"] for _, body in clicks}) == 1
        assert publisher.associations() == 1
        _, body = await ask(service, accession_number="A1", again="true")
        assert body["job_id"] != clicks[0][1]["job_id"]
        assert publisher.associations() == 2


async def test_an_order_goes_on_when_the_client_leaves(
    pacs: MisbehavingPacs, storescp: MakeStoreScp, tmp_path: Path
) -> None:
    publisher = storescp()
    pacs.misbehaviour = Misbehaviour(delay=0.1)
    async with running(with_publisher(tmp_path, pacs, publisher.port)) as service:
        asking = asyncio.create_task(ask(service, accession_number="A1"))
        await asyncio.sleep(0.3)
        asking.cancel()
        await service.wait_until_idle()
    assert len(publisher.files()) == 6


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--refuse",), "publisher_rejected"),
        (("--abort-after",), "publisher_rejected"),
        (("--abort-during",), "publisher_rejected"),
    ],
)
async def test_a_publisher_that_does_not_take_it(
    options: tuple[str, ...], expected: str, pacs: MisbehavingPacs, storescp: MakeStoreScp, tmp_path: Path
) -> None:
    publisher: StoreScp = storescp(*options)
    async with running(with_publisher(tmp_path, pacs, publisher.port)) as service:
        status, body = await ask(service, accession_number="A1")
        assert (status, body["error"]["code"]) == (502, expected)
        assert "RIMAGE" in body["error"]["message"]
        assert service.spooled() == []


async def test_a_publisher_that_is_off(pacs: MisbehavingPacs, tmp_path: Path) -> None:
    async with running(with_publisher(tmp_path, pacs, free_port())) as service:
        status, body = await ask(service, accession_number="A1")
        assert (status, body["error"]["code"]) == (502, "publisher_unreachable")
        _, _, health = await service.get("/api/health")
        assert b'"publisher": {"status": "failed"' in health


async def test_no_publisher_is_told_at_once(pacs: MisbehavingPacs, tmp_path: Path) -> None:
    async with running(make_config(tmp_path, pacs)) as service:
        status, body = await ask(service, accession_number="A1")
        assert (status, body["error"]["code"]) == (503, "not_configured")
        assert pacs.moves == []


async def test_different_patients_are_no_order(
    pacs: MisbehavingPacs, storescp: MakeStoreScp, tmp_path: Path
) -> None:
    publisher = storescp()
    async with running(with_publisher(tmp_path, pacs, publisher.port)) as service:
        status, body = await ask(service, accession_number="A1,B1")
        assert (status, body["error"]["code"]) == (409, "mixed_patients")
    assert publisher.associations() == 0


async def test_the_old_path_prints(pacs: MisbehavingPacs, storescp: MakeStoreScp, tmp_path: Path) -> None:
    publisher = storescp()
    async with running(with_publisher(tmp_path, pacs, publisher.port)) as service:
        status, _, _ = await service.get("/send_rimage_multiple.php", accession_number="A1,A2")
        assert status == 200
    assert len(publisher.files()) == 14


async def ask(service: Service, **parameters: str) -> tuple[int, dict[str, Any]]:
    async with service.session.get(service.url + PRINT, params=parameters) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("stage", ["receiving", "sending"])
async def test_a_killed_print_is_interrupted_and_never_sent_twice(
    stage: str, pacs: MisbehavingPacs, storescp: MakeStoreScp, tmp_path: Path
) -> None:
    """After the next start it waits for a person: nothing more goes to the publisher by itself."""
    publisher = storescp(*(["--sleep-during", "1"] if stage == "sending" else []))
    pacs.misbehaviour = Misbehaviour(delay=0.3 if stage == "receiving" else 0)
    path = write_config(tmp_path, with_publisher(tmp_path, pacs, publisher.port))
    with Program(path) as killed:
        job = await call(killed, "POST", "/api/jobs", {"kind": "print", "accession_numbers": ["A1"]})
        async with asyncio.timeout(30):
            while (await call(killed, "GET", f"/api/jobs/{job['id']}"))["stage"] != stage:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)  # the store writes twice a second
        killed.send(signal.SIGKILL)
        killed.wait()
    sent = publisher.associations()
    pacs.misbehaviour = Misbehaviour()
    with Program(path) as again:
        async with asyncio.timeout(30):
            while (await call(again, "GET", "/api/jobs"))["jobs"] == []:
                await asyncio.sleep(0.1)
        (back,) = (await call(again, "GET", "/api/jobs"))["jobs"]
        assert (back["id"], back["state"]) == (job["id"], "interrupted")
        assert publisher.associations() == sent
        new = await call(again, "POST", f"/api/jobs/{job['id']}/again")
        async with asyncio.timeout(60):
            while (ended := await call(again, "GET", f"/api/jobs/{new['id']}"))["finished_at"] is None:
                await asyncio.sleep(0.1)
        assert (ended["state"], ended["instances"]["sent"]) == ("done", 6)
    assert publisher.associations() == sent + 1


def test_print_from_the_shell(pacs: MisbehavingPacs, storescp: MakeStoreScp, tmp_path: Path) -> None:
    publisher = storescp()
    config = write_config(tmp_path, with_publisher(tmp_path, pacs, publisher.port))
    code, said = run_program("print", "A1", "A2", "--config", config)
    assert (code, "sent to RIMAGE: 14 of 14 instances" in said) == (0, True), said
    assert publisher.associations() == 1
    assert len(publisher.files()) == 14
    code, said = run_program("print", "NOSUCH", "--config", config)
    assert (code, "NOSUCH" in said) == (1, True), said


async def call(program: Program, method: str, path: str, body: Any = None) -> Any:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, program.url + path, json=body) as response,
    ):
        return await response.json()

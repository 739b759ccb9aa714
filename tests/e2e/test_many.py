"""Many at once: no disc has an instance of another, the same work is done once, the event loop is never held up."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from pydicom import dcmread

from tests.e2e.judges import open_image
from tests.e2e.service import make_config, running
from tests.studies import Patient, make_ct_series, make_study

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.conftest import MakePacs
    from tests.orthanc import Orthanc
    from tests.studies import MadeStudy

DOWNLOAD = "/api/iso/download"
PEER = {"connect_timeout_seconds": 20, "response_timeout_seconds": 60}
SMALL = 2000
#: A tenth of a second in one callback would be felt by everybody who is served; there is to be none of twice that.
STALL_SECONDS = 0.1


async def test_20_requests_for_10_discs_over_2_ports(orthanc: Orthanc, tmp_path: Path) -> None:
    studies = [_study(tmp_path, number) for number in range(10)]
    for study in studies:
        orthanc.upload(study.paths)
    async with running(make_config(tmp_path, orthanc, pacs=PEER)) as service:
        asked = [study for study in studies for _ in range(2)]
        answers = await asyncio.gather(
            *(service.get(DOWNLOAD, accession_number=study.AccessionNumber) for study in asked)
        )
        assert len(list(service.services.engine.jobs)) == 10
        assert service.services.works.pool.in_use == 0
    etags: dict[str, set[str]] = {}
    for number, (study, (status, headers, body)) in enumerate(zip(asked, answers, strict=True)):
        assert status == 200
        etags.setdefault(study.AccessionNumber, set()).add(headers["ETag"])
        opened = open_image(body, tmp_path / f"opened{number}")
        assert opened.by_uid().keys() == study.SOPInstanceUIDs
        names = {str(dcmread(path, stop_before_pixels=True).PatientName) for path in opened.dicom_files}
        assert names == {study.patient.PatientName}
    assert [len(tags) for tags in etags.values()] == [1] * 10


def _study(tmp_path: Path, number: int) -> MadeStudy:
    patient = Patient(f"P{number}", f"Patient^No{number}")
    return make_study(tmp_path / "studies", f"ACC{number}", patient=patient, instances=5 + number)


async def test_two_requests_for_one_disc_retrieve_once(make_pacs: MakePacs, tmp_path: Path) -> None:
    make_study(tmp_path / "pacs", "A1", instances=10)
    pacs = make_pacs(folder=tmp_path / "pacs")
    async with running(make_config(tmp_path, pacs, pacs=PEER)) as service:
        answers = await asyncio.gather(*(service.get(DOWNLOAD, accession_number="A1") for _ in range(2)))
        assert answers[0][2] == answers[1][2]
        assert len(pacs.moves) == 1


async def test_nothing_stalls_the_event_loop(
    make_pacs: MakePacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disc of 2,000 small instances, and its removal: no callback of the loop takes long.

    What is measured is the processor's time of the loop's thread, since other load on the machine is no stall.
    """
    make_ct_series(tmp_path / "pacs", SMALL, size=16)
    pacs = make_pacs(folder=tmp_path / "pacs")  # real archives take minutes to be filled with so many
    media = {"keep_minutes": 0, "spool_dir": str(tmp_path / "spool")}
    slow: list[tuple[float, str]] = []
    run = asyncio.Handle._run

    def measured(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        took = time.thread_time() - began
        if took > STALL_SECONDS:
            slow.append((took, repr(handle)))

    async with running(make_config(tmp_path, pacs, pacs=PEER, media=media)) as service:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.Handle, "_run", measured)
            status, _, body = await service.get(DOWNLOAD, accession_number="A1")
            assert status == 200
            async with asyncio.timeout(20):
                while service.spooled():
                    await asyncio.sleep(0.1)
    assert slow == []
    assert len(open_image(body, tmp_path / "opened").dicom_files) == SMALL

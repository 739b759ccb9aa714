"""What goes wrong in a PACS: each failure has its status and code, within its time-out, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread

from tests.e2e.service import make_config, running
from tests.misbehaving import Misbehaviour, Originator, Reject
from tests.studies import Patient, make_study

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePacs

DOWNLOAD = "/api/iso/download"
MANY = 12


def changed(value: object) -> str:
    """Name a case by what is wrong in it."""
    if not isinstance(value, Misbehaviour):
        return str(value[1]) if isinstance(value, tuple) else str(value)
    wrong = {field.name: getattr(value, field.name) for field in fields(value)}
    differing = {name: value for name, value in wrong.items() if value != getattr(Misbehaviour(), name)}
    return (
        ",".join(f"{name}={getattr(value, 'name', value)}" for name, value in differing.items()) or "nothing"
    )


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (Misbehaviour(reject=Reject.CALLING_AE_TITLE_NOT_RECOGNISED), (502, "pacs_rejected")),
        (Misbehaviour(reject=Reject.CALLED_AE_TITLE_NOT_RECOGNISED), (502, "pacs_rejected")),
        (Misbehaviour(reject=Reject.LOCAL_LIMIT_EXCEEDED), (502, "pacs_rejected")),
        (Misbehaviour(mute=True), (504, "pacs_timeout")),
        (Misbehaviour(find_answers_accession_number="OTHER"), (404, "no_dicom_data")),
        (Misbehaviour(find_status=0xA700), (502, "pacs_rejected")),
        (Misbehaviour(find_status=0xC001), (502, "pacs_rejected")),
        (Misbehaviour(find_stalls=True), (504, "pacs_timeout")),
        (Misbehaviour(move_status=0xA801), (502, "pacs_rejected")),
        (Misbehaviour(move_status=0xA701), (502, "pacs_rejected")),
        (Misbehaviour(move_status=0xA702), (502, "pacs_rejected")),
        (Misbehaviour(move_status=0xC000), (502, "pacs_rejected")),
        (Misbehaviour(stall_after=0), (504, "pacs_timeout")),
        (Misbehaviour(stall_after=5), (504, "pacs_timeout")),
        (Misbehaviour(stall_after=5, ignores_cancel=True), (504, "pacs_timeout")),
        (Misbehaviour(abort_after=0), (502, "pacs_unreachable")),
        (Misbehaviour(abort_after=5), (502, "pacs_unreachable")),
        (Misbehaviour(die_after=5), (502, "pacs_unreachable")),
        (Misbehaviour(fewer=2), (502, "incomplete_retrieval")),
        (Misbehaviour(fewer=2, fewer_status=0xB000), (502, "incomplete_retrieval")),
        (Misbehaviour(fewer=2, fewer_status=0xB000, no_image_level=True), (502, "incomplete_retrieval")),
        (
            Misbehaviour(fewer=2, fewer_status=0xB000, no_image_level=True, no_series_counts=True),
            (502, "incomplete_retrieval"),
        ),
        (Misbehaviour(fewer=2, no_series_counts=True), (502, "incomplete_retrieval")),
        (
            Misbehaviour(fewer=2, fewer_status=0xB000, no_series_level=True, no_image_level=True),
            (502, "incomplete_retrieval"),
        ),
        (Misbehaviour(fewer=MANY), (502, "incomplete_retrieval")),
    ],
    ids=changed,
)
async def test_a_failure_has_its_code_and_leaves_nothing(
    wrong: Misbehaviour, expected: tuple[int, str], make_pacs: MakePacs, tmp_path: Path
) -> None:
    make_study(tmp_path / "pacs", "A1", instances=MANY)
    pacs = make_pacs(wrong, folder=tmp_path / "pacs")
    async with running(make_config(tmp_path, pacs)) as service:
        assert await service.error(DOWNLOAD, accession_number="A1") == expected
        await service.wait_until_idle()
        assert service.spooled() == []
        if wrong.die_after is None:
            pacs.misbehaviour = Misbehaviour()
            status, _, _ = await service.get(DOWNLOAD, accession_number="A1")
            assert status == 200


@pytest.mark.parametrize(
    "wrong",
    [
        Misbehaviour(),
        Misbehaviour(find_ignores_key=True),
        Misbehaviour(no_series_counts=True),
        Misbehaviour(no_series_level=True),
        Misbehaviour(no_series_counts=True, no_image_level=True),
        Misbehaviour(duplicate=True),
        Misbehaviour(originator=Originator.WRONG),
        Misbehaviour(originator=Originator.NONE),
        Misbehaviour(fewer=2, only_moves=1),
        Misbehaviour(fewer=2, fewer_status=0xB000, only_moves=2),
        Misbehaviour(abort_after=5, only_moves=1),
        Misbehaviour(delay=0.05),
        Misbehaviour(cut_bytes=9),  # what an archive holds goes on the disc as it is
    ],
    ids=changed,
)
async def test_what_can_be_made_good_is_made_good(
    wrong: Misbehaviour, make_pacs: MakePacs, tmp_path: Path
) -> None:
    """A disc comes of it, with every instance of the study and none of another."""
    study = make_study(tmp_path / "pacs", "A1", instances=MANY)
    make_study(tmp_path / "pacs", "B2", patient=Patient("OTHER", "Other^Person"))
    pacs = make_pacs(wrong, folder=tmp_path / "pacs")
    async with (
        running(make_config(tmp_path, pacs)) as service,
        service.disc("A1") as kept,
    ):
        assert uids_in(kept.folder.path) == study.SOPInstanceUIDs
        assert kept.disc.instances == MANY


async def test_a_connection_cut_amid_an_instance_is_no_disc(make_pacs: MakePacs, tmp_path: Path) -> None:
    """The PACS may take long to notice, or give up at once: either is told."""
    make_study(tmp_path / "pacs", "A1", instances=MANY)
    pacs = make_pacs(Misbehaviour(cut_after=3), folder=tmp_path / "pacs")
    async with running(make_config(tmp_path, pacs)) as service:
        answer = await service.error(DOWNLOAD, accession_number="A1")
        assert answer in {(504, "pacs_timeout"), (502, "incomplete_retrieval")}
        assert service.spooled() == []


async def test_a_stranger_never_reaches_a_disc(make_pacs: MakePacs, tmp_path: Path) -> None:
    study = make_study(tmp_path / "pacs", "A1", instances=MANY)
    other = make_study(tmp_path / "other", "B2", patient=Patient("OTHER", "Other^Person"))
    pacs = make_pacs(Misbehaviour(stranger=other.paths[0]), folder=tmp_path / "pacs")
    async with running(make_config(tmp_path, pacs)) as service:
        status, _, body = await service.get(DOWNLOAD, accession_number="A1")
        assert status == 200
        assert b"Other^Person" not in body
        async with service.disc("A1") as kept:
            assert uids_in(kept.folder.path) == study.SOPInstanceUIDs


async def test_a_partial_disc_is_made_only_when_allowed(make_pacs: MakePacs, tmp_path: Path) -> None:
    make_study(tmp_path / "pacs", "A1", instances=MANY)
    pacs = make_pacs(Misbehaviour(fewer=2), folder=tmp_path / "pacs")
    config = make_config(tmp_path, pacs, media={"spool_dir": str(tmp_path / "spool"), "allow_partial": True})
    async with running(config) as service, service.disc("A1") as kept:
        assert kept.disc.instances == MANY - 2
        image = b"".join(kept.disc.read_chunks(0, kept.disc.size))
        assert b"2 of 12" in image or b"10 of 12" in image


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, (400, "missing_parameter")),
        ({"accession_number": ""}, (400, "missing_parameter")),
        ({"accession_number": "*"}, (400, "invalid_parameter")),
        ({"accession_number": "?"}, (400, "invalid_parameter")),
        ({"accession_number": "A\\B"}, (400, "invalid_parameter")),
        ({"accession_number": "12345678901234567"}, (400, "invalid_parameter")),
        ({"accession_number": "A\n1"}, (400, "invalid_parameter")),
        ({"accession_number": "NOSUCH"}, (404, "no_dicom_data")),
        ({"accession_number": "a1"}, (404, "no_dicom_data")),
    ],
)
async def test_a_bad_accession_number_is_told(
    parameters: dict[str, str], expected: tuple[int, str], make_pacs: MakePacs, tmp_path: Path
) -> None:
    make_study(tmp_path / "pacs", "A1")
    pacs = make_pacs(folder=tmp_path / "pacs")
    async with running(make_config(tmp_path, pacs)) as service:
        assert await service.error(DOWNLOAD, **parameters) == expected
        assert service.spooled() == []


async def test_a_pacs_that_is_down_is_told_with_what_to_check(make_pacs: MakePacs, tmp_path: Path) -> None:
    pacs = make_pacs()
    config = make_config(tmp_path, pacs)
    pacs.stop()
    async with running(config) as service:
        status, _, body = await service.get(DOWNLOAD, accession_number="A1")
        assert status == 502
        assert b"pacs_unreachable" in body
        assert b"pacs.host" in body
        status, _, body = await service.get("/api/health")
        assert status == 200
        assert b'"degraded"' in body
        status, _, _ = await service.get("/api/ready")
        assert status == 503


async def test_different_patients_are_refused_before_anything_moves(
    make_pacs: MakePacs, tmp_path: Path
) -> None:
    make_study(tmp_path / "pacs", "A1")
    make_study(tmp_path / "pacs", "B2", patient=Patient("OTHER", "Other^Person"))
    pacs = make_pacs(folder=tmp_path / "pacs")
    async with running(make_config(tmp_path, pacs)) as service:
        answer = await service.error("/api/iso/download-multiple", accession_numbers="A1,B2")
        assert answer == (409, "mixed_patients")
        assert pacs.moves == []


async def test_a_client_that_leaves_cancels_the_move(make_pacs: MakePacs, tmp_path: Path) -> None:
    make_study(tmp_path / "pacs", "A1", instances=40)
    pacs = make_pacs(Misbehaviour(delay=0.1), folder=tmp_path / "pacs")
    async with running(make_config(tmp_path, pacs)) as service:
        asking = asyncio.create_task(service.get(DOWNLOAD, accession_number="A1"))
        async with asyncio.timeout(10):
            while not any(job.look().received > 2 for job in service.services.engine.jobs):
                await asyncio.sleep(0.05)
        asking.cancel()
        await service.wait_until_idle()
        assert service.spooled() == []
        received = next(iter(service.services.engine.jobs)).counts.received
        assert received < 40


async def test_a_full_spool_is_told_and_left_clean(make_pacs: MakePacs, tmp_path: Path) -> None:
    make_study(tmp_path / "pacs", "A1", instances=MANY)
    pacs = make_pacs(folder=tmp_path / "pacs")
    media: dict[str, Any] = {"spool_dir": str(tmp_path / "spool"), "spool_max_bytes": 50_000}
    async with running(make_config(tmp_path, pacs, media=media)) as service:
        assert await service.error(DOWNLOAD, accession_number="A1") == (507, "spool_full")
        await service.wait_until_idle()
        assert service.spooled() == []


async def test_a_disc_over_the_capacity_is_refused(make_pacs: MakePacs, tmp_path: Path) -> None:
    make_study(tmp_path / "pacs", "A1", instances=MANY)
    pacs = make_pacs(folder=tmp_path / "pacs")
    media = {"spool_dir": str(tmp_path / "spool"), "capacity_bytes": 100_000}
    async with running(make_config(tmp_path, pacs, media=media)) as service:
        assert await service.error(DOWNLOAD, accession_number="A1") == (413, "too_large")
        assert service.spooled() == []


def uids_in(folder: Path) -> set[str]:
    """The SOP Instance UIDs of the DICOM files in a folder."""
    return {str(dcmread(path).SOPInstanceUID) for path in folder.rglob("*.dcm")}

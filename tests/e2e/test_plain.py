"""The main jobs with the fast paths off (``dimse.fast: false``): the same discs and prints, and clean ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pacsbridge.jobs.job import Kind, State
from tests.e2e.service import make_config, running
from tests.misbehaving import Misbehaviour
from tests.peers import HOST, wait_until
from tests.studies import make_study

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from tests.conftest import MakePacs, MakeStoreScp
    from tests.orthanc import Orthanc

PLAIN = {"fast": False}
PEER = {"connect_timeout_seconds": 10, "response_timeout_seconds": 30}


@pytest.fixture
def sources(orthanc: Orthanc, tmp_path: Path) -> Sequence[Path]:
    paths = make_study(tmp_path / "src", "A1", instances=30, series=3).paths
    orthanc.upload(paths)
    return paths


async def test_a_disc_and_a_print(
    orthanc: Orthanc, sources: Sequence[Path], storescp: MakeStoreScp, tmp_path: Path
) -> None:
    publisher = storescp()
    section: dict[str, Any] = {"host": HOST, "port": publisher.port}
    config = make_config(tmp_path, orthanc, dimse=PLAIN, pacs=PEER, publisher=section)
    async with running(config) as service:
        async with service.disc("A1") as kept:
            assert kept.disc.instances == len(sources)
        status, _, body = await service.get("/api/iso/print", accession_number="A1")
        assert status == 200, body
    assert len(publisher.files()) == len(sources)
    assert publisher.associations() == 1


async def test_a_cancel_reaches_the_pacs(make_pacs: MakePacs, tmp_path: Path) -> None:
    make_study(tmp_path / "pacs", "A1", instances=40)
    pacs = make_pacs(Misbehaviour(delay=0.2), folder=tmp_path / "pacs")
    async with running(make_config(tmp_path, pacs, dimse=PLAIN)) as service:
        engine = service.services.engine
        job = engine.submit(Kind.ISO, ("A1",))
        await asyncio.to_thread(wait_until, lambda: bool(job.look().received), "the first instance")
        engine.cancel(job)
        await service.wait_until_idle()
        assert job.state is State.CANCELLED
        assert service.spooled() == []
    assert pacs.cancels == 1

"""Discs of compressed studies: decoded beside the service, and nothing left when they are not wanted."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless

from pacsbridge.jobs.job import Kind, Stage, State
from pacsbridge.media import decoders
from tests.e2e.service import make_config, running
from tests.peers import decoding_processes, wait_until
from tests.studies import make_study

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePacs
    from tests.misbehaving import MisbehavingPacs

INSTANCES = 16


@pytest.fixture
def pacs(make_pacs: MakePacs, tmp_path: Path) -> MisbehavingPacs:
    """A PACS with a study in JPEG 2000, whose noise keeps a decoder busy."""
    noise = np.random.default_rng(1)
    for path in make_study(tmp_path / "pacs", "A1", instances=INSTANCES, size=256).paths:
        dataset = dcmread(path)
        dataset.PixelData = noise.integers(0, 4096, (256, 256), dtype=np.uint16).tobytes()
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        dataset.save_as(path)
    return make_pacs(folder=tmp_path / "pacs")


async def test_it_is_decoded_while_it_arrives(pacs: MisbehavingPacs, tmp_path: Path) -> None:
    async with running(make_config(tmp_path, pacs)) as service:
        async with service.disc("A1") as kept:
            assert kept.disc.instances == INSTANCES
            assert kept.disc.undecoded == ()
        assert decoding_processes() == set()


async def test_a_killed_decoder_costs_one_instance_its_decoding(
    pacs: MisbehavingPacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "_MOST_WORKERS", 1)
    async with running(make_config(tmp_path, pacs)) as service:
        engine = service.services.engine
        job = engine.submit(Kind.ISO, ("A1",))
        await asyncio.to_thread(wait_until, lambda: bool(decoding_processes()), "a decoder")
        for pid in decoding_processes():
            os.kill(pid, signal.SIGSEGV)
        async with engine.disc(job) as kept:
            assert [one.reason for one in kept.disc.undecoded] == ["its decoder crashed"]


async def test_a_cancel_ends_the_decoding(
    pacs: MisbehavingPacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "import time; from pacsbridge.media import transcode as t; t.transcode_file = lambda *_: time.sleep(60)"
    monkeypatch.setattr(decoders, "_COMMAND", f"{slow}; {decoders._COMMAND}")
    async with running(make_config(tmp_path, pacs)) as service:
        engine = service.services.engine
        job = engine.submit(Kind.ISO, ("A1",))
        await asyncio.to_thread(
            wait_until, lambda: job.stage is Stage.WRITING and bool(decoding_processes()), "a decoder"
        )
        engine.cancel(job)
        await service.wait_until_idle()
        assert job.state is State.CANCELLED
        assert decoding_processes() == set()
        assert service.spooled() == []

"""Retrieving: series by series at once where the archive lets us, and everything in the end."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pacsbridge.config import ScpPort, StorageScpConfig
from pacsbridge.dimse.inbox import Inbox
from pacsbridge.dimse.query import Study, ask
from pacsbridge.dimse.retrieve import Retriever
from pacsbridge.dimse.scp import StorageScp
from pacsbridge.dimse.scu import Peer
from pacsbridge.dimse.status import Status
from pacsbridge.errors import PacsRejected
from tests.misbehaving import MisbehavingPacs, Misbehaviour, Reject
from tests.peers import HOST, free_port
from tests.studies import MadeStudy, make_study

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import MakePacs

SERIES, INSTANCES = 4, 3


@pytest.fixture
def made(tmp_path: Path) -> MadeStudy:
    return make_study(tmp_path / "study", series=SERIES, instances=INSTANCES)


@pytest.fixture
def pacs(made: MadeStudy, make_pacs: MakePacs, tmp_path: Path) -> MisbehavingPacs:
    return make_pacs(folder=tmp_path / "study")


class Bed:
    """A Storage SCP with an inbox, before a PACS."""

    def __init__(self, pacs: MisbehavingPacs, folder: Path, study: Study, peer: Peer, port: ScpPort) -> None:
        self.pacs = pacs
        self.study = study
        self.inbox = Inbox(folder, [study.StudyInstanceUID])
        self._peer = peer
        self.port = port

    def retriever(self, associations: int) -> Retriever:
        return Retriever(self._peer, self.port, self.inbox, associations)

    def levels(self) -> list[str]:
        return [move.level for move in self.pacs.moves]


@asynccontextmanager
async def bed(pacs: MisbehavingPacs, made: MadeStudy, tmp_path: Path) -> AsyncIterator[Bed]:
    peer = Peer(
        HOST, pacs.port, pacs.ae_title, "CALLER", connect_timeout_seconds=2, response_timeout_seconds=5
    )
    port = ScpPort(port=free_port(), ae_title="BOX")
    pacs.destinations["BOX"] = (HOST, port.port)
    behaviour, pacs.misbehaviour = pacs.misbehaviour, Misbehaviour()
    [study] = await ask(peer, lambda query: query.find_studies(made.AccessionNumber))
    while pacs._ae.active_associations:  # what it counts against a limit
        await asyncio.sleep(0.01)
    pacs.misbehaviour = behaviour
    folder = tmp_path / "box"
    folder.mkdir()
    made_bed = Bed(pacs, folder, study, peer, port)
    scp = StorageScp(StorageScpConfig(host=HOST, ports=(port,)))
    scp.start()
    scp.attach(port, made_bed.inbox)
    try:
        yield made_bed
    finally:
        scp.stop()
        made_bed.inbox.close()


async def test_series_come_at_once(pacs: MisbehavingPacs, made: MadeStudy, tmp_path: Path) -> None:
    pacs.misbehaviour = Misbehaviour(delay=0.1)
    async with bed(pacs, made, tmp_path) as box:
        retrieving = asyncio.create_task(box.retriever(3).retrieve([box.study]))
        while box.inbox.count < 3:
            await asyncio.sleep(0.01)
        assert len(box.inbox.series_counts) == 3
        assert await retrieving == ()
        assert set(box.inbox.series_counts.values()) == {INSTANCES}
        assert box.levels() == ["SERIES"] * SERIES


async def test_one_association_moves_the_study(
    pacs: MisbehavingPacs, made: MadeStudy, tmp_path: Path
) -> None:
    async with bed(pacs, made, tmp_path) as box:
        assert await box.retriever(1).retrieve([box.study]) == ()
        assert box.inbox.count == SERIES * INSTANCES
        assert box.levels() == ["STUDY"]


@pytest.mark.parametrize("total", [None, SERIES * INSTANCES])
async def test_known_series_are_moved_singly(
    total: int | None, pacs: MisbehavingPacs, made: MadeStudy, tmp_path: Path
) -> None:
    async with bed(pacs, made, tmp_path) as box:
        await box.retriever(2).retrieve([replace(box.study, total=total)])
        assert box.levels() == ["SERIES"] * SERIES


async def test_a_study_with_more_than_its_series_tell_is_moved_whole(
    pacs: MisbehavingPacs, made: MadeStudy, tmp_path: Path
) -> None:
    """Else what an archive does not list at SERIES level would be left out, and nobody would know."""
    async with bed(pacs, made, tmp_path) as box:
        assert box.study.total in (None, SERIES * INSTANCES)
        hiding = replace(box.study, series=box.study.series[:-1], total=SERIES * INSTANCES)
        await box.retriever(3).retrieve([hiding])
        assert box.levels() == ["STUDY"]
        assert box.inbox.count == SERIES * INSTANCES


async def test_a_series_without_a_count_means_the_whole_study(
    pacs: MisbehavingPacs, made: MadeStudy, tmp_path: Path
) -> None:
    async with bed(pacs, made, tmp_path) as box:
        first, *others = box.study.series
        unsure = replace(box.study, series=(replace(first, instances=None), *others), total=None)
        assert await box.retriever(3).retrieve([unsure]) == ()
        assert box.levels() == ["STUDY"]


@pytest.mark.parametrize("allowed", [1, 2])
async def test_a_refused_association_falls_back_to_fewer(
    allowed: int, pacs: MisbehavingPacs, made: MadeStudy, tmp_path: Path
) -> None:
    pacs.misbehaviour = Misbehaviour(reject_beyond=allowed, delay=0.05)
    async with bed(pacs, made, tmp_path) as box:
        assert await box.retriever(3).retrieve([box.study]) == ()
        assert set(box.inbox.series_counts.values()) == {INSTANCES}


async def test_no_association_at_all_is_told(pacs: MisbehavingPacs, made: MadeStudy, tmp_path: Path) -> None:
    pacs.misbehaviour = Misbehaviour(reject=Reject.CALLING_AE_TITLE_NOT_RECOGNISED)
    async with bed(pacs, made, tmp_path) as box:
        with pytest.raises(PacsRejected, match=r"pacs\.calling_ae_title"):
            await box.retriever(3).retrieve([box.study])


async def test_moves_that_were_too_many_at_once_are_asked_for_again(
    pacs: MisbehavingPacs, made: MadeStudy, tmp_path: Path
) -> None:
    pacs.misbehaviour = Misbehaviour(move_status=Status.CANNOT_PERFORM_SUBOPERATIONS, only_moves=3)
    async with bed(pacs, made, tmp_path) as box:
        assert await box.retriever(3).retrieve([box.study]) == ()
        assert set(box.inbox.series_counts.values()) == {INSTANCES}
        assert len(box.levels()) > SERIES


async def test_an_unknown_destination_ends_all_of_them(
    pacs: MisbehavingPacs, made: MadeStudy, tmp_path: Path
) -> None:
    async with bed(pacs, made, tmp_path) as box:
        pacs.destinations.clear()
        with pytest.raises(PacsRejected, match="does not know the move destination BOX"):
            await box.retriever(3).retrieve([box.study])
        assert len(box.levels()) <= SERIES


async def test_what_is_missing_has_its_counts(pacs: MisbehavingPacs, made: MadeStudy, tmp_path: Path) -> None:
    pacs.misbehaviour = Misbehaviour(fewer=1, fewer_status=Status.SUBOPERATIONS_INCOMPLETE)
    async with bed(pacs, made, tmp_path) as box:
        missing = await box.retriever(3).retrieve([box.study])
        assert {(lack.expected, lack.received) for lack in missing} == {(INSTANCES, INSTANCES - 1)}
        assert len(missing) == SERIES


async def test_a_cancel_reaches_every_move(pacs: MisbehavingPacs, made: MadeStudy, tmp_path: Path) -> None:
    pacs.misbehaviour = Misbehaviour(delay=0.3)
    async with bed(pacs, made, tmp_path) as box:
        retrieving = asyncio.create_task(box.retriever(3).retrieve([box.study]))
        while box.inbox.count < 2:
            await asyncio.sleep(0.01)
        retrieving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await retrieving
        assert pacs.cancels == 3
        assert len(box.levels()) == 3
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("Requestor")]


async def test_a_lost_association_is_replaced(pacs: MisbehavingPacs, made: MadeStudy, tmp_path: Path) -> None:
    pacs.misbehaviour = Misbehaviour(abort_after=2, only_moves=1)
    async with bed(pacs, made, tmp_path) as box:
        assert await box.retriever(2).retrieve([box.study]) == ()
        assert set(box.inbox.series_counts.values()) == {INSTANCES}


async def test_a_cancel_while_the_archive_is_mute_leaves_no_connection(
    pacs: MisbehavingPacs, made: MadeStudy, tmp_path: Path
) -> None:
    pacs.misbehaviour = Misbehaviour(mute=True)
    async with bed(pacs, made, tmp_path) as box:
        before = connections_to(pacs.port)
        retrieving = asyncio.create_task(box.retriever(3).retrieve([box.study]))
        while connections_to(pacs.port) == before:
            await asyncio.sleep(0.01)
        retrieving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await retrieving
        assert connections_to(pacs.port) == before


def connections_to(port: int) -> int:
    """Count our own open connections to a port; the other end's are another matter."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            with socket.socket(fileno=os.dup(int(descriptor.name))) as copy:
                count += copy.family == socket.AF_INET and copy.getpeername()[1] == port
        except OSError:
            continue
    return count

"""One C-MOVE: how it ends."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from pydicom import Dataset

from pacsbridge.dimse.move import Final, NoAssociation
from pacsbridge.dimse.mover import mover
from pacsbridge.dimse.scu import Peer
from pacsbridge.dimse.status import Status
from pacsbridge.errors import PacsError, PacsRejected, PacsTimeout, PacsUnreachable
from tests.misbehaving import MisbehavingPacs, Misbehaviour, Reject
from tests.peers import HOST, free_port
from tests.studies import MadeStudy, make_study

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePacs, MakeStoreScp
    from tests.orthanc import Orthanc

INSTANCES = 3


@pytest.fixture(params=[True, False], ids=["fast", "plain"], autouse=True)
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Move, "fast", request.param)


@pytest.fixture
def made(tmp_path: Path) -> MadeStudy:
    return make_study(tmp_path / "study", instances=INSTANCES)


@pytest.fixture
def pacs(made: MadeStudy, make_pacs: MakePacs, storescp: MakeStoreScp, tmp_path: Path) -> MisbehavingPacs:
    return make_pacs(folder=tmp_path / "study", destinations={"BOX": (HOST, storescp().port)})


class Move:
    """A C-MOVE over an association of its own."""

    fast = True

    def __init__(self, port: int, made: MadeStudy, destination: str = "BOX") -> None:
        self._identifier = Dataset()
        self._identifier.QueryRetrieveLevel = "STUDY"
        self._identifier.StudyInstanceUID = made.StudyInstanceUID
        self._destination = destination
        peer = Peer(
            HOST,
            port,
            "PACS",
            "CALLER",
            connect_timeout_seconds=1,
            response_timeout_seconds=1,
            fast=self.fast,
        )
        self.association = mover(peer)

    def run(self) -> Final | None:
        self.association.open()
        try:
            return self.again()
        finally:
            self.association.close()

    def again(self) -> Final | None:
        return self.association.move(self._identifier, self._destination)


def move(port: int, made: MadeStudy, destination: str = "BOX") -> Move:
    return Move(port, made, destination)


def test_the_final_status(pacs: MisbehavingPacs, made: MadeStudy) -> None:
    assert move(pacs.port, made).run() == Final(Status.SUCCESS, 0)
    assert pacs.moves[0].StudyInstanceUID == (made.StudyInstanceUID,)
    assert pacs.moves[0].destination == "BOX"


def test_the_destination_is_unknown(pacs: MisbehavingPacs, made: MadeStudy) -> None:
    assert move(pacs.port, made, "NOBODY").run() == Final(Status.MOVE_DESTINATION_UNKNOWN, 0)


def test_what_failed_is_counted_and_its_list_is_read_over(made: MadeStudy, orthanc: Orthanc) -> None:
    """Orthanc, whose destination is down, lists the instances in a data set of the last response."""
    orthanc.upload(made.paths)
    orthanc.set_destination("BOX", free_port())
    final = move(orthanc.dicom_port, made).run()
    assert final is not None
    assert final.status not in (Status.SUCCESS, Status.PENDING)


@pytest.mark.parametrize(
    "misbehaviour",
    [Misbehaviour(abort_after=1), Misbehaviour(die_after=1), Misbehaviour(move_empty_status=True)],
    ids=["abort", "death", "no status"],
)
def test_broken_off(misbehaviour: Misbehaviour, pacs: MisbehavingPacs, made: MadeStudy) -> None:
    pacs.misbehaviour = misbehaviour
    assert move(pacs.port, made).run() is None


@pytest.mark.parametrize("cancel", [True, False])
def test_it_can_be_ended_from_another_thread(cancel: bool, pacs: MisbehavingPacs, made: MadeStudy) -> None:
    pacs.misbehaviour = Misbehaviour(delay=0.3)
    moving = move(pacs.port, made)
    finals: list[Final | None] = []
    thread = threading.Thread(target=lambda: finals.append(moving.run()))
    thread.start()
    while not pacs.moves:
        time.sleep(0.01)
    if cancel:
        moving.association.cancel()
    else:
        moving.association.abort()
    thread.join(5)
    assert finals == ([Final(Status.CANCELLED, 0)] if cancel else [None])


def test_stopped_before_it_began(pacs: MisbehavingPacs, made: MadeStudy) -> None:
    moving = move(pacs.port, made)
    moving.association.open()
    moving.association.cancel()
    assert moving.again() is None
    moving.association.close()
    assert not pacs.moves


def test_one_after_the_other(pacs: MisbehavingPacs, made: MadeStudy) -> None:
    moving = move(pacs.port, made)
    moving.association.open()
    assert [moving.again(), moving.again()] == [Final(Status.SUCCESS, 0)] * 2
    moving.association.close()
    assert pacs.moves[0].message_id != pacs.moves[1].message_id


def refusal(port: int, made: MadeStudy) -> PacsError:
    with pytest.raises(NoAssociation) as caught:
        move(port, made).run()
    return caught.value.error


def test_a_rejection_is_told(pacs: MisbehavingPacs, made: MadeStudy) -> None:
    pacs.misbehaviour = Misbehaviour(reject=Reject.CALLED_AE_TITLE_NOT_RECOGNISED)
    error = refusal(pacs.port, made)
    assert isinstance(error, PacsRejected)
    assert "pacs.ae_title" in error.message


def test_nobody_listens(made: MadeStudy) -> None:
    assert isinstance(refusal(free_port(), made), PacsUnreachable)


def test_nobody_answers(made: MadeStudy) -> None:
    with socket.create_server((HOST, 0)) as listener:
        assert isinstance(refusal(listener.getsockname()[1], made), PacsTimeout)


def test_no_move_is_offered(made: MadeStudy, storescp: MakeStoreScp) -> None:
    error = refusal(storescp().port, made)
    assert isinstance(error, PacsRejected)
    assert "does not offer" in error.message

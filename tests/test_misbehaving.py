import threading
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pynetdicom.association import Association

from tests import scu
from tests.conftest import MakePacs, MakeStoreScp
from tests.dcmtk import StoreScp
from tests.misbehaving import MisbehavingPacs, Misbehaviour, Originator, Reject
from tests.peers import HOST, listens, wait_until
from tests.studies import MadeStudy, Patient, make_study

INSTANCES = 5


@pytest.fixture
def study(tmp_path: Path) -> MadeStudy:
    return make_study(tmp_path / "study", "A1", instances=INSTANCES, size=256)


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    return make_study(tmp_path / "stranger", "Z9", patient=Patient("TEST-9", "Stranger^S")).paths[0]


@pytest.fixture
def destination(storescp: MakeStoreScp) -> StoreScp:
    return storescp()


@pytest.fixture
def pacs(make_pacs: MakePacs, study: MadeStudy, destination: StoreScp) -> MisbehavingPacs:
    return make_pacs(folder=study.paths[0].parent, destinations={"DEST": (HOST, destination.port)})


def move(pacs: MisbehavingPacs, study: MadeStudy, level: str = "STUDY", timeout: float = 10) -> list[Dataset]:
    return scu.move(pacs.port, "DEST", level, timeout=timeout, StudyInstanceUID=study.StudyInstanceUID)


def received(destination: StoreScp) -> list[str]:
    return [str(dcmread(path).SOPInstanceUID) for path in destination.files()]


def test_it_behaves_by_default(pacs: MisbehavingPacs, study: MadeStudy, destination: StoreScp) -> None:
    assert move(pacs, study)[-1].Status == 0x0000
    assert set(received(destination)) == study.SOPInstanceUIDs
    (seen,) = pacs.moves
    assert (seen.level, seen.destination, seen.message_id) == ("STUDY", "DEST", 7)
    assert seen.StudyInstanceUID == (study.StudyInstanceUID,)


@pytest.mark.parametrize("reject", list(Reject))
def test_reject(pacs: MisbehavingPacs, reject: Reject) -> None:
    pacs.misbehaviour = Misbehaviour(reject=reject)
    association = scu.associate(pacs.port)
    assert association.is_rejected
    answer = association.acceptor.primitive
    assert answer is not None
    assert (answer.result, answer.result_source, answer.diagnostic) == reject.value


def test_reject_beyond(pacs: MisbehavingPacs) -> None:
    pacs.misbehaviour = Misbehaviour(reject_beyond=1)
    first = scu.associate(pacs.port)
    assert first.is_established
    assert scu.associate(pacs.port).is_rejected
    first.release()


def test_mute(pacs: MisbehavingPacs) -> None:
    pacs.misbehaviour = Misbehaviour(mute=True)
    assert listens(pacs.port)
    assert not scu.associate(pacs.port, timeout=0.5).is_established


def test_find_ignores_key(pacs: MisbehavingPacs, stranger: Path) -> None:
    pacs.index.add(stranger)
    pacs.misbehaviour = Misbehaviour(find_ignores_key=True)
    answers, _ = scu.find(pacs.port, "STUDY", AccessionNumber="A1", StudyInstanceUID="")
    assert {answer.AccessionNumber for answer in answers} == {"A1", "Z9"}


def test_find_answers_accession_number(pacs: MisbehavingPacs) -> None:
    pacs.misbehaviour = Misbehaviour(find_answers_accession_number="OTHER")
    answers, _ = scu.find(pacs.port, "STUDY", AccessionNumber="A1", StudyInstanceUID="")
    assert [answer.AccessionNumber for answer in answers] == ["OTHER"]


def test_find_status(pacs: MisbehavingPacs) -> None:
    pacs.misbehaviour = Misbehaviour(find_status=0xA700)
    assert scu.find(pacs.port, "STUDY", AccessionNumber="A1")[1].Status == 0xA700


def test_find_empty_status(pacs: MisbehavingPacs) -> None:
    pacs.misbehaviour = Misbehaviour(find_empty_status=True)
    assert not scu.find(pacs.port, "STUDY", AccessionNumber="A1")[1]


def test_no_series_counts(pacs: MisbehavingPacs, study: MadeStudy) -> None:
    def ask() -> Dataset:
        answers, _ = scu.find(
            pacs.port,
            "SERIES",
            StudyInstanceUID=study.StudyInstanceUID,
            NumberOfSeriesRelatedInstances=None,
        )
        return answers[0]

    assert ask().NumberOfSeriesRelatedInstances == INSTANCES
    pacs.misbehaviour = Misbehaviour(no_series_counts=True)
    assert "NumberOfSeriesRelatedInstances" not in ask()


def test_no_image_level(pacs: MisbehavingPacs, study: MadeStudy) -> None:
    pacs.misbehaviour = Misbehaviour(no_image_level=True)
    _, status = scu.find(pacs.port, "IMAGE", StudyInstanceUID=study.StudyInstanceUID, SOPInstanceUID="")
    assert status.Status == 0xA900
    assert move(pacs, study, "IMAGE")[-1].Status == 0xA900


@pytest.mark.parametrize("status", [0xA701, 0xA702, 0xA801, 0xC000])
def test_move_status(pacs: MisbehavingPacs, study: MadeStudy, status: int) -> None:
    pacs.misbehaviour = Misbehaviour(move_status=status)
    assert [one.Status for one in move(pacs, study)] == [status]


def test_move_empty_status(pacs: MisbehavingPacs, study: MadeStudy) -> None:
    pacs.misbehaviour = Misbehaviour(move_empty_status=True)
    assert not move(pacs, study)[-1]


def test_stall_after(pacs: MisbehavingPacs, study: MadeStudy, destination: StoreScp) -> None:
    pacs.misbehaviour = Misbehaviour(stall_after=2)
    assert not move(pacs, study, timeout=1)[-1]
    assert len(destination.files()) == 2


def test_abort_after(pacs: MisbehavingPacs, study: MadeStudy, destination: StoreScp) -> None:
    pacs.misbehaviour = Misbehaviour(abort_after=2)
    assert not move(pacs, study)[-1]
    assert len(destination.files()) == 2
    assert listens(pacs.port)


def test_die_after(pacs: MisbehavingPacs, study: MadeStudy, destination: StoreScp) -> None:
    port = pacs.port
    pacs.misbehaviour = Misbehaviour(die_after=2)
    assert not move(pacs, study)[-1]
    assert len(destination.files()) == 2
    assert not listens(port)
    pacs.misbehaviour = Misbehaviour()
    pacs.start()
    assert pacs.port == port
    assert move(pacs, study)[-1].Status == 0x0000


@pytest.mark.parametrize(("status", "expected"), [(None, 0x0000), (0xB000, 0xB000)])
def test_fewer(
    pacs: MisbehavingPacs, study: MadeStudy, destination: StoreScp, status: int | None, expected: int
) -> None:
    pacs.misbehaviour = Misbehaviour(fewer=2, fewer_status=status, only_moves=1)
    first = move(pacs, study)
    assert first[-1].Status == expected
    assert len(received(destination)) == INSTANCES - 2
    assert move(pacs, study)[-1].Status == 0x0000
    assert set(received(destination)) == study.SOPInstanceUIDs


def test_stranger(pacs: MisbehavingPacs, study: MadeStudy, destination: StoreScp, stranger: Path) -> None:
    pacs.misbehaviour = Misbehaviour(stranger=stranger)
    move(pacs, study)
    assert set(received(destination)) == study.SOPInstanceUIDs | {str(dcmread(stranger).SOPInstanceUID)}


def test_duplicate(pacs: MisbehavingPacs, study: MadeStudy, destination: StoreScp) -> None:
    pacs.misbehaviour = Misbehaviour(duplicate=True)
    assert move(pacs, study)[-1].Status == 0x0000
    assert sorted(received(destination)) == sorted([*study.SOPInstanceUIDs] * 2)


@pytest.mark.parametrize(
    ("originator", "shown"),
    [(Originator.RIGHT, "CDRECORD"), (Originator.WRONG, "SOMEONE"), (Originator.NONE, None)],
)
def test_originator(
    pacs: MisbehavingPacs, study: MadeStudy, destination: StoreScp, originator: Originator, shown: str | None
) -> None:
    pacs.misbehaviour = Misbehaviour(originator=originator)
    assert move(pacs, study)[-1].Status == 0x0000
    titles = [line for line in destination.log().splitlines() if "Move Originator AE Title" in line]
    assert {line.split(":")[-1].strip() for line in titles} == ({shown} if shown else set())


def test_cut_bytes(pacs: MisbehavingPacs, study: MadeStudy, destination: StoreScp) -> None:
    pacs.misbehaviour = Misbehaviour(cut_bytes=100)
    assert move(pacs, study)[-1].Status == 0xA702  # storescp refuses every one of them
    assert "Error" in destination.log() or "E:" in destination.log()


def test_cut_after(pacs: MisbehavingPacs, study: MadeStudy, destination: StoreScp) -> None:
    pacs.misbehaviour = Misbehaviour(cut_after=2)
    last = move(pacs, study)[-1]
    assert last.NumberOfCompletedSuboperations == 2
    assert last.NumberOfFailedSuboperations == INSTANCES - 2


def test_delay(pacs: MisbehavingPacs, study: MadeStudy) -> None:
    pacs.misbehaviour = Misbehaviour(delay=0.05)
    assert move(pacs, study)[-1].Status == 0x0000


def _cancel_after_first(association: Association, status: Dataset) -> None:
    if status.get("NumberOfCompletedSuboperations") == 1:
        scu.cancel_move(association)


def cancelled_move(pacs: MisbehavingPacs, study: MadeStudy) -> Dataset:
    return scu.move(
        pacs.port, "DEST", StudyInstanceUID=study.StudyInstanceUID, on_response=_cancel_after_first
    )[-1]


def test_ignores_cancel(pacs: MisbehavingPacs, study: MadeStudy, destination: StoreScp) -> None:
    pacs.misbehaviour = Misbehaviour(ignores_cancel=True, delay=0.2)
    assert cancelled_move(pacs, study).Status == 0x0000
    assert pacs.cancels == 1
    assert len(destination.files()) == INSTANCES


def test_late_after_cancel(pacs: MisbehavingPacs, study: MadeStudy, destination: StoreScp) -> None:
    pacs.misbehaviour = Misbehaviour(late_after_cancel=0.3, delay=0.2)
    assert cancelled_move(pacs, study).Status == 0xFE00
    before = len(destination.files())
    wait_until(lambda: len(destination.files()) > before, "the late instance")


def test_everything_ends_with_it(make_pacs: MakePacs, study: MadeStudy, destination: StoreScp) -> None:
    threads = set(threading.enumerate())
    wrong = Misbehaviour(stall_after=1)
    pacs = make_pacs(wrong, folder=study.paths[0].parent, destinations={"DEST": (HOST, destination.port)})
    move(pacs, study, timeout=0.5)
    pacs.stop()
    assert set(threading.enumerate()) <= threads

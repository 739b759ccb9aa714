import os
from pathlib import Path

import pytest
from pydicom import dcmread

from tests import scu
from tests.conftest import MakeDcmQrScp, MakeOrthanc, MakeStoreScp
from tests.orthanc import Orthanc, OrthancOptions
from tests.peers import HOST, Process, find_program, free_port, listens, require, run, wait_until
from tests.studies import make_ct_series, make_study, real_files


def test_a_missing_program_skips_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        require("sh", "no-such-program")


def test_a_missing_program_fails_where_ci_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")
    with pytest.raises((pytest.fail.Exception, pytest.skip.Exception), match="no-such-program") as caught:
        require("no-such-program")
    assert caught.type is pytest.fail.Exception


def test_require_gives_the_path() -> None:
    assert Path(require("sh")).is_file()


def test_a_process_ends_with_its_children(tmp_path: Path) -> None:
    process = Process(["sh", "-c", "sleep 300 & echo $!; wait"], tmp_path / "log").start()
    wait_until(lambda: process.output().strip().isdigit(), "the child")
    child = int(process.output())
    process.kill()
    wait_until(lambda: not _alive(child), "the end of the child")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().split()[2] != "Z"


def test_orthanc_moves_to_a_destination_that_is_registered_later(
    orthanc: Orthanc, storescp: MakeStoreScp, tmp_path: Path
) -> None:
    study = make_study(tmp_path / "study", "A1", series=2, instances=5)
    assert len(orthanc.upload(study.paths)) == 10
    assert orthanc.studies() == [study.StudyInstanceUID]
    destination = storescp()
    orthanc.set_destination("DEST", destination.port)
    statuses = scu.move(orthanc.dicom_port, "DEST", StudyInstanceUID=study.StudyInstanceUID)
    assert statuses[-1].Status == 0x0000
    assert {dcmread(path).SOPInstanceUID for path in destination.files()} == study.SOPInstanceUIDs
    assert orthanc.active_jobs() == 0


def test_orthanc_is_empty_for_each_test(orthanc: Orthanc) -> None:
    assert orthanc.instance_count() == 0
    assert orthanc.rest("GET", "/modalities") == []


def test_orthanc_may_be_killed_and_started_again(orthanc: Orthanc, tmp_path: Path) -> None:
    orthanc.upload(make_ct_series(tmp_path, 2))
    orthanc.kill()
    assert not orthanc.running
    assert not listens(orthanc.dicom_port)
    orthanc.start()
    assert orthanc.instance_count() == 2
    orthanc.stop()
    assert not listens(orthanc.http_port)
    orthanc.start()


def test_orthanc_takes_what_pydicom_ships(orthanc: Orthanc) -> None:
    stored = orthanc.upload(real_files(), tolerant=True)
    assert len(stored) >= len(real_files()) - 5
    assert orthanc.instance_count() == len(stored)


def test_orthanc_with_dicomweb(make_orthanc: MakeOrthanc, tmp_path: Path) -> None:
    orthanc = make_orthanc(OrthancOptions(dicom_web=True))
    study = make_study(tmp_path / "study", "A1", instances=1)
    orthanc.upload(tmp_path / "study")
    answers = orthanc.rest("GET", "/dicom-web/studies?AccessionNumber=A1")
    assert [answer["0020000D"]["Value"] for answer in answers] == [[study.StudyInstanceUID]]


def test_dcmqrscp_moves_what_it_was_filled_with(
    dcmqrscp: MakeDcmQrScp, storescp: MakeStoreScp, tmp_path: Path
) -> None:
    study = make_study(tmp_path / "study", "A1", instances=3)
    destination = storescp()
    archive = dcmqrscp({"DEST": destination.port})
    archive.fill(study.paths)
    answers, _ = scu.find(archive.port, "STUDY", called="ARCHIVE", AccessionNumber="A1", StudyInstanceUID="")
    assert [answer.StudyInstanceUID for answer in answers] == [study.StudyInstanceUID]
    statuses = scu.move(archive.port, "DEST", called="ARCHIVE", StudyInstanceUID=study.StudyInstanceUID)
    assert statuses[-1].Status == 0x0000
    assert len(destination.files()) == 3


def test_storescp_takes_options(storescp: MakeStoreScp, tmp_path: Path) -> None:
    refusing = storescp("--refuse")
    (path,) = make_ct_series(tmp_path / "ct", 1)
    assert run(require("storescu"), HOST, str(refusing.port), path).returncode != 0
    assert refusing.files() == []


def test_free_ports_are_free() -> None:
    assert not listens(free_port())


def test_daemons_are_found_outside_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_program("sh") == require("sh")

import threading
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import JPEG2000, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association

from pacsbridge.demo.index import Index
from pacsbridge.demo.pacs import CANCELLED, SUCCESS, DemoPacs, storage_contexts
from tests import scu
from tests.conftest import MakeStoreScp
from tests.peers import HOST, free_port, listens, require, run
from tests.studies import MadeStudy, make_study


@pytest.fixture
def study(tmp_path: Path) -> MadeStudy:
    return make_study(tmp_path / "pacs", "A1", series=2, instances=4)


@pytest.fixture
def pacs(tmp_path: Path, study: MadeStudy):  # type: ignore[no-untyped-def]  # a generator of a DemoPacs
    with DemoPacs(tmp_path / "pacs") as pacs:
        yield pacs


def test_echoscu(pacs: DemoPacs) -> None:
    assert run(require("echoscu"), HOST, str(pacs.port)).returncode == 0


@pytest.mark.parametrize("model", ["-S", "-P"])
def test_findscu_finds_a_study(pacs: DemoPacs, study: MadeStudy, model: str) -> None:
    result = run(
        require("findscu"), model, HOST, str(pacs.port), "-k", "QueryRetrieveLevel=STUDY",
        "-k", "PatientID=TEST-1", "-k", "AccessionNumber=A1", "-k", "StudyInstanceUID",
        "-k", "NumberOfStudyRelatedInstances",
    )  # fmt: skip
    assert result.returncode == 0
    assert study.StudyInstanceUID in result.stdout
    assert "[8 ]" in result.stdout
    assert "[DEMOPACS]" in result.stdout


def test_findscu_is_told_of_a_missing_key(pacs: DemoPacs) -> None:
    result = run(
        require("findscu"),
        "-d",
        "-S",
        HOST,
        str(pacs.port),
        "-k",
        "QueryRetrieveLevel=SERIES",
        "-k",
        "Modality",
    )
    assert "0xa900" in result.stdout


@pytest.mark.parametrize("model", ["-S", "-P"])
def test_movescu_gets_a_study_as_it_is_stored(
    pacs: DemoPacs, study: MadeStudy, storescp: MakeStoreScp, model: str
) -> None:
    destination = storescp("+B", "+xa")
    pacs.destinations["DEST"] = (HOST, destination.port)
    result = run(
        require("movescu"), "-d", model, "-aem", "DEST", "-aet", "ASKER", HOST, str(pacs.port),
        "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=TEST-1",
        "-k", f"StudyInstanceUID={study.StudyInstanceUID}",
    )  # fmt: skip
    assert result.returncode == 0
    assert "Completed Suboperations       : 8" in result.stdout
    assert "Remaining Suboperations       : 7" in result.stdout
    received = {dcmread(path).SOPInstanceUID: dcmread(path) for path in destination.files()}
    assert set(received) == study.SOPInstanceUIDs
    for path in study.paths:
        stored = dcmread(path)
        assert received[stored.SOPInstanceUID] == stored
    # movescu asked under this title: it is the originator, not the PACS (PS3.7 9.1.1.1.4).
    assert "Move Originator AE Title      : ASKER" in destination.log()
    assert destination.associations() == 1


def test_a_move_by_series_and_by_instance(pacs: DemoPacs, study: MadeStudy, storescp: MakeStoreScp) -> None:
    destination = storescp()
    pacs.destinations["DEST"] = (HOST, destination.port)
    one = dcmread(study.paths[0])
    keys = {"StudyInstanceUID": one.StudyInstanceUID, "SeriesInstanceUID": one.SeriesInstanceUID}
    statuses = scu.move(pacs.port, "DEST", "SERIES", **keys)
    assert statuses[-1].Status == SUCCESS
    assert statuses[-1].NumberOfCompletedSuboperations == 4
    statuses = scu.move(pacs.port, "DEST", "IMAGE", **keys, SOPInstanceUID=[one.SOPInstanceUID])
    assert statuses[-1].NumberOfCompletedSuboperations == 1
    assert len(destination.files()) == 5  # storescp keeps each C-STORE in a file of its own


def test_proposals_begin_with_the_stored_syntax(tmp_path: Path) -> None:
    index = Index()
    for name in ("MR_small_implicit.dcm", "CT_small.dcm", "JPEG2000.dcm"):
        index.add(Path(str(get_testdata_file(name))))
    contexts = storage_contexts(index.instances())
    assert [context.transfer_syntax for context in contexts] == [
        [ImplicitVRLittleEndian, ExplicitVRLittleEndian],
        [ExplicitVRLittleEndian, ImplicitVRLittleEndian],
        [JPEG2000],
    ]


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm"])
def test_the_stored_syntax_arrives(tmp_path: Path, storescp: MakeStoreScp, name: str) -> None:
    source = Path(str(get_testdata_file(name)))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / name).write_bytes(source.read_bytes())
    destination = storescp("+B", "+xa")
    ds = dcmread(source)
    with DemoPacs(tmp_path / "one", destinations={"DEST": (HOST, destination.port)}) as pacs:
        scu.move(pacs.port, "DEST", StudyInstanceUID=ds.StudyInstanceUID)
    (received,) = (dcmread(path) for path in destination.files())
    assert received.file_meta.TransferSyntaxUID == ds.file_meta.TransferSyntaxUID
    assert received.PixelData == ds.PixelData


def test_uncompressed_data_is_offered_in_implicit_vr_too(
    pacs: DemoPacs, study: MadeStudy, storescp: MakeStoreScp
) -> None:
    destination = storescp("+xi")
    pacs.destinations["DEST"] = (HOST, destination.port)
    assert scu.move(pacs.port, "DEST", StudyInstanceUID=study.StudyInstanceUID)[-1].Status == SUCCESS
    assert len(destination.files()) == 8


def test_an_unknown_destination_is_named_so(pacs: DemoPacs, study: MadeStudy) -> None:
    (status,) = scu.move(pacs.port, "NOBODY", StudyInstanceUID=study.StudyInstanceUID)
    assert status.Status == 0xA801


def test_a_destination_that_does_not_listen_leaves_no_descriptor(pacs: DemoPacs, study: MadeStudy) -> None:
    pacs.destinations["DEST"] = (HOST, free_port())
    before = descriptors()
    (status,) = scu.move(pacs.port, "DEST", StudyInstanceUID=study.StudyInstanceUID)
    assert status.Status == 0xA801
    assert descriptors() <= before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_move_without_a_unique_key_is_refused(pacs: DemoPacs, storescp: MakeStoreScp) -> None:
    pacs.destinations["DEST"] = (HOST, storescp().port)
    (status,) = scu.move(pacs.port, "DEST", AccessionNumber="A1")
    assert status.Status == 0xA900
    assert "StudyInstanceUID" in status.ErrorComment


def test_a_cancelled_move_ends(pacs: DemoPacs, study: MadeStudy, storescp: MakeStoreScp) -> None:
    destination = storescp("--sleep-after", "1")
    pacs.destinations["DEST"] = (HOST, destination.port)

    def cancel(association: Association, status: Dataset) -> None:
        if status.get("NumberOfCompletedSuboperations") == 1:
            scu.cancel_move(association)

    statuses = scu.move(pacs.port, "DEST", StudyInstanceUID=study.StudyInstanceUID, on_response=cancel)
    assert statuses[-1].Status == CANCELLED
    assert statuses[-1].NumberOfRemainingSuboperations >= 5


def test_storescu_fills_it_in_any_syntax(tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("examples_jpeg2k.dcm")))
    with DemoPacs(tmp_path / "new") as pacs:
        result = run(require("storescu"), "-xv", HOST, str(pacs.port), source)
        assert result.returncode == 0, result.stdout
        answers, _ = scu.find(pacs.port, "STUDY", StudyInstanceUID="", PatientID="13US1")
    assert len(answers) == 1
    (path,) = (tmp_path / "new").iterdir()
    assert dcmread(path).PixelData == dcmread(source).PixelData


def test_a_disk_that_fails_is_told_to_the_sender(tmp_path: Path) -> None:
    with DemoPacs(tmp_path / "gone") as pacs:
        (tmp_path / "gone").rmdir()
        result = run(require("storescu"), "-v", HOST, str(pacs.port), str(get_testdata_file("CT_small.dcm")))
    assert "Refused: OutOfResources" in result.stdout


def test_names_come_in_the_stored_character_set(tmp_path: Path) -> None:
    name = "Kobayashi^Haruka=小林^遥=こばやし^はるか"
    study = make_study(tmp_path, "J1", instances=1)
    ds = dcmread(study.paths[0])
    ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    ds.PatientName = name
    ds.save_as(study.paths[0])
    with DemoPacs(tmp_path) as pacs:
        (answer,), _ = scu.find(pacs.port, "STUDY", PatientName="Kobayashi*", StudyInstanceUID="")
    assert answer.SpecificCharacterSet == ["", "ISO 2022 IR 87"]
    assert str(answer.PatientName) == name


def test_stopping_leaves_no_thread_and_no_port(tmp_path: Path, study: MadeStudy) -> None:
    before = set(threading.enumerate())
    pacs = DemoPacs(tmp_path / "pacs")
    pacs.start()
    port = pacs.port
    association = scu.associate(port)
    assert association.is_established
    pacs.stop()
    association.join(10)
    pacs.stop()
    assert not listens(port)
    assert pacs.port == 0
    assert set(threading.enumerate()) <= before


def test_it_can_be_started_again_on_its_port(pacs: DemoPacs) -> None:
    port = pacs.port
    pacs.stop()
    pacs.start()
    assert pacs.port == port
    assert scu.find(port, "STUDY", StudyInstanceUID="")[1].Status == SUCCESS


def test_a_port_that_is_taken_is_an_error(tmp_path: Path, pacs: DemoPacs) -> None:
    with pytest.raises(OSError, match="in use"):
        DemoPacs(tmp_path / "other", port=pacs.port).start()

"""Real archives: from what Orthanc and dcmqrscp hold to a disc that every judge opens, file by file its source."""

from __future__ import annotations

import shutil
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from tests.e2e.judges import compare, encoded, judge_dicomdir, open_image
from tests.e2e.service import make_config, running
from tests.orthanc import OrthancError
from tests.peers import free_port
from tests.studies import Patient, make_study, real_files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeDcmQrScp
    from tests.orthanc import Orthanc

DOWNLOAD = "/api/iso/download"
MULTIPLE = "/api/iso/download-multiple"
#: Real archives share the machine with other tests.
PATIENT = {"connect_timeout_seconds": 10, "response_timeout_seconds": 30}


async def test_600_slices_from_orthanc(orthanc: Orthanc, tmp_path: Path) -> None:
    study = make_study(tmp_path / "ct", "CT600", series=3, instances=200, size=128)
    orthanc.upload(study.paths)
    async with running(make_config(tmp_path, orthanc, pacs=PATIENT)) as service:
        status, headers, body = await service.get(DOWNLOAD, accession_number="CT600")
    assert status == 200
    assert headers["Content-Type"] == "application/x-iso9660-image"
    assert int(headers["Content-Length"]) == len(body)
    assert headers["Content-Disposition"] == 'attachment; filename="CT600.iso"'
    opened = open_image(body, tmp_path / "opened")
    judge_dicomdir(opened, 600)
    (patient,) = opened.records()
    leaves = list(patient.leaves())
    assert {leaf.kind for leaf in leaves} == {"IMAGE"}
    made = opened.by_uid()
    assert made.keys() == study.SOPInstanceUIDs
    for path in study.paths:
        uid = str(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
        assert encoded(made[uid]) == encoded(path)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # the real files are odd on purpose
@pytest.mark.filterwarnings("ignore::UserWarning:pylibjpeg")
async def test_real_files_that_orthanc_takes_go_onto_discs(orthanc: Orthanc, tmp_path: Path) -> None:
    """All of pydicom's and pydicom-data's that can be stored, a disc for some studies each."""
    discs = 6
    sources = _numbered(tmp_path / "real", discs)
    stored = {uid: path for uid, path in sources.items() if not _is_nameless(path) and _stored(orthanc, path)}
    assert len(stored) > 120
    media = {"allow_mixed_patients": True, "spool_dir": str(tmp_path / "spool")}
    wrong: dict[str, str] = {}
    seen: set[str] = set()
    async with running(make_config(tmp_path, orthanc, pacs=PATIENT, media=media)) as service:
        for number in range(discs):
            status, _, body = await service.get(DOWNLOAD, accession_number=f"REAL{number}")
            assert status == 200, body
            opened = open_image(body, tmp_path / f"opened{number}")
            made = opened.by_uid()
            assert len(made) == len(opened.dicom_files)
            assert sum(len(list(record.leaves())) for record in opened.records()) == len(made)
            for uid, path in made.items():
                if problem := compare(path, stored[uid]):
                    wrong[stored[uid].name] = problem
            seen |= made.keys()
            shutil.rmtree(opened.folder)
    assert wrong == {}
    assert seen == stored.keys()


async def test_two_studies_of_a_patient_on_one_disc(orthanc: Orthanc, tmp_path: Path) -> None:
    patient = Patient("P-77", "Yamada^Tarou=山田^太郎=やまだ^たろう", "19620530")
    studies = [
        make_study(tmp_path / "a", "A1", patient=patient),
        make_study(tmp_path / "a", "A1", patient=patient, study="second"),
        make_study(tmp_path / "a", "B2", patient=patient, series=2),
    ]
    for study in studies:
        orthanc.upload(study.paths)
    async with running(make_config(tmp_path, orthanc, pacs=PATIENT)) as service:
        status, headers, body = await service.get(MULTIPLE, accession_numbers="A1,B2")
        assert status == 200
        assert "filename=" in headers["Content-Disposition"]
        assert headers["Content-Disposition"].startswith('attachment; filename="Yamada_Tarou.iso"')
        opened = open_image(body, tmp_path / "opened")
        assert opened.by_uid().keys() == set().union(*(study.SOPInstanceUIDs for study in studies))
        judge_dicomdir(opened, 12)
        assert "山田" in opened.text("INDEX.HTM")


async def test_mixed_patients_are_refused_and_no_disc_holds_another(orthanc: Orthanc, tmp_path: Path) -> None:
    mine = make_study(tmp_path / "a", "A1", patient=Patient("P1", "One^Only", "19500101"))
    same_id = make_study(tmp_path / "b", "B2", patient=Patient("P2", "Two^Also", "19600202"))
    for study in (mine, same_id):
        orthanc.upload(study.paths)
    async with running(make_config(tmp_path, orthanc, pacs=PATIENT)) as service:
        assert await service.error(MULTIPLE, accession_numbers="A1,B2") == (409, "mixed_patients")
        status, _, body = await service.get(DOWNLOAD, accession_number="A1")
        assert status == 200
        assert open_image(body, tmp_path / "opened").by_uid().keys() == mine.SOPInstanceUIDs
        assert b"Two^Also" not in body


async def test_a_destination_that_orthanc_does_not_know_is_told(orthanc: Orthanc, tmp_path: Path) -> None:
    orthanc.upload(make_study(tmp_path / "a", "A1").paths)
    config = make_config(tmp_path, orthanc, pacs=PATIENT)
    orthanc.forget_destinations()
    await _expect_unknown_destination(config)


async def test_the_main_path_with_dcmqrscp(dcmqrscp: MakeDcmQrScp, tmp_path: Path) -> None:
    study = make_study(tmp_path / "ct", "CT60", series=2, instances=30)
    other = make_study(tmp_path / "other", "CT61", patient=Patient("OTHER", "Other^Person"))
    port = free_port()
    archive = dcmqrscp({"CDRECORD1": port})
    archive.fill([*study.paths, *other.paths])
    pool = {"ports": [{"port": port, "ae_title": "CDRECORD1"}]}
    async with running(make_config(tmp_path, archive, pacs=PATIENT, storage_scp=pool)) as service:
        status, _, body = await service.get(DOWNLOAD, accession_number="CT60")
        assert status == 200
        opened = open_image(body, tmp_path / "opened")
        judge_dicomdir(opened, 60)
        made = opened.by_uid()
        assert made.keys() == study.SOPInstanceUIDs
        for path in study.paths:
            uid = str(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
            assert compare(made[uid], path) == ""
        assert await service.error(DOWNLOAD, accession_number="CT6") == (404, "no_dicom_data")


async def test_a_destination_that_dcmqrscp_does_not_know_is_told(
    dcmqrscp: MakeDcmQrScp, tmp_path: Path
) -> None:
    archive = dcmqrscp({"SOMEONE": free_port()})
    archive.fill(make_study(tmp_path / "a", "A1").paths)
    await _expect_unknown_destination(make_config(tmp_path, archive, pacs=PATIENT))


async def _expect_unknown_destination(config: Any) -> None:
    """Expect a message that an engineer can copy from: AE title and port of the destination."""
    async with running(config) as service:
        status, _, body = await service.get(DOWNLOAD, accession_number="A1")
        message = body.decode()
        assert status == 502
        assert '"pacs_rejected"' in message
        destinations = [port for port in config.storage_scp.ports if port.ae_title in message]
        assert destinations
        assert str(destinations[0].port) in message
        assert service.spooled() == []


def _numbered(folder: Path, discs: int) -> dict[str, Path]:
    """Copy the real files with accession numbers of our own, the same for all of a study; UID → file."""
    folder.mkdir()
    numbers: dict[str, int] = {}
    copies: dict[str, Path] = {}
    for index, path in enumerate(real_files()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = dcmread(path)
            number = numbers.setdefault(str(ds.StudyInstanceUID), len(numbers) % discs)
            ds.AccessionNumber = f"REAL{number}"
            copy = folder / f"{index:03}-{path.name}"
            try:
                ds.save_as(copy)
            except Exception:  # noqa: BLE001 - what pydicom reads and can't write stays out
                copy.unlink(missing_ok=True)
                continue
        copies[str(ds.SOPInstanceUID)] = copy
    return copies


def _is_nameless(path: Path) -> bool:
    """Whether its SOP Instance UID has the VR UN: Orthanc gives it another one in the C-STORE than in the data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = dcmread(path, stop_before_pixels=True).get_item("SOPInstanceUID")
    return raw is not None and raw.VR == "UN"


async def test_what_orthanc_names_wrongly_is_missing_and_told(orthanc: Orthanc, tmp_path: Path) -> None:
    study = make_study(tmp_path / "a", "A1", instances=4)
    nameless = tmp_path / "nameless.dcm"
    content = study.paths[0].read_bytes()
    before = b"\x08\x00\x18\x00UI"
    at = content.rindex(before)
    length = content[at + 6 : at + 8]
    nameless.write_bytes(content[:at] + b"\x08\x00\x18\x00UN\0\0" + length + b"\0\0" + content[at + 8 :])
    assert _is_nameless(nameless)
    orthanc.upload([nameless, *study.paths[1:]])
    media = {"allow_partial": True, "spool_dir": str(tmp_path / "partial")}
    async with running(make_config(tmp_path, orthanc, pacs=PATIENT)) as service:
        assert await service.error(DOWNLOAD, accession_number="A1") == (502, "incomplete_retrieval")
        assert service.spooled() == []
    async with running(make_config(tmp_path, orthanc, pacs=PATIENT, media=media)) as service:
        status, _, body = await service.get(DOWNLOAD, accession_number="A1")
        assert status == 200
    opened = open_image(body, tmp_path / "opened")
    assert len(opened.dicom_files) == 3
    assert "3 of 4" in " ".join(opened.text("README.TXT").split())


def _stored(orthanc: Orthanc, path: Path) -> bool:
    try:
        orthanc.upload([path])
    except OrthancError:
        return False
    return True


async def test_an_as_stored_disc_keeps_what_is_compressed(orthanc: Orthanc, tmp_path: Path) -> None:
    path = next(path for path in real_files(unique=False) if path.name == "MR_small_RLE.dcm")
    source = tmp_path / path.name
    ds = dcmread(path)
    ds.AccessionNumber = "RLE1"
    ds.save_as(source)
    orthanc.upload([source])
    for profile, kept in (("as-stored", True), ("STD-GEN-CD", False)):
        media = {"profile": profile, "spool_dir": str(tmp_path / profile)}
        async with running(make_config(tmp_path, orthanc, pacs=PATIENT, media=media)) as service:
            _, _, body = await service.get(DOWNLOAD, accession_number="RLE1")
        opened = open_image(body, tmp_path / f"opened-{profile}")
        (made,) = opened.dicom_files
        assert compare(made, source) == ""
        made_as = dcmread(made, stop_before_pixels=True).file_meta.TransferSyntaxUID
        assert (made_as != ExplicitVRLittleEndian) == kept
        assert ("came from the archive" in " ".join(opened.text("README.TXT").split())) == kept


async def test_the_viewer_is_on_the_disc(orthanc: Orthanc, tmp_path: Path) -> None:
    viewer = tmp_path / "viewer"
    (viewer / "Program Files").mkdir(parents=True)
    (viewer / "AUTORUN.INF").write_bytes(b"[autorun]\r\nopen=viewer.exe\r\n")
    (viewer / "viewer.exe").write_bytes(b"MZ" + bytes(3000))
    (viewer / "Program Files" / "a library with a long name.dll").write_bytes(b"DLL")
    orthanc.upload(make_study(tmp_path / "a", "A1").paths)
    media = {"viewer_dir": str(viewer), "spool_dir": str(tmp_path / "spool")}
    async with running(make_config(tmp_path, orthanc, pacs=PATIENT, media=media)) as service:
        status, _, body = await service.get(DOWNLOAD, accession_number="A1")
    assert status == 200
    opened = open_image(body, tmp_path / "opened")
    for path in viewer.rglob("*"):
        if path.is_file():
            assert (opened.folder / path.relative_to(viewer)).read_bytes() == path.read_bytes()


async def test_a_disc_too_large_names_both_sizes(orthanc: Orthanc, tmp_path: Path) -> None:
    orthanc.upload(make_study(tmp_path / "a", "A1", instances=20, size=256).paths)
    media = {"capacity_bytes": 1_500_000, "spool_dir": str(tmp_path / "spool")}
    async with running(make_config(tmp_path, orthanc, pacs=PATIENT, media=media)) as service:
        status, _, body = await service.get(DOWNLOAD, accession_number="A1")
        message = body.decode()
        assert status == 413
        assert '"too_large"' in message
        assert "2.6 MB" in message or "2.7 MB" in message or "3 MB" in message
        assert "1.5 MB" in message
        assert service.spooled() == []

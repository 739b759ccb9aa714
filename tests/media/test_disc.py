import html.parser
import io
import itertools
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycdlib import PyCdlib
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian

from pacsbridge.errors import MixedPatients, NoDicomData, SourceChanged, SpoolFull, TooLarge
from pacsbridge.instance import Instance, InvalidInstance, read_instance
from pacsbridge.media import disc as module
from pacsbridge.media.disc import Cancelled, Disc, DiscOptions, Viewer, make_disc
from pacsbridge.media.image import DataSegment
from tests.peers import require
from tests.studies import Patient, make_study, real_files

pytestmark = pytest.mark.filterwarnings(
    # the real files are broken in many ways on purpose, and pydicom warns of each
    "ignore::UserWarning:pydicom",
    "ignore::UserWarning:pylibjpeg",
)

OPTIONS = DiscOptions(institution="Klinik Süd", software="pacsbridge 1.0")


@dataclass(frozen=True)
class Extracted:
    """A disc as a computer shows it: by its Joliet names."""

    folder: Path

    def files(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }


def save(disc: Disc, folder: Path) -> Path:
    path = folder / "disc.iso"
    with path.open("wb") as file:
        disc.write_to(file)
    assert path.stat().st_size == disc.size
    return path


def extract(image: Path, folder: Path) -> Extracted:
    subprocess.run(
        [require("7z"), "x", f"-o{folder / 'extracted'}", image], check=True, stdout=subprocess.DEVNULL
    )
    return Extracted(folder / "extracted")


def study(folder: Path, accession: str = "A1", **arguments: object) -> list[Instance]:
    made = make_study(folder, accession, **arguments)  # type: ignore[arg-type]  # passed on as they come
    return [read_instance(path) for path in made.paths]


def copied(path: Path, folder: Path) -> Instance:
    target = folder / path.name
    target.write_bytes(path.read_bytes())
    return read_instance(target)


def real(name: str, folder: Path) -> Instance:
    return copied(Path(str(get_testdata_file(name))), folder)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture
def viewer(tmp_path: Path) -> Viewer:
    root = tmp_path / "viewer"
    (root / "Plugins" / "empty folder").mkdir(parents=True)
    (root / "AUTORUN.INF").write_bytes(b"[autorun]\r\nopen=Viewer Start.exe\r\n")
    (root / "Viewer Start.exe").write_bytes(os.urandom(5000))
    (root / "Plugins" / "a plugin with a long name.dll").write_bytes(os.urandom(2048))
    (root / "Plugins" / "a plugin with another name.dll").write_bytes(b"")
    return Viewer.load(root)


def test_every_judge_finds_every_file(spool: Path, tmp_path: Path, viewer: Viewer) -> None:
    instances = []
    for number, path in enumerate(real_files()):
        folder = tmp_path / "received" / str(number)
        folder.mkdir(parents=True)
        try:
            instances.append(copied(path, folder))
        except InvalidInstance:
            continue
    options = replace(OPTIONS, allow_mixed_patients=True, viewer=viewer)
    disc = make_disc(instances, spool, options)
    assert disc.instances == len(instances) > 100
    image = save(disc, tmp_path)
    subprocess.run([require("7z"), "t", image], check=True, stdout=subprocess.DEVNULL)
    told = subprocess.run(
        [require("xorriso"), "-indev", image, "-find", "/", "-type", "f"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "FAILURE" not in told.stderr
    assert len(told.stdout.splitlines()) == len(listing(image))
    files = extract(image, tmp_path).files()
    by_uid = {instance.SOPInstanceUID: instance for instance in instances}
    found = {
        pydicom.dcmread(
            io.BytesIO(content), stop_before_pixels=True
        ).file_meta.MediaStorageSOPInstanceUID: content
        for name, content in files.items()
        if name.startswith("DICOM/")
    }
    assert found.keys() == by_uid.keys()
    for uid, content in found.items():
        assert content == Path(by_uid[uid].path).read_bytes()
    directory = tmp_path / "extracted" / "DICOMDIR"
    dump = subprocess.run([require("dcmdump"), "-q", directory], capture_output=True, check=True).stdout
    assert dump.count(b"(0004,1500)") == len(instances)


def listing(image: Path, *options: str) -> list[str]:
    told = subprocess.run(
        [require("isoinfo"), "-f", *options, "-i", image], capture_output=True, text=True, check=True
    )
    return [name for name in told.stdout.splitlines() if "." in name or "DICOMDIR" in name]


def test_a_ct_of_600_slices(spool: Path, tmp_path: Path) -> None:
    instances = study(tmp_path, series=3, instances=200)
    disc = make_disc(list(reversed(instances)), spool, OPTIONS)
    assert (disc.studies, disc.series, disc.instances, disc.undecoded) == (1, 3, 600, ())
    image = save(disc, tmp_path)
    described = subprocess.run(
        [require("isoinfo"), "-d", "-i", image], capture_output=True, text=True, check=True
    )
    assert f"Volume id: {disc.file_set_id}" in described.stdout
    assert "Joliet with UCS level 3 found" in described.stdout
    assert "NO Rock Ridge" in described.stdout
    extracted = extract(image, tmp_path)
    files = extracted.files()
    expected = [f"DICOM/S{1 + index // 200:07d}/I{index + 1:07d}" for index in range(600)]
    assert sorted(name for name in files if name.startswith("DICOM/")) == expected
    for name, instance in zip(expected, instances, strict=True):
        assert files[name] == Path(instance.path).read_bytes()
    directory = pydicom.dcmread(extracted.folder / "DICOMDIR")
    assert directory.FileSetID == disc.file_set_id
    leaves = [record for record in directory.DirectoryRecordSequence if "ReferencedFileID" in record]
    assert {
        ("/".join(record.ReferencedFileID), record.ReferencedSOPInstanceUIDInFile) for record in leaves
    } == {(name, instance.SOPInstanceUID) for name, instance in zip(expected, instances, strict=True)}


def test_iso_names_are_of_level_1_and_hold_the_same_files(
    spool: Path, tmp_path: Path, viewer: Viewer
) -> None:
    disc = make_disc(study(tmp_path), spool, replace(OPTIONS, viewer=viewer))
    image = save(disc, tmp_path)
    files = extract(image, tmp_path).files()
    assert "Plugins/a plugin with a long name.dll" in files
    assert files["AUTORUN.INF"].startswith(b"[autorun]")
    assert (tmp_path / "extracted" / "Plugins" / "empty folder").is_dir()
    iso = PyCdlib()
    iso.open(str(image))
    contents = []
    for folder, _, names in iso.walk(iso_path="/"):
        for part in folder.strip("/").split("/"):
            assert re.fullmatch(r"[A-Z0-9_]{0,8}", part)
        for name in names:
            assert re.fullmatch(r"[A-Z0-9_]{1,8}\.[A-Z0-9_]{0,3};1", name)
            buffer = io.BytesIO()
            iso.get_file_from_iso_fp(buffer, iso_path=f"{folder.rstrip('/')}/{name}")
            contents.append(buffer.getvalue())
    iso.close()
    assert sorted(contents) == sorted(files.values())
    assert "/AUTORUN.INF;1" in listing(image)
    assert {"/README.TXT;1", "/INDEX.HTM;1", "/DICOMDIR.;1"} <= set(listing(image))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.floats(0, 1), max_size=30))
def test_ranges_join_to_the_whole(made: Disc, cuts: list[float]) -> None:
    whole = b"".join(made.read_chunks())
    assert len(whole) == made.size
    edges = [0, *sorted(int(cut * made.size) for cut in cuts), made.size]
    pieces = [b"".join(made.read_chunks(*edge)) for edge in itertools.pairwise(edges)]
    assert b"".join(pieces) == whole


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Disc:
    folder = tmp_path_factory.mktemp("made")
    return make_disc(study(folder, series=2), folder, OPTIONS)


def test_two_discs_of_the_same_instances_differ_in_their_identity(spool: Path, tmp_path: Path) -> None:
    instances = study(tmp_path)
    one, other = (make_disc(instances, spool, OPTIONS) for _ in range(2))
    assert one.etag != other.etag
    assert one.file_set_id != other.file_set_id
    assert b"".join(one.read_chunks()) == b"".join(one.read_chunks())


def test_compressed_instances_are_decoded_once(spool: Path, tmp_path: Path) -> None:
    names = ["MR_small_RLE.dcm", "CT_small.dcm"]
    received = [real(name, spool) for name in names]
    options = replace(OPTIONS, allow_mixed_patients=True)
    first = make_disc(received, spool, options)
    assert {path.name for path in spool.iterdir() if path.is_file()} == set(names)
    again = make_disc(received, spool, options)
    assert first.size == again.size
    assert first.undecoded == again.undecoded == ()
    files = extract(save(again, tmp_path), tmp_path).files()
    for name, content in files.items():
        if name.startswith("DICOM/"):
            assert pydicom.dcmread(io.BytesIO(content)).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    records = pydicom.dcmread(tmp_path / "extracted" / "DICOMDIR").DirectoryRecordSequence
    assert {
        record.ReferencedTransferSyntaxUIDInFile for record in records if "ReferencedFileID" in record
    } == {ExplicitVRLittleEndian}


def test_what_can_not_be_decoded_is_named(spool: Path, tmp_path: Path) -> None:
    broken = real("JPEG-lossy.dcm", spool)
    before = Path(broken.path).read_bytes()
    with structlog.testing.capture_logs() as logs:
        disc = make_disc([broken], spool, OPTIONS)
    (undecoded,) = disc.undecoded
    assert undecoded.path == "DICOM/S0000001/I0000001"
    assert undecoded.SOPInstanceUID == broken.SOPInstanceUID
    assert undecoded.TransferSyntaxUID == broken.TransferSyntaxUID
    files = extract(save(disc, tmp_path), tmp_path).files()
    assert files[undecoded.path] == before
    assert b"DICOM/S0000001/I0000001: its JPEG Extended" in files["README.TXT"]
    assert "1 file is compressed" in files["INDEX.HTM"].decode()
    assert logs[0]["event"] == "instances stay compressed"
    assert broken.SOPInstanceUID not in str(logs)


def test_as_stored_leaves_everything_and_says_so(spool: Path, tmp_path: Path) -> None:
    instance = real("MR_small_RLE.dcm", spool)
    before = Path(instance.path).read_bytes()
    disc = make_disc([instance], spool, replace(OPTIONS, profile="as-stored"))
    files = extract(save(disc, tmp_path), tmp_path).files()
    assert files["DICOM/S0000001/I0000001"] == before
    text = " ".join(files["README.TXT"].decode("ascii").split())
    assert "as they came from the archive" in text
    assert "does not claim the profile STD-GEN-CD" in text


def test_an_instance_that_is_there_twice_is_on_the_disc_once(spool: Path, tmp_path: Path) -> None:
    instances = study(tmp_path)
    assert make_disc([*instances, *instances], spool, OPTIONS).instances == len(instances)


def test_a_long_series_takes_several_directories(
    spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILES_OF_DIRECTORY", 2)
    disc = make_disc(study(tmp_path, series=2, instances=3), spool, OPTIONS)
    names = [name for name in extract(save(disc, tmp_path), tmp_path).files() if name.startswith("DICOM/")]
    assert sorted(names) == [
        *("DICOM/S0000001/I0000001", "DICOM/S0000001/I0000002", "DICOM/S0000002/I0000003"),
        *("DICOM/S0000003/I0000004", "DICOM/S0000003/I0000005", "DICOM/S0000004/I0000006"),
    ]


def test_no_instances_are_no_disc(spool: Path) -> None:
    with pytest.raises(NoDicomData):
        make_disc([], spool, OPTIONS)
    assert list(spool.iterdir()) == []


def test_two_patients_are_no_disc_unless_allowed(spool: Path, tmp_path: Path) -> None:
    instances = study(tmp_path) + study(tmp_path, "A2", patient=Patient("OTHER", "Other^One", "19800101"))
    with pytest.raises(MixedPatients) as raised:
        make_disc(instances, spool, OPTIONS)
    assert not any(word in raised.value.message for word in ("OTHER", "Other", "TEST", "1980"))
    disc = make_disc(instances, spool, replace(OPTIONS, allow_mixed_patients=True))
    page = extract(save(disc, tmp_path), tmp_path).files()["INDEX.HTM"].decode()
    assert page.index("Other, One") < page.index("Test, Patient")


def test_a_disc_over_the_capacity_is_refused_before_anything_is_written(
    spool: Path, tmp_path: Path, viewer: Viewer
) -> None:
    instances = study(tmp_path, instances=20)
    size = make_disc(instances, tmp_path, replace(OPTIONS, viewer=viewer)).size
    assert make_disc(instances, tmp_path, replace(OPTIONS, viewer=viewer, capacity_bytes=size)).size == size
    for capacity in (size - 1, 1000):
        with pytest.raises(TooLarge, match=r"MB.*MB of it the viewer.*limit is .*MB"):
            make_disc(instances, spool, replace(OPTIONS, viewer=viewer, capacity_bytes=capacity))
        assert list(spool.iterdir()) == []


def test_decoding_stops_at_the_capacity(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def grow(instance: Instance, _: object) -> Instance:
        calls.append(instance.SOPInstanceUID)
        return replace(instance, size=600)

    monkeypatch.setattr(module, "transcode", grow)
    instance = real("MR_small_RLE.dcm", spool)
    instances = [replace(instance, SOPInstanceUID=f"1.2.{number}") for number in range(10)]
    with pytest.raises(TooLarge, match="at least"):
        make_disc(instances, spool, replace(OPTIONS, capacity_bytes=1000))
    assert len(calls) == 2


@pytest.mark.parametrize("change", ["gone", "shorter"])
def test_a_source_that_changed_is_noticed(change: str, spool: Path, tmp_path: Path) -> None:
    instances = study(tmp_path)
    path = Path(instances[1].path)
    if change == "gone":
        path.unlink()
    else:
        os.truncate(path, 100)
    with pytest.raises(SourceChanged, match="/DICOM/S0000001/I0000002"):
        make_disc(instances, spool, OPTIONS)
    assert list(spool.iterdir()) == []


def test_progress_goes_from_0_to_1(spool: Path) -> None:
    told: list[float] = []
    instances = [real(name, spool) for name in ("MR_small_RLE.dcm", "CT_small.dcm", "693_J2KR.dcm")]
    make_disc(instances, spool, replace(OPTIONS, allow_mixed_patients=True), on_progress=told.append)
    assert told[-1] == 1
    assert told == sorted(told)
    assert 0 <= told[0] < 1
    assert len(told) >= 3


@pytest.mark.parametrize("after", range(8))
def test_cancelling_leaves_nothing_behind(after: int, spool: Path, tmp_path: Path) -> None:
    instances = [*study(tmp_path / "studies"), real("MR_small_RLE.dcm", tmp_path)]
    asked = iter(range(100))

    def cancelled() -> bool:
        return next(asked) >= after

    with pytest.raises(Cancelled):
        make_disc(instances, spool, replace(OPTIONS, allow_mixed_patients=True), cancelled=cancelled)
    assert list(spool.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_full_spool_is_named_and_left_clean(
    spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "readme", full)
    with pytest.raises(SpoolFull):
        make_disc(study(tmp_path), spool, OPTIONS)
    assert list(spool.iterdir()) == []


@dataclass(frozen=True)
class Missing:
    StudyInstanceUID: str
    SeriesInstanceUID: str | None
    expected: int | None
    received: int


def test_what_is_missing_is_on_the_disc(spool: Path, tmp_path: Path) -> None:
    instances = study(tmp_path, series=2)
    uids = instances[0].StudyInstanceUID, instances[0].SeriesInstanceUID
    missing = [Missing(*uids, 5, 3), Missing(uids[0], None, None, 0), Missing(uids[0], "1.2.9", 1, 0)]
    files = extract(save(make_disc(instances, spool, OPTIONS, missing=missing), tmp_path), tmp_path).files()
    text, page = files["README.TXT"].decode("ascii"), files["INDEX.HTM"].decode()
    for line in (
        "Series 1 (CT): 3 of 5 instances",
        "A series: 0 instances, others are missing",
        "A series: 0 of 1 instance",
    ):
        assert f"  {line}\r\n" in text
        assert line in page


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("href", "src") and value]


def linked(files: dict[str, bytes]) -> Iterator[str]:
    for name, content in files.items():
        if name.endswith(".HTM"):
            parser = _Links()
            parser.feed(content.decode("utf-8"))
            yield from (os.path.normpath(Path(name).parent / link) for link in parser.links)


def test_every_link_leads_to_a_file_in_its_letter_case(spool: Path, tmp_path: Path) -> None:
    disc = make_disc(study(tmp_path, series=3), spool, OPTIONS)
    files = extract(save(disc, tmp_path), tmp_path).files()
    links = set(linked(files))
    assert links <= files.keys()
    assert {name for name in files if name.startswith("IHE_PDI/")} <= links
    assert len(links) > 10


def test_the_volume_tells_nothing_of_the_patient(made: Disc) -> None:
    assert re.fullmatch(r"PB\d{8}_[A-Z0-9]{5}", made.file_set_id)
    metadata = next(iter(made.segments()))
    assert isinstance(metadata, DataSegment)
    for text in ("Test", "TEST-1", "19700101"):
        assert text.encode() not in metadata.data
        assert text.encode("utf-16-be") not in metadata.data


def test_nothing_of_the_patient_is_logged_or_in_the_readme(spool: Path, tmp_path: Path) -> None:
    instances = [*study(tmp_path), real("JPEG-lossy.dcm", tmp_path)]
    with structlog.testing.capture_logs() as logs:
        disc = make_disc(instances, spool, replace(OPTIONS, allow_mixed_patients=True))
    assert logs
    readme = extract(save(disc, tmp_path), tmp_path).files()["README.TXT"].decode("ascii")
    for instance in instances:
        attributes = instance.dataset()
        for secret in (
            *(str(attributes.PatientName), attributes.PatientID, instance.SOPInstanceUID),
            *(instance.StudyInstanceUID, instance.path),
        ):
            assert str(secret) not in readme + str(logs)


def test_the_name_for_the_file_is_that_of_the_patient(spool: Path, tmp_path: Path) -> None:
    instances = study(tmp_path, patient=Patient(PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう"))
    assert make_disc(instances, spool, OPTIONS).patient_name == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    nameless = study(tmp_path, "A2", patient=Patient(PatientName=""))
    assert make_disc(nameless, spool, OPTIONS).patient_name == ""


def test_one_patient_with_a_birth_date_in_one_study_only_is_shown_once(spool: Path, tmp_path: Path) -> None:
    instances = study(tmp_path) + study(tmp_path, "A2", patient=Patient(PatientBirthDate=""))
    page = (
        extract(save(make_disc(instances, spool, OPTIONS), tmp_path), tmp_path).files()["INDEX.HTM"].decode()
    )
    assert page.count("<h1") == 1
    assert "1 January 1970" in page


def test_an_odd_file_is_still_listed_with_its_documents(spool: Path, tmp_path: Path) -> None:
    instance = real("rtplan.dcm", spool)
    page = (
        extract(save(make_disc([instance], spool, OPTIONS), tmp_path), tmp_path).files()["INDEX.HTM"].decode()
    )
    assert "Radiotherapy plan" in page
    assert "1 document" in page


def test_generated_files_and_the_disc_do_not_pile_up(spool: Path, tmp_path: Path) -> None:
    def open_files() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    instances = study(tmp_path)
    before = open_files()
    for _ in range(3):
        make_disc(instances, spool, OPTIONS)
    assert open_files() <= before
    assert sorted(path.name[:5] for path in spool.iterdir()) == ["disc-"] * 3

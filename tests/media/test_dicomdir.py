"""The DICOMDIR against its judges: dcmtk, dicom3tools, pydicom, and a walk of the offsets."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, uid
from pydicom.fileset import FileSet

from pacsbridge.instance import InvalidInstance, read_instance
from pacsbridge.media.dicomdir import DirectoryEntry, encode_dicomdir
from pacsbridge.records import RECORD_KEYS, vr_of
from tests.media.directory import Record, directory_of, put, walk
from tests.peers import require
from tests.samples import dataset, real_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: Keys that dcmmkdir puts in and pacsbridge leaves out: F.5 does not ask for them, dciodvfy calls them extensions.
THEIRS_ONLY = {"ImageType", "ReferencedImageSequence"}
#: Keys of type 3 that pacsbridge puts in because viewers show them in their lists of patients and series.
OURS_ONLY = {"PatientBirthDate", "PatientSex", "IssuerOfPatientID", "SeriesDescription"}
LINKS = {"OffsetOfTheNextDirectoryRecord", "OffsetOfReferencedLowerLevelDirectoryEntity"}


def run(program: str, *arguments: str) -> str:
    """Run a judge; give what it said."""
    command = [require(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0 or program == "dciodvfy", said  # which answers 1 when it has something to say
    return said


def dcmmkdir(folder: Path) -> tuple[Record, ...]:
    """Let dcmtk make a DICOMDIR of the same tree: whatever transfer syntax and pixels, nothing type 1 missing."""
    output = folder / "DCMTK"
    tolerant = ("-Nxc", "-Nec", "-Nrc", "-W", "+I")
    run("dcmmkdir", "+r", *tolerant, "+id", str(folder), "+D", str(output), "+F", "TEST", "DICOM")
    return walk(output.read_bytes())


#: Record types that are newer than the dicom3tools of Debian 12.
NEWER_THAN_DICOM3TOOLS = ("PLAN", "SURFACE SCAN", "TRACT", "ASSESSMENT", "ANNOTATION", "WF PRESENTATION")
OTHERWISE_IN_DICOM3TOOLS = (
    *(f"Unrecognized enumerated value <{kind}>" for kind in NEWER_THAN_DICOM3TOOLS),
    # It asks for that in STEREOMETRIC, which has none (F.5.34, by CP-628: its instances don't have any of it).
    "Module=<ContentIdentificationMacro>",
)


def errors_of_dciodvfy(path: Path, *leave_out: str) -> list[str]:
    said = run("dciodvfy", str(path)).splitlines()
    assert "BasicDirectory" in said
    return [line for line in said if "Error" in line and not any(text in line for text in leave_out)]


def instances_of_pydicom(path: Path) -> dict[str, Dataset]:
    """Load a DICOMDIR with pydicom, and each file that it names: SOP Instance UID → data set."""
    files = FileSet(path)
    try:
        return {str(instance.SOPInstanceUID): instance.load() for instance in files}
    finally:
        files._stage["t"].cleanup()  # it would be left to the garbage collector, which warns


def chains(root: Iterable[Record], above: tuple[Record, ...] = ()) -> Iterator[tuple[Record, ...]]:
    """Give patient, study, series and instance of every leaf."""
    for record in root:
        if record.below:
            yield from chains(record.below, (*above, record))
        else:
            yield (*above, record)


def values(record: Record, leave_out: set[str]) -> dict[str, object]:
    return {element.keyword: element.value for element in record.keys if element.keyword not in leave_out}


def differences(ours: tuple[Record, ...], theirs: tuple[Record, ...]) -> Iterator[tuple[str, str, str]]:
    """Give record type, key and file of all that dcmmkdir has otherwise, except for what is meant to differ."""
    by_file = {chain[-1].FileID: chain for chain in chains(theirs)}
    for chain in chains(ours):
        for our, their in zip(chain, by_file[chain[-1].FileID], strict=True):
            assert our.kind == their.kind
            left = values(our, LINKS | OURS_ONLY)
            right = values(their, LINKS | (THEIRS_ONLY if their.kind == "IMAGE" else set()))
            # dcmmkdir writes it wherever there is text, pacsbridge where the text is not ASCII (F.5: type 1C).
            if "SpecificCharacterSet" not in left:
                right.pop("SpecificCharacterSet", None)
            for keyword in sorted(left.keys() | right.keys()):
                if left.get(keyword) != right.get(keyword):
                    yield our.kind, keyword, chain[-1].FileID


def shape(records: Iterable[Record]) -> list[Any]:
    """Give the hierarchy with what identifies each record, in the order of the links."""

    def name(record: Record) -> str:
        keys = record.keys
        if record.kind == "PATIENT":
            return str(keys.PatientID)
        if record.kind in ("STUDY", "SERIES"):
            return str(keys.StudyInstanceUID if record.kind == "STUDY" else keys.SeriesInstanceUID)
        return str(keys.ReferencedSOPInstanceUIDInFile)

    return [[record.kind, name(record), shape(record.below)] for record in records]


def is_complete(path: Path) -> bool:
    """Tell whether a real file has what dcmmkdir can't do without, and no UID twice over."""
    try:
        instance = read_instance(path)
    except InvalidInstance:
        return False
    if "truncated" in path.name:  # in its pixels, which dcmmkdir reads too
        return False
    whole = dcmread(path, stop_before_pixels=True)
    same = (whole.get("SOPInstanceUID"), whole.get("SOPClassUID")) == (
        instance.SOPInstanceUID,
        instance.SOPClassUID,
    )
    needed = ("PatientID", "PatientName", "StudyDate", "StudyTime", "StudyID", "SeriesNumber", "Modality")
    return same and all(whole.get(keyword) not in (None, "") for keyword in (*needed, "InstanceNumber"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about what is wrong with its own samples
def test_real_files_give_what_dcmmkdir_gives(tmp_path: Path) -> None:
    unique = {read_instance(path).SOPInstanceUID: path for path in real_files() if is_complete(path)}
    assert len(unique) > 50
    ours = directory_of(tmp_path, unique.values())
    theirs = dcmmkdir(tmp_path)
    assert list(differences(ours, theirs)) == []
    assert sum(1 for _ in chains(ours)) == sum(1 for _ in chains(theirs)) == len(unique)
    run("dcmdump", str(tmp_path / "DICOMDIR"))


def code(value: str) -> Dataset:
    one = Dataset()
    one.CodeValue, one.CodingSchemeDesignator, one.CodeMeaning = value, "DCM", "Mengenlehre für Ärzte"
    return one


def image_reference() -> Dataset:
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = uid.CTImageStorage, "1.2.3.4.1"
    return image


def series_reference() -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedImageSequence = "1.2.3.4", [image_reference()]
    return series


def modifier() -> Dataset:
    one = Dataset()
    one.RelationshipType, one.ValueType = "HAS CONCEPT MOD", "CODE"
    one.ConceptNameCodeSequence, one.ConceptCodeSequence = [code("121049")], [code("eng")]
    return one


CONTENT = {
    "ContentDate": "20240301",
    "ContentTime": "120000",
    "ContentLabel": "LABEL",
    "ContentDescription": "Beschreibung: schön",
    "ContentCreatorName": "Müller^Jürgen",
}
PRESENTATION = {
    **CONTENT,
    "PresentationCreationDate": "20240302",
    "PresentationCreationTime": "130000",
    "ReferencedSeriesSequence": [series_reference()],
}
VERIFIED = Dataset()
VERIFIED.VerificationDateTime = "20240303140000"
#: One data set with all its keys for every record type.
LEAVES: dict[str, tuple[str, dict[str, Any]]] = {
    "IMAGE": (uid.CTImageStorage, {"Rows": 1, "Columns": 1}),
    "RT DOSE": (uid.RTDoseStorage, {"DoseSummationType": "PLAN", "DoseComment": "Kommentar"}),
    "RT STRUCTURE SET": (
        uid.RTStructureSetStorage,
        {"StructureSetLabel": "Label", "StructureSetDate": "20240301", "StructureSetTime": "12"},
    ),
    "RT PLAN": (uid.RTPlanStorage, {"RTPlanLabel": "Plan", "RTPlanDate": "20240301", "RTPlanTime": "12"}),
    "RT TREAT RECORD": (
        uid.RTBeamsTreatmentRecordStorage,
        {"TreatmentDate": "20240301", "TreatmentTime": "120000"},
    ),
    "PRESENTATION": (uid.GrayscaleSoftcopyPresentationStateStorage, PRESENTATION),
    "WF PRESENTATION": ("1.2.840.10008.5.1.4.1.1.9.100.1", PRESENTATION),
    "WAVEFORM": (uid.TwelveLeadECGWaveformStorage, CONTENT),
    "SR DOCUMENT": (
        uid.BasicTextSRStorage,
        {
            **CONTENT,
            "CompletionFlag": "COMPLETE",
            "VerificationFlag": "VERIFIED",
            "VerifyingObserverSequence": [VERIFIED],
            "ConceptNameCodeSequence": [code("121144")],
            "ContentSequence": [modifier()],
        },
    ),
    "KEY OBJECT DOC": (
        uid.KeyObjectSelectionDocumentStorage,
        {**CONTENT, "ConceptNameCodeSequence": [code("113000")], "ContentSequence": [modifier()]},
    ),
    "SPECTROSCOPY": (
        uid.MRSpectroscopyStorage,
        {
            **CONTENT,
            "ImageType": ["ORIGINAL", "PRIMARY"],
            "ReferencedImageEvidenceSequence": [image_reference()],
            "NumberOfFrames": "1",
            "Rows": 8192,  # a value whose first byte is zero
            "Columns": 2,
            "DataPointRows": 1,
            "DataPointColumns": 1024,
        },
    ),
    "RAW DATA": (uid.RawDataStorage, CONTENT),
    "REGISTRATION": (uid.SpatialRegistrationStorage, CONTENT),
    "FIDUCIAL": (uid.SpatialFiducialsStorage, CONTENT),
    "ENCAP DOC": (
        uid.EncapsulatedCDAStorage,
        {
            **CONTENT,
            "DocumentTitle": "Überweisung",
            "HL7InstanceIdentifier": "1.2.3^4",
            "ConceptNameCodeSequence": [code("121144")],
            "MIMETypeOfEncapsulatedDocument": "text/XML",
        },
    ),
    "VALUE MAP": (uid.RealWorldValueMappingStorage, CONTENT),
    "STEREOMETRIC": (uid.StereometricRelationshipStorage, {}),
    "PLAN": (uid.RTBeamsDeliveryInstructionStorage, {}),
    "MEASUREMENT": (uid.LensometryMeasurementsStorage, CONTENT),
    "SURFACE": (uid.SurfaceSegmentationStorage, CONTENT),
    "SURFACE SCAN": (uid.SurfaceScanMeshStorage, CONTENT),
    "TRACT": (uid.TractographyResultsStorage, CONTENT),
    "ASSESSMENT": (
        uid.ContentAssessmentResultsStorage,
        {"InstanceCreationDate": "20240301", "InstanceCreationTime": "120000"},
    ),
    "RADIOTHERAPY": (
        uid.RTPhysicianIntentStorage,
        {**CONTENT, "UserContentLabel": "Intent", "UserContentLongLabel": "The whole intent"},
    ),
    "ANNOTATION": (uid.MicroscopyBulkSimpleAnnotationsStorage, CONTENT),
    "PRIVATE": ("1.3.12.2.1107.5.9.1", {}),
}
#: Newer than dcmtk 3.6.7, or otherwise unknown to it: it makes an IMAGE of them, or refuses.
UNKNOWN_TO_DCMTK = {"WF PRESENTATION", "PRIVATE", "ANNOTATION"}


#: Newer than pydicom 3.0, whose FileSet fails at them.
UNKNOWN_TO_PYDICOM = {"WF PRESENTATION", "ANNOTATION"}


def leaf(kind: str, number: int, **attributes: Any) -> Dataset:
    SOPClassUID, keys = LEAVES[kind]
    return dataset(
        SOPClassUID,
        SpecificCharacterSet="ISO_IR 100",
        SOPInstanceUID=f"1.2.3.{number}.1",
        SeriesInstanceUID=f"1.2.3.{number}",
        SeriesNumber=str(number),
        **{**keys, **attributes},
    )


def test_there_is_a_leaf_for_every_type() -> None:
    assert set(LEAVES) == set(RECORD_KEYS) - {"PATIENT", "STUDY", "SERIES"}


def test_every_record_type_has_its_keys(tmp_path: Path) -> None:
    datasets = {kind: leaf(kind, number) for number, kind in enumerate(LEAVES, 1)}
    [patient] = directory_of(tmp_path, datasets.values())
    [study] = patient.below
    assert [series.below[0].kind for series in study.below] == list(LEAVES)
    for kind, series in zip(LEAVES, study.below, strict=True):
        record = series.below[0].keys
        for key in RECORD_KEYS[kind]:
            expected = VERIFIED if key.keyword == "VerificationDateTime" else datasets[kind]
            if key.keyword in expected:
                assert record[key.keyword] == expected[key.keyword], (kind, key.keyword)
            else:
                assert (kind, key.keyword) == ("PRESENTATION", "BlendingSequence")  # excludes the references
    assert errors_of_dciodvfy(tmp_path / "DICOMDIR", *OTHERWISE_IN_DICOM3TOOLS) == []
    run("dcmdump", str(tmp_path / "DICOMDIR"))


def test_pydicom_finds_every_instance(tmp_path: Path) -> None:
    known = [kind for kind in LEAVES if kind not in UNKNOWN_TO_PYDICOM]
    datasets = [leaf(kind, number) for number, kind in enumerate(known, 1)]
    directory_of(tmp_path, datasets)
    found = instances_of_pydicom(tmp_path / "DICOMDIR")
    assert found.keys() == {str(whole.SOPInstanceUID) for whole in datasets}


def test_every_record_type_is_what_dcmmkdir_makes_of_it(tmp_path: Path) -> None:
    known = [kind for kind in LEAVES if kind not in UNKNOWN_TO_DCMTK]
    ours = directory_of(tmp_path, [leaf(kind, number) for number, kind in enumerate(known, 1)])
    theirs = dcmmkdir(tmp_path)
    assert shape(ours) == shape(theirs)
    assert list(differences(ours, theirs)) == []


#: What a key of type 1 gets where the instance has no value.
FILLED = {
    "DoseSummationType": "UNKNOWN",
    "StructureSetLabel": "UNLABELED",
    "RTPlanLabel": "UNLABELED",
    "ContentLabel": "UNLABELED",
    "PresentationCreationDate": "20240229",
    "PresentationCreationTime": "101112",
    "ContentDate": "20240229",
    "ContentTime": "101112",
    "InstanceCreationDate": "20240229",
    "CompletionFlag": "PARTIAL",
    "VerificationFlag": "UNVERIFIED",
    "ImageType": ["ORIGINAL", "PRIMARY"],
    "NumberOfFrames": 1,
    "Rows": 1,
    "Columns": 1,
    "DataPointRows": 1,
    "DataPointColumns": 1,
    "MIMETypeOfEncapsulatedDocument": "text/XML",
    "InstanceNumber": 1,
}


#: What can't be made up: which images a presentation or spectroscopy is about, which document this is.
NOT_MADE_UP = tuple(
    f"Element=<{keyword}>"
    for keyword in (
        "ReferencedSeriesSequence",
        "BlendingSequence",
        "ReferencedImageEvidenceSequence",
        "HL7InstanceIdentifier",
    )
)


#: The empty values that are no text; pydicom writes no empty number.
EMPTY: dict[bytes, list[Dataset] | None] = {b"SQ": [], b"US": None, b"UL": None}


@pytest.mark.parametrize("empty", ["absent", "empty"])
def test_empty_keys_of_type_1_are_filled_in_the_record_only(tmp_path: Path, empty: str) -> None:
    keywords = {"InstanceNumber", *(keyword for _, keys in LEAVES.values() for keyword in keys)}
    nothing: dict[str, Any] = dict.fromkeys(keywords)
    if empty == "empty":
        nothing |= {keyword: EMPTY.get(vr_of(keyword), "") for keyword in keywords}
    datasets = [leaf(kind, number, **nothing) for number, kind in enumerate(LEAVES, 1)]
    [patient] = directory_of(tmp_path, datasets)
    [study] = patient.below
    for kind, series in zip(LEAVES, study.below, strict=True):
        record = series.below[0]
        assert record.kind == kind
        for key in RECORD_KEYS[kind]:
            if key.keyword == "ConceptNameCodeSequence" and key.type == "1":
                assert record.keys.ConceptNameCodeSequence[0].CodeMeaning == "Document Title"
            elif key.type == "1":
                assert record.keys[key.keyword].value == FILLED[key.keyword], (kind, key.keyword)
            elif key.type == "2":
                assert record.keys[key.keyword].is_empty, (kind, key.keyword)
            else:
                assert key.keyword not in record.keys, (kind, key.keyword)
    assert errors_of_dciodvfy(tmp_path / "DICOMDIR", *OTHERWISE_IN_DICOM3TOOLS, *NOT_MADE_UP) == []
    assert all(not dcmread(path).get("ContentLabel") for path in tmp_path.rglob("I0*"))


def test_upper_keys_of_type_1_are_filled(tmp_path: Path) -> None:
    keywords = ("PatientID", "StudyDate", "StudyTime", "StudyID", "Modality", "SeriesNumber", "PatientName")
    empty: dict[str, Any] = dict.fromkeys(keywords)
    [patient] = directory_of(tmp_path, [dataset(**empty)])
    [study] = patient.below
    [series] = study.below
    assert (patient.keys.PatientID, patient.keys.PatientName) == ("UNKNOWN-1", "")
    assert (study.keys.StudyDate, study.keys.StudyTime, study.keys.StudyID) == ("19000101", "000000", "1")
    assert (series.keys.Modality, series.keys.SeriesNumber) == ("OT", 1)
    assert errors_of_dciodvfy(tmp_path / "DICOMDIR") == []
    assert len(instances_of_pydicom(tmp_path / "DICOMDIR")) == 1


NAMES = {
    "ISO_IR 100": "Müller^Jürgen",
    "ISO_IR 144": "Люкceмбypг",
    "ISO_IR 192": "Wang^XiaoDong=王^小东",
    "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "ISO_IR 13\\ISO 2022 IR 87": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
    "GB18030": "Wang^XiaoDong=王^小东",
    "\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞=홍^길동",
}


def test_names_in_all_scripts_stand_as_they_were(tmp_path: Path) -> None:
    datasets = [
        dataset(
            SpecificCharacterSet=character_set.split("\\"),
            PatientName=name,
            PatientID=f"P{number}",
            StudyInstanceUID=f"1.2.{number}",
            SeriesInstanceUID=f"1.2.{number}.1",
            SOPInstanceUID=f"1.2.{number}.1.1",
        )
        for number, (character_set, name) in enumerate(NAMES.items())
    ]
    ours = directory_of(tmp_path, datasets)
    assert [str(patient.keys.PatientName) for patient in ours] == list(NAMES.values())
    for patient, whole in zip(ours, datasets, strict=True):
        assert patient.keys.SpecificCharacterSet == whole.SpecificCharacterSet
        assert "SpecificCharacterSet" not in patient.below[0].keys
    assert list(differences(ours, dcmmkdir(tmp_path))) == []
    assert errors_of_dciodvfy(tmp_path / "DICOMDIR") == []
    found = instances_of_pydicom(tmp_path / "DICOMDIR").values()
    assert {str(instance.PatientName) for instance in found} == set(NAMES.values())


CHARACTER_SET_FILES = [path for path in real_files() if path.parent.name == "charset_files"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_real_names_in_all_scripts_stand_as_they_were(tmp_path: Path) -> None:
    usable = [path for path in CHARACTER_SET_FILES if path.name.startswith("chr") and "SQ" not in path.name]
    assert len(usable) > 10
    ours = directory_of(tmp_path, usable)
    for *above, image in chains(ours):
        original = dcmread(tmp_path.joinpath(*image.keys.ReferencedFileID))
        assert above[0].keys.PatientName == original.PatientName
        assert above[0].keys.get("SpecificCharacterSet") in (None, original.get("SpecificCharacterSet"))


def test_600_slices_are_what_dcmmkdir_makes_of_them(tmp_path: Path) -> None:
    slices = [
        dataset(
            SeriesInstanceUID=f"1.2.3.{number // 200 + 1}",
            SeriesNumber=str(number // 200 + 1),
            SOPInstanceUID=f"1.2.3.{number // 200 + 1}.{number + 1}",
            InstanceNumber=str(number % 200 + 1),
        )
        for number in range(600)
    ]
    random.Random(1).shuffle(slices)
    ours = directory_of(tmp_path, slices)
    theirs = dcmmkdir(tmp_path)
    assert shape(ours) == shape(theirs)
    assert list(differences(ours, theirs)) == []
    assert errors_of_dciodvfy(tmp_path / "DICOMDIR") == []
    assert len(instances_of_pydicom(tmp_path / "DICOMDIR")) == 600


def test_the_order_of_the_entries_changes_nothing(tmp_path: Path) -> None:
    entries = put(tmp_path, [leaf(kind, number) for number, kind in enumerate(LEAVES, 1)])
    content = encode_dicomdir(entries, "TEST")
    assert encode_dicomdir(reversed(entries), "TEST") == content
    assert encode_dicomdir(entries, "OTHER") != content


def test_the_transfer_syntax_is_that_of_the_file_on_the_disc(tmp_path: Path) -> None:
    [entry] = put(tmp_path, [dataset()])
    transcoded = DirectoryEntry(entry.instance, ("DICOM", "I1"), uid.JPEG2000Lossless)
    [patient] = walk(encode_dicomdir([transcoded], "TEST"))
    [image] = patient.leaves()
    assert image.keys.ReferencedTransferSyntaxUIDInFile == uid.JPEG2000Lossless
    assert image.FileID == "DICOM\\I1"


def test_an_empty_disc_has_a_directory(tmp_path: Path) -> None:
    content = encode_dicomdir([], "EMPTY")
    assert walk(content) == ()
    (tmp_path / "DICOMDIR").write_bytes(content)
    run("dcmdump", str(tmp_path / "DICOMDIR"))


@pytest.mark.parametrize("file_set_id", ["", "lower", "SEVENTEEN_LETTERS", "DOT.DOT", "ÄRZTE", "NEWLINE\n"])
def test_a_bad_file_set_id_is_refused(file_set_id: str) -> None:
    with pytest.raises(ValueError, match="File-set ID"):
        encode_dicomdir([], file_set_id)


@pytest.mark.parametrize(
    "FileID",
    [
        (),
        ("",),
        ("DICOM", ""),
        ("dicom",),
        ("NINECHARS",),
        ("A\\B",),
        ("A.DCM",),
        tuple("ABCDEFGHI"),
        ("..",),
    ],
)
def test_a_bad_file_id_is_refused(tmp_path: Path, FileID: tuple[str, ...]) -> None:
    [entry] = put(tmp_path, [dataset()])
    with pytest.raises(ValueError, match="ReferencedFileID"):
        encode_dicomdir([DirectoryEntry(entry.instance, FileID, uid.ExplicitVRLittleEndian)], "TEST")


class Steps:
    """Counts the calls into the encoder: what time is made of, without a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        for target in ("split", "encode", "value_of"):
            self._count(monkeypatch, f"pacsbridge.media.record_contents.{target}")

    def _count(self, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
        module, name = target.rsplit(".", 1)
        original: Callable[..., Any] = getattr(__import__(module, fromlist=[name]), name)

        def counted(*arguments: Any) -> Any:
            self.count += 1
            return original(*arguments)

        monkeypatch.setattr(target, counted)


def test_the_work_grows_with_the_instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [entry] = put(tmp_path, [dataset()])
    steps = Steps(monkeypatch)

    def work(instances: int) -> int:
        steps.count = 0
        encode_dicomdir(
            (
                DirectoryEntry(
                    type(entry.instance)(
                        path="",
                        size=0,
                        SOPClassUID=entry.instance.SOPClassUID,
                        SOPInstanceUID=f"1.2.{number}",
                        TransferSyntaxUID=entry.instance.TransferSyntaxUID,
                        StudyInstanceUID="1.2.3",
                        SeriesInstanceUID="1.2.3.4",
                        attributes=entry.instance.attributes,
                        common=entry.instance.common,
                    ),
                    ("DICOM", f"I{number:07}"),
                    uid.ExplicitVRLittleEndian,
                )
                for number in range(instances)
            ),
            "TEST",
        )
        return steps.count

    assert work(2000) <= 2 * work(1000)


TEXT = st.text(
    st.characters(codec="latin-1", exclude_characters="\\^=", exclude_categories=["Cc"]), max_size=12
)
NUMBER = st.one_of(st.just(""), st.integers(-5, 20).map(str))
IDENTITY = st.tuples(TEXT, TEXT, st.sampled_from(["", "20240101"]))


@st.composite
def discs(draw: st.DrawFn) -> list[Dataset]:
    made = []
    for patient in range(draw(st.integers(0, 3))):
        name, description, date = draw(IDENTITY)
        common = {"SpecificCharacterSet": "ISO_IR 100", "PatientID": f"P{patient}", "PatientName": name}
        for study in range(draw(st.integers(1, 3))):
            of_study = {"StudyInstanceUID": f"1.{patient}.{study}", "StudyDate": date}
            for series in range(draw(st.integers(1, 3))):
                SeriesInstanceUID, SeriesNumber = f"1.{patient}.{study}.{series}", draw(NUMBER)
                made += [
                    dataset(
                        **common,
                        **of_study,
                        StudyDescription=description,
                        SeriesInstanceUID=SeriesInstanceUID,
                        SeriesNumber=SeriesNumber,
                        SOPInstanceUID=f"{SeriesInstanceUID}.{instance}",
                        InstanceNumber=draw(NUMBER),
                    )
                    for instance in range(draw(st.integers(1, 4)))
                ]
    return draw(st.permutations(made))


@settings(max_examples=60, deadline=None)
@given(made=discs())
def test_any_tree_is_walked_and_counted(made: list[Dataset]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        root = directory_of(folder, made)
    finally:
        shutil.rmtree(folder)
    by_uid = {whole.SOPInstanceUID: whole for whole in made}
    found = list(chains(root))
    assert len(found) == len(made)
    for depth, keyword in enumerate(("PatientID", "StudyInstanceUID", "SeriesInstanceUID")):
        records = {id(chain[depth]): chain[depth].keys[keyword].value for chain in found}
        assert sorted(records.values()) == sorted({whole[keyword].value for whole in made})
    for patient, study, series, image in found:
        whole = by_uid[image.keys.ReferencedSOPInstanceUIDInFile]
        assert patient.keys.PatientID == whole.PatientID
        assert str(patient.keys.PatientName).rstrip() == str(whole.PatientName).rstrip()
        assert (study.keys.StudyDescription or "").strip() == whole.StudyDescription.strip()
        assert study.keys.StudyInstanceUID == whole.StudyInstanceUID
        assert series.keys.SeriesInstanceUID == whole.SeriesInstanceUID
        assert whole.InstanceNumber in (None, "", image.keys.InstanceNumber)
        assert whole.SeriesNumber in (None, "", series.keys.SeriesNumber)
        assert ("SpecificCharacterSet" in patient.keys) == (not str(whole.PatientName).isascii())
    for _, _, series, _ in found:
        numbers = [image.keys.InstanceNumber for image in series.below]
        assert numbers == sorted(numbers)

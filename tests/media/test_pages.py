import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from pacsbridge.instance import Instance, read_instance
from pacsbridge.media import pages as module
from pacsbridge.media import reports
from pacsbridge.media.contents import arrange
from pacsbridge.media.pages import PageWriter
from pacsbridge.media.readme import Facts, readme
from tests.studies import Patient, make_study

FACTS = Facts(
    institution="Klinik <Süd> & Co",
    created=datetime(2025, 3, 4, 5, 6, tzinfo=UTC),
    software="pacsbridge 1.0",
    profile="STD-GEN-CD",
    file_set_id="PB20250304_ABCDE",
)
XHTML = "{http://www.w3.org/1999/xhtml}"


def study(folder: Path, **arguments: object) -> list[Instance]:
    made = make_study(folder, **arguments)  # type: ignore[arg-type]  # passed on as they come
    return [read_instance(path) for path in made.paths]


def written(instances: list[Instance], facts: Facts = FACTS) -> dict[str, bytes]:
    contents = arrange(instances, one_patient=False)
    return {"/".join(page.names): page.content for page in PageWriter(contents, facts, lambda: None).write()}


def changed(folder: Path, name: str, change: Callable[[pydicom.Dataset], None]) -> Instance:
    dataset = pydicom.dcmread(str(get_testdata_file(name)))
    change(dataset)
    path = folder / name
    dataset.save_as(path)
    return read_instance(path)


def texts(page: bytes) -> list[str]:
    return [text.strip() for text in ET.fromstring(page).itertext() if text.strip()]


def test_the_pages_are_xhtml_that_declares_its_encoding_and_has_no_script(tmp_path: Path) -> None:
    files = written(study(tmp_path, series=2))
    pages = [content for name, content in files.items() if name.endswith(".HTM")]
    assert len(pages) == 3
    for page in pages:
        root = ET.fromstring(page)
        assert root.tag == f"{XHTML}html"
        (meta, *_) = root.iter(f"{XHTML}meta")
        assert meta.get("content") == "text/html; charset=utf-8"
        assert not list(root.iter(f"{XHTML}script"))
        assert b"http:" not in page.partition(b"<head>")[2]
        assert b"style=" not in page
    assert b"url(" not in files["IHE_PDI/STYLE.CSS"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["Yamada, Tarou", "山田 太郎", "やまだ たろう"]),
        ("Müller^Jürgen^^Dr.", ["Müller, Dr. Jürgen"]),
        ("محمد^علي", ["محمد, علي"]),
        ("<script>alert(1)</script>", ["<script>alert(1)</script>"]),
        ("", ["Patient without a name"]),
    ],
)
def test_the_patient_is_shown(name: str, shown: list[str], tmp_path: Path) -> None:
    files = written(study(tmp_path, patient=Patient("P<1>", name, "19700201", "F")))
    found = texts(files["INDEX.HTM"])
    for text in (*shown, "1 February 1970", "Female", "P<1>", "Klinik <Süd> & Co", "4 March 2025, 05:06"):
        assert text in found
    assert "2 January 2025" in found  # the study
    assert "A1" in found


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # it says that the text is broken
def test_control_characters_do_not_break_a_page(tmp_path: Path) -> None:
    made = make_study(tmp_path, instances=1)
    content = made.paths[0].read_bytes()
    made.paths[0].write_bytes(content.replace(b"Generated CT", b"\x00\x01\x1b\x0b\xff\xed\xa0\x80here"))
    found = texts(written([read_instance(made.paths[0])])["INDEX.HTM"])
    assert any("here" in text for text in found)


def test_a_series_has_a_picture_and_a_page(tmp_path: Path) -> None:
    files = written(study(tmp_path, instances=9))
    assert [name for name in files if name.endswith("JPG")] == [
        f"IHE_PDI/P000000{number}.JPG" for number in (1, 2, 3)
    ]
    page = texts(files["IHE_PDI/S0000001.HTM"])
    assert [text for text in page if text.startswith("Image ")] == [
        "Image 2 of 9",
        "Image 5 of 9",
        "Image 8 of 9",
    ]
    assert b'src="IHE_PDI/P0000002.JPG"' in files["INDEX.HTM"]
    for name, content in files.items():
        if name.endswith("JPG"):
            assert Image.open(io.BytesIO(content)).format == "JPEG"


def test_many_series_share_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SERIES", 5)
    files = written(study(tmp_path, series=7, instances=3))
    assert len([name for name in files if name.endswith("JPG")]) == 5
    assert len([name for name in files if name.endswith("HTM")]) == 6
    assert texts(files["INDEX.HTM"]).count("No preview") == 2


def test_what_is_no_image_is_a_card(tmp_path: Path) -> None:
    instance = read_instance(Path(str(get_testdata_file("rtplan.dcm"))))
    files = written([instance])
    found = texts(files["INDEX.HTM"])
    assert "Radiotherapy plan" in found
    assert any("1 document" in text for text in found)
    assert "There is no preview of it. A DICOM viewer can show it." in texts(files["IHE_PDI/S0000001.HTM"])


def test_a_preview_that_fails_stops_nothing(tmp_path: Path) -> None:
    instances = study(tmp_path)
    for instance in instances:
        Path(instance.path).write_bytes(b"no longer DICOM")
    found = texts(written(instances)["INDEX.HTM"])
    assert "No preview" in found
    assert any("3 images" in text for text in found)


def test_a_report_is_written_out(tmp_path: Path) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        dataset.ConceptNameCodeSequence[0].CodeMeaning = "Befund <1>"

    instance = changed(tmp_path, "test-SR.dcm", change)
    found = texts(written([instance])["IHE_PDI/S0000001.HTM"])
    assert found[found.index("Diameter:") + 1] == "3 cm"
    assert found[found.index("Date:") + 1] == "6 December 2000"
    assert found[found.index("DateTime:") + 1] == "6 December 2000, 12:00"
    assert "Befund <1>" in found


@pytest.mark.parametrize("limit", ["lines", "depth", "size"])
def test_a_report_is_bounded(limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, {"lines": "MAX_LINES", "depth": "_MAX_DEPTH", "size": "_MAX_SIZE"}[limit], 1)
    page = texts(
        written([read_instance(Path(str(get_testdata_file("test-SR.dcm"))))])["IHE_PDI/S0000001.HTM"]
    )
    cut = "The rest is in the DICOM file." in page
    assert cut == (limit != "size")


def test_a_broken_report_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sr"
    path.write_bytes(Path(str(get_testdata_file("test-SR.dcm"))).read_bytes())
    instance = read_instance(path)
    path.write_bytes(path.read_bytes()[:1500])
    assert "Structured report" in texts(written([instance])["INDEX.HTM"])


def test_stopping_is_asked_before_each_picture(tmp_path: Path) -> None:
    calls = []
    contents = arrange(study(tmp_path, series=2), one_patient=True)
    list(PageWriter(contents, FACTS, lambda: calls.append(1)).write())
    assert len(calls) == 6


def test_the_readme_is_plain_ascii(tmp_path: Path) -> None:
    contents = arrange(
        study(tmp_path, series=2, patient=Patient(PatientName="Secret^Name")), one_patient=True
    )
    made = readme(contents, replace(FACTS, has_viewer=True))
    assert made.isascii()
    lines = made.split(b"\r\n")
    assert not any(b"\n" in line or b"\r" in line for line in lines)
    assert all(len(line) <= 76 for line in lines)
    text = made.decode("ascii")
    for part in (
        *("Klinik <Sued> & Co", "2025-03-04 at 05:06", "pacsbridge 1.0", "PB20250304_ABCDE", "INDEX.HTM"),
        *("1 study, 2 series, 6 instances", "viewer program", "STD-GEN-CD"),
    ):
        assert part in text
    assert "Secret" not in text
    assert "NOT COMPLETE" not in text
    assert "COMPRESSED" not in text

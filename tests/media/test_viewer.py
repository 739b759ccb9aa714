import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacsbridge.config import ConfigError
from pacsbridge.errors import SourceChanged
from pacsbridge.media import viewer as module
from pacsbridge.media.names import MAX_DEPTH, iso_names, joliet_problem, new_file_set_id
from pacsbridge.media.viewer import Viewer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "viewer"
    folder.mkdir()
    (folder / "start.exe").write_bytes(b"MZ")
    return folder


def refused(root: Path, *words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Viewer.load(root)
    message = str(raised.value)
    assert message.startswith("media.viewer_dir: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_names_and_lengths_are_taken_as_they_are(root: Path) -> None:
    (root / "Sub Folder").mkdir()
    (root / "Sub Folder" / "Ünï.config.xml").write_bytes(b"1234567")
    (root / "nothing in it").mkdir()
    viewer = Viewer.load(root)
    assert {file.joliet: (file.iso, file.size) for file in viewer.files()} == {
        ("start.exe",): (("START.EXE",), 2),
        ("Sub Folder", "Ünï.config.xml"): (("SUB_FOLD", "_N__CONF.XML"), 7),
    }
    assert {entry.joliet for entry in viewer.directories()} == {("Sub Folder",), ("nothing in it",)}


def test_a_relative_folder_stays_where_it_was(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    viewer = Viewer.load(Path("viewer"))
    monkeypatch.chdir("/")
    assert viewer.files()[0].size == 2


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "none", "none", "no directory")


@pytest.mark.parametrize("name", [*sorted(module.RESERVED), "Readme.txt", "dicom"])
def test_names_of_the_disc_are_refused_at_its_root(name: str, root: Path) -> None:
    (root / name).write_bytes(b"")
    refused(root, name, "rename")


def test_names_of_the_disc_are_allowed_further_down(root: Path) -> None:
    (root / "docs").mkdir()
    (root / "docs" / "README.TXT").write_bytes(b"")
    assert len(Viewer.load(root).files()) == 2


@pytest.mark.parametrize(
    "name",
    ["x" * 65, "ü" * 33, "a:b", "a*b", "a?b", "a;b", "a\\b", "a|b", 'a"b', "a<b", "ends.", "ends ", "a\nb"],
)
def test_names_that_joliet_can_not_hold_are_refused(name: str, root: Path) -> None:
    (root / name).write_bytes(b"")
    refused(root)


def test_names_of_64_characters_are_taken(root: Path) -> None:
    (root / ("x" * 60 + ".dll")).write_bytes(b"")
    Viewer.load(root)


def test_a_name_that_is_no_text_is_refused(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_bytes(b"")
    refused(root, "UTF-8")


def test_names_that_differ_in_case_only_are_refused(root: Path) -> None:
    (root / "Start.exe").write_bytes(b"")
    refused(root, "start.exe", "lower case")


def test_what_is_too_deep_is_refused(root: Path) -> None:
    folder = root.joinpath(*"abcdef")
    folder.mkdir(parents=True)
    (folder / "fits").write_bytes(b"")
    Viewer.load(root)
    (folder / "g").mkdir()
    (folder / "g" / "deep").write_bytes(b"")
    refused(root, "deep", str(MAX_DEPTH))


@pytest.mark.parametrize("target", ["../outside", "/etc/hostname", "missing", "loop"])
def test_links_out_of_the_folder_are_refused(target: str, root: Path) -> None:
    (root.parent / "outside").write_bytes(b"secret")
    (root / "loop" if target == "loop" else root / "link").symlink_to(target)
    refused(root)


def test_a_link_within_the_folder_is_followed(root: Path) -> None:
    (root / "link.exe").symlink_to("start.exe")
    assert {file.joliet[0]: file.size for file in Viewer.load(root).files()} == {
        "start.exe": 2,
        "link.exe": 2,
    }


def test_a_link_to_a_folder_above_ends(root: Path) -> None:
    (root / "again").symlink_to(root)
    refused(root, "again")


def test_a_pipe_is_refused(root: Path) -> None:
    os.mkfifo(root / "pipe")
    refused(root, "pipe")


def test_a_file_over_4_gib_is_refused(root: Path) -> None:
    (root / "huge").touch()
    os.truncate(root / "huge", 2**32)
    refused(root, "huge", "4 GiB")


def test_an_unreadable_file_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)  # root reads everything
    refused(root, "start.exe")


def test_a_file_that_is_gone_is_noticed(root: Path) -> None:
    viewer = Viewer.load(root)
    (root / "start.exe").unlink()
    with pytest.raises(SourceChanged, match="viewer"):
        viewer.files()


@given(
    st.lists(st.text(min_size=1, max_size=30).filter(lambda name: "/" not in name), unique=True, max_size=60)
)
def test_iso_names_are_valid_and_unique(names: list[str]) -> None:
    given_names = iso_names(names)
    assert given_names.keys() == set(names)
    assert len(set(given_names.values())) == len(names)
    for name in given_names.values():
        assert re.fullmatch(r"[A-Z0-9_]{1,8}(\.[A-Z0-9_]{1,3})?", name)


def test_many_similar_names_are_numbered() -> None:
    names = [f"library-version-{number}.dll" for number in range(1500)]
    given_names = iso_names(names)
    assert len(set(given_names.values())) == 1500
    assert all(len(name) <= 12 for name in given_names.values())


def test_valid_names_are_kept_before_others_are_shortened() -> None:
    assert iso_names(["LONGNAME.TXT", "LONGNAMES.TXT", "lib.x"], directories=frozenset(["lib.x"])) == {
        "LONGNAME.TXT": "LONGNAME.TXT",
        "LONGNAMES.TXT": "LONGNA_1.TXT",
        "lib.x": "LIB_X",
    }


def test_a_plain_name_has_no_problem() -> None:
    assert joliet_problem("Viewer Start (32 bit).exe") is None


def test_file_set_ids_are_of_the_alphabet() -> None:
    ids = {new_file_set_id(datetime(2025, 3, 4, tzinfo=UTC)) for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"PB20250304_[A-Z0-9]{5}", name) for name in ids)

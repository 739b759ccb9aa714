import io
import itertools
import os
import subprocess
import time
import types
from pathlib import Path

import pycdlib.headervd
import pycdlib.pycdlib
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycdlib import PyCdlib

from pacsbridge.errors import SourceChanged, TooLarge
from pacsbridge.media import image
from pacsbridge.media.image import DataSegment, DiscDirectory, DiscFile, FileSegment, Image, ImageTorn
from tests.peers import require

NAMES = st.from_regex(r"\A[A-Z0-9_]{1,8}(\.[A-Z0-9_]{1,3})?\Z")
DIRECTORIES = st.lists(st.from_regex(r"\A[A-Z0-9_]{1,8}\Z"), max_size=6)


@pytest.fixture(autouse=True)
def _one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata holds the time of its making: here it stands still, so that two runs compare."""
    still = types.SimpleNamespace(
        time=lambda: 1_700_000_000.0,
        localtime=time.localtime,
        gmtime=time.gmtime,
        strftime=time.strftime,
    )
    monkeypatch.setattr(pycdlib.headervd, "time", still)
    monkeypatch.setattr(pycdlib.pycdlib, "time", still)


def make_file(
    folder: Path, index: int, size: int, iso: tuple[str, ...], joliet: tuple[str, ...] = ()
) -> DiscFile:
    path = folder / f"source{index}"
    path.write_bytes(bytes((index + at) % 251 for at in range(min(size, 251))) * (size // 251 + 1))
    os.truncate(path, size)
    return DiscFile(str(path), size, iso, joliet)


def written_by_pycdlib(files: list[DiscFile]) -> bytes:
    ordered = sorted(files, key=lambda file: file.iso)
    iso = image.build(ordered, "TEST", "APP")
    sink = io.BytesIO()
    iso.write_fp(sink)
    iso.close()
    return sink.getvalue()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def whole(made: Image) -> bytes:
    return b"".join(made.read_chunks())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tree=st.dictionaries(
        st.tuples(DIRECTORIES, NAMES).map(lambda pair: (*pair[0], pair[1])),
        st.one_of(st.integers(0, 5000), st.sampled_from([0, 1, 2047, 2048, 2049, 4096, 200_000])),
        max_size=25,
    ),
    cuts=st.lists(st.floats(0, 1), max_size=8),
)
def test_every_byte_and_every_range_is_what_pycdlib_writes(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[tuple[str, ...], int], cuts: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    directories = {names[:depth] for names in tree for depth in range(1, len(names))}
    tree = {names: size for names, size in tree.items() if names not in directories}
    files = [make_file(folder, index, size, names) for index, (names, size) in enumerate(tree.items())]
    expected = written_by_pycdlib(files)
    made = image.lay_out(files, "TEST", "APP")
    assert made.size == len(expected)
    assert whole(made) == expected
    edges = sorted({0, made.size, *(int(cut * made.size) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        assert b"".join(made.read_chunks(start, stop, chunk=1000)) == expected[start:stop]


def test_joliet_names_may_differ_from_the_iso_names(tmp_path: Path) -> None:
    files = [
        make_file(tmp_path, 1, 3000, ("VIEWER", "LONG_NAM.EXE"), ("Viewer", "Long name of a viewer.exe")),
        make_file(tmp_path, 2, 10, ("VIEWER", "A.TXT"), ("Viewer", "Ünï.txt")),
    ]
    expected = written_by_pycdlib(files)
    made = image.lay_out(files, "TEST", "APP")
    assert whole(made) == expected
    iso = PyCdlib()
    iso.open_fp(io.BytesIO(expected))
    names = {
        child.file_identifier().decode("utf-16-be") for child in iso.list_children(joliet_path="/Viewer")
    }
    assert names >= {"Long name of a viewer.exe", "Ünï.txt"}
    iso.close()


def test_segments_name_the_files_and_hold_the_rest(tmp_path: Path) -> None:
    file = make_file(tmp_path, 1, 5000, ("A.TXT",))
    made = image.lay_out([file], "TEST", "APP")
    metadata, content, padding = made.segments()
    assert isinstance(metadata, DataSegment)
    assert metadata.data[0x8001:0x8006] == b"CD001"
    assert content == FileSegment(file.source, 0, 5000)
    assert padding == DataSegment(bytes(6144 - 5000))
    start = len(metadata.data)
    assert list(made.segments(start + 100, start + 200)) == [FileSegment(file.source, 100, 100)]
    assert list(made.segments(made.size)) == []


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4), (0, 10**9)])
def test_a_range_outside_the_image_is_refused(tmp_path: Path, start: int, stop: int) -> None:
    made = image.lay_out([make_file(tmp_path, 1, 10, ("A",))], "TEST", "APP")
    with pytest.raises(ValueError, match="not within"):
        list(made.segments(start, stop))


def test_an_empty_directory_exists(tmp_path: Path) -> None:
    made = image.lay_out(
        [make_file(tmp_path, 1, 10, ("A",))], "TEST", "APP", [DiscDirectory(("X", "EMPTY"), ("x", "empty"))]
    )
    path = tmp_path / "disc.iso"
    path.write_bytes(whole(made))
    listing = subprocess.run(
        [require("isoinfo"), "-f", "-i", path], capture_output=True, text=True, check=True
    ).stdout
    assert listing.split() == ["/A.;1", "/X", "/X/EMPTY"]


@pytest.mark.parametrize("change", [b"shorter", b"much longer than it was"])
def test_a_file_that_changed_is_noticed_when_it_is_laid_out(tmp_path: Path, change: bytes) -> None:
    file = make_file(tmp_path, 1, 10, ("DICOM", "A"))
    Path(file.source).write_bytes(change)
    with pytest.raises(SourceChanged, match="/DICOM/A"):
        image.lay_out([file], "TEST", "APP")


@pytest.mark.parametrize("size", [0, 9, 11, None])
def test_a_file_that_changed_is_noticed_when_it_is_sent(tmp_path: Path, size: int | None) -> None:
    file = make_file(tmp_path, 1, 10, ("A",))
    made = image.lay_out([file], "TEST", "APP")
    if size is None:
        Path(file.source).unlink()
    else:
        os.truncate(file.source, size)
    with pytest.raises(ImageTorn):
        whole(made)


def test_a_file_that_shrinks_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    file = make_file(tmp_path, 1, 10_000, ("A",))
    made = image.lay_out([file], "TEST", "APP")
    pieces = made.read_chunks(chunk=2048)
    metadata = next(made.segments())
    assert isinstance(metadata, DataSegment)
    for _ in range(len(metadata.data) // 2048 + 1):
        next(pieces)
    os.truncate(file.source, 3000)
    with pytest.raises(ImageTorn, match="shrank"):
        list(pieces)


def test_a_missing_file_is_named_by_its_place_on_the_disc(tmp_path: Path) -> None:
    with pytest.raises(SourceChanged, match="/DICOM/I0000001"):
        image.lay_out([DiscFile(str(tmp_path / "none"), 5, ("DICOM", "I0000001"))], "TEST", "APP")


@pytest.mark.parametrize("joliet", [((), ()), (("a",), ("a",))])
def test_two_files_of_one_name_are_refused(tmp_path: Path, joliet: tuple[tuple[str, ...], ...]) -> None:
    iso = [("A",), ("A",)] if not joliet[0] else [("A",), ("B",)]
    files = [make_file(tmp_path, index, 10, iso[index], joliet[index]) for index in range(2)]
    with pytest.raises(ValueError, match="one name"):
        image.lay_out(files, "TEST", "APP")


def test_a_directory_of_two_names_is_refused(tmp_path: Path) -> None:
    files = [
        make_file(tmp_path, 1, 1, ("A", "X"), ("a", "x")),
        make_file(tmp_path, 2, 1, ("A", "B", "Y"), ("c", "b", "y")),
    ]
    with pytest.raises(ValueError, match="two names"):
        image.lay_out(files, "TEST", "APP")


def test_a_file_of_more_than_one_extent_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    path.touch()
    os.truncate(path, image.MAX_FILE_SIZE + 1)
    with pytest.raises(TooLarge, match="/DICOM/S0000001/I0000001"):
        image.lay_out(
            [DiscFile(str(path), image.MAX_FILE_SIZE + 1, ("DICOM", "S0000001", "I0000001"))], "TEST", "APP"
        )


def test_a_file_of_exactly_one_extent_fits(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    path.touch()
    os.truncate(path, image.MAX_FILE_SIZE)
    files = [DiscFile(str(path), image.MAX_FILE_SIZE, ("A",)), make_file(tmp_path, 2, 100, ("B",))]
    made = image.lay_out(files, "TEST", "APP")
    assert made.size > image.MAX_FILE_SIZE
    assert b"".join(made.read_chunks(made.size - 2048)) == Path(files[1].source).read_bytes() + bytes(1948)


def test_an_image_keeps_no_file_open(tmp_path: Path) -> None:
    files = [make_file(tmp_path, index, 10, (f"F{index}",)) for index in range(100)]
    before = open_files()
    made = image.lay_out(files, "TEST", "APP")
    most = max(open_files() for _ in made.read_chunks())
    assert most <= before + 1
    assert open_files() == before


def test_write_to(tmp_path: Path) -> None:
    made = image.lay_out([make_file(tmp_path, 1, 5000, ("A",))], "TEST", "APP")
    with (tmp_path / "disc.iso").open("wb") as file:
        made.write_to(file)
    assert (tmp_path / "disc.iso").read_bytes() == whole(made)

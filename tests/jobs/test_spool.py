"""The spool: bounds, orphans, nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pacsbridge.errors import SpoolFull
from pacsbridge.jobs.spool import Spool

HOLD_A_FOLDER = """
import sys
from pathlib import Path
from pacsbridge.jobs.spool import Spool
spool = Spool(Path(sys.argv[1]), 100)
spool.open()
folder = spool.folder()
(folder.path / "00000001.dcm").write_bytes(b"x")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool", 100)
    spool.open()
    return spool


def test_a_folder_leaves_nothing_behind(spool: Spool) -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    folder = spool.folder()
    (folder.path / "a").write_bytes(b"1234567890")
    folder.take(10)
    assert spool.used == 10
    folder.remove()
    folder.remove()
    assert spool.used == 0
    assert list(spool.root.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_the_bound_is_over_all_folders(spool: Spool) -> None:
    first, second = spool.folder(), spool.folder()
    first.take(60)
    second.take(40)
    with pytest.raises(SpoolFull, match=r"media\.spool_max_bytes"):
        second.take(1)
    first.remove()
    second.take(60)
    second.take(5 - 100)
    assert spool.used == second.bytes == 5


def test_someone_gives_way_when_room_is_short(spool: Spool) -> None:
    old, new = spool.folder(), spool.folder()
    old.take(90)

    def give_way() -> bool:
        if not old.path.exists():
            return False
        old.remove()
        return True

    spool.on_shortage(give_way)
    new.take(50)
    assert spool.used == 50
    with pytest.raises(SpoolFull):
        new.take(60)


def test_only_folders_of_dead_processes_are_orphans(tmp_path: Path) -> None:
    (tmp_path / "somebody-else's").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_FOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        theirs = Path(other.stdout.readline().decode().strip())
        Spool(tmp_path, 100).open()
        assert theirs.exists()
        other.kill()
        other.wait()
    assert theirs.exists()
    Spool(tmp_path, 100).open()
    assert [path.name for path in tmp_path.iterdir()] == ["somebody-else's"]


def test_a_spool_that_cannot_be_written_is_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError):
        Spool(tmp_path / "file" / "spool", 100).open()

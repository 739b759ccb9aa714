"""The shelf: what is read stays, the oldest goes first, nothing is kept too long."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest

from pacsbridge.errors import SpoolFull
from pacsbridge.jobs.shelf import KeptDisc, Shelf
from pacsbridge.jobs.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

A_DISC = cast("Any", object())


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path, 100)
    spool.open()
    return spool


def put(shelf: Shelf, spool: Spool, count: int) -> KeptDisc:
    folder = spool.folder()
    folder.take(count)
    kept = shelf.put(A_DISC, folder)
    shelf.let_go(kept)
    return kept


def test_the_oldest_that_nobody_reads_gives_way(spool: Spool) -> None:
    shelf = Shelf(spool, 60)
    oldest, middle, newest = (put(shelf, spool, 30) for _ in range(3))
    assert shelf.hold(oldest)
    put(shelf, spool, 40)
    assert (oldest.gone, middle.gone, newest.gone) == (False, True, False)
    assert not middle.folder.path.exists()
    assert not shelf.hold(middle)


def test_what_is_read_never_gives_way(spool: Spool) -> None:
    shelf = Shelf(spool, 60)
    kept = put(shelf, spool, 90)
    assert shelf.hold(kept)
    with pytest.raises(SpoolFull):
        put(shelf, spool, 20)
    assert kept.folder.path.exists()
    shelf.let_go(kept)
    put(shelf, spool, 20)
    assert kept.gone


def test_a_disc_kept_for_no_time_goes_with_its_last_reader(spool: Spool) -> None:
    shelf = Shelf(spool, 0)
    kept = shelf.put(A_DISC, spool.folder())
    assert shelf.hold(kept)
    shelf.let_go(kept)
    assert not shelf.overdue
    shelf.sweep()
    assert not kept.gone
    shelf.let_go(kept)
    assert shelf.overdue
    shelf.sweep()
    assert kept.gone
    assert list(spool.root.iterdir()) == []


def test_a_reader_does_not_wait_for_files_that_are_removed(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers come on the event loop; thousands of files take their time."""
    shelf = Shelf(spool, 60)
    old, other = put(shelf, spool, 60), put(shelf, spool, 30)
    removing, go_on = threading.Event(), threading.Event()
    rmtree = shutil.rmtree

    def slow(path: Path, **options: Any) -> None:
        removing.set()
        assert go_on.wait(10)
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", slow)
    claiming = threading.Thread(target=put, args=(shelf, spool, 50))
    claiming.start()
    assert removing.wait(10)
    assert not shelf.hold(old)
    assert shelf.hold(other)  # were it to wait, this test would run into its time-out
    go_on.set()
    claiming.join()
    assert spool.used == 80


def test_sweep_and_clear(spool: Spool) -> None:
    shelf = Shelf(spool, 60)
    kept = put(shelf, spool, 10)
    shelf.sweep()
    assert not kept.gone
    kept.finished_at -= 61
    shelf.sweep()
    assert kept.gone
    read = put(shelf, spool, 10)
    shelf.hold(read)
    shelf.clear()
    assert list(spool.root.iterdir()) == []
    assert spool.used == 0

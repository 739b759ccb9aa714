"""The shelf: finished discs in the spool, kept for a while, given out to readers."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacsbridge.jobs.spool import Spool, SpoolFolder
    from pacsbridge.media.disc import Disc

log = structlog.get_logger(__name__)


class KeptDisc:
    """A finished disc and the folder that holds its files; `gone` once the folder is removed."""

    def __init__(self, disc: Disc, folder: SpoolFolder) -> None:
        self.disc = disc
        self.folder = folder
        self.finished_at = time.monotonic()
        self.readers = 0
        self.gone = False


class Shelf:
    """Keeps finished discs; the oldest that nobody reads goes first.

    Parameters
    ----------
    spool
        Asked for room by jobs; it asks the shelf to give way.
    keep_seconds
        How long a disc can be had again.
    """

    def __init__(self, spool: Spool, keep_seconds: float) -> None:
        self._spool = spool
        self._keep_seconds = keep_seconds
        self._discs: list[KeptDisc] = []
        spool.on_shortage(self._give_way)

    def put(self, disc: Disc, folder: SpoolFolder) -> KeptDisc:
        """Take a finished disc."""
        kept = KeptDisc(disc, folder)
        with self._spool.guard:
            self._discs.append(kept)
        return kept

    def hold(self, kept: KeptDisc) -> bool:
        """Begin to read: the disc stays until `let_go`. False when it is gone already."""
        with self._spool.guard:
            if kept.gone:
                return False
            kept.readers += 1
            return True

    def let_go(self, kept: KeptDisc) -> None:
        """End reading."""
        with self._spool.guard:
            kept.readers -= 1
        self.sweep()

    @contextmanager
    def reading(self, kept: KeptDisc) -> Iterator[bool]:
        """Hold a disc for a with statement; tells whether it is still there."""
        held = self.hold(kept)
        try:
            yield held
        finally:
            if held:
                self.let_go(kept)

    def sweep(self) -> None:
        """Remove what was kept long enough."""
        limit = time.monotonic() - self._keep_seconds
        with self._spool.guard:
            old = [kept for kept in self._discs if not kept.readers and kept.finished_at <= limit]
            for kept in old:
                self._remove(kept)

    def clear(self) -> None:
        """Remove every disc: the service ends."""
        with self._spool.guard:
            for kept in list(self._discs):
                self._remove(kept)

    def _give_way(self) -> bool:
        idle = [kept for kept in self._discs if not kept.readers]
        if not idle:
            return False
        log.info("a finished disc gives way in the spool", bytes=idle[0].folder.bytes)
        self._remove(idle[0])
        return True

    def _remove(self, kept: KeptDisc) -> None:
        kept.gone = True
        self._discs.remove(kept)
        kept.folder.remove()

"""The shelf: finished discs in the spool, kept for a while, given out to readers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
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
        """Take a finished disc, held for the caller until `let_go`: it can't go before its first reader came."""
        kept = KeptDisc(disc, folder)
        kept.readers = 1
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
        """End reading; what was kept long enough then goes with the next `sweep`."""
        with self._spool.guard:
            kept.readers -= 1

    @property
    def overdue(self) -> bool:
        """Whether `sweep` would remove something."""
        with self._spool.guard:
            return bool(self._old())

    def sweep(self) -> None:
        """Remove what was kept long enough. Blocks, as all below."""
        with self._spool.room:
            with self._spool.guard:
                old = self._take_down(self._old())
            _remove(old)

    def clear(self) -> None:
        """Remove every disc: the service ends."""
        with self._spool.room:
            with self._spool.guard:
                everything = self._take_down(list(self._discs))
            _remove(everything)

    def _give_way(self) -> bool:
        with self._spool.room:
            with self._spool.guard:
                oldest = self._take_down([kept for kept in self._discs if not kept.readers][:1])
            if oldest:
                log.info("a finished disc gives way in the spool", bytes=oldest[0].folder.bytes)
            _remove(oldest)
        return bool(oldest)

    # With the guard held: from then on nobody can begin to read them.

    def _old(self) -> list[KeptDisc]:
        limit = time.monotonic() - self._keep_seconds
        return [kept for kept in self._discs if not kept.readers and kept.finished_at <= limit]

    def _take_down(self, discs: list[KeptDisc]) -> list[KeptDisc]:
        for kept in discs:
            kept.gone = True
            self._discs.remove(kept)
        return discs


def _remove(discs: list[KeptDisc]) -> None:
    for kept in discs:
        kept.folder.remove()

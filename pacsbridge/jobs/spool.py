"""The spool: a folder for each job, a bound on all of them, and nothing left behind.

A folder is locked (flock) while its process lives. A process that was killed leaves folders without a lock:
`Spool.open` removes them, and never those of another process that shares the spool.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from pacsbridge.errors import SpoolFull

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)

_PREFIX = "job-"
_MEGABYTE = 1_000_000


class SpoolFolder:
    """One job's folder; `take` claims room in it before it is used, `remove` ends it."""

    def __init__(self, spool: Spool, path: Path, lock: int) -> None:
        self.path = path
        self.bytes = 0
        self._spool = spool
        self._lock = lock
        self._removed = False

    def take(self, count: int) -> None:
        """Claim `count` bytes, or give back where it is negative. Safe from any thread.

        Discs that nobody reads give way, oldest first.

        Raises
        ------
        SpoolFull
            There is no room, however many discs give way.
        """
        self._spool.claim(self, count)

    def remove(self) -> None:
        """Delete the folder and give its room back; a second call does nothing."""
        with self._spool.room:
            with self._spool.guard:
                if self._removed:
                    return
                self._removed = True
            shutil.rmtree(self.path, onerror=_tell)
            os.close(self._lock)
            self._spool.release(self)


class Spool:
    """All folders under ``media.spool_dir``.

    Parameters
    ----------
    root
        The directory; made when it is absent.
    max_bytes
        The bound on what all folders hold together.

    Attributes
    ----------
    guard
        Held for a moment, around the accounts and the list of finished discs: the event loop may wait for it.
    room
        Held while folders are removed, taken before `guard`: who needs room waits until it is there. Never
        taken on the event loop, since thousands of files take their time.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self.guard = threading.Lock()
        self.room = threading.RLock()
        self._used = 0
        self._give_way: Callable[[], bool] = lambda: False

    @property
    def used(self) -> int:
        """Bytes claimed by all folders of this process."""
        return self._used

    def open(self) -> None:
        """Make the root and remove what a killed process left in it.

        Raises
        ------
        OSError
            The root can't be made or written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise OSError(
                error.errno,
                f"the spool {self.root} can't be written: {error.strerror}. Check media.spool_dir.",
            ) from error
        orphans = sum(_remove_orphan(path) for path in self.root.glob(f"{_PREFIX}*"))
        if orphans:
            log.info("removed what an earlier run left in the spool", folders=orphans)

    def folder(self) -> SpoolFolder:
        """Make a folder for a job.

        Raises
        ------
        SpoolFull
            The disk takes no more.
        """
        while True:
            try:
                path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self.root))
                lock = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                self.root.mkdir(parents=True, exist_ok=True)
                continue
            except OSError as error:
                raise SpoolFull(
                    f"The spool can't be written ({error.strerror}). Check media.spool_dir."
                ) from error
            if _lock(lock) and path.exists():
                return SpoolFolder(self, path, lock)
            os.close(lock)  # another process that just starts took it for an orphan

    def on_shortage(self, give_way: Callable[[], bool]) -> None:
        """Say whom to ask for room: a callable that removes one finished disc, or returns False."""
        self._give_way = give_way

    def claim(self, folder: SpoolFolder, count: int) -> None:
        """Add `count` bytes (may be negative) to a folder's account; see `SpoolFolder.take`."""
        if self._claimed(folder, count):
            return
        with self.room:
            while not self._claimed(folder, count):
                if not self._give_way():
                    raise SpoolFull(
                        f"The spool is full: it holds {self._used / _MEGABYTE:,.0f} MB of "
                        f"{self.max_bytes / _MEGABYTE:,.0f} MB (media.spool_max_bytes). "
                        "Wait until other discs are done, or give it more room."
                    )

    def _claimed(self, folder: SpoolFolder, count: int) -> bool:
        with self.guard:
            if count > 0 and self._used + count > self.max_bytes:
                return False
            self._used += count
            folder.bytes += count
            return True

    def release(self, folder: SpoolFolder) -> None:
        """Take a removed folder off the account."""
        with self.guard:
            self._used -= folder.bytes
            folder.bytes = 0


def _remove_orphan(path: Path) -> bool:
    """Remove a folder that no living process holds; False where one does."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        if not _lock(lock):
            return False
        shutil.rmtree(path, onerror=_tell)
        return True
    finally:
        os.close(lock)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _tell(_function: object, path: str, info: object) -> None:
    log.warning("a file of the spool can't be removed", path=path, reason=str(info))

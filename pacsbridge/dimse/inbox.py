"""The box of one job: the instances of its studies go into its folder, anything else is refused.

An instance belongs to a job by what it is: the Study Instance UID that its data set holds must be one that
the job expects. What arrives is written as it came, behind a File Meta Information of our own (PS3.10, 7.1).
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import structlog

from pacsbridge.dimse.filemeta import encode_file_meta
from pacsbridge.dimse.identity import HEAD_BYTES, read_identity
from pacsbridge.dimse.status import Status
from pacsbridge.errors import SpoolFull
from pacsbridge.instance import Instance, InvalidInstance, read_beginning, read_instance
from pacsbridge.part10 import HEAD_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

log = structlog.get_logger(__name__)

#: How long `Inbox.close` waits for a write that the disk does not finish, in seconds.
_CLOSE_SECONDS = 10.0
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Sink(Protocol):
    """Where the data set of one C-STORE goes."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the data set. Never raises: what is wrong is told by `finish`."""

    def finish(self) -> Status:
        """Tell what became of the data set, which is whole now."""

    def discard(self) -> None:
        """Forget the data set: its association is lost. Does nothing after `finish`."""


class Refused:
    """A sink that lets the data set pass by, and refuses it in the end."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def write(self, data: bytes | memoryview) -> None:
        """Drop the bytes."""

    def finish(self) -> Status:
        """Refuse."""
        return self._status

    def discard(self) -> None:
        """Do nothing: there is nothing to forget."""


class Inbox:
    """One job's box; thread-safe.

    Parameters
    ----------
    folder
        Where the instances are written; it exists and belongs to this box.
    StudyInstanceUIDs
        The studies that the job expects. Instances of others are refused.
    take
        Called with a number of bytes before they are written; raises `SpoolFull` when there is no room for
        them. What a removed file gives back stays with this box and is used before `take` is called again.
    on_stored
        Called with each stored instance, in the receiving thread.
    """

    def __init__(
        self,
        folder: Path,
        StudyInstanceUIDs: Iterable[str],
        *,
        take: Callable[[int], None] = lambda _bytes: None,
        on_stored: Callable[[Instance], None] = lambda _instance: None,
    ) -> None:
        self.folder = folder
        self.StudyInstanceUIDs = frozenset(StudyInstanceUIDs)
        self.last_activity = time.monotonic()
        self.error: SpoolFull | None = None
        self._take = take
        self._on_stored = on_stored
        self._lock = threading.Lock()
        self._instances: list[Instance] = []
        self._stored: set[str] = set()
        self._by_series: dict[str, set[str]] = {}
        self._in_flight: set[Incoming] = set()
        self._closed = False
        self._refused = 0
        self._bytes_received = 0
        self._spare = 0
        self._files = 0

    @property
    def instances(self) -> tuple[Instance, ...]:
        """What is stored now, in the order of arrival."""
        with self._lock:
            return tuple(self._instances)

    @property
    def count(self) -> int:
        """How many instances are stored."""
        return len(self._instances)

    @property
    def bytes_received(self) -> int:
        """How many bytes of data sets have come, instances that are still arriving included."""
        return self._bytes_received

    @property
    def refused(self) -> int:
        """How many instances were refused, for whatever reason."""
        return self._refused

    @property
    def closed(self) -> bool:
        """Whether the box is closed."""
        return self._closed

    @property
    def series_counts(self) -> Mapping[str, int]:
        """How many instances of each SeriesInstanceUID are stored."""
        with self._lock:
            return {series: len(stored) for series, stored in self._by_series.items()}

    def SOPInstanceUIDs(self, SeriesInstanceUID: str) -> frozenset[str]:
        """Tell which instances of a series are stored."""
        with self._lock:
            return frozenset(self._by_series.get(SeriesInstanceUID, ()))

    def has(self, SOPInstanceUID: str) -> bool:
        """Tell whether an instance is stored."""
        return SOPInstanceUID in self._stored

    def receive(
        self,
        *,
        SOPClassUID: str,
        SOPInstanceUID: str,
        TransferSyntaxUID: str,
        SourceApplicationEntityTitle: str,
    ) -> Sink:
        """Open a sink for the data set of one C-STORE, whose command and presentation context say these."""
        with self._lock:
            if self._closed:
                return Refused(Status.NOT_AUTHORIZED)
            self._files += 1
            incoming = Incoming(
                self,
                self.folder / f"{self._files:08d}.dcm",
                SOPClassUID=SOPClassUID,
                SOPInstanceUID=SOPInstanceUID,
                TransferSyntaxUID=TransferSyntaxUID,
                SourceApplicationEntityTitle=SourceApplicationEntityTitle,
            )
            self._in_flight.add(incoming)
        return incoming

    def close(self) -> None:
        """Store nothing any more: what comes later, or is still arriving, is a stranger's.

        Returns when nothing writes into the folder, so that it can be removed; a disk that hangs is not
        waited for longer than ten seconds. The stored instances stay. Can be called again.
        """
        with self._lock:
            self._closed = True
            in_flight = list(self._in_flight)
        deadline = time.monotonic() + _CLOSE_SECONDS
        for incoming in in_flight:
            if not incoming.evict(max(0.0, deadline - time.monotonic())):
                log.error("a write into the spool does not end", seconds=_CLOSE_SECONDS)

    # What an Incoming tells its box.

    def _claim(self, count: int) -> None:
        """Claim room for `count` bytes, first from what removed files left."""
        with self._lock:
            spare = min(self._spare, count)
            self._spare -= spare
        if count > spare:
            try:
                self._take(count - spare)
            except BaseException:
                with self._lock:
                    self._spare += spare
                raise

    def _arrived(self, count: int) -> None:
        self.last_activity = time.monotonic()
        with self._lock:
            self._bytes_received += count

    def _removed(self, *, claimed: int, arrived: int) -> None:
        with self._lock:
            self._spare += claimed
            self._bytes_received -= arrived

    def _add(self, instance: Instance) -> bool:
        """Count an instance as stored, unless it was already."""
        with self._lock:
            if instance.SOPInstanceUID in self._stored:
                return False
            self._stored.add(instance.SOPInstanceUID)
            self._by_series.setdefault(instance.SeriesInstanceUID, set()).add(instance.SOPInstanceUID)
            self._instances.append(instance)
            return True

    def _ended(self, incoming: Incoming, status: Status | None, error: SpoolFull | None) -> None:
        with self._lock:
            self._in_flight.discard(incoming)
            if status is not None and status is not Status.SUCCESS:
                self._refused += 1
            if error is not None and self.error is None:
                self.error = error

    def _tell(self, instance: Instance) -> None:
        try:
            self._on_stored(instance)
        except Exception:
            log.exception("the watcher of an inbox failed")


class Incoming:
    """One instance on its way into an inbox: in the end a whole file, or none."""

    def __init__(
        self,
        inbox: Inbox,
        path: Path,
        *,
        SOPClassUID: str,
        SOPInstanceUID: str,
        TransferSyntaxUID: str,
        SourceApplicationEntityTitle: str,
    ) -> None:
        self._inbox = inbox
        self._path = path
        self._SOPClassUID = SOPClassUID
        self._SOPInstanceUID = SOPInstanceUID
        self._TransferSyntaxUID = TransferSyntaxUID
        self._SourceApplicationEntityTitle = SourceApplicationEntityTitle
        # Held while the file is touched, so that close() knows that nobody writes.
        self._lock = threading.Lock()
        self._fd = -1
        self._instance: Instance | None = None
        self._head = bytearray()
        self._claimed = 0
        self._arrived = 0
        self._created = False
        self._outcome: Status | None = None
        self._error: SpoolFull | None = None
        self._ended = False

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the data set; the first ones decide whether it is let in."""
        with self._lock:
            if self._outcome is not None:
                return
            self._arrived += len(data)
            self._inbox._arrived(len(data))  # noqa: SLF001 - box and instance are one subject
            try:
                if self._fd >= 0:
                    self._append(data)
                elif self._head:
                    self._head += data
                    self._admit(self._head, whole=False)
                elif not self._admit(data, whole=False):
                    self._head += data
            except SpoolFull as error:
                self._fail(Status.OUT_OF_RESOURCES, error)
            except OSError as error:
                self._fail_on_disk(error)

    def finish(self) -> Status:
        """Store the instance if it is one that the box expects, or remove its file."""
        with self._lock:
            stored: Instance | None = None
            if self._outcome is None:
                try:
                    if self._fd >= 0 or self._admit(self._head, whole=True):
                        stored = self._store() if self._outcome is None else None
                except SpoolFull as error:
                    self._fail(Status.OUT_OF_RESOURCES, error)
                except OSError as error:
                    self._fail_on_disk(error)
                except Exception:
                    log.exception("an instance could not be read")
                    self._fail(Status.CANNOT_UNDERSTAND)
            outcome = self._outcome if self._outcome is not None else Status.CANNOT_UNDERSTAND
            self._end(outcome)
        if stored is not None:
            self._inbox._tell(stored)  # noqa: SLF001
        return outcome

    def discard(self) -> None:
        """Remove what there is: the association was lost."""
        with self._lock:
            if not self._ended:
                self._fail(Status.PROCESSING_FAILURE)
                self._end(None)

    def evict(self, seconds: float) -> bool:
        """Remove what there is and refuse the rest: the box is closed. Tell whether that was done in time."""
        if not self._lock.acquire(timeout=seconds):
            return False
        try:
            if not self._ended and self._outcome is None:
                self._fail(Status.NOT_AUTHORIZED)
        finally:
            self._lock.release()
        return True

    # From here on the lock is held.

    def _admit(self, head: bytes | bytearray | memoryview, *, whole: bool) -> bool:
        """Open the file if the data set seems to be one for this box; settle the outcome if it is not.

        SOP Class and SOP Instance UID stand at its very beginning; where long groups or sequences hide the
        Study Instance UID, or another one's is mentioned before it, the whole file tells in the end.

        Returns
        -------
        bool
            Whether it is decided; if not, more bytes are needed.
        """
        inbox = self._inbox
        identity = read_identity(head, self._TransferSyntaxUID, inbox.StudyInstanceUIDs)
        if not identity.complete and not whole and len(head) < HEAD_BYTES:
            return False
        if not (identity.SOPClassUID and identity.SOPInstanceUID):
            self._fail(Status.CANNOT_UNDERSTAND)
        elif (identity.SOPClassUID, identity.SOPInstanceUID) != (self._SOPClassUID, self._SOPInstanceUID):
            self._fail(Status.DATA_SET_MISMATCH)
        elif identity.StudyInstanceUID and identity.StudyInstanceUID not in inbox.StudyInstanceUIDs:
            self._fail(Status.NOT_AUTHORIZED)
        elif inbox.has(self._SOPInstanceUID):
            self._drop_repeated()
        else:
            self._begin_file(head)
        self._head = bytearray()
        return True

    def _begin_file(self, head: bytes | bytearray | memoryview) -> None:
        meta = encode_file_meta(
            SOPClassUID=self._SOPClassUID,
            SOPInstanceUID=self._SOPInstanceUID,
            TransferSyntaxUID=self._TransferSyntaxUID,
            SourceApplicationEntityTitle=self._SourceApplicationEntityTitle,
        )
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._created = True
        self._append(meta, head)
        # Now, while the sender is busy with the rest, and not when it waits for an answer.
        self._instance = read_beginning(self._path, b"".join((meta, head[: HEAD_LENGTH - len(meta)])))

    def _append(self, *parts: bytes | bytearray | memoryview) -> None:
        count = sum(map(len, parts))
        self._inbox._claim(count)  # noqa: SLF001
        self._claimed += count
        written = os.writev(self._fd, parts)
        if written < count:
            left = memoryview(b"".join(parts))[written:]
            while left:
                left = left[os.write(self._fd, left) :]

    def _store(self) -> Instance | None:
        fd, self._fd = self._fd, -1
        os.close(fd)
        try:
            begun = self._instance
            instance = replace(begun, size=self._claimed) if begun else read_instance(self._path)
        except InvalidInstance:
            self._fail(Status.CANNOT_UNDERSTAND)
            return None
        if instance.StudyInstanceUID not in self._inbox.StudyInstanceUIDs:
            self._fail(Status.NOT_AUTHORIZED)
            return None
        if not self._inbox._add(instance):  # noqa: SLF001
            self._drop_repeated()
            return None
        self._outcome = Status.SUCCESS
        return instance

    def _drop_repeated(self) -> None:
        """Let go of an instance that is already stored: for the sender that is a success."""
        self._fail(Status.SUCCESS)

    def _fail_on_disk(self, error: OSError) -> None:
        if error.errno in _NO_SPACE:
            full = SpoolFull(
                "The disk of the spool is full. Free some room in media.spool_dir and try again."
            )
            self._fail(Status.OUT_OF_RESOURCES, full)
        else:
            why = error.strerror or type(error).__name__
            full = SpoolFull(f"The spool can't be written: {why}. Check media.spool_dir.")
            self._fail(Status.PROCESSING_FAILURE, full)
        log.error("the spool can't be written", reason=error.strerror)

    def _fail(self, outcome: Status, error: SpoolFull | None = None) -> None:
        """Settle the outcome and remove the file."""
        self._outcome = outcome
        self._error = error
        self._head = bytearray()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            # A late write error that close reports does not matter for a file that goes anyway.
            with contextlib.suppress(OSError):
                os.close(fd)
        if self._created:
            self._created = False
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        self._inbox._removed(claimed=self._claimed, arrived=self._arrived)  # noqa: SLF001
        self._claimed = self._arrived = 0

    def _end(self, status: Status | None) -> None:
        if not self._ended:
            self._ended = True
            self._inbox._ended(self, status, self._error)  # noqa: SLF001

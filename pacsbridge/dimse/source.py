"""The data set of one instance, read piece by piece from where it is."""

from __future__ import annotations

import os
from struct import Struct
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacsbridge.instance import Instance

#: Preamble, prefix, and (0002,0000) with the length of the rest of the File Meta Information (PS3.10, 7.1).
_FILE_HEAD = Struct("<128s4sHH2sHL")


class FileChanged(Exception):
    """A file changed while it was read."""


class UnusableFile(Exception):
    """A file can't be read as Part 10; the message says why."""


class DataSetSource:
    """The data set of one instance, read in windows.

    Parameters
    ----------
    length
        In bytes.
    data
        The data set, if it is in memory; else None.
    fd, start
        The file that holds it and where in it; the file is closed on leaving.
    """

    def __init__(self, length: int, *, data: bytes | None = None, fd: int = -1, start: int = 0) -> None:
        self.length = length
        self.data = data
        self._fd = fd
        self._start = start

    @classmethod
    def of_file(cls, instance: Instance) -> Self:
        """Open the file of an instance.

        Raises
        ------
        UnusableFile
            It is not there, or is no Part 10 file.
        """
        try:
            fd = os.open(instance.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UnusableFile(f"its file can't be opened: {error.strerror}") from error
        try:
            start = _data_set_start(os.pread(fd, _FILE_HEAD.size, 0))
            length = os.fstat(fd).st_size - start
        except BaseException:
            os.close(fd)
            raise
        return cls(length, fd=fd, start=start)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def windows(self, size: int) -> Iterator[memoryview]:
        """Give the data set in windows of `size` bytes, the last one shorter; each is good until the next.

        Raises
        ------
        FileChanged
            The file got shorter.
        """
        if self.data is not None:
            whole = memoryview(self.data)
            for start in range(0, self.length, size):
                yield whole[start : start + size]
            return
        buffer = memoryview(bytearray(min(size, self.length)))
        for start in range(0, self.length, size):
            view = buffer[: min(size, self.length - start)]
            if os.preadv(self._fd, [view], self._start + start) != len(view):
                raise FileChanged("a file changed while it was sent")
            yield view


def _data_set_start(head: bytes) -> int:
    """Find where the data set of a Part 10 file starts."""
    if len(head) == _FILE_HEAD.size:
        _, prefix, group, element, vr, _, length = _FILE_HEAD.unpack(head)
        if (prefix, group, element, vr) == (b"DICM", 0x0002, 0x0000, b"UL"):
            return _FILE_HEAD.size + int(length)
    raise UnusableFile("its file is no DICOM Part 10 file with a File Meta Information")

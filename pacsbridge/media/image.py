"""The ISO 9660 image: laid out in full before it is sent, never written to disk.

pycdlib lays the volume out. All of its metadata (volume descriptors, path tables, directory records) comes
first, and every file's place is fixed, so the image is: the metadata, kept in memory, then the files in the
order of their extents, each read from where it lies and padded with zeros to a whole block. The bytes are
those that ``PyCdlib.write`` would have written; ``tests/media/test_image.py`` holds that, because this module
reads pycdlib's layout by names that it does not promise (`inodes`, `extent_location`, `pvd.space_size`).

The metadata holds the time of its making, so it is rendered once: ranges of one `Image` fit together, those
of two images of the same files don't.
"""

from __future__ import annotations

import errno
import gc
import os
from array import array
from bisect import bisect_right
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from pycdlib import PyCdlib

from pacsbridge.errors import SourceChanged, TooLarge

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

BLOCK = 2048
#: The longest file of one extent, in bytes (ECMA-119 9.1.4, whole blocks); level 1 allows one extent only.
MAX_FILE_SIZE = 0xFFFFF800
#: The most zeros that one segment holds.
_MAX_ZEROS = 64 * 1024
READ_SIZE = 1024 * 1024
_JOLIET_LEVEL = 3

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DiscFile:
    """A file of the disc and where its content is.

    Parameters
    ----------
    source
        The file that holds the content.
    size
        Its length in bytes.
    iso
        Directory and file names in the ISO 9660 tree: 8.3, upper case, without the version number.
    joliet
        The same in the Joliet tree; as `iso` when empty.
    """

    source: str
    size: int
    iso: Names
    joliet: Names = ()

    @property
    def joliet_names(self) -> Names:
        """The names in the Joliet tree."""
        return self.joliet or self.iso


@dataclass(frozen=True, slots=True)
class DiscDirectory:
    """A directory that has to exist even when it is empty."""

    iso: Names
    joliet: Names = ()


@dataclass(frozen=True, slots=True)
class DataSegment:
    """A part of the image that is sent as it stands here."""

    data: bytes


@dataclass(frozen=True, slots=True)
class FileSegment:
    """A part of the image that is `count` bytes of the file `path` from `offset` on."""

    path: str
    offset: int
    count: int


Segment = DataSegment | FileSegment


class Sink(Protocol):
    """Where an image is written to: an open, buffered file, or what wraps one."""

    def writelines(self, lines: Iterable[bytes], /) -> None:
        """Write all pieces."""


class ImageTorn(OSError):
    """A file of the image is gone or changed while the image is read: what comes next can't be right."""


class Image:
    """A finished image: its bytes in order, from memory and from the files.

    Parameters
    ----------
    metadata
        The image's bytes up to the first file.
    files
        Offset in the image, length and source of every file that is not empty, by offset.
    size
        The image's length in bytes.
    """

    def __init__(self, metadata: bytes, files: Sequence[tuple[int, int, str]], size: int) -> None:
        self.size = size
        self._metadata = metadata
        self._offsets = array("Q", [offset for offset, _, _ in files])
        self._lengths = array("Q", [length for _, length, _ in files])
        self._sources = [source for _, _, source in files]

    def segments(self, start: int = 0, stop: int | None = None) -> Iterator[Segment]:
        """Yield the bytes from `start` up to `stop` (the end by default) as segments, in order.

        Each file's length is looked up again when its segment is yielded.

        Raises
        ------
        ValueError
            The range is not within the image.
        ImageTorn
            A file is no longer as long as it was when the image was laid out, or is gone.
        """
        stop = self.size if stop is None else stop
        if not 0 <= start <= stop <= self.size:
            raise ValueError(f"bytes {start} to {stop} are not within an image of {self.size} bytes")
        if start < len(self._metadata) and start < stop:
            end = min(stop, len(self._metadata))
            yield DataSegment(self._metadata[start:end])
            start = end
        index = max(bisect_right(self._offsets, start) - 1, 0)
        while start < stop:
            yield from self._file_segments(index, start, stop)
            index += 1
            start = min(stop, self._next_offset(index))

    def _next_offset(self, index: int) -> int:
        return self._offsets[index] if index < len(self._offsets) else self.size

    def _file_segments(self, index: int, start: int, stop: int) -> Iterator[Segment]:
        """Yield what lies between `start` and `stop` of one file and the zeros after it."""
        if index < len(self._offsets):
            source, offset, length = self._sources[index], self._offsets[index], self._lengths[index]
            end = min(stop, offset + length)
            if start < end:
                _check_length(source, length)
                yield FileSegment(source, start - offset, end - start)
                start = end
        stop = min(stop, self._next_offset(index + 1))
        while start < stop:
            count = min(stop - start, _MAX_ZEROS)
            yield DataSegment(bytes(count))
            start += count

    def read_chunks(
        self, start: int = 0, stop: int | None = None, chunk: int = READ_SIZE
    ) -> Generator[bytes]:
        """Yield the bytes from `start` up to `stop` in pieces of at most `chunk` bytes.

        Raises
        ------
        ImageTorn
            As `segments`, or a file holds fewer bytes than it did; what was yielded until then is right.
        """
        for segment in self.segments(start, stop):
            if isinstance(segment, DataSegment):
                view = memoryview(segment.data)
                yield from (bytes(view[at : at + chunk]) for at in range(0, len(view), chunk))
            else:
                yield from _read_file(segment, chunk)

    def write_to(self, file: Sink) -> None:
        """Write the whole image to an open, buffered file."""
        file.writelines(self.read_chunks())


def _check_length(source: str, length: int) -> None:
    try:
        actual = os.stat(source).st_size  # noqa: PTH116 - a Path per file costs more than the stat
    except OSError as error:
        raise ImageTorn(error.errno, "a file of the disc can't be read") from error
    if actual != length:
        raise ImageTorn(errno.EIO, "a file of the disc changed after the disc was laid out")


def _read_file(segment: FileSegment, chunk: int) -> Iterator[bytes]:
    left = segment.count
    with open(segment.path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
        file.seek(segment.offset)
        while left:
            piece = file.read(min(left, chunk))
            if not piece:
                raise ImageTorn(errno.EIO, "a file of the disc shrank while it was read")
            left -= len(piece)
            yield piece


def lay_out(
    files: Iterable[DiscFile], volume_id: str, application: str, directories: Iterable[DiscDirectory] = ()
) -> Image:
    """Lay an image out: ISO 9660 level 1 with Joliet, no UDF (PS3.12 wants no UDF beyond 2.01).

    Parameters
    ----------
    files
        What goes on it. The order does not matter: the image is laid out by the names.
    volume_id
        The volume identifier: 1 to 16 of A-Z, 0-9, underscore, as the File-set ID (PS3.10 8.1).
    application
        The application identifier, ASCII.
    directories
        Directories beside those that the files need.

    Raises
    ------
    TooLarge
        A file is too long for one extent.
    SourceChanged
        A file is not as long as declared, or is gone.
    ValueError
        Two files or directories have one name.
    """
    ordered = sorted(files, key=lambda file: file.iso)
    with _no_collections():
        iso = build(ordered, volume_id, application, directories)
        try:
            return render(iso, ordered)
        finally:
            iso.close()


@contextmanager
def _no_collections() -> Generator[None]:
    """Keep the garbage collector from walking pycdlib's records while they only grow.

    With 20,000 files that is a third of the time. A collection that falls into it comes a moment later.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def build(
    files: Sequence[DiscFile], volume_id: str, application: str, directories: Iterable[DiscDirectory] = ()
) -> PyCdlib:
    """Have pycdlib lay the volume out; `files` sorted by name, which keeps its insertions short."""
    _check(files)
    iso = PyCdlib()
    iso.new(interchange_level=1, joliet=_JOLIET_LEVEL, vol_ident=volume_id, app_ident_str=application)
    _add_directories(iso, files, directories)
    for file in files:
        try:
            iso.add_file(
                file.source,
                iso_path=_iso_file_path(file.iso),
                joliet_path="/" + "/".join(file.joliet_names),
            )
        except OSError as error:
            raise SourceChanged(f"/{'/'.join(file.iso)} can't be read: {error.strerror}.") from error
    iso.force_consistency()
    for file, inode in zip(files, iso.inodes, strict=True):
        if inode.get_data_length() != file.size:
            raise SourceChanged(f"/{'/'.join(file.iso)} is not as long as it was when it was received.")
    return iso


def _check(files: Sequence[DiscFile]) -> None:
    # pycdlib joins two files of one name without a word (it takes them for the parts of a long one).
    for tree in ([file.iso for file in files], [file.joliet_names for file in files]):
        if len(set(tree)) != len(tree):
            raise ValueError("two files of the disc have one name")
    for file in files:
        if file.size > MAX_FILE_SIZE:
            raise TooLarge(
                f"/{'/'.join(file.iso)} has {file.size} bytes; a file of a disc can't be longer than "
                f"{MAX_FILE_SIZE} bytes (4 GiB)."
            )


def _add_directories(iso: PyCdlib, files: Sequence[DiscFile], directories: Iterable[DiscDirectory]) -> None:
    wanted = {(file.iso[:-1], file.joliet_names[:-1]) for file in files}
    wanted.update((directory.iso, directory.joliet or directory.iso) for directory in directories)
    pairs: dict[Names, Names] = {}
    for names, joliet in wanted:
        for depth in range(1, len(names) + 1):
            if pairs.setdefault(names[:depth], joliet[:depth]) != joliet[:depth]:
                raise ValueError("one directory of the disc has two names")
    for names in sorted(pairs, key=lambda names: (len(names), names)):
        iso.add_directory("/" + "/".join(names), joliet_path="/" + "/".join(pairs[names]))


def _iso_file_path(names: Names) -> str:
    # ECMA-119 7.5.1: a file identifier has its dot even when there is no extension, and a version number.
    dot = "" if "." in names[-1] else "."
    return f"/{'/'.join(names)}{dot};1"


def render(iso: PyCdlib, files: Sequence[DiscFile]) -> Image:
    """Turn pycdlib's layout into an `Image`; `files` in the order in which they were added."""
    size = iso.pvd.space_size * BLOCK
    inodes = iso.inodes
    extents = sorted(
        (inode.extent_location() * BLOCK, file.size, file.source)
        for file, inode in zip(files, inodes, strict=True)
        if file.size
    )
    sink = _MetadataSink(extents[0][0] if extents else size)
    iso.inodes = []  # what is left to write is the metadata
    try:
        iso.write_fp(cast("BinaryIO", sink))
    finally:
        iso.inodes = inodes
    return Image(bytes(sink.data), extents, size)


class _MetadataSink:
    """The file that pycdlib writes the metadata into: it takes nothing but zeros beyond the metadata."""

    mode = "wb"

    def __init__(self, length: int) -> None:
        self.data = bytearray(length)
        self._position = 0
        self._end = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[
            whence
        ] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: bytes) -> int:
        stop = self._position + len(data)
        if stop <= len(self.data):
            self.data[self._position : stop] = data
        elif any(data):
            raise RuntimeError("pycdlib wrote metadata behind the first file")
        self._position = stop
        self._end = max(self._end, stop)
        return len(data)

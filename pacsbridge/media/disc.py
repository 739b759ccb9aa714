"""The way from received instances to a disc: patient checked, transcoded, listed, previewed, laid out."""

from __future__ import annotations

import errno
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydicom.uid import ExplicitVRLittleEndian

from pacsbridge.errors import MixedPatients, NoDicomData, SpoolFull, TooLarge
from pacsbridge.media.contents import Contents, arrange
from pacsbridge.media.decompress import Undecodable
from pacsbridge.media.dicomdir import DirectoryEntry, encode_dicomdir
from pacsbridge.media.image import READ_SIZE, DiscFile, Image, Names, Segment, lay_out
from pacsbridge.media.names import new_file_set_id
from pacsbridge.media.pages import PageWriter
from pacsbridge.media.patients import check_one_patient
from pacsbridge.media.previews import draw
from pacsbridge.media.readable import megabytes
from pacsbridge.media.readme import Facts, Undecoded, readme
from pacsbridge.media.transcode import transcode
from pacsbridge.media.viewer import Viewer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from typing import Literal

    from pacsbridge.instance import Instance
    from pacsbridge.media.decoders import Decoding
    from pacsbridge.media.image import Sink
    from pacsbridge.media.previews import Frame, Picture
    from pacsbridge.media.readme import MissingSeries

__all__ = ["Cancelled", "Disc", "DiscOptions", "Undecoded", "Viewer", "make_disc"]

log = structlog.get_logger(__name__)

_DICOM = "DICOM"
#: A directory of more files makes slow drives slow.
MAX_FILES_OF_DIRECTORY = 1000
#: How much of the work transcoding is, when there is any.
_TRANSCODING_SHARE = 0.85


class Cancelled(Exception):
    """The caller asked `make_disc` to stop."""


@dataclass(frozen=True, slots=True)
class DiscOptions:
    """How discs are made.

    Parameters
    ----------
    profile
        ``STD-GEN-CD``: everything that can be is in Explicit VR Little Endian; ``as-stored``: as it came.
    capacity_bytes
        The largest image; 0 for no limit.
    viewer
        What is copied onto each disc.
    institution
        Who made it, for README.TXT and the pages.
    software
        What made it, such as ``pacsbridge 1.0``.
    """

    profile: Literal["STD-GEN-CD", "as-stored"] = "STD-GEN-CD"
    capacity_bytes: int = 0
    viewer: Viewer | None = None
    institution: str = ""
    allow_mixed_patients: bool = False
    software: str = "pacsbridge"


@dataclass(frozen=True, slots=True)
class Disc:
    """A disc that is ready to be sent: its image exists as metadata and as files of the spool.

    Parameters
    ----------
    size
        Length of the image in bytes.
    etag
        A strong entity tag, without quotes: two discs differ in it, even of the same instances.
    file_set_id
        File-set ID and volume identifier.
    patient_name
        PatientName of the first patient, a PN with carets, decoded; may be empty.
    """

    image: Image
    size: int
    etag: str
    file_set_id: str
    created: datetime
    patient_name: str
    studies: int
    series: int
    instances: int
    undecoded: tuple[Undecoded, ...]

    def segments(self, start: int = 0, stop: int | None = None) -> Iterator[Segment]:
        """Yield the bytes from `start` up to `stop` as segments; see `Image.segments`."""
        return self.image.segments(start, stop)

    def read_chunks(
        self, start: int = 0, stop: int | None = None, chunk: int = READ_SIZE
    ) -> Generator[bytes]:
        """Yield the bytes from `start` up to `stop` in pieces; see `Image.read_chunks`."""
        return self.image.read_chunks(start, stop, chunk)

    def write_to(self, file: Sink) -> None:
        """Write the image to an open, buffered file."""
        self.image.write_to(file)


def make_disc(
    instances: Sequence[Instance],
    work_dir: Path,
    options: DiscOptions,
    *,
    decoding: Decoding | None = None,
    missing: Sequence[MissingSeries] = (),
    take: Callable[[int], None] = lambda _: None,
    on_progress: Callable[[float], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Disc:
    """Make a disc of instances; blocks, so it belongs in a worker thread.

    With the profile STD-GEN-CD the instances' files are transcoded in place: made again of the same
    instances, the disc is the same but for its identity. A file that can't be transcoded is on the disc as it
    came, and in `Disc.undecoded`.

    Parameters
    ----------
    instances
        What goes on it; an instance that is there twice goes on it once.
    work_dir
        Where what is generated is kept, in a folder of its own, for as long as the disc is read.
    decoding
        What decodes compressed instances, and may have begun; without it they are decoded in this thread.
    missing
        What did not arrive, for README.TXT and the pages.
    take
        Called with the bytes by which `work_dir` grows; raises SpoolFull when there is no room for them.
    on_progress
        Called with the part of the work that is done, 0 to 1.
    cancelled
        Asked now and then whether to stop.

    Raises
    ------
    NoDicomData
        There are no instances.
    MixedPatients
        They are not of one patient, and that is not allowed.
    TooLarge
        The image would be over the capacity, or a file over 4 GiB.
    SourceChanged
        A file is gone, or changed since it was received.
    SpoolFull
        There is no room to transcode or generate.
    Cancelled
        `cancelled` said so.
    """
    return _Maker(work_dir, options, decoding, missing, take, on_progress, cancelled).make(instances)


class _Maker:
    """The making of one disc."""

    def __init__(
        self,
        work_dir: Path,
        options: DiscOptions,
        decoding: Decoding | None,
        missing: Sequence[MissingSeries],
        take: Callable[[int], None],
        on_progress: Callable[[float], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._work_dir = work_dir
        self._options = options
        self._decoding = decoding
        self._missing = missing
        self._take = take
        self._on_progress = on_progress
        self._cancelled = cancelled
        self._created = datetime.now().astimezone()
        self._file_set_id = new_file_set_id(self._created)
        self._viewer_files = options.viewer.files() if options.viewer else []
        self._reasons: dict[str, str] = {}

    def make(self, instances: Sequence[Instance]) -> Disc:
        unique = list({instance.SOPInstanceUID: instance for instance in instances}.values())
        if not unique:
            raise NoDicomData("There are no DICOM instances to make a disc of.")
        one_patient = self._check_patients(unique)
        if self._options.profile == "STD-GEN-CD":
            unique = self._transcode(unique)
        self._check_capacity(sum(instance.size for instance in unique) + self._viewer_size(), "at least ")
        contents = arrange(unique, one_patient=one_patient)
        entries = _place(contents)
        undecoded = self._undecoded(entries)
        folder = Path(tempfile.mkdtemp(prefix="disc-", dir=self._work_dir))
        try:
            image = self._image(contents, entries, undecoded, folder)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SpoolFull("There is no room in the spool for the disc's pages.") from error
            raise
        self._on_progress(1.0)
        return Disc(
            image=image,
            size=image.size,
            etag=secrets.token_hex(16),
            file_set_id=self._file_set_id,
            created=self._created,
            patient_name=str(contents.patients[0].PatientName or ""),
            studies=len(contents.studies),
            series=len(contents.series),
            instances=len(entries),
            undecoded=undecoded,
        )

    def _check_patients(self, instances: Sequence[Instance]) -> bool:
        try:
            check_one_patient(instances)
        except MixedPatients:
            if not self._options.allow_mixed_patients:
                raise
            return False
        return True

    def _transcode(self, instances: Sequence[Instance]) -> list[Instance]:
        ready = [instance for instance in instances if instance.TransferSyntaxUID == ExplicitVRLittleEndian]
        waiting = [instance for instance in instances if instance.TransferSyntaxUID != ExplicitVRLittleEndian]
        size = sum(instance.size for instance in ready) + self._viewer_size()
        if self._decoding is not None:
            for instance in waiting:
                self._decoding.add(instance)
        for done, instance in enumerate(waiting):
            self._checkpoint()
            self._on_progress(_TRANSCODING_SHARE * done / len(waiting))
            try:
                made = self._bring(instance)
            except Undecodable as problem:
                made = instance
                self._reasons[instance.SOPInstanceUID] = str(problem)
            ready.append(made)
            size += made.size
            self._check_capacity(size, "at least ")
        if self._reasons:
            log.info("instances stay compressed", count=len(self._reasons), of=len(instances))
        return ready

    def _bring(self, instance: Instance) -> Instance:
        """Transcode an instance, or wait until it is."""
        decoded = self._decoding.result(instance, self._check_decoding) if self._decoding else None
        if decoded is None:
            decoded = transcode(instance, self._checkpoint)
            self._take(decoded.size - instance.size)
        return decoded

    def _check_decoding(self) -> None:
        self._checkpoint()
        if self._decoding is not None:
            self._check_capacity(self._decoding.bytes, "at least ")

    def _image(
        self,
        contents: Contents,
        entries: Sequence[DirectoryEntry],
        undecoded: tuple[Undecoded, ...],
        folder: Path,
    ) -> Image:
        options = self._options
        facts = Facts(
            institution=options.institution,
            created=self._created,
            software=options.software,
            profile=options.profile,
            file_set_id=self._file_set_id,
            missing=self._missing,
            undecoded=undecoded,
            has_viewer=options.viewer is not None,
        )
        generated = _Generated(folder, self._take)
        for page in PageWriter(contents, facts, self._checkpoint, self._draw).write():
            generated.add(page.names, page.content)
        generated.add(("README.TXT",), readme(contents, facts))
        generated.add(("DICOMDIR",), encode_dicomdir(entries, self._file_set_id))
        self._checkpoint()
        files = [
            DiscFile(entry.instance.path, entry.instance.size, entry.ReferencedFileID) for entry in entries
        ]
        image = lay_out(
            [*generated.files, *files, *self._viewer_files],
            self._file_set_id,
            options.software.upper(),
            options.viewer.directories() if options.viewer else (),
        )
        self._check_capacity(image.size, "")
        return image

    def _draw(self, frame: Frame) -> Picture | None:
        """Draw a frame, a compressed one where it can crash nobody."""
        if self._decoding is None:
            return draw(frame)
        return self._decoding.draw(frame, self._cancelled)

    def _undecoded(self, entries: Sequence[DirectoryEntry]) -> tuple[Undecoded, ...]:
        return tuple(
            Undecoded(
                path="/".join(entry.ReferencedFileID),
                SOPInstanceUID=entry.instance.SOPInstanceUID,
                TransferSyntaxUID=entry.TransferSyntaxUID,
                reason=self._reasons[entry.instance.SOPInstanceUID],
            )
            for entry in entries
            if entry.instance.SOPInstanceUID in self._reasons
        )

    def _viewer_size(self) -> int:
        return sum(file.size for file in self._viewer_files)

    def _check_capacity(self, size: int, qualifier: str) -> None:
        capacity = self._options.capacity_bytes
        if capacity and size > capacity:
            viewer = f", {megabytes(self._viewer_size())} of it the viewer" if self._viewer_files else ""
            raise TooLarge(
                f"The disc would hold {qualifier}{megabytes(size)}{viewer}; "
                f"the limit is {megabytes(capacity, up=False)} (media.capacity_bytes). "
                "Make a disc of fewer studies, or have the limit raised."
            )

    def _checkpoint(self) -> None:
        if self._cancelled():
            raise Cancelled


class _Generated:
    """Files of the disc that are made for it, kept in the spool: thirty minutes of discs don't fill memory."""

    def __init__(self, folder: Path, take: Callable[[int], None]) -> None:
        self._folder = folder
        self._take = take
        self.files: list[DiscFile] = []

    def add(self, names: Names, content: bytes) -> None:
        self._take(len(content))
        path = self._folder / "-".join(names)
        path.write_bytes(content)
        self.files.append(DiscFile(str(path), len(content), names))


def _place(contents: Contents) -> list[DirectoryEntry]:
    """Give each instance its file: a directory for each series, more for a long one.

    The files are counted through the disc, so that a viewer that copies them all into one folder overwrites
    none.
    """
    entries: list[DirectoryEntry] = []
    directories = 0
    for series in contents.series:
        for position, instance in enumerate(series.instances):
            if position % MAX_FILES_OF_DIRECTORY == 0:
                directories += 1
            names = (_DICOM, f"S{directories:07d}", f"I{len(entries) + 1:07d}")
            entries.append(DirectoryEntry(instance, names, instance.TransferSyntaxUID))
    return entries

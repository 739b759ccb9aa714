"""The inbox on its own: what is stored, what is refused, what is left behind."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from pacsbridge.dimse import inbox as inbox_module
from pacsbridge.dimse.inbox import Inbox, Incoming, Sink
from pacsbridge.dimse.status import Status
from pacsbridge.errors import SpoolFull
from pacsbridge.instance import InvalidInstance, read_instance
from pacsbridge.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tests.dimse.support import Sample, encode
from tests.samples import real_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacsbridge.instance import Instance


def receive(inbox: Inbox, sample: Sample, **values: Any) -> Sink:
    defaults = {
        "SOPClassUID": sample.SOPClassUID,
        "SOPInstanceUID": sample.SOPInstanceUID,
        "TransferSyntaxUID": ExplicitVRLittleEndian,
        "SourceApplicationEntityTitle": "PACS",
    }
    return inbox.receive(**(defaults | values))


def store(
    inbox: Inbox, sample: Sample, *, step: int = 1 << 16, data: bytes | None = None, **values: Any
) -> Status:
    sink = receive(inbox, sample, **values)
    data = sample.encoded(values.get("TransferSyntaxUID", ExplicitVRLittleEndian)) if data is None else data
    for start in range(0, len(data), step):
        sink.write(data[start : start + step])
    return sink.finish()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 20])
@pytest.mark.parametrize(
    "TransferSyntaxUID", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_stores_the_bytes_as_they_came(tmp_path: Path, step: int, TransferSyntaxUID: str) -> None:
    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    assert store(inbox, sample, step=step, TransferSyntaxUID=TransferSyntaxUID) == Status.SUCCESS

    (instance,) = inbox.instances
    assert instance.StudyInstanceUID == sample.StudyInstanceUID
    assert instance.SeriesInstanceUID == sample.SeriesInstanceUID
    assert instance.SOPInstanceUID == sample.SOPInstanceUID
    assert instance.TransferSyntaxUID == TransferSyntaxUID
    assert files(tmp_path) == [Path(instance.path).name]
    whole = (tmp_path / instance.path).read_bytes()
    assert whole.endswith(sample.encoded(TransferSyntaxUID))
    assert instance.size == len(whole)
    assert inbox.bytes_received == len(sample.encoded(TransferSyntaxUID))


@pytest.mark.parametrize("step", [500, 16_372, 131_060])
def test_what_is_read_while_it_arrives_is_what_the_file_says(tmp_path: Path, step: int) -> None:
    early = 0
    for number, path in enumerate(real_files()):
        try:
            theirs = read_instance(path)
        except InvalidInstance:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        inbox = Inbox(folder, [theirs.StudyInstanceUID])
        sink = inbox.receive(
            SOPClassUID=theirs.SOPClassUID,
            SOPInstanceUID=theirs.SOPInstanceUID,
            TransferSyntaxUID=theirs.TransferSyntaxUID,
            SourceApplicationEntityTitle="PACS",
        )
        data = path.read_bytes()
        data = data[data.index(b"DICM") + 4 :]
        data = data[12 + int.from_bytes(data[8:12], "little") :]
        for start in range(0, len(data), step):
            sink.write(data[start : start + step])
        early += isinstance(sink, Incoming) and sink._instance is not None
        if sink.finish() is not Status.SUCCESS:
            continue  # its data set has other UIDs than its File Meta Information, or none
        [ours] = inbox.instances
        assert ours == read_instance(Path(ours.path)), path.name
        assert (ours.attributes, ours.common) == (theirs.attributes, theirs.common), path.name
    assert early > 50 or step == 500  # what comes in crumbs is read in the end


def test_writes_its_own_file_meta(tmp_path: Path) -> None:
    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    store(inbox, sample)
    meta = dcmread(inbox.instances[0].path).file_meta
    assert meta.MediaStorageSOPClassUID == sample.SOPClassUID
    assert meta.MediaStorageSOPInstanceUID == sample.SOPInstanceUID
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == "PACS"
    head = Path(inbox.instances[0].path).read_bytes()[:144]
    start_of_dataset = 144 + meta.FileMetaInformationGroupLength
    assert head[128:132] == b"DICM"
    assert (tmp_path / inbox.instances[0].path).stat().st_size == start_of_dataset + len(sample.encoded())


def test_counts_by_series_and_instance(tmp_path: Path) -> None:
    first, second = Sample(), Sample()
    other = Sample(StudyInstanceUID=first.StudyInstanceUID, SeriesInstanceUID=first.SeriesInstanceUID)
    inbox = Inbox(tmp_path, [first.StudyInstanceUID, second.StudyInstanceUID])
    for sample in (first, second, other):
        store(inbox, sample)
    assert inbox.count == 3
    assert inbox.series_counts == {first.SeriesInstanceUID: 2, second.SeriesInstanceUID: 1}
    assert inbox.SOPInstanceUIDs(first.SeriesInstanceUID) == {first.SOPInstanceUID, other.SOPInstanceUID}
    assert inbox.SOPInstanceUIDs("1.2.3") == set()
    assert inbox.has(second.SOPInstanceUID)
    assert not inbox.has("1.2.3")


@pytest.mark.parametrize("step", [10, 1 << 16])
def test_refuses_a_stranger(tmp_path: Path, step: int) -> None:
    inbox = Inbox(tmp_path, [generate_uid()])
    assert store(inbox, Sample(), step=step) == Status.NOT_AUTHORIZED
    assert (inbox.count, inbox.refused, inbox.bytes_received, inbox.error) == (0, 1, 0, None)
    assert files(tmp_path) == []


def test_a_stranger_never_touches_the_disk(tmp_path: Path) -> None:
    claimed: list[int] = []
    inbox = Inbox(tmp_path, [generate_uid()], take=claimed.append)
    sample = Sample()
    sink = receive(inbox, sample)
    sink.write(sample.encoded())
    assert files(tmp_path) == []
    assert sink.finish() == Status.NOT_AUTHORIZED
    assert claimed == []


@pytest.mark.parametrize(("keyword", "value"), [("SOPInstanceUID", "1.2.3"), ("SOPClassUID", MRImageStorage)])
def test_refuses_another_instance_than_the_command_says(tmp_path: Path, keyword: str, value: str) -> None:
    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    assert store(inbox, sample, step=1000, data=None, **{keyword: value}) == Status.DATA_SET_MISMATCH
    assert inbox.refused == 1
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "data",
    [b"", b"no data set at all" * 40, b"\x08\x00\x16\x00UI\xff\xff" + b"1" * 100, b"\xff" * 5000],
    ids=["empty", "text", "cut off", "ones"],
)
def test_refuses_what_is_no_data_set(tmp_path: Path, data: bytes) -> None:
    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    assert store(inbox, sample, data=data) == Status.CANNOT_UNDERSTAND
    assert inbox.refused == 1
    assert files(tmp_path) == []


def test_finds_the_study_behind_a_long_group(tmp_path: Path) -> None:
    """Private groups before group 0020 can be longer than what is kept in memory to decide."""
    sample, stranger = Sample(), Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    for which in (sample, stranger):
        dataset = which.dataset()
        dataset.private_block(0x0009, "TEST", create=True).add_new(0x01, "OB", bytes(200_000))
        expected = Status.SUCCESS if which is sample else Status.NOT_AUTHORIZED
        assert store(inbox, which, data=encode(dataset)) == expected
    assert len(files(tmp_path)) == 1


def test_mentioning_an_expected_study_is_not_being_of_it(tmp_path: Path) -> None:
    expected, stranger = generate_uid(), Sample()
    dataset = stranger.dataset()
    reference = Dataset()
    reference.StudyInstanceUID = expected
    dataset.ReferencedStudySequence = [reference]
    inbox = Inbox(tmp_path, [expected])
    assert store(inbox, stranger, data=encode(dataset)) == Status.NOT_AUTHORIZED
    assert inbox.refused == 1
    assert files(tmp_path) == []


def test_lacking_a_study_is_refused(tmp_path: Path) -> None:
    sample = Sample()
    dataset = sample.dataset()
    del dataset.StudyInstanceUID
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    assert store(inbox, sample, data=encode(dataset)) == Status.CANNOT_UNDERSTAND
    assert files(tmp_path) == []


def test_stores_the_same_instance_once(tmp_path: Path) -> None:
    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    assert store(inbox, sample) == Status.SUCCESS
    assert store(inbox, sample) == Status.SUCCESS
    assert (inbox.count, inbox.refused, len(files(tmp_path))) == (1, 0, 1)
    assert inbox.bytes_received == len(sample.encoded())


def test_stores_the_same_instance_once_when_it_comes_twice_at_a_time(tmp_path: Path) -> None:
    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    first, second = receive(inbox, sample), receive(inbox, sample)
    first.write(sample.encoded())
    second.write(sample.encoded())
    assert len(files(tmp_path)) == 2
    assert first.finish() == second.finish() == Status.SUCCESS
    assert (inbox.count, len(files(tmp_path))) == (1, 1)


def test_a_twin_that_is_lost_does_not_take_the_other_with_it(tmp_path: Path) -> None:
    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    first, second = receive(inbox, sample), receive(inbox, sample)
    first.write(sample.encoded())
    second.write(sample.encoded())
    first.discard()
    assert second.finish() == Status.SUCCESS
    assert (inbox.count, len(files(tmp_path))) == (1, 1)


def test_a_lost_instance_leaves_nothing(tmp_path: Path) -> None:
    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    sink = receive(inbox, sample)
    sink.write(sample.encoded()[:-100])
    assert len(files(tmp_path)) == 1
    sink.discard()
    sink.discard()
    assert files(tmp_path) == []
    assert (inbox.count, inbox.refused, inbox.bytes_received) == (0, 0, 0)


def test_no_room_is_an_error_of_the_box(tmp_path: Path) -> None:
    first, second = SpoolFull("first"), SpoolFull("second")
    errors = [first, second]

    def take(_count: int) -> None:
        raise errors.pop(0)

    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID], take=take)
    assert store(inbox, sample) == Status.OUT_OF_RESOURCES
    assert store(inbox, sample) == Status.OUT_OF_RESOURCES
    assert inbox.error is first
    assert inbox.refused == 2
    assert files(tmp_path) == []


def test_room_is_claimed_before_it_is_used_and_used_again(tmp_path: Path) -> None:
    sample, stranger = Sample(), Sample()
    claimed: list[int] = []
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID], take=claimed.append)
    lost = receive(inbox, sample)
    lost.write(sample.encoded())
    lost.discard()
    room = sum(claimed)
    assert room > len(sample.encoded())
    assert store(inbox, sample) == Status.SUCCESS
    assert sum(claimed) == room == inbox.instances[0].size
    store(inbox, stranger)
    assert sum(claimed) == room


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.ENOSPC, Status.OUT_OF_RESOURCES),
        (errno.EDQUOT, Status.OUT_OF_RESOURCES),
        (errno.EIO, Status.PROCESSING_FAILURE),
    ],
)
def test_a_disk_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: Status
) -> None:
    sample = Sample(pixels=100_000)
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    sink = receive(inbox, sample)
    data = sample.encoded()
    sink.write(data[:50_000])

    def write(_fd: int, _data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pacsbridge.dimse.inbox.os.writev", write)
    sink.write(data[50_000:])
    assert sink.finish() == status
    assert isinstance(inbox.error, SpoolFull)
    assert files(tmp_path) == []


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    real = os.write
    monkeypatch.setattr("pacsbridge.dimse.inbox.os.writev", lambda fd, parts: real(fd, b"".join(parts)[:333]))
    monkeypatch.setattr("pacsbridge.dimse.inbox.os.write", lambda fd, data: real(fd, data[:333]))
    assert store(inbox, sample) == Status.SUCCESS
    assert (tmp_path / inbox.instances[0].path).read_bytes().endswith(sample.encoded())


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    sample = Sample()
    inbox = Inbox(tmp_path / "gone", [sample.StudyInstanceUID])
    assert store(inbox, sample) == Status.PROCESSING_FAILURE
    assert isinstance(inbox.error, SpoolFull)


def test_closed_means_closed(tmp_path: Path) -> None:
    sample, late = Sample(), Sample()
    late.StudyInstanceUID = sample.StudyInstanceUID
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    store(inbox, sample)
    before = files(tmp_path)
    sink = receive(inbox, late)
    sink.write(late.encoded()[:-100])
    inbox.close()
    inbox.close()
    assert inbox.closed
    assert files(tmp_path) == before
    for path in tmp_path.iterdir():
        path.unlink()
    tmp_path.rmdir()
    sink.write(late.encoded()[-100:])
    assert sink.finish() == Status.NOT_AUTHORIZED
    assert store(inbox, late) == Status.NOT_AUTHORIZED
    assert not tmp_path.exists()
    assert inbox.count == 1
    assert inbox.error is None


def test_close_waits_for_the_write_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    writing, go_on = threading.Event(), threading.Event()
    real = os.writev

    def slow(fd: int, parts: Sequence[bytes]) -> int:
        writing.set()
        go_on.wait(10)
        return real(fd, parts)

    monkeypatch.setattr("pacsbridge.dimse.inbox.os.writev", slow)
    sink = receive(inbox, sample)
    writer = threading.Thread(target=sink.write, args=(sample.encoded(),))
    writer.start()
    assert writing.wait(10)
    closer = threading.Thread(target=inbox.close)
    closer.start()
    closer.join(0.1)
    assert closer.is_alive()
    go_on.set()
    closer.join(10)
    writer.join(10)
    assert files(tmp_path) == []
    assert sink.finish() == Status.NOT_AUTHORIZED


def test_tells_of_each_stored_instance(tmp_path: Path) -> None:
    counts: list[int] = []
    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID], on_stored=lambda _instance: counts.append(inbox.count))
    store(inbox, sample)
    store(inbox, Sample())
    store(inbox, Sample(StudyInstanceUID=sample.StudyInstanceUID))
    assert counts == [1, 2]


def test_a_watcher_that_fails_does_not_lose_the_instance(tmp_path: Path) -> None:
    def fail(_instance: Instance) -> None:
        raise RuntimeError("the loop is closed")

    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID], on_stored=fail)
    assert store(inbox, sample) == Status.SUCCESS


def test_a_reader_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path) -> None:
        raise RecursionError

    monkeypatch.setattr(inbox_module, "read_instance", fail)
    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    assert store(inbox, sample) == Status.CANNOT_UNDERSTAND
    assert files(tmp_path) == []


def test_activity_is_seen_in_the_middle_of_an_instance(tmp_path: Path) -> None:
    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    inbox.last_activity = 0.0
    sink = receive(inbox, sample)
    sink.write(sample.encoded()[:500])
    assert inbox.last_activity > 0.0
    assert inbox.bytes_received == 500
    sink.discard()


def test_an_incoming_needs_no_data_to_end(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, [generate_uid()])
    sink = inbox.receive(
        SOPClassUID=CTImageStorage,
        SOPInstanceUID=generate_uid(),
        TransferSyntaxUID=ExplicitVRLittleEndian,
        SourceApplicationEntityTitle="",
    )
    assert isinstance(sink, Incoming)
    sink.discard()
    assert inbox.refused == 0

"""Sending to a publisher: dcmtk's storescp where it will do, peers of our own for bad days."""

from __future__ import annotations

import socket
import threading
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    generate_uid,
)
from pynetdicom import AE, evt
from pynetdicom.presentation import StoragePresentationContexts

from pacsbridge.dimse import store as store_module
from pacsbridge.dimse.filemeta import encode_file_meta
from pacsbridge.dimse.inbox import Inbox
from pacsbridge.dimse.message import (
    NO_DATA_SET,
    PDU_HEADER,
    CommandField,
    Control,
    Element,
    PduType,
    encode_command,
    us,
)
from pacsbridge.dimse.requestor import SendTimeouts
from pacsbridge.dimse.send import Outcome, SendProgress, SendReport, send_instances
from pacsbridge.dimse.status import Status
from pacsbridge.errors import PublisherRejected, PublisherUnreachable
from pacsbridge.instance import Instance, read_instance
from tests.dcmtk import StoreScp
from tests.dimse.support import Sample, descriptors, encode, pdata, pdv, running_scp, scp_config, threads
from tests.peers import HOST, free_port, wait_until
from tests.studies import make_ct_series, real_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pynetdicom.events import Event

SHORT = SendTimeouts(connect=2.0, negotiate=1.0, response=1.0)


class Way:
    """How it is sent."""

    fast = True


@pytest.fixture(params=[True, False], ids=["fast", "plain"], autouse=True)
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(Way, "fast", request.param)
    return bool(request.param)


#: For what pynetdicom alone can't do; the reason stands with the test.
only_fast = pytest.mark.parametrize("fast", [True], ids=["fast"], indirect=True)


def send(instances: Sequence[Instance], port: int, **options: object) -> SendReport:
    return send_instances(instances, HOST, port, "RIMAGE", "BRIDGE", fast=Way.fast, **options)  # type: ignore[arg-type]  # a test's


def write(folder: Path, sample: Sample, syntax: str = ExplicitVRLittleEndian) -> Instance:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sample.SOPInstanceUID}.dcm"
    meta = encode_file_meta(
        SOPClassUID=sample.SOPClassUID,
        SOPInstanceUID=sample.SOPInstanceUID,
        TransferSyntaxUID=syntax,
        SourceApplicationEntityTitle="",
    )
    path.write_bytes(meta + sample.encoded(syntax))
    return read_instance(path)


@pytest.fixture
def instances(tmp_path: Path) -> list[Instance]:
    return [write(tmp_path / "out", Sample()) for _ in range(4)]


def data_set(path: str | Path) -> bytes:
    whole = Path(path).read_bytes()
    return whole[144 + int.from_bytes(whole[140:144], "little") :]


def outcomes(report: SendReport) -> list[Outcome]:
    return [result.outcome for result in report.results]


# dcmtk


def test_sends_the_bytes_of_the_file_over_one_association(tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path / "series", 20, size=300)
    sent = [read_instance(path) for path in paths]
    with StoreScp(tmp_path / "scp", "+B", "+xa") as peer:
        report = send(sent, peer.port)
        received = {dcmread(path).SOPInstanceUID: path for path in peer.files()}
        assert peer.associations() == 1
    assert outcomes(report) == [Outcome.SENT] * 20
    assert (report.sent, report.failed, report.associations, report.error) == (20, 0, 1, None)
    for instance in sent:
        assert data_set(received[instance.SOPInstanceUID]) == data_set(instance.path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # the files are odd on purpose, and pydicom says so
def test_sends_every_kind_of_file(tmp_path: Path) -> None:
    """What storescp knows it takes as it is, in the transfer syntax of the file."""
    sent = [read_instance(path) for path in real_files()]
    with StoreScp(tmp_path / "scp", "+B", "+xa") as peer:
        report = send(sent, peer.port)
        received = {dcmread(path).SOPInstanceUID: path for path in peer.files()}
        assert peer.associations() == 1
    stored = [result.instance for result in report.results if result.outcome is Outcome.SENT]
    assert len(stored) > 90
    assert {instance.SOPInstanceUID for instance in stored} == set(received)
    for instance in stored:
        path = received[instance.SOPInstanceUID]
        assert (
            dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == instance.TransferSyntaxUID
        )
        theirs, ours = data_set(path), data_set(instance.path)
        assert theirs == ours + b"\0" * (len(ours) % 2)  # one of them is deflated and odd
    for result in report.results:
        if result.outcome is Outcome.FAILED:
            assert result.status is None
            assert "SOP Class" in result.reason or "transfer syntax" in result.reason


@pytest.mark.parametrize("length", ["4096", "16384", "131072"])
def test_keeps_to_the_peers_maximum_length(tmp_path: Path, length: str) -> None:
    instance = write(tmp_path / "out", Sample(pixels=300_000))
    with StoreScp(tmp_path / "scp", "+B", "-pdu", length) as peer:
        assert send([instance], peer.port).sent == 1
        (path,) = peer.files()
    assert data_set(path) == data_set(instance.path)


def re_encode(instance: Instance, TransferSyntaxUID: str) -> bytes:
    dataset = dcmread(instance.path)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.decompress(generate_instance_uid=False)
    return encode(dataset, TransferSyntaxUID)


def test_re_encodes_for_a_peer_that_takes_another_transfer_syntax(tmp_path: Path) -> None:
    explicit = write(tmp_path / "out", Sample())
    implicit = write(tmp_path / "out", Sample(), ImplicitVRLittleEndian)
    compressed = next(
        instance
        for instance in (read_instance(path) for path in real_files(unique=False))
        if instance.TransferSyntaxUID == JPEG2000Lossless
    )
    with StoreScp(tmp_path / "scp", "+B", "+xi") as peer:
        report = send([explicit, implicit, compressed], peer.port, transcode=re_encode)
        received = {dcmread(path).SOPInstanceUID: dcmread(path) for path in peer.files()}
    assert outcomes(report) == [Outcome.SENT] * 3
    for instance in (explicit, implicit, compressed):
        theirs = received[instance.SOPInstanceUID]
        assert theirs.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert received[explicit.SOPInstanceUID].PixelData == dcmread(explicit.path).PixelData
    assert received[compressed.SOPInstanceUID].pixel_array.shape


def test_what_cannot_be_re_encoded_fails_by_itself(tmp_path: Path) -> None:
    explicit = write(tmp_path / "out", Sample())
    implicit = write(tmp_path / "out", Sample(), ImplicitVRLittleEndian)

    def fail(_instance: Instance, _syntax: str) -> bytes:
        raise RuntimeError("no decoder")

    for options in ({}, {"transcode": fail}):
        with StoreScp(tmp_path / f"scp{len(options)}", "+xi") as peer:
            report = send([explicit, implicit], peer.port, **options)
            assert len(peer.files()) == 1
        assert outcomes(report) == [Outcome.FAILED, Outcome.SENT]
        assert "transfer syntax" in report.results[0].reason or "decoded" in report.results[0].reason


def test_what_the_peer_does_not_know_fails_by_itself(tmp_path: Path) -> None:
    known = write(tmp_path / "out", Sample())
    unknown = write(tmp_path / "out", Sample(SOPClassUID="1.2.826.0.1.3680043.9.7433.1.1"))
    with StoreScp(tmp_path / "scp") as peer:
        report = send([unknown, known], peer.port)
    assert outcomes(report) == [Outcome.FAILED, Outcome.SENT]
    assert "SOP Class" in report.results[0].reason


def test_more_contexts_than_an_association_has(tmp_path: Path) -> None:
    study = generate_uid()
    sent = [write(tmp_path / "out", Sample(study, SOPClassUID=f"1.2.3.{number}")) for number in range(70)]
    folder = tmp_path / "in"
    folder.mkdir()
    config = scp_config()
    with running_scp(config) as scp:
        inbox = Inbox(folder, [study])
        scp.attach(config.ports[0], inbox)
        report = send(
            [*sent, write(tmp_path / "out", Sample(study, SOPClassUID="1.2.3.1"))], config.ports[0].port
        )
    assert (report.sent, report.failed, report.associations) == (71, 0, 2)
    assert inbox.count == 71


def test_tells_how_far_it_is(tmp_path: Path, instances: list[Instance]) -> None:
    told: list[SendProgress] = []
    with StoreScp(tmp_path / "scp") as peer:
        send(instances, peer.port, on_progress=told.append)
    assert [progress.sent for progress in told] == [1, 2, 3, 4]
    assert told[-1].bytes == sum(len(data_set(instance.path)) for instance in instances)
    assert told[-1].failed == 0


def test_leaves_nothing_behind(tmp_path: Path, instances: list[Instance]) -> None:
    with StoreScp(tmp_path / "scp") as peer:
        before, open_before = threads(), descriptors()
        send(instances, peer.port)
        assert threads() == before
        assert descriptors() == open_before


# Peers that answer what they are told to


@contextmanager
def answering(answer: Callable[[Event], int]) -> Iterator[int]:
    """A Storage SCP that answers each C-STORE with what `answer` gives; its port."""
    ae = AE()
    ae.supported_contexts = StoragePresentationContexts
    port = free_port()
    server = ae.start_server((HOST, port), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)])
    assert server is not None
    try:
        yield port
    finally:
        server.shutdown()


def test_a_warning_is_a_success_with_a_note(instances: list[Instance]) -> None:
    with answering(lambda _event: 0xB006) as port:
        report = send(instances, port)
    assert outcomes(report) == [Outcome.WARNING] * 4
    assert (report.sent, report.warnings, report.failed) == (4, 4, 0)
    assert "0xB006" in report.results[0].reason


def test_a_failure_is_tried_once_more(instances: list[Instance]) -> None:
    asked: list[str] = []

    def answer(event: Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]  # it is a C-STORE
        asked.append(uid)
        first = asked.count(uid) == 1
        if uid == instances[0].SOPInstanceUID and first:
            return Status.OUT_OF_RESOURCES
        return Status.CANNOT_UNDERSTAND if uid == instances[2].SOPInstanceUID else Status.SUCCESS

    told: list[SendProgress] = []
    with answering(answer) as port:
        report = send(instances, port, on_progress=told.append)
    assert outcomes(report) == [Outcome.SENT, Outcome.SENT, Outcome.FAILED, Outcome.SENT]
    assert report.results[2].status == Status.CANNOT_UNDERSTAND
    assert "0xC000" in report.results[2].reason
    order = [instance.SOPInstanceUID for instance in instances]
    assert asked == [*order, order[0], order[2]]
    assert (told[-1].sent, told[-1].failed, report.associations) == (3, 1, 1)


def test_a_peer_that_aborts_in_the_middle(instances: list[Instance]) -> None:
    def answer(event: Event) -> int:
        if event.request.AffectedSOPInstanceUID == instances[1].SOPInstanceUID:  # type: ignore[union-attr]  # as above
            event.assoc.abort()
        return Status.SUCCESS

    with answering(answer) as port:
        report = send(instances, port)
    assert outcomes(report) == [Outcome.SENT] + [Outcome.FAILED] * 3
    assert isinstance(report.error, (PublisherRejected, PublisherUnreachable))
    assert report.associations == 1


# Peers that do what no library does


@contextmanager
def scripted(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A peer that serves its connections by a script; its port."""
    with socket.create_server((HOST, 0)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        serve(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    head = connection.recv(PDU_HEADER.size, socket.MSG_WAITALL)
    if len(head) < PDU_HEADER.size:
        raise ConnectionError
    kind, length = PDU_HEADER.unpack(head)
    return kind, connection.recv(length, socket.MSG_WAITALL) if length else b""


def accept(connection: socket.socket, *, maximum_length: int = 16384) -> None:
    """Accept whatever was proposed, in its only transfer syntax."""
    _, body = read_pdu(connection)
    items = b""
    for context_id in range(1, 256, 2):
        start = body.find(bytes([0x20, 0]), 68)
        if start < 0 or bytes([context_id, 0, 0, 0, 0x30]) not in body:
            break
        syntax = ExplicitVRLittleEndian.encode() if context_id == 1 else ImplicitVRLittleEndian.encode()
        sub_item = b"\x40\0" + len(syntax).to_bytes(2, "big") + syntax
        items += b"\x21\0" + (4 + len(sub_item)).to_bytes(2, "big") + bytes([context_id, 0, 0, 0]) + sub_item
    name = b"1.2.840.10008.3.1.1.1"
    uid = b"1.2.3.4"
    user = b"\x51\0\0\4" + maximum_length.to_bytes(4, "big") + b"\x52\0" + len(uid).to_bytes(2, "big") + uid
    answer = body[:68] + b"\x10\0" + len(name).to_bytes(2, "big") + name + items
    answer += b"\x50\0" + len(user).to_bytes(2, "big") + user
    connection.sendall(PDU_HEADER.pack(PduType.A_ASSOCIATE_AC, len(answer)) + answer)


def read_store(connection: socket.socket) -> None:
    """Read a C-STORE to the last fragment of its data set."""
    while True:
        kind, body = read_pdu(connection)
        if kind != PduType.P_DATA_TF:
            raise ConnectionError
        if body[5] == Control.LAST:
            return


def response(message_id: int, status: int = 0, field: int = CommandField.C_STORE_RSP) -> bytes:
    elements = [
        (Element.CommandField, us(field)),
        (Element.MessageIDBeingRespondedTo, us(message_id)),
        (Element.CommandDataSetType, us(NO_DATA_SET)),
        (Element.Status, us(status)),
    ]
    return encode_command(elements)


def answer_once(data: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        accept(connection)
        read_store(connection)
        connection.sendall(data)
        read_pdu(connection)

    return serve


def test_a_scripted_peer_can_be_sent_to(instances: list[Instance]) -> None:
    """The script itself is as it should be: what the next tests see is their own doing."""

    def serve(connection: socket.socket) -> None:
        accept(connection)
        for number in range(len(instances)):
            read_store(connection)
            command = response(number + 1)
            connection.sendall(
                pdata(
                    pdv(1, Control.COMMAND, command[:20]),
                    pdv(1, Control.COMMAND | Control.LAST, command[20:]),
                )
            )
        assert read_pdu(connection)[0] == PduType.A_RELEASE_RQ
        connection.sendall(PDU_HEADER.pack(PduType.A_RELEASE_RQ + 1, 4) + bytes(4))

    with scripted(serve) as port:
        assert send(instances, port, timeouts=SHORT).sent == 4


LAST_COMMAND = Control.COMMAND | Control.LAST


@pytest.mark.parametrize(
    "answer",
    [
        pdata(pdv(1, LAST_COMMAND, response(99))),
        pdata(pdv(1, LAST_COMMAND, response(1, field=CommandField.C_ECHO_RSP))),
        pdata(pdv(1, Control.LAST, response(1))),
        pdata(pdv(1, LAST_COMMAND, response(1), length=4000)),
        pdata(pdv(1, LAST_COMMAND, response(1), length=0)),
        PDU_HEADER.pack(PduType.P_DATA_TF, 0xFFFFFFF0),
        PDU_HEADER.pack(PduType.A_RELEASE_RQ, 4) + bytes(4),
        PDU_HEADER.pack(PduType.A_ABORT, 4) + bytes(4),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
    ],
    ids=[
        "another message", "another field", "a data set", "too long", "too short", "huge", "release", "abort",
        "http", "nothing",
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_no_success(instances: list[Instance], answer: bytes) -> None:
    with scripted(answer_once(answer)) as port:
        report = send(instances, port, timeouts=SHORT)
    assert outcomes(report) == [Outcome.FAILED] * 4
    assert report.error is not None
    assert report.associations == 1
    assert all(result.reason for result in report.results)


@only_fast  # pynetdicom's thread dies of the first two, and it takes the third's first answer
@pytest.mark.parametrize(
    "answer",
    [
        pdata(pdv(1, LAST_COMMAND, b"nonsense that is no command")),
        pdata(pdv(1, LAST_COMMAND, b"")),
        pdata(pdv(1, LAST_COMMAND, response(1)), pdv(1, LAST_COMMAND, response(1))),
    ],
    ids=["no command", "empty", "two"],
)
def test_an_answer_that_is_nonsense_is_no_success(instances: list[Instance], answer: bytes) -> None:
    test_an_answer_that_is_none_is_no_success(instances, answer)


def test_a_peer_that_closes_before_the_answer(instances: list[Instance]) -> None:
    def serve(connection: socket.socket) -> None:
        accept(connection)
        read_store(connection)

    with scripted(serve) as port:
        report = send(instances, port)
    assert outcomes(report) == [Outcome.FAILED] * 4
    assert isinstance(report.error, PublisherUnreachable)


def test_a_peer_that_stops_reading(tmp_path: Path) -> None:
    big = write(tmp_path / "out", Sample(pixels=30_000_000))
    done = threading.Event()

    def serve(connection: socket.socket) -> None:
        accept(connection)
        done.wait(20)

    with scripted(serve) as port:
        report = send([big], port, timeouts=SHORT)
        done.set()
    assert outcomes(report) == [Outcome.FAILED]
    assert "No answer" in str(report.error)


def test_a_peer_that_takes_hardly_anything(instances: list[Instance]) -> None:
    def serve(connection: socket.socket) -> None:
        accept(connection, maximum_length=8)
        read_pdu(connection)

    with scripted(serve) as port:
        report = send(instances, port, timeouts=SHORT)
    assert outcomes(report) == [Outcome.FAILED] * 4
    assert "8 bytes" in str(report.error)


def test_a_peer_that_never_answers_the_request(instances: list[Instance]) -> None:
    done = threading.Event()

    def serve(_connection: socket.socket) -> None:
        done.wait(20)

    with scripted(serve) as port:
        with pytest.raises(PublisherUnreachable, match="No answer"):
            send(instances, port, timeouts=SHORT)
        done.set()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        PDU_HEADER.pack(PduType.A_ASSOCIATE_AC, 0xFFFFFFFF),
        PDU_HEADER.pack(PduType.A_RELEASE_RQ, 4) + bytes(4),
        PDU_HEADER.pack(PduType.A_ABORT, 4) + bytes(4),
    ],
    ids=["http", "huge", "release", "abort"],
)
def test_a_peer_that_answers_the_request_with_something_else(
    instances: list[Instance], answer: bytes
) -> None:
    def serve(connection: socket.socket) -> None:
        read_pdu(connection)
        connection.sendall(answer)
        read_pdu(connection)

    expected = PublisherRejected if Way.fast else (PublisherRejected, PublisherUnreachable)
    with scripted(serve) as port, pytest.raises(expected):
        send(instances, port, timeouts=SHORT)


@only_fast  # pynetdicom gives up the association itself then
def test_a_peer_that_accepts_nothing(instances: list[Instance]) -> None:
    def serve(connection: socket.socket) -> None:
        read_pdu(connection)
        connection.sendall(PDU_HEADER.pack(PduType.A_ASSOCIATE_AC, 10) + b"x" * 10)
        read_pdu(connection)

    with scripted(serve) as port:
        report = send(instances, port, timeouts=SHORT)
    assert outcomes(report) == [Outcome.FAILED] * 4
    assert all("SOP Class" in result.reason for result in report.results)


@pytest.mark.parametrize(
    ("source", "reason", "words"),
    [(1, 7, "publisher.ae_title"), (1, 3, "Register"), (3, 2, "rejected")],
)
def test_a_peer_that_rejects(instances: list[Instance], source: int, reason: int, words: str) -> None:
    def serve(connection: socket.socket) -> None:
        read_pdu(connection)
        connection.sendall(PDU_HEADER.pack(PduType.A_ASSOCIATE_RJ, 4) + bytes([0, 1, source, reason]))
        read_pdu(connection)

    with scripted(serve) as port, pytest.raises(PublisherRejected, match=words) as caught:
        send(instances, port)
    assert "RIMAGE" in caught.value.message


def test_no_connection(instances: list[Instance]) -> None:
    port = free_port()
    open_before = descriptors()
    with pytest.raises(PublisherUnreachable, match=rf"RIMAGE at {HOST}:{port}.*publisher\.host"):
        send(instances, port)
    with pytest.raises(PublisherUnreachable, match=r"publisher\.host"):
        send_instances(instances, "no-such-host.invalid", 104, "RIMAGE", "BRIDGE")
    assert descriptors() == open_before


def test_nothing_to_send(tmp_path: Path) -> None:
    report = send([], free_port())
    assert (report.results, report.associations, report.error) == ((), 0, None)


# Cancelling


def test_cancel_while_the_peer_is_silent(instances: list[Instance]) -> None:
    done, cancel = threading.Event(), threading.Event()

    def serve(connection: socket.socket) -> None:
        accept(connection)
        read_store(connection)
        connection.sendall(pdata(pdv(1, LAST_COMMAND, response(1))))
        read_store(connection)
        cancel.set()
        while read_pdu(connection)[0] != PduType.A_ABORT:
            pass
        done.set()

    with scripted(serve) as port:
        began = time.monotonic()
        report = send(instances, port, cancelled=cancel.is_set)
        assert time.monotonic() - began < 2
        assert done.wait(5), "the peer was told by an A-ABORT"
    assert report.cancelled
    assert outcomes(report) == [Outcome.SENT] + [Outcome.FAILED] * 3
    assert report.results[3].reason == "cancelled"


@only_fast  # pynetdicom can't be interrupted while it connects
def test_cancel_while_connecting(instances: list[Instance]) -> None:
    """A host that drops packets: here a listener whose queue is full."""
    with socket.create_server((HOST, 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((HOST, port))
            fillers.append(filler)
        began = time.monotonic()
        report = send(instances, port, cancelled=lambda: time.monotonic() - began > 0.2)
        for filler in fillers:
            filler.close()
    assert report.cancelled
    assert report.associations == 0
    assert outcomes(report) == [Outcome.FAILED] * 4


@only_fast  # pynetdicom is watched by the clock, and this one is sent before it ticks
def test_cancel_in_the_middle_of_a_big_instance(tmp_path: Path) -> None:
    big = write(tmp_path / "out", Sample(pixels=20_000_000))
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 4

    with StoreScp(tmp_path / "scp") as peer:
        report = send([big], peer.port, cancelled=cancelled)
        assert report.cancelled
        assert report.failed == 1
        # storescp begins a file, and gives it up with the association.
        wait_until(lambda: "abort" in peer.log().lower(), "storescp to see the abort")


# Files


def test_a_file_that_is_gone_or_none(tmp_path: Path, instances: list[Instance]) -> None:
    Path(instances[0].path).unlink()
    Path(instances[1].path).write_bytes(b"no Part 10 file")
    whole = Path(instances[2].path).read_bytes()
    Path(instances[2].path).write_bytes(whole[: -len(data_set(instances[2].path))])
    with StoreScp(tmp_path / "scp") as peer:
        report = send(instances, peer.port)
        assert len(peer.files()) == 1
    assert outcomes(report) == [Outcome.FAILED] * 3 + [Outcome.SENT]
    assert [result.status for result in report.results] == [None, None, None, 0]
    reasons = [result.reason for result in report.results]
    assert "can't be opened" in reasons[0]
    assert "Part 10" in reasons[1]
    assert "no data set" in reasons[2]


@only_fast  # pynetdicom reads the file by itself, well ahead
def test_a_file_that_shrinks_is_not_sent_as_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_WINDOW_BYTES", 1 << 16)
    big = write(tmp_path / "out", Sample(pixels=1_000_000))
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        if asked == 4:
            with Path(big.path).open("r+b") as file:
                file.truncate(400_000)
        return False

    with StoreScp(tmp_path / "scp") as peer:
        report = send([big], peer.port, cancelled=cancelled)
    assert outcomes(report) == [Outcome.FAILED]
    assert "changed" in str(report.error)


def test_equal_instances_are_each_sent(tmp_path: Path) -> None:
    instance = write(tmp_path / "out", Sample())
    with StoreScp(tmp_path / "scp") as peer:
        report = send([instance, replace(instance)], peer.port)
    assert outcomes(report) == [Outcome.SENT, Outcome.SENT]


def test_the_class_of_the_data_set_is_the_one_of_the_context(tmp_path: Path) -> None:
    instance = write(tmp_path / "out", Sample())
    seen: list[str] = []

    def answer(event: Event) -> int:
        seen.append(str(event.context.abstract_syntax))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert event.dataset.SOPInstanceUID == instance.SOPInstanceUID
        return Status.SUCCESS

    with answering(answer) as port:
        assert send([instance], port).sent == 1
    assert seen == [CTImageStorage]

"""What a hostile or broken peer can send while P-DATA is expected: the right abort, and nothing left behind."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from pacsbridge.dimse import association as association_module
from pacsbridge.dimse.association import MAXIMUM_LENGTH
from pacsbridge.dimse.inbox import Inbox
from pacsbridge.dimse.message import (
    MAXIMUM_COMMAND_LENGTH,
    NO_DATA_SET,
    PDU_HEADER,
    AbortReason,
    Control,
    Element,
    PduType,
    encode_command,
    ui,
    us,
)
from pacsbridge.dimse.status import Status
from tests.dimse.support import (
    CONTEXT_CT,
    CONTEXT_ECHO,
    Peer,
    Sample,
    associate_request,
    echo_command,
    pdata,
    pdv,
    running_scp,
    scp_config,
    store_command,
    store_pdus,
    threads,
)
from tests.peers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = Control.COMMAND | Control.LAST
SAMPLE = Sample()
STORE = pdata(pdv(CONTEXT_CT, COMMAND, SAMPLE.command()))
DATA = SAMPLE.encoded()
UNACCEPTED_CONTEXT = 99
C_FIND_RQ = 0x0020


def command(*elements: tuple[Element, bytes]) -> bytes:
    return pdata(pdv(CONTEXT_CT, COMMAND, encode_command(elements)))


FIELD = (Element.CommandField, us(1))
MESSAGE_ID = (Element.MessageID, us(5))
PRESENT = (Element.CommandDataSetType, us(1))

HOSTILE = {
    "a data set without a command": pdata(pdv(CONTEXT_CT, Control.LAST, DATA)),
    "a data set after an echo": pdata(pdv(CONTEXT_ECHO, COMMAND, echo_command()), pdv(CONTEXT_ECHO, 2, DATA)),
    "a data set in the middle of a command": pdata(
        pdv(CONTEXT_CT, Control.COMMAND, SAMPLE.command()[:30]), pdv(CONTEXT_CT, Control.DATA_SET, DATA)
    ),
    "a command in the middle of a data set": STORE
    + pdata(pdv(CONTEXT_CT, Control.DATA_SET, DATA[:1000]))
    + pdata(pdv(CONTEXT_CT, COMMAND, SAMPLE.command())),
    "a second command before the data set": STORE + STORE,
    "an echo in the middle of a data set": STORE
    + pdata(pdv(CONTEXT_CT, Control.DATA_SET, DATA[:1000]))
    + pdata(pdv(CONTEXT_ECHO, COMMAND, echo_command())),
    "a command in two contexts": pdata(
        pdv(CONTEXT_CT, Control.COMMAND, SAMPLE.command()[:30]),
        pdv(CONTEXT_ECHO, COMMAND, SAMPLE.command()[30:]),
    ),
    "a context that was not accepted": pdata(pdv(UNACCEPTED_CONTEXT, COMMAND, SAMPLE.command())),
    "a data set in another context": STORE + pdata(pdv(CONTEXT_ECHO, Control.LAST, DATA)),
    "an empty PDU": PDU_HEADER.pack(PduType.P_DATA_TF, 0),
    "a PDU that is too short": PDU_HEADER.pack(PduType.P_DATA_TF, 5) + bytes(5),
    "a PDU that is too long": PDU_HEADER.pack(PduType.P_DATA_TF, MAXIMUM_LENGTH + 1) + bytes(12),
    "a PDU of 4 GB": PDU_HEADER.pack(PduType.P_DATA_TF, 0xFFFFFFFF) + bytes(12),
    "a PDV that is too short": pdata(pdv(CONTEXT_CT, COMMAND, SAMPLE.command(), length=1)),
    "a PDV of no length": pdata(pdv(CONTEXT_CT, COMMAND, SAMPLE.command(), length=0)),
    "a PDV that is longer than its PDU": pdata(pdv(CONTEXT_CT, COMMAND, SAMPLE.command(), length=5000)),
    "a PDV of 4 GB": pdata(pdv(CONTEXT_CT, COMMAND, SAMPLE.command(), length=0xFFFFFFFF)),
    "a PDU that ends in a PDV's head": pdata(pdv(CONTEXT_CT, 1, b""), b"\0\0\0"),
    "no command set": pdata(pdv(CONTEXT_CT, COMMAND, b"\xff" * 100)),
    "an empty command set": pdata(pdv(CONTEXT_CT, COMMAND, b"")),
    "a command set that is cut off": pdata(pdv(CONTEXT_CT, COMMAND, SAMPLE.command()[:-3])),
    "a command set without an end": b"".join(
        pdata(pdv(CONTEXT_CT, Control.COMMAND, bytes(MAXIMUM_COMMAND_LENGTH // 2))) for _ in range(3)
    ),
    "an element of another group": pdata(
        pdv(CONTEXT_CT, COMMAND, struct.pack("<HHL", 8, 0x16, 4) + b"1.2\0")
    ),
    "a message without an ID": command(FIELD, PRESENT),
    "a message without a field": command(MESSAGE_ID, PRESENT),
    "a message without a data set type": command(FIELD, MESSAGE_ID),
    "a field of another length": command((Element.CommandField, b"\1\0\0\0"), MESSAGE_ID, PRESENT),
    "another message": command((Element.CommandField, us(C_FIND_RQ)), MESSAGE_ID, PRESENT),
    "a response": command((Element.CommandField, us(0x8001)), MESSAGE_ID, PRESENT),
    "an echo with a data set": command((Element.CommandField, us(0x0030)), MESSAGE_ID, PRESENT),
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[int, Inbox]]:
    config = scp_config()
    with running_scp(config, fast=True) as scp:
        inbox = Inbox(tmp_path, [SAMPLE.StudyInstanceUID])
        scp.attach(config.ports[0], inbox)
        yield config.ports[0].port, inbox


@pytest.mark.parametrize("what", HOSTILE)
def test_aborts(place: tuple[int, Inbox], what: str) -> None:
    port, inbox = place
    before = threads()
    with Peer(port).associate() as peer:
        peer.send(HOSTILE[what])
        kind, body = peer.receive()
        while kind == PduType.P_DATA_TF:  # the answer to what came before
            kind, body = peer.receive()
        assert kind == PduType.A_ABORT
        source, reason = body[2:]
        assert (source, reason) == (2, AbortReason.INVALID_PDU_PARAMETER_VALUE)
        assert peer.receive() == (0, b"")
    assert list(inbox.folder.iterdir()) == []
    wait_until(lambda: threads() <= before, "the association to end")
    with Peer(port).associate() as peer:
        assert peer.store(SAMPLE) == Status.SUCCESS
        peer.release()


@pytest.mark.parametrize("kind", [0x00, 0x01, 0x02, 0x03, 0x06, 0x08, 0xFF])
@pytest.mark.parametrize("length", [0, 4, 0xFFFFFFFF])
def test_another_pdu_ends_the_association(place: tuple[int, Inbox], kind: int, length: int) -> None:
    """What is no P-DATA-TF is left to pynetdicom, and its end is an abort or the end of the connection."""
    port, inbox = place
    before = threads()
    with Peer(port).associate() as peer:
        peer.send(STORE, pdata(pdv(CONTEXT_CT, Control.DATA_SET, DATA[:1000])))
        peer.send(PDU_HEADER.pack(kind, length) + bytes(min(length, 100)))
        peer.socket.shutdown(1)
        assert peer.receive()[0] in (PduType.A_ABORT, 0)
    wait_until(lambda: threads() <= before, "the association to end")
    assert list(inbox.folder.iterdir()) == []


def test_an_abort_arrives_although_the_peer_goes_on_sending(place: tuple[int, Inbox]) -> None:
    """Closing a socket with unread bytes resets the connection, and the peer would never see why."""
    port, _ = place
    with Peer(port).associate() as peer:
        peer.send(HOSTILE["a data set without a command"])
        for _ in range(20):
            peer.send(bytes(1_000_000))
        assert peer.receive()[0] == PduType.A_ABORT


@pytest.mark.parametrize("associated", [False, True])
def test_a_pdu_without_an_end_is_not_waited_for(place: tuple[int, Inbox], associated: bool) -> None:
    port, _ = place
    with Peer(port) as peer:
        if associated:
            peer.associate()
        peer.send(PDU_HEADER.pack(1, 0xFFFFFFFF) + bytes(100))
        assert peer.receive()[0] in (PduType.A_ABORT, 0)


def test_what_comes_before_the_answer_waits(place: tuple[int, Inbox]) -> None:
    """The request and nonsense in one go: the request is answered, then the nonsense."""
    port, _ = place
    with Peer(port) as peer:
        peer.send(associate_request([(SAMPLE.SOPClassUID, [ExplicitVRLittleEndian])]) + b"\xff" * 100)
        assert peer.receive()[0] == PduType.A_ASSOCIATE_AC
        assert peer.receive()[0] in (PduType.A_ABORT, 0)


def test_what_comes_behind_a_release_does_not_hinder_it(place: tuple[int, Inbox]) -> None:
    port, _ = place
    with Peer(port).associate() as peer:
        peer.send(PDU_HEADER.pack(PduType.A_RELEASE_RQ, 4) + bytes(4) + HOSTILE["an empty PDU"])
        assert peer.receive()[0] == PduType.A_RELEASE_RQ + 1


def test_release_in_the_middle_of_a_message_leaves_nothing(place: tuple[int, Inbox]) -> None:
    port, inbox = place
    with Peer(port).associate() as peer:
        peer.send(STORE, pdata(pdv(CONTEXT_CT, Control.DATA_SET, DATA[:1000])))
        peer.release()
    assert list(inbox.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("SOPClassUID", "SOPInstanceUID", "status"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", "", Status.INVALID_SOP_INSTANCE),
        ("1.2.840.10008.5.1.4.1.1.2", "1." * 33, Status.INVALID_SOP_INSTANCE),
        ("1.2.840.10008.5.1.4.1.1.2", "1.2\n3", Status.INVALID_SOP_INSTANCE),
        ("", "1.2.3", Status.SOP_CLASS_NOT_SUPPORTED),
    ],
)
def test_uids_that_are_none(
    place: tuple[int, Inbox], SOPClassUID: str, SOPInstanceUID: str, status: Status
) -> None:
    port, inbox = place
    with Peer(port).associate() as peer:
        peer.send(pdata(pdv(CONTEXT_CT, COMMAND, store_command(SOPClassUID, SOPInstanceUID))))
        peer.send(pdata(pdv(CONTEXT_CT, Control.LAST, DATA)))
        response = peer.response()
        assert response.number(Element.Status) == status
        assert response.text(Element.ErrorComment)
        assert peer.store(SAMPLE) == Status.SUCCESS
    assert inbox.count == 1


def test_a_store_in_the_context_of_verification(place: tuple[int, Inbox]) -> None:
    port, _ = place
    with Peer(port).associate() as peer:
        assert peer.store(SAMPLE, context_id=CONTEXT_CT) == Status.SUCCESS
        pdus = [
            pdata(pdv(CONTEXT_ECHO, COMMAND, SAMPLE.command())),
            pdata(pdv(CONTEXT_ECHO, Control.LAST, DATA)),
        ]
        peer.send(*pdus)
        assert peer.response().number(Element.Status) == Status.SOP_CLASS_NOT_SUPPORTED


def test_a_store_without_a_data_set(place: tuple[int, Inbox]) -> None:
    port, _ = place
    with Peer(port).associate() as peer:
        uids = ((Element.AffectedSOPClassUID, ui("1.2.3")), (Element.AffectedSOPInstanceUID, ui("1.2.3")))
        peer.send(command(uids[0], FIELD, MESSAGE_ID, (Element.CommandDataSetType, us(NO_DATA_SET)), uids[1]))
        assert peer.response().number(Element.Status) == Status.CANNOT_UNDERSTAND


def test_tells_the_archive_why(place: tuple[int, Inbox]) -> None:
    port, _ = place
    with Peer(port).associate() as peer:
        peer.send(*store_pdus(Sample()))
        response = peer.response()
        assert response.number(Element.Status) == Status.NOT_AUTHORIZED
        assert "expects the study" in response.text(Element.ErrorComment)


def test_a_peer_that_stops_in_the_middle_is_aborted(
    place: tuple[int, Inbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(association_module, "STALL_SECONDS", 1.0)
    port, inbox = place
    with Peer(port).associate() as peer:
        peer.send(STORE, pdata(pdv(CONTEXT_CT, Control.DATA_SET, DATA)))
        peer.send(pdata(pdv(CONTEXT_CT, Control.DATA_SET, DATA))[:1000])
        wait_until(lambda: bool(list(inbox.folder.iterdir())), "the file")
        assert peer.receive()[0] == PduType.A_ABORT
        wait_until(lambda: not list(inbox.folder.iterdir()), "the file to go")


def test_a_slow_peer_is_not_aborted(place: tuple[int, Inbox], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(association_module, "STALL_SECONDS", 1.0)
    port, inbox = place
    pdus = b"".join(store_pdus(SAMPLE))
    with Peer(port).associate() as peer:
        for start in range(0, len(pdus), 400):
            peer.send(pdus[start : start + 400])
            time.sleep(0.3)  # altogether it takes longer than a silence may
        assert peer.response().number(Element.Status) == Status.SUCCESS
    assert inbox.count == 1

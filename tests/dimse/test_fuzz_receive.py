"""Mutated streams of PDUs: whatever comes, the receiver ends as it should and leaves no file behind.

``FUZZ_INPUTS`` sets the number of streams, ``FUZZ_SEED`` the first seed; ``scripts/fuzz-receive`` runs many.
"""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from pacsbridge.dimse.association import MAXIMUM_LENGTH
from pacsbridge.dimse.fastpath import Context, Receiver
from pacsbridge.dimse.inbox import Inbox, Sink
from pacsbridge.dimse.message import PDU_HEADER, Control, InvalidMessage, PduType
from pacsbridge.dimse.wire import ConnectionEnded
from tests.dimse.support import (
    CONTEXT_CT,
    CONTEXT_ECHO,
    Peer,
    Sample,
    associate_request,
    descriptors,
    echo_command,
    pdata,
    pdv,
    running_scp,
    scp_config,
    store_pdus,
    threads,
)
from tests.peers import wait_until

if TYPE_CHECKING:
    from pacsbridge.dimse.status import Status

INPUTS = int(os.environ.get("FUZZ_INPUTS", "2000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
#: Over the network, negotiation included, an input costs ten times as much.
NETWORK_INPUTS = max(100, INPUTS // 10)

pytestmark = pytest.mark.timeout(3600 if INPUTS > 2000 else 120)

STUDY = "1.2.3.4"
SAMPLES = [Sample(STUDY, "1.2.3.5", f"1.2.3.6.{number}", pixels=500) for number in range(3)]
STRANGER = Sample("1.9.9", "1.9.8", "1.9.7", pixels=500)
RELEASE = PDU_HEADER.pack(PduType.A_RELEASE_RQ, 4) + bytes(4)


def stream(rng: random.Random) -> list[bytes]:
    """A conversation that is as it should be."""
    pdus: list[bytes] = []
    for _ in range(rng.randint(1, 3)):
        kind = rng.random()
        if kind < 0.2:
            pdus.append(pdata(pdv(CONTEXT_ECHO, Control.COMMAND | Control.LAST, echo_command())))
        else:
            sample = STRANGER if kind < 0.3 else rng.choice(SAMPLES)
            pdus += store_pdus(sample, step=rng.choice([50, 300, 1000]))
    return [*pdus, RELEASE]


def mutate(rng: random.Random, pdus: list[bytes]) -> bytes:
    """Break a conversation in one of the ways that conversations break."""
    for _ in range(rng.randint(0, 2)):
        number = rng.randrange(len(pdus))
        way = rng.randrange(4)
        if way == 0:
            del pdus[number]
        elif way == 1:
            pdus.insert(number, rng.choice(pdus))
        elif way == 2:
            other = rng.randrange(len(pdus))
            pdus[number], pdus[other] = pdus[other], pdus[number]
        else:
            pdus[number] = pdus[number][: rng.randrange(len(pdus[number]) + 1)]
    return _mutate_bytes(rng, bytearray(b"".join(pdus)))


def _mutate_bytes(rng: random.Random, data: bytearray) -> bytes:
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        at = rng.randrange(len(data) + 1)
        way = rng.randrange(4)
        if way == 0:
            data[at : at + 1] = rng.randbytes(1)
        elif way == 1:
            data[at : at + 4] = rng.choice(
                [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1", b"\x7f\xff\xff\xff"]
            )
        elif way == 2:
            del data[at : at + rng.randint(1, 40)]
        else:
            data[at:at] = rng.randbytes(rng.randint(1, 40))
    return bytes(data)


def feed(data: bytes, inbox: Inbox) -> None:
    """Let a receiver read `data` from a socket, and look how it ends."""
    answers: list[Status] = []

    def open_sink(*, SOPClassUID: str, SOPInstanceUID: str, TransferSyntaxUID: str) -> Sink:
        return inbox.receive(
            SOPClassUID=SOPClassUID,
            SOPInstanceUID=SOPInstanceUID,
            TransferSyntaxUID=TransferSyntaxUID,
            SourceApplicationEntityTitle="FUZZ",
        )

    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        receiver = Receiver(
            ours,
            {
                CONTEXT_CT: Context(CTImageStorage, ExplicitVRLittleEndian),
                CONTEXT_ECHO: Context(Verification, ExplicitVRLittleEndian),
            },
            announced_length=MAXIMUM_LENGTH,
            maximum_length=16384,
            open_sink=open_sink,
            on_answer=answers.append,
            on_silence=lambda _seconds, _in_message: None,
        )
        try:
            unread = receiver.run()
            assert not unread or unread[0] != PduType.P_DATA_TF
        except (InvalidMessage, ConnectionEnded):
            pass


def test_the_receiver_survives_any_stream(tmp_path: Path) -> None:
    stored = 0
    for number in range(SEED, SEED + INPUTS):
        rng = random.Random(number)
        data = mutate(rng, stream(rng))
        inbox = Inbox(tmp_path, [STUDY])
        try:
            feed(data, inbox)
        except Exception as error:
            raise AssertionError(f"FUZZ_SEED={number} FUZZ_INPUTS=1") from error
        instances = inbox.instances
        assert {path.name for path in tmp_path.iterdir()} == {Path(each.path).name for each in instances}
        assert not inbox._in_flight, f"FUZZ_SEED={number}"
        assert {each.StudyInstanceUID for each in instances} <= {STUDY}, f"FUZZ_SEED={number}"
        stored += inbox.count
        inbox.close()
        for path in tmp_path.iterdir():
            path.unlink()
    assert stored or INPUTS < 100


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_the_service_survives_any_peer(tmp_path: Path, fast: bool) -> None:
    """The whole of it, negotiation included."""
    contexts = [(CTImageStorage, [ExplicitVRLittleEndian]), (Verification, [ExplicitVRLittleEndian])]
    request = associate_request(contexts)
    config = scp_config()
    port = config.ports[0].port
    with running_scp(config, fast=fast) as scp:
        inbox = Inbox(tmp_path, [STUDY])
        scp.attach(config.ports[0], inbox)
        before, open_before = threads(), descriptors()
        for number in range(SEED, SEED + NETWORK_INPUTS):
            rng = random.Random(number)
            with Peer(port) as peer:
                if rng.random() < 0.3:
                    data = mutate(rng, [request, *stream(rng)])
                else:
                    peer.associate(contexts)
                    data = mutate(rng, stream(rng))
                try:
                    peer.send(data)
                    peer.socket.shutdown(socket.SHUT_WR)
                except OSError:
                    continue  # the service has closed the connection already
                while peer.receive()[0]:
                    pass
        wait_until(lambda: threads() <= before, "the threads to end")
        wait_until(lambda: descriptors() <= open_before, "the descriptors to close")
        inbox.close()
        files = {path.name for path in tmp_path.iterdir()}
        assert files == {Path(each.path).name for each in inbox.instances}
        with Peer(port).associate() as peer:
            peer.release()

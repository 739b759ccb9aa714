"""The Storage SCP over the network, received by the fast path and by pynetdicom alike."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
import warnings
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from pacsbridge.dimse import scp as scp_module
from pacsbridge.dimse.inbox import Inbox
from pacsbridge.dimse.message import Control, Element, PduType
from pacsbridge.dimse.scp import PortUnavailable, StorageScp
from pacsbridge.dimse.shared_socket import PollingAE
from pacsbridge.dimse.status import Status
from pacsbridge.errors import SpoolFull
from tests.dcmtk import StoreScp
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
from tests.peers import HOST, listens, require, run, wait_until
from tests.studies import make_ct_series, real_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pacsbridge.config import ScpPort, StorageScpConfig

PRIVATE_SOP_CLASS = "1.2.826.0.1.3680043.9.7433.1.1"


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare dcmtk the 40 ms that Nagle's algorithm makes it wait for each small answer."""
    monkeypatch.setenv("TCP_NODELAY", "1")


@pytest.fixture(params=[True, False], ids=["fast", "plain"])
def fast(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def config() -> StorageScpConfig:
    return scp_config()


@pytest.fixture
def scp(config: StorageScpConfig, fast: bool) -> Iterator[StorageScp]:
    with running_scp(config, fast=fast) as running:
        yield running


@pytest.fixture
def port(config: StorageScpConfig) -> ScpPort:
    return config.ports[0]


@pytest.fixture
def sample() -> Sample:
    return Sample()


@pytest.fixture
def inbox(scp: StorageScp, port: ScpPort, sample: Sample, tmp_path: Path) -> Inbox:
    folder = tmp_path / "inbox"
    folder.mkdir()
    box = Inbox(folder, [sample.StudyInstanceUID])
    scp.attach(port, box)
    return box


def left(inbox: Inbox) -> list[Path]:
    return sorted(inbox.folder.iterdir())


def test_stores_and_answers(inbox: Inbox, port: ScpPort, sample: Sample) -> None:
    with Peer(port.port).associate() as peer:
        peer.send(*store_pdus(sample))
        response = peer.response()
        assert response.number(Element.Status) == Status.SUCCESS
        assert response.number(Element.MessageIDBeingRespondedTo) == 1
        assert response.uid(Element.AffectedSOPInstanceUID) == sample.SOPInstanceUID
        assert response.uid(Element.AffectedSOPClassUID) == sample.SOPClassUID
        peer.release()
    assert [instance.SOPInstanceUID for instance in inbox.instances] == [sample.SOPInstanceUID]
    assert left(inbox)[0].read_bytes().endswith(sample.encoded())


def test_names_who_sent(inbox: Inbox, port: ScpPort, sample: Sample) -> None:
    with Peer(port.port).associate(calling_ae_title="ARCHIVE7") as peer:
        peer.store(sample)
    assert dcmread(inbox.instances[0].path).file_meta.SourceApplicationEntityTitle == "ARCHIVE7"


@pytest.mark.parametrize("step", [1, 500, 1 << 20])
def test_takes_fragments_of_any_length(inbox: Inbox, port: ScpPort, sample: Sample, step: int) -> None:
    sample.pixels = 500 if step == 1 else 100_000
    with Peer(port.port).associate() as peer:
        step = min(step, peer.maximum_length - 6)
        assert peer.store(sample, step=step) == Status.SUCCESS
    assert left(inbox)[0].read_bytes().endswith(sample.encoded())


def test_takes_several_pdvs_in_a_pdu(inbox: Inbox, port: ScpPort, sample: Sample) -> None:
    data = sample.encoded()
    with Peer(port.port).associate() as peer:
        command = sample.command()
        peer.send(
            pdata(
                pdv(CONTEXT_CT, Control.COMMAND, command[:40]),
                pdv(CONTEXT_CT, Control.COMMAND, b""),
                pdv(CONTEXT_CT, Control.COMMAND | Control.LAST, command[40:]),
                pdv(CONTEXT_CT, Control.DATA_SET, data[:100]),
                pdv(CONTEXT_CT, Control.DATA_SET, b""),
            ),
            pdata(
                pdv(CONTEXT_CT, Control.DATA_SET, data[100:]),
                pdv(CONTEXT_CT, Control.LAST, b""),
            ),
        )
        assert peer.response().number(Element.Status) == Status.SUCCESS
    assert left(inbox)[0].read_bytes().endswith(data)


def test_answers_echo_before_between_and_after(inbox: Inbox, port: ScpPort, sample: Sample) -> None:
    other = Sample(StudyInstanceUID=sample.StudyInstanceUID)
    with Peer(port.port).associate() as peer:
        for each in (sample, other):
            peer.send(pdata(pdv(CONTEXT_ECHO, Control.COMMAND | Control.LAST, echo_command())))
            assert peer.response().number(Element.Status) == Status.SUCCESS
            assert peer.store(each) == Status.SUCCESS
        peer.send(pdata(pdv(CONTEXT_ECHO, Control.COMMAND | Control.LAST, echo_command())))
        assert peer.response().number(Element.MessageIDBeingRespondedTo) == 7
        peer.release()
    assert inbox.count == 2


def test_answers_echoscu(scp: StorageScp, port: ScpPort) -> None:
    result = run(require("echoscu"), "-aec", port.ae_title, HOST, str(port.port))
    assert result.returncode == 0, result.stdout


def test_keeps_to_the_peers_maximum_length(inbox: Inbox, port: ScpPort, sample: Sample) -> None:
    with Peer(port.port).associate(maximum_length=64) as peer:
        peer.send(*store_pdus(sample))
        command = b""
        while True:
            kind, body = peer.receive()
            assert kind == PduType.P_DATA_TF
            assert len(body) <= 64
            command += body[6:]
            if body[5] & Control.LAST:
                break
    assert sample.SOPInstanceUID.encode() in command


def test_refuses_a_stranger(scp: StorageScp, inbox: Inbox, port: ScpPort, sample: Sample) -> None:
    with Peer(port.port).associate() as peer:
        assert peer.store(Sample()) == Status.NOT_AUTHORIZED
        assert peer.store(sample) == Status.SUCCESS
        assert peer.store(Sample(pixels=400_000)) == Status.NOT_AUTHORIZED
    assert (inbox.count, inbox.refused, scp.refused, len(left(inbox))) == (1, 2, 2, 1)


def test_a_port_without_a_job_refuses_everything(scp: StorageScp, port: ScpPort, sample: Sample) -> None:
    with Peer(port.port).associate() as peer:
        assert peer.store(sample) == Status.NOT_AUTHORIZED
    assert scp.refused == 1


def test_another_port_is_another_job(fast: bool, tmp_path: Path) -> None:
    config = scp_config(2)
    mine, other = Sample(), Sample()
    folders = [tmp_path / "mine", tmp_path / "other"]
    with running_scp(config, fast=fast) as scp:
        for folder, each, number in zip(folders, (mine, other), (0, 1), strict=True):
            folder.mkdir()
            scp.attach(config.ports[number], Inbox(folder, [each.StudyInstanceUID]))
        with Peer(config.ports[1].port).associate() as peer:
            assert peer.store(mine) == Status.NOT_AUTHORIZED
            assert peer.store(other) == Status.SUCCESS
    assert list(folders[0].iterdir()) == []
    assert len(list(folders[1].iterdir())) == 1


def test_refuses_another_instance_than_the_command_says(inbox: Inbox, port: ScpPort, sample: Sample) -> None:
    with Peer(port.port).associate() as peer:
        pdus = store_pdus(sample)
        pdus[0] = store_pdus(Sample(StudyInstanceUID=sample.StudyInstanceUID))[0]
        peer.send(*pdus)
        assert peer.response().number(Element.Status) == Status.DATA_SET_MISMATCH
    assert left(inbox) == []


def test_refuses_what_it_cannot_read(inbox: Inbox, port: ScpPort, sample: Sample) -> None:
    with Peer(port.port).associate() as peer:
        peer.send(store_pdus(sample)[0], pdata(pdv(CONTEXT_CT, Control.LAST, b"nonsense" * 100)))
        assert peer.response().number(Element.Status) == Status.CANNOT_UNDERSTAND
    assert left(inbox) == []


def test_no_room_is_told_to_the_archive_and_to_the_job(
    scp: StorageScp, port: ScpPort, sample: Sample, tmp_path: Path
) -> None:
    room = len(sample.encoded()) + 1000

    def take(count: int) -> None:
        nonlocal room
        if count > room:
            raise SpoolFull("full")
        room -= count

    inbox = Inbox(tmp_path, [sample.StudyInstanceUID], take=take)
    scp.attach(port, inbox)
    with Peer(port.port).associate() as peer:
        assert peer.store(sample) == Status.SUCCESS
        assert peer.store(Sample(StudyInstanceUID=sample.StudyInstanceUID)) == Status.OUT_OF_RESOURCES
        assert peer.store(sample) == Status.SUCCESS
    assert isinstance(inbox.error, SpoolFull)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_same_instance_over_two_associations_is_stored_once(
    inbox: Inbox, port: ScpPort, sample: Sample
) -> None:
    pdus = store_pdus(sample, step=500)
    with Peer(port.port).associate() as first, Peer(port.port).associate() as second:
        for pdu in pdus[:-1]:
            first.send(pdu)
            second.send(pdu)
        first.send(pdus[-1])
        second.send(pdus[-1])
        assert first.response().number(Element.Status) == Status.SUCCESS
        assert second.response().number(Element.Status) == Status.SUCCESS
        assert first.store(sample) == Status.SUCCESS
    assert (inbox.count, len(left(inbox)), inbox.refused) == (1, 1, 0)


@pytest.mark.parametrize("how", ["close", "abort", "reset"])
def test_a_lost_association_leaves_no_file(inbox: Inbox, port: ScpPort, sample: Sample, how: str) -> None:
    before = threads()
    peer = Peer(port.port).associate()
    peer.send(*store_pdus(sample, step=500)[:-1])
    if how == "abort":
        peer.send(bytes([PduType.A_ABORT, 0, 0, 0, 0, 4, 0, 0, 0, 0]))
    elif how == "reset":
        wait_until(lambda: len(threads()) > len(before), "the association")
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.socket.close()
    wait_until(lambda: threads() <= before, "the association to end")
    assert left(inbox) == []
    assert (inbox.count, inbox.refused) == (0, 0)
    with Peer(port.port).associate() as next_peer:
        assert next_peer.store(sample) == Status.SUCCESS


def test_a_store_in_flight_stays_with_its_job(
    scp: StorageScp, inbox: Inbox, port: ScpPort, sample: Sample, tmp_path: Path, fast: bool
) -> None:
    """The next job leases the port while an instance of the one before is still arriving."""
    pdus = store_pdus(sample, step=500)
    with Peer(port.port).associate() as peer:
        peer.send(*pdus[:-1])
        if fast:
            wait_until(lambda: bool(left(inbox)), "the file")
        scp.detach(port)
        inbox.close()
        assert left(inbox) == []
        inbox.folder.rmdir()
        following = tmp_path / "following"
        following.mkdir()
        next_inbox = Inbox(following, [generate_uid()])
        scp.attach(port, next_inbox)
        peer.send(pdus[-1])
        assert peer.response().number(Element.Status) == Status.NOT_AUTHORIZED
    assert not inbox.folder.exists()
    assert list(following.iterdir()) == []
    assert next_inbox.count == 0


def test_a_port_has_one_inbox(scp: StorageScp, inbox: Inbox, port: ScpPort) -> None:
    with pytest.raises(ValueError, match=str(port.port)):
        scp.attach(port, inbox)
    scp.detach(port)
    scp.detach(port)
    scp.attach(port, inbox)


# Negotiation


def propose(port: ScpPort, *contexts: tuple[str, Sequence[str]]) -> dict[int, str]:
    with Peer(port.port) as peer:
        peer.associate(contexts)
        peer.release()
        return peer.accepted


def test_accepts_the_wanted_transfer_syntax_whatever_the_order(scp: StorageScp, port: ScpPort) -> None:
    accepted = propose(
        port,
        (CTImageStorage, [ImplicitVRLittleEndian, ExplicitVRLittleEndian]),
        (CTImageStorage, [JPEG2000Lossless, ImplicitVRLittleEndian]),
        (CTImageStorage, [ExplicitVRBigEndian, JPEGLosslessSV1]),
        (CTImageStorage, [RLELossless]),
        (CTImageStorage, [ExplicitVRBigEndian]),
        (Verification, [ImplicitVRLittleEndian]),
    )
    assert list(accepted.values()) == [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        JPEGLosslessSV1,
        RLELossless,
        ExplicitVRBigEndian,
        ImplicitVRLittleEndian,
    ]


def test_accepts_storage_only(scp: StorageScp, port: ScpPort) -> None:
    accepted = propose(
        port,
        (StudyRootQueryRetrieveInformationModelFind, [ExplicitVRLittleEndian]),
        (CTImageStorage, ["1.2.3.4.5"]),
        (CTImageStorage, [ExplicitVRLittleEndian]),
    )
    assert accepted == {5: ExplicitVRLittleEndian}


def test_takes_a_private_sop_class(inbox: Inbox, port: ScpPort, sample: Sample) -> None:
    sample.SOPClassUID = PRIVATE_SOP_CLASS
    with Peer(port.port).associate([(PRIVATE_SOP_CLASS, [ExplicitVRLittleEndian])]) as peer:
        assert peer.store(sample) == Status.SUCCESS
    assert inbox.instances[0].SOPClassUID == PRIVATE_SOP_CLASS


def test_takes_128_contexts(scp: StorageScp, port: ScpPort) -> None:
    contexts = [
        (f"1.2.3.{number}", [ImplicitVRLittleEndian, ExplicitVRLittleEndian]) for number in range(128)
    ]
    assert list(propose(port, *contexts).values()) == [ExplicitVRLittleEndian] * 128


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """More open files than `select` can count: a proxy with many clients has them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context(Path(os.devnull).open("rb"))
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_works_with_more_descriptors_than_select_can_count(
    inbox: Inbox, port: ScpPort, sample: Sample
) -> None:
    with Peer(port.port).associate() as peer:
        assert peer.store(sample) == Status.SUCCESS
        peer.release()
    ae = PollingAE(ae_title="BRIDGE")
    ae.add_requested_context(Verification)
    association = ae.associate(HOST, port.port)
    assert association.is_established
    assert association.send_c_echo().Status == Status.SUCCESS
    association.release()
    association.join(10)
    assert not association.is_alive()


# Who may connect


@pytest.mark.parametrize(
    ("networks", "allowed"),
    [
        ((), True),
        (("127.0.0.0/8",), True),
        (("10.0.0.0/8", "127.0.0.1"), True),
        (("10.0.0.0/8",), False),
        (("::1",), False),
    ],
)
def test_only_allowed_peers_connect(networks: tuple[str, ...], allowed: bool, fast: bool) -> None:
    config = scp_config(allowed_peers=networks)
    with running_scp(config, fast=fast) as scp, Peer(config.ports[0].port) as peer:
        if allowed:
            peer.associate()
            peer.release()
        else:
            assert peer.receive() == (0, b"")
            wait_until(lambda: scp.rejected_peers == 1, "the count")
        assert scp.rejected_peers == (0 if allowed else 1)


def test_allowed_peers_by_every_kind_of_address() -> None:
    scp = StorageScp(scp_config(allowed_peers=("192.0.2.0/24", "2001:db8::/32", "fe80::/10")))
    assert scp.allows("192.0.2.7")
    assert scp.allows("::ffff:192.0.2.7")
    assert scp.allows("2001:db8::1")
    assert scp.allows("fe80::1%eth0")
    assert not scp.allows("198.51.100.1")
    assert not scp.allows("::ffff:198.51.100.1")
    assert not scp.allows("2001:db9::1")


def test_listens_on_ipv6_and_mapped_ipv4(fast: bool) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    config = scp_config(host="::", allowed_peers=("127.0.0.1", "::1"))
    with running_scp(config, fast=fast) as scp:
        for host in ("::1", "127.0.0.1"):
            with Peer(config.ports[0].port, host).associate() as peer:
                peer.release()
        assert scp.rejected_peers == 0


def test_too_many_connections_are_closed(
    scp: StorageScp, port: ScpPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scp_module, "MAXIMUM_CONNECTIONS", 3)
    before = threads()
    peers = [Peer(port.port).associate() for _ in range(3)]
    with Peer(port.port) as fourth:
        assert fourth.receive() == (0, b"")
    assert scp.rejected_peers == 1
    for peer in peers:
        peer.release()
        peer.socket.close()
    wait_until(lambda: threads() <= before, "the associations to end")
    with Peer(port.port).associate() as peer:
        peer.release()


# Peers that do nothing


def test_a_peer_that_asks_for_nothing_is_dropped(
    config: StorageScpConfig, port: ScpPort, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scp_module, "NEGOTIATION_SECONDS", 0.5)
    with running_scp(config, fast=fast):
        before = threads()
        with Peer(port.port) as silent, Peer(port.port) as slow:
            slow.send(associate_request([(CTImageStorage, [ExplicitVRLittleEndian])])[:20])
            assert silent.receive() == (0, b"")
            silent.socket.close()
            # Half a request can only be waited for; the end of the connection ends it.
            slow.socket.close()
        wait_until(lambda: threads() <= before, "the threads to end")


def test_a_peer_that_goes_at_once_is_forgotten_at_once(scp: StorageScp, port: ScpPort) -> None:
    """A port scanner, or a monitor that looks whether the port is open: nobody waits for ARTIM."""
    before, open_before = threads(), descriptors()
    for _ in range(20):
        assert listens(port.port)
    with Peer(port.port).associate() as peer:  # those before it have been accepted now
        peer.release()
    wait_until(lambda: threads() <= before, "the threads to end", seconds=5)
    wait_until(lambda: descriptors() <= open_before, "the descriptors to close", seconds=5)


def test_an_idle_association_is_aborted(
    config: StorageScpConfig, port: ScpPort, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scp_module, "IDLE_SECONDS", 0.6)
    with running_scp(config, fast=fast), Peer(port.port).associate() as peer:
        assert peer.receive()[0] == PduType.A_ABORT
        assert peer.receive() == (0, b"")


def test_an_association_that_was_long_in_use_can_be_released(
    config: StorageScpConfig, port: ScpPort, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pynetdicom's idle timer does not see what our receiver reads."""
    monkeypatch.setattr(scp_module, "IDLE_SECONDS", 1.0)
    with running_scp(config, fast=fast), Peer(port.port).associate() as peer:
        for _ in range(5):
            time.sleep(0.4)
            peer.send(pdata(pdv(CONTEXT_ECHO, Control.COMMAND | Control.LAST, echo_command())))
            assert peer.response().number(Element.Status) == Status.SUCCESS
        peer.release()


# Starting and stopping


def test_a_port_that_is_taken(fast: bool) -> None:
    config = scp_config(2)
    with socket.socket() as taken:
        taken.bind((HOST, config.ports[1].port))
        taken.listen()
        before = descriptors()
        scp = StorageScp(config, fast=fast)
        with pytest.raises(PortUnavailable, match=f"{config.ports[1].port}.*storage_scp.ports"):
            scp.start()
        assert not scp.running
        assert descriptors() == before
        assert not listens(config.ports[0].port)
    scp.start()
    assert scp.running
    scp.stop()


def test_stop_leaves_nothing(fast: bool, tmp_path: Path) -> None:
    config = scp_config(3)
    before, open_before = threads(), descriptors()
    sample = Sample()
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    scp = StorageScp(config, fast=fast)
    scp.start()
    scp.start()
    scp.attach(config.ports[0], inbox)
    silent, associated, sending = (
        Peer(port.port) for port in (config.ports[1], config.ports[0], config.ports[0])
    )
    associated.associate()
    sending.associate()
    sending.send(*store_pdus(sample, step=500)[:-1])
    if fast:
        wait_until(lambda: bool(list(tmp_path.iterdir())), "the file")
    began = time.monotonic()
    scp.stop()
    scp.stop()
    assert time.monotonic() - began < 4
    assert not scp.running
    assert threads() <= before
    assert list(tmp_path.iterdir()) == []
    assert associated.receive()[0] == PduType.A_ABORT
    assert silent.receive() == (0, b"")
    for peer in (silent, associated, sending):
        peer.socket.close()
    assert descriptors() <= open_before
    assert not any(listens(port.port) for port in config.ports)


def test_can_be_started_again(scp: StorageScp, port: ScpPort) -> None:
    scp.stop()
    scp.start()
    with Peer(port.port).associate() as peer:
        peer.release()


def test_stop_without_start() -> None:
    StorageScp(scp_config()).stop()


# Many at a time


def test_several_associations_at_a_time(
    scp: StorageScp, port: ScpPort, tmp_path: Path, sample: Sample
) -> None:
    samples = [Sample(StudyInstanceUID=sample.StudyInstanceUID, pixels=50_000) for _ in range(24)]
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    scp.attach(port, inbox)

    def send(mine: list[Sample]) -> None:
        with Peer(port.port).associate() as peer:
            for each in mine:
                peer.store(each)
            peer.release()

    senders = [threading.Thread(target=send, args=(samples[number::4],)) for number in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(60)
    assert {instance.SOPInstanceUID for instance in inbox.instances} == {
        each.SOPInstanceUID for each in samples
    }
    for instance in inbox.instances:
        assert instance.size == Path(instance.path).stat().st_size


# dcmtk


def test_receives_a_series_from_storescu(
    inbox: Inbox, scp: StorageScp, port: ScpPort, tmp_path: Path
) -> None:
    paths = make_ct_series(tmp_path / "series", 40, size=128)
    scp.detach(port)
    box = Inbox(inbox.folder, [dcmread(paths[0]).StudyInstanceUID])
    scp.attach(port, box)
    result = run(require("storescu"), "-aec", port.ae_title, HOST, str(port.port), *paths)
    assert result.returncode == 0, result.stdout
    assert box.count == 40
    sent = {dcmread(path).SOPInstanceUID: _data_set(path) for path in paths}
    for instance in box.instances:
        assert _data_set(Path(instance.path)) == sent[instance.SOPInstanceUID]


#: What makes storescu propose a transfer syntax.
_PROPOSE = {
    JPEGLosslessSV1: "-xs",
    JPEGBaseline8Bit: "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    JPEG2000Lossless: "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.103": "-xl",
    RLELossless: "-xr",
    "1.2.840.10008.1.2.1.99": "-xd",
    ExplicitVRLittleEndian: "-xe",
    ExplicitVRBigEndian: "-xb",
    ImplicitVRLittleEndian: "-xi",
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # the files are odd on purpose, and pydicom says so
def test_receives_the_same_as_storescp(scp: StorageScp, port: ScpPort, tmp_path: Path) -> None:
    """Whatever storescu can send of the real files: our file holds the data set that storescp's holds."""
    groups: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in real_files(unique=False):
        dataset = dcmread(path, stop_before_pixels=True)
        groups[dataset.file_meta.TransferSyntaxUID].setdefault(dataset.SOPInstanceUID, path)
    compared = 0
    for syntax, paths in groups.items():
        if syntax not in _PROPOSE:
            continue
        command = [require("storescu"), "-nh", "-R", _PROPOSE[syntax], HOST]
        folder = tmp_path / syntax
        folder.mkdir()
        with StoreScp(tmp_path / f"{syntax}-storescp", "+B", "+xa") as reference:
            run(*command, str(reference.port), *paths.values())
            expected = {dcmread(path).SOPInstanceUID: path for path in reference.files()}
        studies = {dcmread(path, stop_before_pixels=True).StudyInstanceUID for path in paths.values()}
        inbox = Inbox(folder, studies)
        scp.attach(port, inbox)
        run(*command, str(port.port), *paths.values())
        scp.detach(port)
        assert {instance.SOPInstanceUID for instance in inbox.instances} == set(expected), syntax
        assert inbox.refused == 0
        for instance in inbox.instances:
            theirs = expected[instance.SOPInstanceUID]
            assert _data_set(Path(instance.path)) == _data_set(theirs)
            assert instance.TransferSyntaxUID == dcmread(theirs).file_meta.TransferSyntaxUID
            compared += 1
    assert compared > 80


def _data_set(path: Path) -> bytes:
    """What follows the File Meta Information."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        meta = dcmread(path, stop_before_pixels=True).file_meta
    return path.read_bytes()[144 + meta.FileMetaInformationGroupLength :]

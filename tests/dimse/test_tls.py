"""DICOM over TLS: dcmtk at the other end where it will do, and the ways in which TLS fails."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread
from structlog.testing import capture_logs

from pacsbridge.config import ClientTlsConfig, Config, ConfigError, ServerTlsConfig
from pacsbridge.dimse import association as association_module
from pacsbridge.dimse.inbox import Inbox
from pacsbridge.dimse.message import Element, PduType
from pacsbridge.dimse.move import MoveAssociation, NoAssociation
from pacsbridge.dimse.requestor import SendTimeouts
from pacsbridge.dimse.scu import VERIFICATION, Scu
from pacsbridge.dimse.scu import Peer as Called
from pacsbridge.dimse.send import send_instances
from pacsbridge.dimse.status import Status
from pacsbridge.dimse.tls import ClientTls, check_files, client_context, own_certificate, server_context
from pacsbridge.dimse.wire import TlsFailure
from pacsbridge.errors import (
    PacsError,
    PacsUnreachable,
    PublisherRejected,
    PublisherUnreachable,
)
from pacsbridge.instance import read_instance
from tests.certificates import Authority, Certificate
from tests.dcmtk import StoreScp
from tests.dimse.support import (
    Peer,
    Sample,
    associate_request,
    descriptors,
    running_scp,
    scp_config,
    store_pdus,
    threads,
)
from tests.peers import HOST, free_port, require, run, wait_until
from tests.studies import make_ct_series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pacsbridge.config import ScpPort, StorageScpConfig
    from pacsbridge.dimse.scp import StorageScp

SHORT = SendTimeouts(connect=2.0, negotiate=2.0, response=2.0)


class Keys:
    """What the tests need of certificates, made once."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.other = Authority(folder, "other")
        self.ours = self.authority.issue("ours")
        self.theirs = self.authority.issue("theirs")
        self.expired = self.authority.issue("expired", days=-1)
        self.elsewhere = self.authority.issue("elsewhere", host="192.0.2.1")
        self.strange = self.other.issue("strange")
        self.locked = self.authority.issue("locked", passphrase=b"secret")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(params=[True, False], ids=["fast", "plain"])
def fast(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def config(keys: Keys) -> StorageScpConfig:
    return scp_config(tls=ServerTlsConfig(**keys.ours.section(ca_path=str(keys.authority.path))))


@pytest.fixture
def port(config: StorageScpConfig) -> ScpPort:
    return config.ports[0]


@pytest.fixture
def scp(config: StorageScpConfig, fast: bool) -> Iterator[StorageScp]:
    with running_scp(config, fast=fast) as running:
        yield running


def server_options(keys: Keys, certificate: Certificate) -> list[str]:
    """How to call one of dcmtk's programs."""
    return [
        "+tls", str(certificate.key), str(certificate.certificate), "+cf", str(keys.authority.path),
    ]  # fmt: skip


def client(keys: Keys, **values: Any) -> ClientTls:
    section = keys.ours.section(ca_path=str(keys.authority.path)) | values
    return ClientTls(ClientTlsConfig(**section), HOST)


class TlsPeer(Peer):
    """A requestor of the tests that speaks TLS."""

    def __init__(self, port: int, keys: Keys, certificate: Certificate | None) -> None:
        super().__init__(port)
        context = ssl.create_default_context(cafile=str(keys.authority.path))
        if certificate:
            context.load_cert_chain(certificate.certificate, certificate.key)
        self.socket = context.wrap_socket(self.socket, server_hostname=HOST)


# We receive


def test_receives_from_storescu(scp: StorageScp, port: ScpPort, keys: Keys, tmp_path: Path) -> None:
    paths = make_ct_series(tmp_path / "series", 20, size=300)
    folder = tmp_path / "inbox"
    folder.mkdir()
    inbox = Inbox(folder, [dcmread(paths[0]).StudyInstanceUID])
    scp.attach(port, inbox)
    options = server_options(keys, keys.theirs)
    result = run(require("storescu"), *options, "-aec", port.ae_title, HOST, str(port.port), *paths)
    assert result.returncode == 0, result.stdout
    assert inbox.count == 20
    sent = {dcmread(path).SOPInstanceUID: dcmread(path).PixelData for path in paths}
    for instance in inbox.instances:
        assert dcmread(instance.path).PixelData == sent[instance.SOPInstanceUID]


@pytest.mark.parametrize("step", [7, 4000, 100_000])
def test_takes_what_comes_in_one_record_or_in_many(
    step: int, scp: StorageScp, port: ScpPort, keys: Keys, tmp_path: Path
) -> None:
    sample = Sample(pixels=50_000 if step > 7 else 250)
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    scp.attach(port, inbox)
    with TlsPeer(port.port, keys, keys.theirs).associate() as peer:
        assert peer.store(sample, step=step) == Status.SUCCESS
        peer.release()
    (instance,) = inbox.instances
    assert Path(instance.path).read_bytes().endswith(sample.encoded())


def test_takes_several_pdus_in_one_record(scp: StorageScp, port: ScpPort, keys: Keys, tmp_path: Path) -> None:
    """What OpenSSL has decrypted already, the descriptor does not show."""
    sample = Sample(pixels=2000)
    inbox = Inbox(tmp_path, [sample.StudyInstanceUID])
    scp.attach(port, inbox)
    with TlsPeer(port.port, keys, keys.theirs).associate() as peer:
        peer.socket.settimeout(10)
        peer.send(b"".join(store_pdus(sample, step=500)))
        assert peer.response().number(Element.Status) == Status.SUCCESS
        peer.release()
    assert inbox.count == 1


@pytest.mark.parametrize("which", ["none", "strange", "expired"])
def test_a_peer_without_a_certificate_of_the_authority_is_refused(
    which: str, scp: StorageScp, port: ScpPort, keys: Keys
) -> None:
    certificate = None if which == "none" else getattr(keys, which)
    with capture_logs() as logs, TlsPeer(port.port, keys, certificate) as peer:
        peer.socket.settimeout(10)
        with pytest.raises((OSError, AssertionError)):
            peer.associate()
        wait_until(lambda: bool(logs), "the log")
    assert "certificate" in logs[0]["reason"], logs
    assert "storage_scp.tls" in logs[0]["reason"]


def test_without_an_authority_no_certificate_is_asked_for(fast: bool, keys: Keys) -> None:
    config = scp_config(tls=ServerTlsConfig(**keys.ours.section()))
    with running_scp(config, fast=fast), TlsPeer(config.ports[0].port, keys, None).associate() as peer:
        peer.release()


def test_a_silent_peer_keeps_nobody_waiting(scp: StorageScp, port: ScpPort, keys: Keys) -> None:
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection((HOST, port.port)))
        with TlsPeer(port.port, keys, keys.theirs).associate() as peer:
            peer.release()


def test_a_silent_peer_is_dropped(scp: StorageScp, port: ScpPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(association_module, "HANDSHAKE_SECONDS", 1.0)
    with capture_logs() as logs, socket.create_connection((HOST, port.port), timeout=10) as silent:
        silent.sendall(b"\x16\x03")
        assert silent.recv(100) == b""
        wait_until(lambda: bool(logs), "the log")
    assert "no TLS handshake within 1 s" in logs[0]["reason"]


def test_stop_ends_handshakes_too(config: StorageScpConfig, port: ScpPort, fast: bool) -> None:
    before, open_before = threads(), descriptors()
    with running_scp(config, fast=fast), socket.create_connection((HOST, port.port)):
        wait_until(lambda: any("AcceptorThread" in name for name in threads()), "the association's thread")
    assert threads() == before
    assert descriptors() == open_before


def test_a_plain_peer_on_a_tls_port(scp: StorageScp, port: ScpPort) -> None:
    with capture_logs() as logs, Peer(port.port) as peer:
        peer.send(associate_request([("1.2.840.10008.1.1", ["1.2.840.10008.1.2"])]))
        kind, _ = peer.receive()
        assert kind != PduType.A_ASSOCIATE_AC
        wait_until(lambda: bool(logs), "the log")
    assert "does not speak TLS" in logs[0]["reason"], logs


def test_a_tls_peer_on_a_plain_port(fast: bool, keys: Keys) -> None:
    config = scp_config()
    with running_scp(config, fast=fast), capture_logs() as logs:
        with pytest.raises(OSError):
            TlsPeer(config.ports[0].port, keys, None)
        wait_until(lambda: any("TLS" in line.get("reason", "") for line in logs), "the log")


def test_another_version_of_tls_is_refused(scp: StorageScp, port: ScpPort, keys: Keys) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((HOST, port.port)) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain)


# We send


@pytest.fixture
def publisher(keys: Keys, tmp_path: Path) -> Iterator[Callable[..., StoreScp]]:
    with ExitStack() as stack:

        def make(certificate: Certificate) -> StoreScp:
            return stack.enter_context(StoreScp(tmp_path / "scp", "+B", *server_options(keys, certificate)))

        yield make


def send(paths: list[Path], port: int, **options: Any) -> Any:
    instances = [read_instance(path) for path in paths]
    return send_instances(instances, HOST, port, "RIMAGE", "BRIDGE", timeouts=SHORT, **options)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_ct_series(tmp_path_factory.mktemp("series"), 10, size=300)


def test_sends_to_storescp(publisher: Callable[..., StoreScp], keys: Keys, paths: list[Path]) -> None:
    peer = publisher(keys.theirs)
    report = send(paths, peer.port, tls=client(keys))
    assert (report.sent, report.failed, report.associations) == (10, 0, 1)
    received = {dcmread(path).SOPInstanceUID: dcmread(path).PixelData for path in peer.files()}
    assert received == {dcmread(path).SOPInstanceUID: dcmread(path).PixelData for path in paths}


#: The peer's certificate, what our configuration has beside it, and what the message has to say.
BAD_CERTIFICATES = pytest.mark.parametrize(
    ("theirs", "values", "words"),
    [
        ("strange", {}, "unable to get local issuer"),
        ("expired", {}, "expired"),
        ("elsewhere", {}, "not valid for '127.0.0.1'"),
        ("theirs", {"certificate_path": "", "key_path": ""}, "our certificate"),
    ],
    ids=["another authority", "expired", "another host", "none of ours"],
)


@BAD_CERTIFICATES
def test_a_certificate_that_will_not_do_is_named(
    theirs: str,
    values: dict[str, Any],
    words: str,
    publisher: Callable[..., StoreScp],
    keys: Keys,
    paths: list[Path],
) -> None:
    peer = publisher(getattr(keys, theirs))
    with pytest.raises((PublisherRejected, PublisherUnreachable)) as caught:
        send(paths, peer.port, tls=client(keys, **values))
    if "certificate_path" in values and isinstance(caught.value, PublisherUnreachable):
        words = "connection"  # its end overtook its words
    assert words in caught.value.message
    assert "publisher.tls" in caught.value.message
    assert peer.files() == []


def test_the_host_need_not_be_looked_at(
    publisher: Callable[..., StoreScp], keys: Keys, paths: list[Path]
) -> None:
    peer = publisher(keys.elsewhere)
    assert send(paths, peer.port, tls=client(keys, check_host_name=False)).sent == 10


def test_a_plain_publisher(keys: Keys, paths: list[Path], tmp_path: Path) -> None:
    with StoreScp(tmp_path / "plain") as peer, pytest.raises(PublisherUnreachable) as caught:
        send(paths, peer.port, tls=client(keys))
    assert "TLS" in caught.value.message


def test_a_publisher_that_wants_tls(
    publisher: Callable[..., StoreScp], keys: Keys, paths: list[Path]
) -> None:
    peer = publisher(keys.theirs)
    with pytest.raises(PublisherUnreachable) as caught:
        send(paths, peer.port)
    assert "publisher.tls" in caught.value.message


def test_cancel_during_the_handshake(keys: Keys, paths: list[Path]) -> None:
    asked = threading.Event()
    before = descriptors()
    with socket.create_server((HOST, 0)) as mute:
        timer = threading.Timer(0.3, asked.set)
        timer.start()
        with pytest.raises(PublisherUnreachable):
            send(paths, mute.getsockname()[1], tls=client(keys))
        patient = replace(SHORT, negotiate=60.0)
        report = send_instances(
            [read_instance(paths[0])], HOST, mute.getsockname()[1], "RIMAGE", "BRIDGE",
            timeouts=patient, tls=client(keys), cancelled=asked.is_set,
        )  # fmt: skip
        timer.join()
    assert report.cancelled
    assert descriptors() == before


# We ask the PACS


def called(port: int, tls: ClientTls | None) -> Called:
    return Called(HOST, port, "RIMAGE", "BRIDGE", 2, 2, tls=tls)


def test_echo(publisher: Callable[..., StoreScp], keys: Keys) -> None:
    with Scu(called(publisher(keys.theirs).port, client(keys)), VERIFICATION) as scu:
        scu.echo()


def refusals(port: int, tls: ClientTls | None) -> list[PacsError]:
    """What a query and a retrieval say."""
    peer = called(port, tls)
    with pytest.raises(PacsError) as query, Scu(peer, VERIFICATION):
        pass
    with pytest.raises(NoAssociation) as move:
        MoveAssociation(peer).open()
    return [query.value, move.value.error]


@BAD_CERTIFICATES
def test_what_is_wrong_at_the_pacs_is_named(
    theirs: str, values: dict[str, Any], words: str, publisher: Callable[..., StoreScp], keys: Keys
) -> None:
    before = descriptors()
    for error in refusals(publisher(getattr(keys, theirs)).port, client(keys, **values)):
        if "certificate_path" in values and isinstance(error, PacsUnreachable):
            words = "connection"  # its end overtook its words
        assert words in error.message
        assert "pacs.tls" in error.message
    assert descriptors() == before


def test_tls_at_one_end_only(publisher: Callable[..., StoreScp], keys: Keys, tmp_path: Path) -> None:
    wants_tls = publisher(keys.theirs).port
    with StoreScp(tmp_path / "plain") as plain:
        for error in (*refusals(wants_tls, None), *refusals(plain.port, client(keys))):
            assert isinstance(error, PacsUnreachable)
            assert "TLS" in error.message
            assert "pacs.tls" in error.message


def test_a_mute_pacs(keys: Keys) -> None:
    with socket.create_server((HOST, 0)) as mute:
        for error in refusals(mute.getsockname()[1], client(keys)):
            assert isinstance(error, PacsUnreachable)
            assert "no TLS handshake within 2 s" in error.message


# Files


@pytest.mark.parametrize(
    ("certificate", "key", "ca", "told"),
    [
        ("ours", "theirs", "authority", "pacs.tls.certificate_path"),
        ("locked", "locked", "authority", "without a passphrase"),
        ("ours", "ours", "key", "pacs.tls.ca_path"),
    ],
)
def test_files_that_are_none_are_told_at_the_start(
    certificate: str, key: str, ca: str, told: str, keys: Keys
) -> None:
    section = {
        "enabled": True,
        "certificate_path": str(getattr(keys, certificate).certificate),
        "key_path": str(getattr(keys, key).key),
        "ca_path": str(keys.authority.path if ca == "authority" else keys.ours.key),
    }
    with pytest.raises(ConfigError, match=told):
        check_files(Config.model_validate({"pacs": {"tls": section}}))


def test_good_files_are_no_reason_to_complain(keys: Keys) -> None:
    section = keys.ours.section(ca_path=str(keys.authority.path))
    check_files(
        Config.model_validate({name: {"tls": section} for name in ("pacs", "publisher", "storage_scp")})
    )


def test_contexts_take_no_old_tls_and_no_strangers(keys: Keys) -> None:
    for context in (
        client_context(ClientTlsConfig(enabled=True)),
        server_context(ServerTlsConfig(**keys.ours.section())),
    ):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        key_exchanges = {cipher["name"].split("-")[0] for cipher in context.get_ciphers()}
        assert all(name in {"ECDHE", "DHE"} or name.startswith("TLS_") for name in key_exchanges)
    assert client_context(ClientTlsConfig(enabled=True)).verify_mode == ssl.CERT_REQUIRED


def test_our_own_certificate_is_tried(keys: Keys) -> None:
    assert "GMT" in own_certificate(ServerTlsConfig(**keys.ours.section(ca_path=str(keys.authority.path))))
    with pytest.raises(TlsFailure, match="expired"):
        own_certificate(ServerTlsConfig(**keys.expired.section()))


def test_nobody_listens(keys: Keys) -> None:
    for error in refusals(free_port(), client(keys)):
        assert "No connection" in error.message

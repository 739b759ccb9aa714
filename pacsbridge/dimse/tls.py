"""TLS for DICOM: contexts of the configuration, handshakes that can be waited for, failures in words.

The profile is PS3.15, B.12 (BCP 195 with RFC 8996 and RFC 9325): TLS 1.2 at the least, no downgrading, cipher
suites with forward secrecy only, which are the defaults of Python 3.10 and later. The files are read anew for
each connection, so that a renewed certificate needs no restart.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pacsbridge.config import ClientTlsConfig, ConfigError
from pacsbridge.dimse.wire import TICK_SECONDS, ConnectionEnded, TlsFailure, ended, openssl_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pacsbridge.config import Config, ServerTlsConfig, TlsConfig

#: What a TLS connection begins with: a record of type handshake (RFC 8446, 5.1). No PDU has this type.
HANDSHAKE_RECORD = 0x16
#: And what a TLS server answers to something else: a record of type alert. No PDU has this type either.
ALERT_RECORD = 0x15
#: So much goes into one `TlsSocket.sendmsg`: a slow peer is seen to take it piece by piece.
_PIECE_BYTES = 1 << 16

T = TypeVar("T")


class TlsSocket(ssl.SSLSocket):
    """A TLS connection that behaves like a plain one which `pacsbridge.dimse.wire.prepare` has seen.

    A read or a write waits half a second and then raises BlockingIOError. OpenSSL's connections are not for
    two threads at once, which a C-CANCEL beside the reading of responses would be: a lock is held while
    OpenSSL works, but not while it waits.
    """

    _guard: threading.Lock

    def start(self) -> None:
        """Make it ready, before the handshake."""
        self._guard = threading.Lock()
        self.settimeout(0)

    def advance_handshake(self) -> None:
        """Take the handshake a step further.

        Raises
        ------
        BlockingIOError
            It is not at its end yet: call again.
        """
        self._patiently(self.do_handshake)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Receive at most `buflen` bytes, of one record."""
        del flags
        return self._patiently(lambda: ssl.SSLSocket.recv(self, buflen))

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Receive into a buffer, of one record: ``MSG_WAITALL`` is no business of TLS."""
        del flags
        view = memoryview(buffer)[: nbytes or None]
        return self._patiently(lambda: ssl.SSLSocket.recv_into(self, view, len(view)))

    def recv_now(self, buflen: int) -> bytes | None:
        """Receive what is there; None where nothing is, though the descriptor may be readable (RFC 8446, 4.6)."""
        try:
            with self._guard:
                return ssl.SSLSocket.recv(self, buflen)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def send(self, data: Any, flags: int = 0) -> int:
        """Send what a record or a few can hold."""
        del flags
        piece = memoryview(data)[:_PIECE_BYTES]
        try:
            return self._patiently(lambda: ssl.SSLSocket.send(self, piece))
        except (ssl.SSLEOFError, ConnectionError):
            # A peer that refuses our certificate says so after the handshake (RFC 8446, 4.4.2.4): that is the
            # reason, if it has come already.
            with contextlib.suppress(ssl.SSLEOFError, ConnectionError):
                self.recv_now(1)
            raise

    def sendmsg(self, buffers: Sequence[Any], *_: Any) -> int:  # type: ignore[override]  # data only
        """Send the beginning of what the buffers hold; the same again if it is tried again, as OpenSSL wants it."""
        parts, room = [], _PIECE_BYTES
        for buffer in buffers:
            parts.append(memoryview(buffer)[:room])
            room -= len(parts[-1])
            if not room:
                break
        return self.send(b"".join(parts))

    def shutdown(self, how: int) -> None:
        """Shut the connection down; SSLSocket's own would go on in plain text."""
        if how != socket.SHUT_RD:
            self._say_goodbye()
        socket.socket.shutdown(self, how)

    def close(self) -> None:
        """Close the connection."""
        if self.fileno() >= 0:
            self._say_goodbye()
        super().close()

    def _say_goodbye(self) -> None:
        """Send close_notify (RFC 8446, 6.1), as far as it can be sent at once."""
        tls = self._sslobj  # type: ignore[attr-defined]  # unwrap() would wait for the peer's
        if tls is not None:
            with contextlib.suppress(OSError, ValueError), self._guard:
                tls.shutdown()

    def _patiently(self, act: Callable[[], T]) -> T:
        deadline = time.monotonic() + TICK_SECONDS
        while True:
            try:
                with self._guard:
                    return act()
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            left = deadline - time.monotonic()
            poll = select.poll()
            poll.register(self, wanted)
            if left <= 0 or not poll.poll(left * 1000):
                raise BlockingIOError


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How to connect to a peer over TLS.

    Parameters
    ----------
    config
        The section ``tls`` of the peer.
    host
        The name or address that the peer's certificate has to be for.
    """

    config: ClientTlsConfig
    host: str

    @classmethod
    def of(cls, config: ClientTlsConfig, host: str) -> ClientTls | None:
        """Make it of a section; None where TLS is off."""
        return cls(config, host) if config.enabled else None

    def shake_hands(
        self, connection: socket.socket, *, seconds: float, check: Callable[[], None]
    ) -> TlsSocket:
        """Do the handshake over a connection; see `shake_hands`."""
        return shake_hands(
            connection, client_context(self.config), seconds=seconds, check=check, server_hostname=self.host
        )


def client_context(config: ClientTlsConfig) -> ssl.SSLContext:
    """Make the context for asking a peer for associations.

    Raises
    ------
    TlsFailure
        A file can't be used; the message names its key.
    """
    context = _context(config, ssl.PROTOCOL_TLS_CLIENT)
    if not config.ca_path:
        context.load_default_certs()
    # Whoever names a certificate trusts it, though it be no authority's: many devices come with one of their own.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not config.check_host_name:
        context.check_hostname = False
    return context


def server_context(config: ServerTlsConfig) -> ssl.SSLContext:
    """Make the context for being asked; with a CA, peers need a certificate of it.

    Raises
    ------
    TlsFailure
        A file can't be used; the message names its key.
    """
    context = _context(config, ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED if config.ca_path else ssl.CERT_NONE
    return context


def shake_hands(
    connection: socket.socket,
    context: ssl.SSLContext,
    *,
    seconds: float,
    check: Callable[[], None],
    server_hostname: str | None = None,
) -> TlsSocket:
    """Do the handshake over a connection, which passes to the socket that is given back, or is closed.

    Parameters
    ----------
    seconds
        How long it may take altogether.
    check
        Called about twice a second while the peer is silent; raises to give up.
    server_hostname
        Whom to expect; None at the acceptor's side.

    Raises
    ------
    TlsFailure
        There is no TLS with this peer; the message says why.
    """
    context.sslsocket_class = TlsSocket
    try:
        made = context.wrap_socket(
            connection,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
            do_handshake_on_connect=False,
        )
    except OSError as error:
        connection.close()
        raise _broken(error) from error
    if not isinstance(made, TlsSocket):
        raise TypeError("wrap_socket() made another kind of socket")
    try:
        made.start()
        _complete(made, seconds, check)
    except OSError as error:
        made.close()
        raise _broken(error) from error
    except BaseException:
        made.close()
        raise
    return made


def _complete(connection: TlsSocket, seconds: float, check: Callable[[], None]) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        check()
        with contextlib.suppress(BlockingIOError):
            connection.advance_handshake()
            return
    raise TlsFailure(f"no TLS handshake within {seconds:g} s")


def check_files(config: Config) -> None:
    """Try the files of every section ``tls`` that is on.

    Raises
    ------
    ConfigError
        One can't be used; the message names its key.
    """
    sections = {
        "pacs": config.pacs.tls,
        "publisher": config.publisher.tls,
        "storage_scp": config.storage_scp.tls,
    }
    for name, section in sections.items():
        if section.enabled:
            try:
                _context(section, ssl.PROTOCOL_TLS_CLIENT)
            except TlsFailure as problem:
                raise ConfigError(f"{name}.{problem}") from problem


def own_peer(config: ServerTlsConfig) -> ClientTlsConfig:
    """Make a client of our own Storage SCP: it trusts our certificate, and shows it."""
    return ClientTlsConfig(
        enabled=config.enabled,
        certificate_path=config.certificate_path,
        key_path=config.key_path,
        ca_path=config.certificate_path,
        check_host_name=False,
    )


def own_certificate(config: ServerTlsConfig) -> str:
    """Try the certificate of the Storage SCP for real, and tell until when it is valid.

    A handshake in memory with a peer that trusts just this certificate.

    Raises
    ------
    TlsFailure
        It is not valid now, or can't be used.
    """
    theirs = client_context(own_peer(config))
    to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = _context(config, ssl.PROTOCOL_TLS_SERVER).wrap_bio(to_us, to_them, server_side=True)
    client = theirs.wrap_bio(to_them, to_us)
    try:
        for side in (client, ours, client):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        raise TlsFailure(
            f"the certificate is not accepted: {error.verify_message}", certificate=True
        ) from error
    return str((client.getpeercert() or {}).get("notAfter", "?"))


def _context(config: TlsConfig, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.certificate_path:
        try:
            context.load_cert_chain(config.certificate_path, config.key_path, password="")
        except (OSError, ValueError) as error:
            raise TlsFailure(
                f"tls.certificate_path, tls.key_path: {config.certificate_path} and {config.key_path} are no "
                f"certificate and its key in PEM, without a passphrase: {_reason(error)}",
                certificate=True,
            ) from error
    if config.ca_path:
        try:
            context.load_verify_locations(config.ca_path)
        except (OSError, ValueError) as error:
            raise TlsFailure(
                f"tls.ca_path: {config.ca_path} holds no certificates in PEM: {_reason(error)}",
                certificate=True,
            ) from error
    return context


def _broken(error: OSError) -> ConnectionEnded:
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
        return TlsFailure("it closed the connection during the TLS handshake")
    return ended(error)


def _reason(error: OSError | ValueError) -> str:
    return openssl_words(error) if isinstance(error, OSError) else str(error)

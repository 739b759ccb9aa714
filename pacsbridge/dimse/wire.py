"""A socket that is read in pieces of a known length, into one reusable buffer."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from struct import pack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: How long a read or a write waits before whoever waits is asked whether to go on, in seconds.
TICK_SECONDS = 0.5
#: Linux only; see `Wire.write`.
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
#: So many buffers go into one system call (IOV_MAX of Linux and macOS).
_MAXIMUM_PARTS = 1024


#: What OpenSSL says when the peer's first bytes are none of TLS.
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"})
_ABOUT_CERTIFICATES = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")


class ConnectionEnded(Exception):
    """The peer closed the connection, or it broke."""


class TlsFailure(ConnectionEnded):
    """There is no TLS with the peer, or none any more; the message says why, for a person.

    Parameters
    ----------
    certificate
        Whether a certificate is the reason: the peer's or our own.
    """

    def __init__(self, message: str, *, certificate: bool = False) -> None:
        super().__init__(message)
        self.certificate = certificate


def ended(error: OSError) -> ConnectionEnded:
    """Say in words why a connection ended, or did not begin."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsFailure(f"its certificate is not accepted: {error.verify_message}", certificate=True)
    if isinstance(error, ssl.SSLEOFError):
        return TlsFailure("it closed the connection")
    if not isinstance(error, ssl.SSLError):
        return ConnectionEnded(error.strerror or str(error))
    reason = error.reason or ""
    if reason in _NOT_TLS:
        return TlsFailure("it does not speak TLS on this port")
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return TlsFailure("it showed no certificate", certificate=True)
    words = openssl_words(error)
    if "ALERT" in reason and any(word in reason for word in _ABOUT_CERTIFICATES):
        return TlsFailure(f"it does not accept our certificate, or wants one: {words}", certificate=True)
    return TlsFailure(f"TLS failed: {words}")


def openssl_words(error: OSError) -> str:
    """Make OpenSSL's name of a reason readable."""
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else error.strerror or str(error)


def prepare(connection: socket.socket) -> None:
    """Make a connection fit for DICOM: no delay of small segments, and no wait without an end.

    The time-outs are the kernel's (``SO_RCVTIMEO``), not Python's: a read then stays one system call that
    returns when all of a PDU is there (``MSG_WAITALL``), which it doesn't on a socket that Python made
    non-blocking.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(None)
    seconds = int(TICK_SECONDS)
    tick = pack("@ll", seconds, int((TICK_SECONDS - seconds) * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tick)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, tick)


class Wire:
    """Reads from and writes to a connection that `prepare` has seen.

    Parameters
    ----------
    connection
        The connected socket.
    size
        The length of the buffer in bytes: the most that is read at once.
    on_silence
        Called about twice a second while nothing moves, with the seconds since something did; raises to give
        up.
    """

    def __init__(self, connection: socket.socket, size: int, on_silence: Callable[[float], None]) -> None:
        self._connection = connection
        self._view = memoryview(bytearray(size))
        self._on_silence = on_silence

    def read(self, count: int) -> memoryview:
        """Read exactly `count` bytes; they are good until the next read.

        Raises
        ------
        ConnectionEnded
            They did not come.
        """
        view = self._view[:count]
        self._fill(view, count, socket.MSG_WAITALL)
        return view

    def read_ahead(self, count: int, ahead: int) -> tuple[memoryview, bytes]:
        """Read exactly `count` bytes, and at most `ahead` of those behind them, which come with the same call.

        Raises
        ------
        ConnectionEnded
            They did not come.
        """
        view = self._view[: count + ahead]
        have = self._fill(view, count, socket.MSG_WAITALL)
        return view[:count], bytes(view[count:have])

    def read_some(self, most: int, least: int) -> memoryview:
        """Read what is there, at least `least` and at most `most` bytes; good until the next read.

        Raises
        ------
        ConnectionEnded
            It ended before `least` bytes came.
        """
        view = self._view[:most]
        return view[: self._fill(view, least, 0)]

    def write(self, data: bytes | list[bytes | memoryview]) -> None:
        """Write everything.

        Raises
        ------
        ConnectionEnded
            The peer does not take it any more.
        """
        parts = [memoryview(part) for part in ([data] if isinstance(data, bytes) else data) if part]
        self._write(parts)
        self._acknowledge_quickly()

    def _acknowledge_quickly(self) -> None:
        """Have the kernel acknowledge what comes next without delay (tcp(7)); it forgets that when we write.

        A peer that leaves Nagle's algorithm on (Orthanc does, dcmtk does by default) holds the end of each
        message back until all before it is acknowledged, and Linux waits up to 40 ms for something to send along.
        Measured: 2,000 instances from Orthanc in 4.5 s instead of 15.
        """
        if _QUICKACK is not None:
            with contextlib.suppress(OSError):  # the peer may be gone, which the next read tells
                self._connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _write(self, parts: list[memoryview]) -> None:
        moved = time.monotonic()
        while parts:
            try:
                sent = self._connection.sendmsg(parts[:_MAXIMUM_PARTS])
            except BlockingIOError:
                self._on_silence(time.monotonic() - moved)
                continue
            except OSError as error:
                raise ended(error) from error
            moved = time.monotonic()
            whole = 0
            while whole < len(parts) and sent >= len(parts[whole]):
                sent -= len(parts[whole])
                whole += 1
            del parts[:whole]
            if sent:
                parts[0] = parts[0][sent:]

    def _fill(self, view: memoryview, least: int, flags: int) -> int:
        have = 0
        moved = 0.0
        while have < least:
            try:
                count = self._connection.recv_into(view[have:], 0, flags)
            except BlockingIOError:
                now = time.monotonic()
                moved = moved or now - TICK_SECONDS
                self._on_silence(now - moved)
                continue
            except OSError as error:
                raise ended(error) from error
            if not count:
                raise ConnectionEnded("closed by the peer")
            have += count
            moved = 0.0
        return have

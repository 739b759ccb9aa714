"""The way out through a proxy (RFC 9110, 9.3.6), as many hospital networks want it."""

from __future__ import annotations

import asyncio
import base64
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

import structlog

from pacsbridge.dicomweb.connection import Connection, ConnectionBroken
from pacsbridge.dicomweb.wire import HEAD_LIMIT, ProtocolError, parse_head

if TYPE_CHECKING:
    import ssl

log = structlog.get_logger(__name__)

_HEAD_END = b"\r\n\r\n"
_DEFAULT_PORT = 3128


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy for ``CONNECT``.

    Parameters
    ----------
    authorization
        The value of ``Proxy-Authorization``; empty for none.
    """

    host: str
    port: int
    authorization: str = ""


def configured_proxy(host: str) -> Proxy | None:
    """Give the proxy that the environment names for HTTPS, unless it says that this host needs none."""
    url = urllib.request.getproxies().get("https", "")
    parts = urlsplit(url)
    if not parts.hostname or urllib.request.proxy_bypass(host):
        return None
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
    return Proxy(parts.hostname, parts.port or _DEFAULT_PORT, authorization)


async def tunnelled(proxy: Proxy, target: tuple[str, int], context: ssl.SSLContext) -> Connection:
    """Connect to a server through a proxy, and speak TLS with it.

    Raises
    ------
    OSError, ConnectionBroken
        The proxy can't be reached, or doesn't let us through.
    """
    loop = asyncio.get_running_loop()
    transport, opening = await loop.create_connection(_Opening, proxy.host, proxy.port)
    try:
        await opening.connect(target, proxy.authorization)
        connection = Connection()
        secured = await loop.start_tls(transport, connection, context, server_hostname=target[0])
    except BaseException:
        transport.abort()
        raise
    if secured is None:
        raise ConnectionBroken("the connection ended while it was secured")
    connection.connection_made(secured)
    return connection


class _Opening(asyncio.Protocol):
    """Asks the proxy for the tunnel, and waits for its answer."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Collect the head of the answer."""
        self._received += data
        if not self._answered.done() and (_HEAD_END in self._received or len(self._received) > HEAD_LIMIT):
            self._answered.set_result(self._received)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that no answer will come."""
        if not self._answered.done():
            self._answered.set_exception(exc or ConnectionBroken("the proxy closed the connection"))

    async def connect(self, target: tuple[str, int], authorization: str) -> None:
        """Ask for the tunnel."""
        host = f"[{target[0]}]" if ":" in target[0] else target[0]
        authority = f"{host}:{target[1]}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if authorization:
            lines.append(f"Proxy-Authorization: {authorization}")
        if self._transport is not None:
            self._transport.write("\r\n".join([*lines, "", ""]).encode())
        head, _, rest = (await self._answered).partition(_HEAD_END)
        try:
            status = parse_head(head).status
        except ProtocolError as error:
            raise ConnectionBroken(f"the proxy does not speak HTTP: {error}") from None
        # The server waits for us to begin: nothing of its own can have come yet.
        if not 200 <= status < 300 or rest:
            log.error("the proxy does not let us through", status=status)
            raise ConnectionBroken(f"the proxy answered {status}")

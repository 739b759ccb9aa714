"""The connections to the upstream server: made when needed, used again, given up when silent."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

import structlog

from pacsbridge.config import ConfigError
from pacsbridge.dicomweb.connection import Connection, ConnectionBroken
from pacsbridge.dicomweb.tunnel import configured_proxy, tunnelled
from pacsbridge.errors import Busy, UpstreamTimeout, UpstreamUnreachable

if TYPE_CHECKING:
    from typing import Self

log = structlog.get_logger(__name__)

#: OHIF asks for 125 things at once; several viewers at once share these.
CONNECTION_LIMIT = 256
_CONNECT_SECONDS = 10.0
#: An idle connection is closed before most servers do it.
_IDLE_SECONDS = 30.0
_TICK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Root:
    """The root of a DICOMweb server: where it listens, and what every path begins with.

    Parameters
    ----------
    scheme
        ``http`` or ``https``.
    path
        Without a slash at its end; empty for a server that answers at its root.
    """

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str, key: str) -> Root:
        """Read a root from a URL of the configuration.

        Raises
        ------
        ConfigError
            It can't be one; the message names `key`.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigError(f"{key}: is not a URL") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or not url.isascii():
            raise ConfigError(f"{key}: must be a URL such as https://pacs.example.org/dicom-web")
        if parts.query or parts.fragment or _has_credentials(parts) or not url.isprintable() or " " in url:
            raise ConfigError(f"{key}: may have no user name, no spaces, no ? and no #")
        default = 443 if parts.scheme == "https" else 80
        return cls(parts.scheme, parts.hostname, port or default, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """What the header ``Host`` says (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


def _has_credentials(parts: SplitResult) -> bool:
    return parts.username is not None or parts.password is not None


class _Places(asyncio.Semaphore):
    """A semaphore that can be asked without waiting."""

    def take_now(self) -> bool:
        """Take a place where one is free and nobody waits for it."""
        if self.locked():
            return False
        self._value -= 1
        return True


class Pool:
    """Connections to one server.

    Parameters
    ----------
    silence_seconds
        An answer that doesn't move for so long is given up; there is no limit to its whole time.
    """

    def __init__(self, root: Root, silence_seconds: float, limit: int = CONNECTION_LIMIT) -> None:
        self.root = root
        self._silence = silence_seconds
        self._ssl = ssl.create_default_context() if root.scheme == "https" else None
        self._proxy = configured_proxy(root.host)
        self._places = _Places(limit)
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._ticks: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._ticks = asyncio.create_task(self._watch(), name="upstream connections")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ticks is not None:
            self._ticks.cancel()
            await asyncio.gather(self._ticks, return_exceptions=True)
        for connection in (*self._idle, *self._busy):
            connection.abort()
        self._idle.clear()
        # The transports close in callbacks of their own.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    @property
    def busy(self) -> int:
        """How many connections carry a request."""
        return len(self._busy)

    async def take(self, *, fresh: bool = False) -> Connection:
        """Give a connection that carries nothing; `fresh`: one that has carried nothing yet.

        Raises
        ------
        Busy
            All are in use, and none came free in time.
        UpstreamUnreachable, UpstreamTimeout
            No connection can be made.
        """
        if not self._places.take_now():
            try:
                async with asyncio.timeout(self._silence):
                    await self._places.acquire()
            except TimeoutError:
                raise Busy(
                    "Too many images are being fetched. Try again in a moment.", retry_after=5
                ) from None
        try:
            connection = None if fresh else self._take_idle()
            if connection is None:
                connection = await self._connect()
        except BaseException:
            self._places.release()
            raise
        self._busy.add(connection)
        return connection

    def take_now(self) -> Connection | None:
        """Give an idle connection; None where there is none, or no more may be in use."""
        if not self._idle or not self._places.take_now():
            return None
        connection = self._take_idle()
        if connection is None:
            self._places.release()
            return None
        self._busy.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        """Take a connection back: to use it again where its answer was received whole, else to close it."""
        self._busy.discard(connection)
        self._places.release()
        if connection.idle:
            self._idle.append(connection)
        else:
            connection.abort()

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.idle:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> Connection:
        root = self.root
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                if self._ssl is not None and self._proxy is not None:
                    return await tunnelled(self._proxy, (root.host, root.port), self._ssl)
                _, connection = await loop.create_connection(Connection, root.host, root.port, ssl=self._ssl)
        except TimeoutError:
            raise UpstreamTimeout(
                "The image archive does not answer. Try again later.", retry_after=10
            ) from None
        except (OSError, ConnectionBroken) as error:
            log.warning("no connection to the image archive", reason=str(error))
            raise UpstreamUnreachable("The image archive can't be reached. Try again later.") from None
        return connection

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = loop.time()
            for connection in list(self._busy):
                if not connection.waits_for_client and now - connection.active_at > self._silence:
                    connection.stall()
            with contextlib.suppress(IndexError):
                # The one that was used longest ago is first.
                while now - self._idle[0].active_at > _IDLE_SECONDS:
                    self._idle.pop(0).abort()

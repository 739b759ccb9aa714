"""The pool of ports: a job leases one, or waits for its turn with its place told."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from pacsbridge.errors import Busy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from pacsbridge.config import ScpPort
    from pacsbridge.dimse.inbox import Inbox
    from pacsbridge.dimse.scp import StorageScp

log = structlog.get_logger(__name__)

#: After which a caller that was turned away may try again, in seconds: about what a disc takes.
_RETRY_AFTER_SECONDS = 30


class _Waiter:
    """A job in the queue."""

    def __init__(self, on_place: Callable[[int], None] | None) -> None:
        self.port: asyncio.Future[ScpPort] = asyncio.get_running_loop().create_future()
        self._on_place = on_place
        self._place = 0

    def tell(self, place: int) -> None:
        """Tell the job its place, where it changed; 1 is next."""
        if place == self._place or self._on_place is None:
            return
        self._place = place
        try:
            self._on_place(place)
        except Exception:
            log.exception("telling a place in the queue failed")


class PortPool:
    """Leases the ports of the Storage SCP, first come, first served. For one event loop.

    Parameters
    ----------
    scp
        What listens on the ports.
    ports
        The ports to lease.
    queue_length
        How many jobs may wait.
    """

    def __init__(self, scp: StorageScp, ports: Iterable[ScpPort], queue_length: int) -> None:
        self._scp = scp
        self._free = deque(ports)
        self._size = len(self._free)
        self._queue_length = queue_length
        self._queue: deque[_Waiter] = deque()

    @property
    def in_use(self) -> int:
        """How many ports are leased."""
        return self._size - len(self._free)

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._queue)

    @asynccontextmanager
    async def lease(
        self, inbox: Inbox, *, on_place: Callable[[int], None] | None = None
    ) -> AsyncIterator[ScpPort]:
        """Lease a port whose instances go to `inbox`, while the context lasts.

        Parameters
        ----------
        inbox
            What the port fills.
        on_place
            Called with the place in the queue whenever it changes; 1 is next.

        Raises
        ------
        Busy
            All ports are leased and the queue is full.
        """
        port = await self._acquire(on_place)
        try:
            self._scp.attach(port, inbox)
            try:
                yield port
            finally:
                self._scp.detach(port)
        finally:
            self._release(port)

    async def _acquire(self, on_place: Callable[[int], None] | None) -> ScpPort:
        if self._free:  # then nobody waits: a port that comes back goes to who waits
            return self._free.popleft()
        if len(self._queue) >= self._queue_length:
            raise Busy(
                f"All {self._size} ports are receiving and {len(self._queue)} jobs wait. Try again later.",
                retry_after=_RETRY_AFTER_SECONDS,
            )
        waiter = _Waiter(on_place)
        self._queue.append(waiter)
        waiter.tell(len(self._queue))
        try:
            return await waiter.port
        except asyncio.CancelledError:
            if waiter.port.done() and not waiter.port.cancelled():
                # The port came in the same moment: the next in the queue gets it.
                self._release(waiter.port.result())
            elif waiter in self._queue:
                self._queue.remove(waiter)
                self._tell_places()
            raise

    def _release(self, port: ScpPort) -> None:
        """Hand a port to whoever waits longest."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.port.done():
                waiter.port.set_result(port)
                break
        else:
            self._free.append(port)
        self._tell_places()

    def _tell_places(self) -> None:
        for place, waiter in enumerate(self._queue, start=1):
            waiter.tell(place)

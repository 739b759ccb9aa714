"""Studies to files: C-MOVE into our own Storage SCP until every expected instance is there (PS3.4, C.4.2).

Done is when the archive says so *and* what it promised has arrived. What is missing is asked for again, once
by series and once by instance; what is still missing then is told, with counts.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog
from pydicom import Dataset
from pynetdicom.status import code_to_category

from pacsbridge import metrics
from pacsbridge.dimse.move import Final, NoAssociation
from pacsbridge.dimse.mover import Mover, mover
from pacsbridge.dimse.query import Query, Series, Study, ask
from pacsbridge.errors import PacsbridgeError, PacsRejected, PacsTimeout, PacsUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pacsbridge.config import ScpPort
    from pacsbridge.dimse.inbox import Inbox
    from pacsbridge.dimse.scu import Peer

log = structlog.get_logger(__name__)

MOVE_DESTINATION_UNKNOWN = 0xA801
_OUT_OF_RESOURCES = (0xA701, 0xA702)
_CANCELLED = 0xFE00

#: How long a PACS may take to obey a C-CANCEL before the association is aborted.
_CANCEL_GRACE_SECONDS = 3.0
#: How often silence and a full spool are looked for while a C-MOVE runs.
_WATCH_SECONDS = 0.25
#: Pending responses alone, with nothing arriving, count as life for so many response time-outs.
_PATIENCE = 10
#: C-MOVE takes a list of SOP Instance UIDs (PS3.4, C.2.2.2.2): so many fit well into one request.
_INSTANCES_PER_MOVE = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MissingInstances:
    """What a series lacks: `expected` instances were promised, `received` arrived.

    Where the archive gives no totals but reports failures, `expected` is None; where it lists no series,
    `SeriesInstanceUID` is.
    """

    StudyInstanceUID: str
    SeriesInstanceUID: str | None
    expected: int | None
    received: int


@dataclass(frozen=True, slots=True)
class _Request:
    """What one C-MOVE asks for.

    `key` is the UID of the study or series: whether the archive reported a clean end for it is all there is
    to go by where it gives no totals.
    """

    identifier: Dataset
    key: str


class Retriever:
    """Retrieves the studies of one job into its inbox, by way of the port that the job holds.

    Parameters
    ----------
    associations
        So many series are asked for at once, at most; the archive may give fewer associations.
    """

    def __init__(self, peer: Peer, port: ScpPort, inbox: Inbox, associations: int = 1) -> None:
        self._peer = peer
        self._port = port
        self._inbox = inbox
        self._associations = associations
        self._opening = asyncio.Lock()
        self._in_use = 0
        self._full = False
        self._failure: PacsbridgeError | None = None
        self._doubtful: set[str] = set()

    async def retrieve(self, studies: Sequence[Study]) -> tuple[MissingInstances, ...]:
        """Move every study; ask again for what is missing; return what is missing still.

        Raises
        ------
        PacsUnreachable, PacsRejected, PacsTimeout, SpoolFull
            The archive can't or won't, goes silent, or there is no room.
        """
        requests = [request for study in studies for request in self._requests(study)]
        await self._ask_for(requests, self._associations)
        lacks = await self._missing(studies)
        if lacks:
            log.warning("instances are missing, asking again by series", series=len(lacks))
            self._doubtful.clear()
            await self._ask_for(_Request(lack.by_series(), lack.key) for lack in lacks)
            lacks = await self._missing(studies)
        named = [lack for lack in lacks if lack.names]
        if named:
            log.warning("instances are missing, asking again by instance", series=len(named))
            await self._ask_for(
                _Request(identifier, lack.key) for lack in named for identifier in lack.by_instances()
            )
            lacks = await self._missing(studies)
        # An archive that sends some and fails on others lacks instances; one that is gone is another matter.
        gone = isinstance(self._failure, PacsUnreachable)
        if self._failure and ((gone and lacks) or not self._inbox.count):
            raise self._failure
        return tuple(lack.told() for lack in lacks)

    def _requests(self, study: Study) -> list[_Request]:
        """Ask for a study series by series where several can come at once, and the series are known to be all."""
        if self._associations > 1 and study.series_are_all:
            return [_Request(_by_series(study, series), series.SeriesInstanceUID) for series in study.series]
        return [_Request(_by_study(study), study.StudyInstanceUID)]

    async def _ask_for(self, requests: Iterable[_Request], associations: int = 1) -> None:
        """Run C-MOVEs over so many associations, or as many as the archive gives."""
        queue = deque(requests)
        self._full = False
        while queue:  # what a lost association leaves is asked for over the next one
            workers = [asyncio.create_task(self._work(queue)) for _ in range(min(associations, len(queue)))]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, queue: deque[_Request]) -> None:
        """Ask for what is in the queue over an association of its own, if there is one to be had."""
        association = mover(self._peer)
        try:
            async with self._opening:  # one at a time: an archive with a limit gives those that it has
                if not await self._open(association, queue):
                    return
            self._in_use += 1
            try:
                while queue and not association.lost:
                    request = queue.popleft()
                    move = partial(association.move, request.identifier, self._port.ae_title)
                    self._note(request, await self._watch(association, move))
            finally:
                self._in_use -= 1
        finally:
            await asyncio.shield(asyncio.to_thread(association.close))

    async def _open(self, association: Mover, queue: deque[_Request]) -> bool:
        """Open an association; False when it is not needed any more, or one more than the archive gives."""
        if not queue or (self._full and self._in_use):
            return False
        try:
            await self._watch(association, association.open)
        except NoAssociation as refused:
            if self._in_use:
                log.info("the PACS gives no further association", reason=refused.error.code)
                self._full = True
                return False
            if not (self._inbox.count and isinstance(refused.error, PacsUnreachable)):
                raise refused.error from refused
            self._failure = refused.error
            self._doubtful.update(request.key for request in queue)
            queue.clear()
            return False
        return True

    def _note(self, request: _Request, final: Final | None) -> None:
        """Take notice of how a C-MOVE ended: a failure that another asking may make good is only remembered."""
        if final is None:
            broken_off = PacsUnreachable(
                f"The PACS {self._peer} broke the connection off during a retrieval; "
                f"{self._inbox.count} instances had arrived. Check that it still runs."
            )
            if not self._inbox.count:
                raise broken_off
            log.warning("the PACS broke a C-MOVE off", received=self._inbox.count)
            self._failure = broken_off
        if final is None or final.failed or code_to_category(final.status) != "Success":
            self._doubtful.add(request.key)
        if final is not None:
            self._failure = self._judge(final) or self._failure

    def _judge(self, final: Final) -> PacsbridgeError | None:
        status = final.status
        category = code_to_category(status)
        if category == "Success":
            return None
        metrics.DIMSE_FAILURES.labels("C-MOVE", f"0x{status:04X}").inc()
        if status == MOVE_DESTINATION_UNKNOWN:
            raise PacsRejected(
                f"The PACS {self._peer} does not know the move destination {self._port.ae_title}. Register it "
                f"there: AE title {self._port.ae_title}, this machine's address, port {self._port.port}."
            )
        log.warning("the PACS ended a C-MOVE with another status than success", status=f"0x{status:04X}")
        if category == "Warning":
            return None
        if status in _OUT_OF_RESOURCES:
            return PacsRejected(
                f"The PACS {self._peer} is out of resources (0x{status:04X}). Try again later."
            )
        if status == _CANCELLED:
            return PacsRejected(f"The PACS {self._peer} cancelled the C-MOVE by itself. Try again.")
        return PacsRejected(
            f"The PACS {self._peer} failed a C-MOVE to {self._port.ae_title} with status 0x{status:04X}. "
            f"Check that it knows this destination (AE title {self._port.ae_title}, this machine's address, "
            f"port {self._port.port}) and can connect to it, and look into its log."
        )

    async def _watch(self, association: Mover, work: Callable[[], T]) -> T:
        """Run something of an association in a thread, and end it when the archive or the spool gives cause."""
        running = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            while not running.done():
                await asyncio.wait({running}, timeout=_WATCH_SECONDS)
                self._check_progress(association)
        except asyncio.CancelledError:
            association.cancel()
            await _settle(running, association)
            raise
        except PacsbridgeError:
            association.abort()
            await _settle(running, association)
            raise
        return running.result()

    def _check_progress(self, association: Mover) -> None:
        if self._inbox.error is not None:
            raise self._inbox.error
        limit = self._peer.response_timeout_seconds
        arrived = self._inbox.last_activity
        now = time.monotonic()
        silent = now - max(association.last_response, arrived) > limit
        if silent or now - max(association.last_change, arrived) > limit * _PATIENCE:
            raise PacsTimeout(
                f"The PACS {self._peer} went silent during a retrieval: nothing came for {limit:g} s, "
                f"{self._inbox.count} instances had arrived. Check the PACS, or raise pacs.response_timeout_seconds."
            )

    async def _missing(self, studies: Sequence[Study]) -> list[_Lack]:
        """Compare what was promised with what is in the inbox, asking for names where counts differ."""
        lacks = [_Lack(study, None, None, self._inbox.count) for study in studies if self._is_doubtful(study)]
        suspects = [
            (study, series)
            for study in studies
            for series in study.series
            if series.instances is None or self._received(series) < series.instances
        ]
        if suspects:
            lacks += await ask(self._peer, lambda query: self._name(query, suspects))
        return lacks

    def _is_doubtful(self, study: Study) -> bool:
        return not study.series and study.StudyInstanceUID in self._doubtful

    def _name(self, query: Query, suspects: Iterable[tuple[Study, Series]]) -> list[_Lack]:
        lacks = []
        for study, series in suspects:
            names = self._listed(query, study, series)
            missing = frozenset(uid for uid in names if not self._inbox.has(uid))
            received = self._received(series)
            expected = max(series.instances or 0, received + len(missing))
            if received < expected:
                lacks.append(_Lack(study, series, expected, received, missing))
            elif not names and self._doubtful & {series.SeriesInstanceUID, study.StudyInstanceUID}:
                lacks.append(_Lack(study, series, None, received))
        return lacks

    def _listed(self, query: Query, study: Study, series: Series) -> frozenset[str]:
        try:
            return query.find_instances(study.StudyInstanceUID, series.SeriesInstanceUID)
        except PacsRejected:
            log.info("the PACS does not answer queries at IMAGE level")
            return frozenset()

    def _received(self, series: Series) -> int:
        return len(self._inbox.SOPInstanceUIDs(series.SeriesInstanceUID))


@dataclass(frozen=True, slots=True)
class _Lack:
    """A series (or a study of unknown series) that is not complete; `names` where the archive names what lacks."""

    study: Study
    series: Series | None
    expected: int | None
    received: int
    names: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        return self.series.SeriesInstanceUID if self.series else self.study.StudyInstanceUID

    def by_series(self) -> Dataset:
        return _by_study(self.study) if self.series is None else _by_series(self.study, self.series)

    def by_instances(self) -> Iterator[Dataset]:
        names = sorted(self.names)
        for start in range(0, len(names), _INSTANCES_PER_MOVE):
            identifier = self.by_series()
            identifier.QueryRetrieveLevel = "IMAGE"
            identifier.SOPInstanceUID = names[start : start + _INSTANCES_PER_MOVE]
            yield identifier

    def told(self) -> MissingInstances:
        return MissingInstances(
            StudyInstanceUID=self.study.StudyInstanceUID,
            SeriesInstanceUID=self.series.SeriesInstanceUID if self.series else None,
            expected=self.expected,
            received=self.received,
        )


def _by_study(study: Study) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = study.StudyInstanceUID
    return identifier


def _by_series(study: Study, series: Series) -> Dataset:
    identifier = _by_study(study)
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.SeriesInstanceUID = series.SeriesInstanceUID
    return identifier


async def _settle(running: asyncio.Future[T], association: Mover) -> None:
    """Wait for the thread of a C-MOVE that was told to stop; abort it when it does not."""
    _, pending = await asyncio.wait({running}, timeout=_CANCEL_GRACE_SECONDS)
    if pending:
        association.abort()
        await asyncio.wait({running}, timeout=_CANCEL_GRACE_SECONDS)
    if running.done() and not running.cancelled():
        running.exception()  # what it ended with no longer matters; asyncio wants it looked at

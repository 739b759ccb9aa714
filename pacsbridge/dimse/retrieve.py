"""Studies to files: C-MOVE into our own Storage SCP until every expected instance is there (PS3.4, C.4.2).

Done is when the archive says so *and* what it promised has arrived. What is missing is asked for again, once
by series and once by instance; what is still missing then is told, with counts.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from pydicom import Dataset
from pynetdicom.status import code_to_category

from pacsbridge import metrics
from pacsbridge.dimse.query import Query, Series, Study, ask
from pacsbridge.dimse.scu import STUDY_ROOT_MOVE, Peer, Scu, next_message_id
from pacsbridge.errors import PacsbridgeError, PacsRejected, PacsTimeout, PacsUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pacsbridge.config import ScpPort
    from pacsbridge.dimse.inbox import Inbox

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
class _Final:
    """How a C-MOVE ended: its status, and the sub-operations that failed as the archive counts them."""

    status: int
    failed: int


class _Move:
    """One C-MOVE in flight, run in a thread; `cancel` and `abort` from any other."""

    def __init__(self, peer: Peer, identifier: Dataset, destination: str) -> None:
        self._peer = peer
        self._identifier = identifier
        self._destination = destination
        self._message_id = next_message_id()
        self._scu = Scu(peer, STUDY_ROOT_MOVE)
        self._sent = threading.Event()
        self.last_response = self.last_change = time.monotonic()

    def run(self) -> _Final | None:
        """Send the request and follow the responses to the final status; None when it was broken off."""
        final = None
        seen: tuple[object, ...] = ()
        with self._scu as scu:
            self._sent.set()
            self.last_response = self.last_change = time.monotonic()
            for status in scu.move(self._identifier, self._destination, self._message_id):
                self.last_response = time.monotonic()
                counts = (
                    status.get("NumberOfCompletedSuboperations"),
                    status.get("NumberOfFailedSuboperations"),
                )
                if counts != seen:
                    seen, self.last_change = counts, self.last_response
                if "Status" not in status:
                    scu.abort()
                    return None
                final = _Final(status.Status, int(status.get("NumberOfFailedSuboperations") or 0))
        return final

    def cancel(self) -> None:
        """Ask the PACS to stop (C-CANCEL)."""
        if self._sent.is_set():
            try:
                self._scu.cancel(self._message_id)
            except (RuntimeError, ValueError):
                self._scu.abort()  # the association went away between the look and the sending
        else:
            self._scu.abort()

    def abort(self) -> None:
        """Stop now."""
        self._scu.abort()


class Retriever:
    """Retrieves the studies of one job into its inbox, by way of the port that the job holds."""

    def __init__(self, peer: Peer, port: ScpPort, inbox: Inbox) -> None:
        self._peer = peer
        self._port = port
        self._inbox = inbox
        self._failure: PacsbridgeError | None = None
        self._doubtful: set[str] = set()

    async def retrieve(self, studies: Sequence[Study]) -> tuple[MissingInstances, ...]:
        """Move every study; ask again for what is missing; return what is missing still.

        Raises
        ------
        PacsUnreachable, PacsRejected, PacsTimeout, SpoolFull
            The archive can't or won't, goes silent, or there is no room.
        """
        for study in studies:
            await self._ask_for(_by_study(study), study.StudyInstanceUID)
        lacks = await self._missing(studies)
        if lacks:
            log.warning("instances are missing, asking again by series", series=len(lacks))
            self._doubtful.clear()
            for lack in lacks:
                await self._ask_for(lack.by_series(), lack.key)
            lacks = await self._missing(studies)
        named = [lack for lack in lacks if lack.names]
        if named:
            log.warning("instances are missing, asking again by instance", series=len(named))
            for lack in named:
                for identifier in lack.by_instances():
                    await self._ask_for(identifier, lack.key)
            lacks = await self._missing(studies)
        # An archive that sends some and fails on others lacks instances; one that is gone is another matter.
        gone = isinstance(self._failure, PacsUnreachable)
        if self._failure and ((gone and lacks) or not self._inbox.count):
            raise self._failure
        return tuple(lack.told() for lack in lacks)

    async def _ask_for(self, identifier: Dataset, key: str) -> None:
        """Run one C-MOVE; remember a failure that another asking may make good, raise any other.

        `key` is the UID of the study or series that was asked for: whether the archive reported a clean end
        for it is all there is to go by where it gives no totals.
        """
        try:
            final = await self._move(identifier)
        except PacsUnreachable as error:
            if not self._inbox.count:
                raise
            log.warning("the PACS broke a C-MOVE off", received=self._inbox.count)
            self._failure, final = error, None
        if final is None or final.failed or code_to_category(final.status) != "Success":
            self._doubtful.add(key)
        if final is not None:
            self._failure = self._judge(final) or self._failure

    def _judge(self, final: _Final) -> PacsbridgeError | None:
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

    async def _move(self, identifier: Dataset) -> _Final:
        move = _Move(self._peer, identifier, self._port.ae_title)
        running = asyncio.ensure_future(asyncio.to_thread(move.run))
        try:
            while not running.done():
                await asyncio.wait({running}, timeout=_WATCH_SECONDS)
                self._check_progress(move)
        except asyncio.CancelledError:
            move.cancel()
            await _settle(running, move)
            raise
        except PacsbridgeError:
            move.abort()
            await _settle(running, move)
            raise
        final = running.result()
        if final is None:
            raise PacsUnreachable(
                f"The PACS {self._peer} broke the connection off during a retrieval; "
                f"{self._inbox.count} instances had arrived. Check that it still runs."
            )
        return final

    def _check_progress(self, move: _Move) -> None:
        if self._inbox.error is not None:
            raise self._inbox.error
        limit = self._peer.response_timeout_seconds
        arrived = self._inbox.last_activity
        now = time.monotonic()
        silent = now - max(move.last_response, arrived) > limit
        if silent or now - max(move.last_change, arrived) > limit * _PATIENCE:
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
        identifier = _by_study(self.study)
        if self.series is not None:
            identifier.QueryRetrieveLevel = "SERIES"
            identifier.SeriesInstanceUID = self.series.SeriesInstanceUID
        return identifier

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


async def _settle(running: asyncio.Future[_Final | None], move: _Move) -> None:
    """Wait for the thread of a C-MOVE that was told to stop; abort it when it does not."""
    _, pending = await asyncio.wait({running}, timeout=_CANCEL_GRACE_SECONDS)
    if pending:
        move.abort()
        await asyncio.wait({running}, timeout=_CANCEL_GRACE_SECONDS)
    if running.done() and not running.cancelled():
        running.exception()  # what it ended with no longer matters; asyncio wants it looked at

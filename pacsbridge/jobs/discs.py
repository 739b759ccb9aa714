"""The way of a disc: accession numbers, studies, instances, image."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import structlog

from pacsbridge.dimse.scu import Peer
from pacsbridge.dimse.inbox import Inbox
from pacsbridge.dimse.query import Query, Study, ask
from pacsbridge.dimse.retrieve import MissingInstances, Retriever
from pacsbridge.errors import IncompleteRetrieval, MixedPatients, NoDicomData
from pacsbridge.jobs.job import Counts, Job, Stage
from pacsbridge.jobs.threads import until_done
from pacsbridge.media.disc import DiscOptions, make_disc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacsbridge.config import Config
    from pacsbridge.dimse.pool import PortPool
    from pacsbridge.jobs.shelf import KeptDisc, Shelf
    from pacsbridge.jobs.spool import Spool, SpoolFolder
    from pacsbridge.media.disc import Disc

log = structlog.get_logger(__name__)

#: So many queries at once: more would only press the archive.
_QUERIES = 4
#: So many discs are laid out and decoded at once: it is work for a processor.
_WRITERS = 2


class DiscMaker:
    """Makes the discs of jobs."""

    def __init__(
        self, config: Config, options: DiscOptions, spool: Spool, shelf: Shelf, pool: PortPool
    ) -> None:
        self._peer = Peer.pacs(config.pacs)
        self._media = config.media
        self._options = options
        self._spool = spool
        self._shelf = shelf
        self._pool = pool
        self._queries = asyncio.Semaphore(_QUERIES)
        self._writers = asyncio.Semaphore(_WRITERS)

    async def make(self, job: Job) -> KeptDisc:
        """Turn a job's accession numbers into a disc on the shelf.

        Raises
        ------
        PacsbridgeError
            Whatever stands in the way; the job's folder is gone then.
        """
        began = time.monotonic()
        studies = await self._find(job)
        folder = self._spool.folder()
        try:
            inbox, missing = await self._receive(job, studies, folder)
            disc = await self._write(job, inbox, missing, folder)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(folder.remove))
            raise
        log.info(
            "disc made",
            job_id=job.id,
            studies=disc.studies,
            series=disc.series,
            instances=disc.instances,
            bytes=disc.size,
            seconds=round(time.monotonic() - began, 2),
        )
        return self._shelf.put(disc, folder)

    async def _find(self, job: Job) -> list[Study]:
        job.enter(Stage.FINDING)
        async with self._queries:
            studies = await ask(self._peer, lambda query: _find_each(query, job.accession_numbers))
        if not self._media.allow_mixed_patients:
            _refuse_mixed_patients(studies)
        return studies

    async def _receive(
        self, job: Job, studies: Sequence[Study], folder: SpoolFolder
    ) -> tuple[Inbox, Sequence[MissingInstances]]:
        uids = [study.StudyInstanceUID for study in studies]
        inbox = Inbox(folder.path, uids, take=folder.take)
        expected = _expected(studies)
        job.measure(lambda: Counts(expected, inbox.count, inbox.bytes_received))

        def waits(place: int) -> None:
            job.place = place

        job.enter(Stage.WAITING)
        try:
            async with self._pool.lease(inbox, on_place=waits) as port:
                job.enter(Stage.RECEIVING)
                missing = await Retriever(self._peer, port, inbox).retrieve(studies)
        finally:
            await asyncio.shield(asyncio.to_thread(inbox.close))
        if missing and not (self._media.allow_partial and inbox.count):
            raise _incomplete(missing, inbox.count, expected)
        if not inbox.count:
            raise NoDicomData("The PACS has this study, but no instances in it: there is nothing to burn.")
        return inbox, missing

    async def _write(
        self, job: Job, inbox: Inbox, missing: Sequence[MissingInstances], folder: SpoolFolder
    ) -> Disc:
        job.enter(Stage.WRITING)
        cancelled = threading.Event()

        def write() -> Disc:
            return make_disc(
                inbox.instances,
                folder.path,
                self._options,
                missing=missing,
                on_progress=job.wrote,
                cancelled=cancelled.is_set,
            )

        async with self._writers:
            return await until_done(write, cancelled.set)


def _find_each(query: Query, accession_numbers: Sequence[str]) -> list[Study]:
    found: dict[str, Study] = {}
    unknown = []
    for accession_number in accession_numbers:
        studies = query.find_studies(accession_number)
        found.update((study.StudyInstanceUID, study) for study in studies)
        if not studies:
            unknown.append(accession_number)
    if unknown:
        raise NoDicomData(
            f"The PACS has no study with the accession number {', '.join(unknown)}. "
            "Check the number, and whether the images have been sent to the PACS."
        )
    return list(found.values())


def _refuse_mixed_patients(studies: Sequence[Study]) -> None:
    """Refuse before anything is moved; the disc itself looks again, at the instances."""
    if len({study.PatientID for study in studies if study.PatientID}) > 1:
        raise MixedPatients(
            "The accession numbers belong to different patients: a disc holds one patient. "
            "Check the numbers, and make a disc for each patient."
        )


def _expected(studies: Sequence[Study]) -> int | None:
    totals = [study.instances for study in studies]
    return None if None in totals else sum(total or 0 for total in totals)


def _incomplete(
    missing: Sequence[MissingInstances], received: int, expected: int | None
) -> IncompleteRetrieval:
    if any(series.expected is None for series in missing):
        told = f"{received} instances arrived and the PACS reports that others failed"
    else:
        lacking = sum((series.expected or 0) - series.received for series in missing)
        told = (
            f"{received} of {max(expected or 0, received + lacking)} instances arrived, {lacking} are missing"
        )
    return IncompleteRetrieval(
        f"The PACS did not send everything: {told}, after asking three times. "
        "Try again; if it stays so, ask the PACS administrator about this study."
    )

"""From accession numbers to instances in a folder: what every job begins with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacsbridge import metrics
from pacsbridge.dimse.inbox import Inbox
from pacsbridge.dimse.query import Query, Study, ask
from pacsbridge.dimse.retrieve import MissingInstances, Retriever
from pacsbridge.dimse.scu import Peer
from pacsbridge.errors import IncompleteRetrieval, MixedPatients, NoDicomData
from pacsbridge.jobs.job import Counts, Job, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pacsbridge.config import Config
    from pacsbridge.dimse.pool import PortPool
    from pacsbridge.instance import Instance
    from pacsbridge.jobs.spool import SpoolFolder

#: So many queries at once: more would only press the archive.
_QUERIES = 4


@dataclass(frozen=True, slots=True)
class Received:
    """The instances of a job, complete but for what `missing` tells."""

    instances: tuple[Instance, ...]
    missing: tuple[MissingInstances, ...]


class Receiving:
    """Finds the studies of accession numbers and retrieves them over a port of the pool."""

    def __init__(self, config: Config, pool: PortPool) -> None:
        self._peer = Peer.pacs(config.pacs, fast=config.dimse.fast)
        self._associations = config.pacs.associations
        self._media = config.media
        self._pool = pool
        self._queries = asyncio.Semaphore(_QUERIES)

    async def find(self, job: Job) -> list[Study]:
        """Find every study of a job's accession numbers.

        Raises
        ------
        NoDicomData, MixedPatients, PacsError
            One number names no study; they belong to different patients; the PACS can't or won't.
        """
        job.enter(Stage.FINDING)
        async with self._queries:
            studies = await ask(self._peer, lambda query: _find_each(query, job.accession_numbers))
        if not self._media.allow_mixed_patients:
            _refuse_mixed_patients(studies)
        return studies

    async def receive(
        self,
        job: Job,
        studies: Sequence[Study],
        folder: SpoolFolder,
        on_stored: Callable[[Instance], None] = lambda _instance: None,
    ) -> Received:
        """Lease a port and retrieve the studies into the folder.

        Parameters
        ----------
        on_stored
            Called with each instance when it is there, in the receiving thread.

        Raises
        ------
        NoDicomData, IncompleteRetrieval, SpoolFull, Busy, PacsError
            There is nothing, or not all of it, or no room for it, or no port; the PACS can't or won't.
        """
        uids = [study.StudyInstanceUID for study in studies]
        inbox = Inbox(folder.path, uids, take=folder.take, on_stored=on_stored)
        expected = _expected(studies)
        job.measure(lambda: Counts(expected=expected, received=inbox.count, bytes=inbox.bytes_received))

        job.enter(Stage.WAITING)
        try:
            async with self._pool.lease(inbox, on_place=job.waits) as port:
                job.enter(Stage.RECEIVING)
                retriever = Retriever(self._peer, port, inbox, self._associations)
                missing = await retriever.retrieve(studies)
        finally:
            await asyncio.shield(asyncio.to_thread(inbox.close))
            metrics.INSTANCES_RECEIVED.inc(inbox.count)
            metrics.BYTES_RECEIVED.inc(inbox.bytes_received)
        if missing and not (self._media.allow_partial and inbox.count):
            raise _incomplete(missing, inbox.count, expected)
        if not inbox.count:
            raise NoDicomData("The PACS has this study, but no instances in it: there is nothing to burn.")
        return Received(inbox.instances, missing)


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

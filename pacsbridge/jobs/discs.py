"""The way of a disc: accession numbers, studies, instances, image."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import structlog

from pacsbridge.jobs.job import Job, Stage
from pacsbridge.jobs.threads import until_done
from pacsbridge.media.decoders import Decoders, Decoding
from pacsbridge.media.disc import Disc, DiscOptions, make_disc

if TYPE_CHECKING:
    from pacsbridge.instance import Instance
    from pacsbridge.jobs.receive import Received, Receiving
    from pacsbridge.jobs.shelf import KeptDisc, Shelf
    from pacsbridge.jobs.spool import Spool, SpoolFolder

log = structlog.get_logger(__name__)

#: So many discs are laid out and decoded at once: it is work for a processor.
_WRITERS = 2


class DiscMaker:
    """Makes the discs of jobs."""

    def __init__(
        self,
        receiving: Receiving,
        options: DiscOptions,
        spool: Spool,
        shelf: Shelf,
        decoders: Decoders,
    ) -> None:
        self._receiving = receiving
        self._options = options
        self._spool = spool
        self._shelf = shelf
        self._decoders = decoders
        self._writers = asyncio.Semaphore(_WRITERS)

    async def make(self, job: Job) -> KeptDisc:
        """Turn a job's accession numbers into a disc on the shelf, held for the caller.

        Raises
        ------
        PacsbridgeError
            Whatever stands in the way; the job's folder is gone then.
        """
        began = time.monotonic()
        studies = await self._receiving.find(job)
        folder = self._spool.folder()
        try:
            # What is compressed is decoded while the rest arrives.
            decoding = Decoding(self._decoders, folder.take, self._options.capacity_bytes)
            try:
                wanted = decoding.add if self._options.profile == "STD-GEN-CD" else _nothing
                received = await self._receiving.receive(job, studies, folder, wanted)
                disc = await self._write(job, received, folder, decoding)
            finally:
                await asyncio.shield(asyncio.to_thread(decoding.close))
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
        if disc.undecoded:
            job.notes = (
                f"{len(disc.undecoded)} instances could not be decoded and are on the disc as they came.",
            )
        return self._shelf.put(disc, folder)

    async def _write(self, job: Job, received: Received, folder: SpoolFolder, decoding: Decoding) -> Disc:
        job.enter(Stage.WRITING)
        cancelled = threading.Event()

        def write() -> Disc:
            return make_disc(
                received.instances,
                folder.path,
                self._options,
                decoding=decoding,
                missing=received.missing,
                take=folder.take,
                on_progress=job.wrote,
                cancelled=cancelled.is_set,
            )

        async with self._writers:
            return await until_done(write, cancelled.set)


def _nothing(_instance: Instance) -> None:
    """Leave what arrives as it is."""

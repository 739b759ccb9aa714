"""The engine of long work: jobs are started, joined, waited for, cancelled and remembered here."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from pacsbridge.errors import Busy, PacsbridgeError
from pacsbridge.jobs.job import Job, Kind, State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from pacsbridge.jobs.discs import DiscMaker
    from pacsbridge.jobs.shelf import KeptDisc, Shelf

log = structlog.get_logger(__name__)

#: Finished jobs that are remembered.
_REMEMBERED = 500
#: How often finished discs are looked through for old ones.
_SWEEP_SECONDS = 15.0
#: What a caller is told to wait when the queue is full.
_RETRY_SECONDS = 30


class Engine:
    """Runs jobs.

    Parameters
    ----------
    maker
        Makes the disc of a job.
    shelf
        Keeps finished discs.
    capacity
        So many unfinished jobs at once; more are refused.
    """

    def __init__(self, maker: DiscMaker, shelf: Shelf, capacity: int) -> None:
        self._maker = maker
        self._shelf = shelf
        self._capacity = capacity
        self._jobs: dict[str, Job] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        """Begin to look after the shelf."""
        self._sweeper = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """Cancel every job, wait for their ends, and empty the shelf."""
        self._closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        running = [job for job in self._jobs.values() if job.task is not None and not job.state.final]
        for job in running:
            self.cancel(job)
        for job in running:
            await job.finished.wait()
        await asyncio.to_thread(self._shelf.clear)

    @property
    def jobs(self) -> Iterable[Job]:
        """Every job that is remembered, oldest first."""
        return self._jobs.values()

    def submit(self, kind: Kind, accession_numbers: Sequence[str], *, keep: bool = False) -> Job:
        """Start a job, or join the same work in flight or on the shelf.

        Raises
        ------
        Busy
            Too many jobs are unfinished, or the service is stopping.
        """
        if self._closing:
            raise Busy("The service is stopping. Try again in a moment.", retry_after=_RETRY_SECONDS)
        job = Job(kind, tuple(accession_numbers), keep=keep)
        same = self._same(job)
        if same is not None:
            same.keep = same.keep or keep
            return same
        unfinished = sum(not other.state.final for other in self._jobs.values())
        if unfinished >= self._capacity:
            raise Busy(
                f"{unfinished} discs are being made or wait already. Try again in a moment.",
                retry_after=_RETRY_SECONDS,
            )
        self._forget()
        self._jobs[job.id] = job
        job.task = asyncio.create_task(self._run(job), name=f"job {job.id}")
        return job

    def cancel(self, job: Job) -> None:
        """Stop a job; the C-MOVE is cancelled at the PACS too."""
        if job.task is not None and not job.state.final:
            job.task.cancel()

    @asynccontextmanager
    async def disc(self, accession_numbers: Sequence[str]) -> AsyncIterator[tuple[Job, KeptDisc]]:
        """Make a disc or take it from the shelf, and hold it while it is read.

        The job ends when the last one who waits for it leaves.

        Raises
        ------
        PacsbridgeError
            What stood in the way of the job.
        """
        job = self.submit(Kind.ISO, accession_numbers)
        job.waiting += 1
        try:
            await job.finished.wait()
        finally:
            job.waiting -= 1
            if not job.waiting and not job.keep:
                self.cancel(job)
        if job.error is not None:
            raise job.error.with_traceback(None)
        kept = job.disc
        if kept is None or not self._shelf.hold(kept):
            raise Busy(
                "The disc had to give way to others before it could be read. Try again.", retry_after=1
            )
        try:
            yield job, kept
        finally:
            self._shelf.let_go(kept)

    async def _run(self, job: Job) -> None:
        try:
            job.disc = await self._maker.make(job)
            job.end(State.DONE)
        except asyncio.CancelledError:
            log.info("job cancelled", job_id=job.id, stage=job.stage)
            job.end(State.CANCELLED, Busy("The job was cancelled. Ask again.", retry_after=1))
        except PacsbridgeError as error:
            log.warning("job failed", job_id=job.id, stage=job.stage, code=error.code)
            job.end(State.FAILED, error)
        except Exception:
            log.exception("job failed by a fault of ours", job_id=job.id, stage=job.stage)
            told = f"Something went wrong here; the log tells more under job {job.id}."
            job.end(State.FAILED, PacsbridgeError(told))

    def _same(self, wanted: Job) -> Job | None:
        """Find the same work: in flight, or finished with its disc still on the shelf."""
        for job in reversed(self._jobs.values()):
            if job.key == wanted.key and not _ending(job):
                if not job.state.final:
                    return job
                if job.disc is not None and not job.disc.gone:
                    return job
        return None

    def _forget(self) -> None:
        """Drop the oldest finished jobs whose discs are gone."""
        extra = len(self._jobs) - _REMEMBERED
        old = [
            job.id for job in self._jobs.values() if job.state.final and (job.disc is None or job.disc.gone)
        ]
        for job_id in old[: max(extra, 0)]:
            del self._jobs[job_id]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            with suppress(OSError):
                await asyncio.to_thread(self._shelf.sweep)


def _ending(job: Job) -> bool:
    """Whether a job was told to stop and has not ended yet."""
    return job.task is not None and not job.state.final and job.task.cancelling() > 0

"""The engine of long work: jobs are started, joined, waited for, cancelled and remembered here."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from pacsbridge.errors import Busy, Interrupted, NotFound, PacsbridgeError
from pacsbridge.jobs.job import Job, Kind, Stage, State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from pacsbridge.jobs.discs import DiscMaker
    from pacsbridge.jobs.prints import Printer
    from pacsbridge.jobs.shelf import KeptDisc, Shelf
    from pacsbridge.jobs.store import Store

log = structlog.get_logger(__name__)

#: Finished jobs that are remembered.
_REMEMBERED = 500
#: How often finished discs are looked through for old ones.
_SWEEP_SECONDS = 15.0
#: How long the start waits for the database to tell of earlier jobs.
_PATIENCE_SECONDS = 5.0
#: The same print within this time is taken for an impatient second click.
_DOUBLE_CLICK = timedelta(minutes=1)
#: What a caller is told to wait when the queue is full.
_RETRY_SECONDS = 30


class Engine:
    """Runs jobs.

    Parameters
    ----------
    maker
        Makes the disc of a job.
    printer
        Sends the studies of a job to the publisher.
    shelf
        Keeps finished discs.
    store
        Keeps jobs over a restart.
    capacity
        So many unfinished jobs at once; more are refused.
    """

    def __init__(self, maker: DiscMaker, printer: Printer, shelf: Shelf, store: Store, capacity: int) -> None:
        self._maker = maker
        self._printer = printer
        self._store = store
        self._shelf = shelf
        self._capacity = capacity
        self._jobs: dict[str, Job] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Take over the jobs of earlier runs, and begin to look after the shelf."""
        await self._adopt(_PATIENCE_SECONDS)
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

    async def finish_orders(self, seconds: float) -> None:
        """Let what is being sent to the publisher be sent whole, for so long at most."""
        sending = {
            job.task for job in self._jobs.values() if job.stage is Stage.SENDING and job.task is not None
        }
        if sending:
            await asyncio.wait(sending, timeout=seconds)

    @property
    def jobs(self) -> Iterable[Job]:
        """Every job that is remembered, oldest first."""
        return self._jobs.values()

    def find(self, job_id: str) -> Job:
        """Find a job by its id.

        Raises
        ------
        NotFound
            There is none, or it was forgotten.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise NotFound("There is no such job; old ones are forgotten.")
        return job

    def submit(
        self,
        kind: Kind,
        accession_numbers: Sequence[str],
        *,
        keep: bool = False,
        again: bool = False,
        requested_by: str = "",
    ) -> Job:
        """Start a job, or join the same work.

        A disc is joined in flight or on the shelf. A print is joined in flight or when it ended well less than a
        minute ago (a double click), unless `again` says that a second order is meant.

        Raises
        ------
        Busy
            Too many jobs are unfinished, or the service is stopping.
        """
        if self._closing:
            raise Busy("The service is stopping. Try again in a moment.", retry_after=_RETRY_SECONDS)
        job = Job(
            kind, tuple(accession_numbers), keep=keep, requested_by=requested_by, on_change=self._store.save
        )
        same = None if again and kind is Kind.PRINT else self._same(job)
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
        self._store.save(job)
        job.task = asyncio.create_task(self._run(job), name=f"job {job.id}")
        job.task.add_done_callback(lambda _: self._end_cancelled(job))
        return job

    def cancel(self, job: Job) -> None:
        """Stop a job; the C-MOVE is cancelled at the PACS too.

        A job that was told already is not told again: that would break off its waiting for the PACS to obey.
        """
        if job.task is not None and not job.state.final and not job.task.cancelling():
            job.task.cancel()

    async def run(self, job: Job) -> None:
        """Wait for a job; it ends when the last one who waits for it leaves, unless it is kept.

        Raises
        ------
        PacsbridgeError
            What stood in the way of the job.
        """
        job.waiting += 1
        try:
            await job.finished.wait()
        finally:
            job.waiting -= 1
            if not job.waiting and not job.keep:
                self.cancel(job)
        if job.error is not None:
            raise job.error.with_traceback(None)

    @asynccontextmanager
    async def disc(self, job: Job) -> AsyncIterator[KeptDisc]:
        """Wait for a job's disc, and hold it while it is read.

        Raises
        ------
        PacsbridgeError
            What stood in the way of the job.
        NotFound
            The disc is gone already.
        """
        await self.run(job)
        kept = job.disc
        if kept is None or not self._shelf.hold(kept):
            raise NotFound("The image is no longer kept. Make the disc again.")
        try:
            yield kept
        finally:
            await self._let_go(kept)

    async def _run(self, job: Job) -> None:
        try:
            if job.kind is Kind.ISO:
                await self._make(job)
            else:
                await self._printer.send(job)
                job.end(State.DONE)
        except PacsbridgeError as error:
            log.warning("job failed", job_id=job.id, stage=job.stage, code=error.code)
            job.end(State.FAILED, error)
        except Exception:
            log.exception("job failed by a fault of ours", job_id=job.id, stage=job.stage)
            told = f"Something went wrong here; the log tells more under job {job.id}."
            job.end(State.FAILED, PacsbridgeError(told))

    async def _make(self, job: Job) -> None:
        job.disc = await self._maker.make(job)
        awaited = job.waiting > 0
        job.end(State.DONE)
        try:
            await asyncio.sleep(0)  # whoever waits wakes now and holds the disc, before it is let go here
        finally:
            if awaited:
                await self._let_go(job.disc)
            else:
                self._shelf.let_go(job.disc)  # who asked for it in the background comes when it is told

    async def _let_go(self, kept: KeptDisc) -> None:
        self._shelf.let_go(kept)
        if self._shelf.overdue:
            await asyncio.shield(asyncio.to_thread(self._shelf.sweep))

    def _end_cancelled(self, job: Job) -> None:
        if job.state.final:
            return
        if self._closing:
            log.info("job interrupted", job_id=job.id, stage=job.stage)
            job.end(State.INTERRUPTED, Interrupted())
        else:
            log.info("job cancelled", job_id=job.id, stage=job.stage)
            job.end(State.CANCELLED, Busy("The job was cancelled. Ask again.", retry_after=1))

    def _same(self, wanted: Job) -> Job | None:
        """Find the same work: in flight, or finished with its disc still on the shelf."""
        for job in reversed(self._jobs.values()):
            if job.key == wanted.key and not _ending(job):
                if not job.state.final:
                    return job
                if job.disc is not None and not job.disc.gone:
                    return job
                if job.kind is Kind.PRINT and job.state is State.DONE and _just_now(job):
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

    async def _adopt(self, seconds: float) -> None:
        earlier = {job.id: job for job in await self._store.earlier(seconds)}
        self._jobs = earlier | self._jobs

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            await self._adopt(0)
            with suppress(OSError):
                await asyncio.to_thread(self._shelf.sweep)


def _just_now(job: Job) -> bool:
    return job.finished_at is not None and datetime.now(UTC) - job.finished_at < _DOUBLE_CLICK


def _ending(job: Job) -> bool:
    """Whether a job was told to stop and has not ended yet."""
    return job.task is not None and not job.state.final and job.task.cancelling() > 0

"""What survives a restart: every job has a row in the database, written by one task in the background.

A database that is away costs no disc: what could not be written waits in memory and is written when it is back.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, Self

import structlog
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from pacsbridge.db import upgrade_in_thread
from pacsbridge.db.schema import jobs
from pacsbridge.errors import Interrupted, PacsbridgeError
from pacsbridge.jobs.job import Counts, Job, Kind, Stage, State

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

    from pacsbridge.db import Database

log = structlog.get_logger(__name__)

#: Rows are written at most this often.
_PAUSE_SECONDS = 0.5
#: After a failure the database is left alone for so long.
_RETRY_SECONDS = 2.0
#: Old rows are looked for this often.
_PRUNE_SECONDS = 3600.0
#: So many jobs of earlier runs are shown.
_REMEMBERED = 200
_UNFINISHED = (State.QUEUED.value, State.RUNNING.value)


class StoredError(PacsbridgeError):
    """The error of a job that an earlier run remembers."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Store(Protocol):
    """What the engine wants of a store."""

    async def earlier(self, seconds: float) -> list[Job]:
        """Return the jobs of earlier runs, oldest first."""

    def save(self, job: Job) -> None:
        """Have a job written soon."""


class NoStore:
    """Remembers nothing: for one job from the shell."""

    async def earlier(self, seconds: float) -> list[Job]:  # noqa: ARG002 - as Store has it
        """Know of no earlier jobs."""
        return []

    def save(self, job: Job) -> None:
        """Forget the job."""


class JobStore:
    """Keeps jobs in the database.

    Parameters
    ----------
    database
        Where.
    keep_days
        Finished jobs older than this are forgotten.
    upgrade
        Whether the schema is brought up to date first.
    """

    def __init__(self, database: Database, url: str, *, keep_days: float, upgrade: bool = True) -> None:
        self._database = database
        self._url = url
        self._keep = timedelta(days=keep_days)
        self._upgrade = upgrade
        self._changed: dict[str, Job] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._recovered = asyncio.Event()
        self._earlier: list[Job] = []
        self._started_at = datetime.now(UTC)
        self.problem: str | None = "not connected yet"

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._write(), name="job store")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._recovered.is_set():
            await self._flush()
        if self._changed:
            log.warning("jobs could not be written to the database", jobs=len(self._changed))

    async def earlier(self, seconds: float) -> list[Job]:
        """Return the jobs of earlier runs, oldest first; empty when the database does not answer in time."""
        if seconds:
            try:
                async with asyncio.timeout(seconds):
                    await self._recovered.wait()
            except TimeoutError:
                log.warning("starting without the jobs of earlier runs", reason=self.problem)
        earlier, self._earlier = self._earlier, []
        return earlier

    def save(self, job: Job) -> None:
        """Have a job written soon; never waits, never fails."""
        self._changed[job.id] = job
        self._wake.set()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        prune_at = 0.0
        while True:
            done = await self._recover() if not self._recovered.is_set() else await self._flush()
            if done and loop.time() >= prune_at:
                done = await self._try(self._prune)
                prune_at = loop.time() + _PRUNE_SECONDS
            if not done:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if not self._changed:
                self._wake.clear()
                await self._wait(prune_at - loop.time())
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 1)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _recover(self) -> bool:
        """Bring the schema up to date, and mark what an earlier run left unfinished."""
        if not await self._try(self._recover_once):
            return False
        self._recovered.set()
        return True

    async def _recover_once(self) -> None:
        if self._upgrade:
            await upgrade_in_thread(self._url)
        interrupted = Interrupted()
        async with self._database.transaction() as connection:
            await connection.execute(
                update(jobs)
                .where(jobs.c.state.in_(_UNFINISHED), jobs.c.created_at < self._started_at)
                .values(
                    state=State.INTERRUPTED.value,
                    error_code=interrupted.code,
                    error_message=interrupted.message,
                    finished_at=datetime.now(UTC),
                )
            )
        async with self._database.session() as connection:
            rows = await connection.execute(
                select(jobs)
                .where(jobs.c.created_at < self._started_at)
                .order_by(jobs.c.created_at.desc())
                .limit(_REMEMBERED)
            )
            self._earlier = [_job(row) for row in reversed(rows.mappings().all())]

    async def _flush(self) -> bool:
        changed, self._changed = self._changed, {}
        if not changed:
            return True
        rows = [_row(job) for job in changed.values()]

        async def write() -> None:
            async with self._database.transaction() as connection:
                for row in rows:
                    await _upsert(connection, row)

        if await self._try(write):
            return True
        self._changed = changed | self._changed
        return False

    async def _prune(self) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                delete(jobs).where(
                    jobs.c.finished_at.is_not(None), jobs.c.finished_at < datetime.now(UTC) - self._keep
                )
            )

    async def _try(self, work: Any) -> bool:
        """Do something with the database; tell once when it begins to fail, and once when it works again."""
        try:
            await work()
        except (PacsbridgeError, SQLAlchemyError, OSError) as error:
            reason = error.message if isinstance(error, PacsbridgeError) else type(error).__name__
            if self.problem != reason:
                log.exception("the database can't be used; jobs go on without it", reason=reason)
            self.problem = reason
            return False
        if self.problem is not None:
            log.info("the database can be used")
        self.problem = None
        return True


async def _upsert(connection: AsyncConnection, row: Mapping[str, Any]) -> None:
    updated = await connection.execute(update(jobs).where(jobs.c.id == row["id"]).values(**row))
    if not updated.rowcount:
        await connection.execute(insert(jobs).values(**row))


def _row(job: Job) -> dict[str, Any]:
    counts = job.look()
    kind, numbers = job.key
    key = hashlib.sha256("\n".join([kind, *sorted(numbers)]).encode()).hexdigest()
    return {
        "id": job.id,
        "kind": job.kind.value,
        "accession_numbers": json.dumps(job.accession_numbers),
        "key": key,
        "state": job.state.value,
        "stage": job.stage.value,
        "progress": job.progress,
        "instances_expected": counts.expected,
        "instances_received": counts.received,
        "instances_sent": counts.sent,
        "instances_failed": counts.failed,
        "bytes": counts.bytes,
        "error_code": job.error.code if job.error else None,
        "error_message": job.error.message if job.error else None,
        "notes": json.dumps(job.notes),
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "requested_by": job.requested_by,
    }


def _job(row: RowMapping) -> Job:
    error = StoredError(row["error_code"], row["error_message"] or "") if row["error_code"] else None
    job = Job(
        kind=Kind(row["kind"]),
        accession_numbers=tuple(json.loads(row["accession_numbers"])),
        keep=True,
        id=row["id"],
        state=State(row["state"]),
        stage=Stage(row["stage"]),
        counts=Counts(
            expected=row["instances_expected"],
            received=row["instances_received"],
            sent=row["instances_sent"],
            failed=row["instances_failed"],
            bytes=row["bytes"],
        ),
        error=error,
        notes=tuple(json.loads(row["notes"])),
        requested_by=row["requested_by"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        _progress=row["progress"],
    )
    job.finished.set()
    return job

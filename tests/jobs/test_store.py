"""The store: rows of jobs, on both databases; what can't be written now is written later."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, update

from pacsbridge.db import Database
from pacsbridge.db.schema import jobs
from pacsbridge.errors import DatabaseUnavailable, NoDicomData
from pacsbridge.jobs.job import Counts, Job, Kind, Stage, State
from pacsbridge.jobs.store import JobStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DAY = timedelta(days=1)


@asynccontextmanager
async def opened(url: str, *, keep_days: float = 30) -> AsyncIterator[JobStore]:
    database = Database(url)
    async with JobStore(database, url, keep_days=keep_days) as store:
        yield store
    await database.close()


async def states(database: Database) -> dict[str, str]:
    async with database.session() as connection:
        rows = await connection.execute(select(jobs.c.id, jobs.c.state))
        return {row.id: row.state for row in rows}


async def test_a_job_comes_back_as_it_ended(url: str, database: Database) -> None:
    job = Job(Kind.PRINT, ("A1", "Ü 2"), requested_by="link")
    job.enter(Stage.RECEIVING)
    job.counted(Counts(expected=12, received=10, sent=8, failed=2, bytes=12345))
    job.notes = ("two came late",)
    job.end(State.FAILED, NoDicomData("nothing there"))
    async with opened(url) as store:
        assert await store.earlier(10) == []
        store.save(job)
    async with opened(url) as store:
        (back,) = await store.earlier(10)
    for name in (
        "id", "kind", "accession_numbers", "state", "stage", "counts", "notes", "requested_by", "created_at",
        "started_at", "finished_at", "progress",
    ):  # fmt: skip
        assert getattr(back, name) == getattr(job, name), name
    assert back.error is not None
    assert (back.error.code, back.error.message) == ("no_dicom_data", "nothing there")


@pytest.mark.parametrize("stage", [Stage.FINDING, Stage.WAITING, Stage.RECEIVING, Stage.SENDING])
async def test_what_was_unfinished_is_interrupted(stage: Stage, url: str, database: Database) -> None:
    job = Job(Kind.PRINT, ("A1",))
    job.enter(stage)
    async with opened(url) as store:
        await store.earlier(10)
        store.save(job)
    assert await states(database) == {job.id: job.state.value}
    async with opened(url) as store:
        (back,) = await store.earlier(10)
        assert back.state is State.INTERRUPTED
        assert back.finished_at
    assert await states(database) == {job.id: "interrupted"}


async def test_old_jobs_are_forgotten(url: str, database: Database) -> None:
    old, new = Job(Kind.ISO, ("A1",)), Job(Kind.ISO, ("A2",))
    async with opened(url) as store:
        await store.earlier(10)
        for job in (old, new):
            job.end(State.DONE)
            store.save(job)
    async with database.transaction() as connection:
        await connection.execute(
            update(jobs).where(jobs.c.id == old.id).values(finished_at=datetime.now(UTC) - 31 * DAY)
        )
    async with opened(url) as store:
        await store.earlier(10)
        async with asyncio.timeout(10):
            while old.id in await states(database):
                await asyncio.sleep(0.05)
    assert await states(database) == {new.id: "done"}


async def test_a_database_that_goes_away_is_written_to_when_it_is_back(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacsbridge.jobs.store._RETRY_SECONDS", 0.1)
    away = False
    transaction = Database.transaction

    @asynccontextmanager
    async def interrupted(self: Database) -> AsyncIterator[object]:
        if away:
            raise DatabaseUnavailable("The database can't be used now.")
        async with transaction(self) as connection:
            yield connection

    monkeypatch.setattr(Database, "transaction", interrupted)
    job = Job(Kind.ISO, ("A1",))
    async with opened(url) as store:
        await store.earlier(10)
        away = True
        store.save(job)
        async with asyncio.timeout(10):
            while store.problem is None:
                await asyncio.sleep(0.05)
        job.end(State.DONE)
        store.save(job)
        away = False
        async with asyncio.timeout(10):
            while store.problem is not None:
                await asyncio.sleep(0.05)
    assert await states(database) == {job.id: "done"}

"""The audit trail: who did what to which study, when, from where, and how it ended.

What changes the database is recorded in the transaction that changes it. What happens hundreds of times a
second, a retrieval through the proxy, goes through ``AuditTrail``, which writes in batches.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import insert, select
from sqlalchemy.exc import SQLAlchemyError

from pacsbridge.accounts.values import Caller, storable, utc_now
from pacsbridge.db.schema import audit_records
from pacsbridge.errors import PacsbridgeError

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from pacsbridge.accounts.values import Principal
    from pacsbridge.db import Database

log = structlog.get_logger(__name__)

BATCH = 200
QUEUE_LENGTH = 10_000
RETRY_SECONDS = 2.0
CLOSE_SECONDS = 10.0


class Outcome(StrEnum):
    """How it ended."""

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it: a principal's subject, or ``shell``, ``api-key``, or nothing for a stranger."""

    subject: str
    role: str
    caller: Caller

    @classmethod
    def of(cls, principal: Principal, caller: Caller) -> Actor:
        """Name a principal."""
        return cls(principal.subject, principal.role.value, caller)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of the trail.

    Parameters
    ----------
    event
        What was done, in two or three words: ``sign-in``, ``study read``, ``link opened``.
    detail
        Anything more that helps, without names, passwords or tokens.
    """

    event: str
    outcome: Outcome
    actor: Actor
    study_iuid: str = ""
    accession_number: str = ""
    detail: str = ""
    at: datetime = field(default_factory=utc_now)

    def row(self) -> dict[str, Any]:
        """Give the record as a row of ``audit_records``, cut to what fits."""
        columns = {
            "event": self.event,
            "outcome": self.outcome.value,
            "subject": self.actor.subject,
            "role": self.actor.role,
            "study_iuid": self.study_iuid,
            "accession_number": self.accession_number,
            "address": self.actor.caller.address,
            "request_id": self.actor.caller.request_id,
            "detail": self.detail,
        }
        sizes = {name: audit_records.c[name].type.length for name in columns}  # type: ignore[attr-defined] # all are String
        return {"at": self.at} | {name: storable(text)[: sizes[name]] for name, text in columns.items()}


async def write(connection: AsyncConnection, *records: AuditRecord) -> None:
    """Add records in the transaction of what they tell of."""
    if records:
        await connection.execute(insert(audit_records), [record.row() for record in records])


async def latest(
    connection: AsyncConnection, *, subject: str = "", study_iuid: str = "", limit: int = 100
) -> list[dict[str, Any]]:
    """Read the newest records, of one subject or one study where named."""
    query = select(audit_records).order_by(audit_records.c.id.desc()).limit(limit)
    if subject:
        query = query.where(audit_records.c.subject == subject)
    if study_iuid:
        query = query.where(audit_records.c.study_iuid == study_iuid)
    return [dict(row) for row in (await connection.execute(query)).mappings()]


class AuditTrail:
    """Takes records without making the one who reads images wait, and writes them in batches.

    ``put`` waits only when the database has been away for ``QUEUE_LENGTH`` records: rather slow than
    unrecorded.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: asyncio.Queue[AuditRecord] = asyncio.Queue(QUEUE_LENGTH)
        self._writer: asyncio.Task[None] | None = None
        self._unwritten = 0

    def start(self) -> None:
        """Start writing."""
        self._writer = asyncio.create_task(self._write_all(), name="audit trail")

    async def put(self, record: AuditRecord) -> None:
        """Record something."""
        await self._queue.put(record)
        self._unwritten += 1

    async def close(self) -> None:
        """Write what is waiting, then stop; what can't be written in time is counted in the log."""
        if self._writer is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._queue.join()
        except TimeoutError:
            log.error("audit records lost", count=self._unwritten)  # noqa: TRY400 - the trace tells nothing
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)
        self._writer = None

    async def _write_all(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._write(batch)
            self._unwritten -= len(batch)
            for _ in batch:
                self._queue.task_done()

    async def _write(self, batch: list[AuditRecord]) -> None:
        while True:
            try:
                async with self._database.transaction() as connection:
                    await write(connection, *batch)
            except (PacsbridgeError, SQLAlchemyError) as error:
                log.warning("audit trail waits for the database", reason=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

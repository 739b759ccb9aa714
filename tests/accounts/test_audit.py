from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pacsbridge.accounts import audit
from pacsbridge.accounts.audit import Actor, AuditRecord, AuditTrail, Outcome, latest
from pacsbridge.accounts.values import Caller
from pacsbridge.errors import DatabaseUnavailable
from tests.accounts.examples import ENGINEER, events

if TYPE_CHECKING:
    import pytest

    from pacsbridge.db import Database


async def test_records_are_written_in_their_order_before_closing(database: Database) -> None:
    trail = AuditTrail(database)
    trail.start()
    for number in range(500):
        await trail.put(AuditRecord(f"read {number}", Outcome.OK, ENGINEER))
    await trail.close()
    assert [event for event, _ in await events(database)] == [f"read {number}" for number in range(500)]


async def test_a_record_holds_what_it_was_given(database: Database) -> None:
    actor = Actor("user:1", "doctor", Caller("2001:db8::1", "a browser", "r1"))
    record = AuditRecord("study read", Outcome.REFUSED, actor, "1.2.3", "A1", "why")
    async with database.transaction() as connection:
        await audit.write(connection, record)
    async with database.session() as connection:
        (row,) = await latest(connection, study_iuid="1.2.3")
        assert await latest(connection, subject="user:2") == []
        assert await latest(connection, subject="user:1") == [row]
    del row["id"]
    assert row == {
        "at": record.at,
        "event": "study read",
        "outcome": "refused",
        "subject": "user:1",
        "role": "doctor",
        "study_iuid": "1.2.3",
        "accession_number": "A1",
        "address": "2001:db8::1",
        "request_id": "r1",
        "detail": "why",
    }


async def test_what_is_too_long_or_no_text_is_cut_not_lost(database: Database) -> None:
    long = "x" * 5000 + "\ud800\0"
    actor = Actor(long, long, Caller(long, long, long))
    async with database.transaction() as connection:
        await audit.write(connection, AuditRecord(long, Outcome.OK, actor, long, long, "\ud800😀" + long))
    assert len(await events(database)) == 1


async def test_the_trail_waits_for_a_database_that_is_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "RETRY_SECONDS", 0.001)
    write, calls = audit.write, []

    async def failing(*arguments: object) -> None:
        calls.append(1)
        if len(calls) < 3:
            raise DatabaseUnavailable("away")
        await write(*arguments)  # type: ignore[arg-type] # passed on as they came

    monkeypatch.setattr(audit, "write", failing)
    trail = AuditTrail(database)
    trail.start()
    await trail.put(AuditRecord("read", Outcome.OK, ENGINEER))
    await trail.close()
    assert await events(database) == [("read", "ok")]


async def test_closing_ends_even_when_the_database_stays_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "CLOSE_SECONDS", 0.05)

    async def failing(*_: object) -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(audit, "write", failing)
    trail = AuditTrail(database)
    trail.start()
    await trail.put(AuditRecord("read", Outcome.OK, ENGINEER))
    async with asyncio.timeout(5):
        await trail.close()


async def test_a_trail_that_never_started_closes(database: Database) -> None:
    await AuditTrail(database).close()

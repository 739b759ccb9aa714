from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError, StatementError

from pacsbridge.config import ConfigError
from pacsbridge.db import Database, database_url, upgrade
from pacsbridge.db.schema import attempts, grants
from pacsbridge.errors import DatabaseUnavailable
from tests.databases import closed_port

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

WHEN = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)


async def _put(database: Database, bucket: str, count: int = 0, when: datetime = WHEN) -> None:
    async with database.transaction() as connection:
        await connection.execute(insert(attempts).values(bucket=bucket, counted=count, window_ends_at=when))


async def _count(database: Database, bucket: str) -> int | None:
    async with database.session() as connection:
        value: int | None = await connection.scalar(
            select(attempts.c.counted).where(attempts.c.bucket == bucket)
        )
        return value


@pytest.mark.parametrize(
    ("url", "driver", "name"),
    [
        ("sqlite:///./pacsbridge.db", "sqlite", "./pacsbridge.db"),
        ("sqlite:////var/lib/pacsbridge.db", "sqlite", "/var/lib/pacsbridge.db"),
        ("mysql://u:p%40ss@db:3306/pacs", "mysql", "pacs"),
        ("mysql+aiomysql://u@db/pacs", "mysql", "pacs"),
        ("mariadb://u@db/pacs", "mysql", "pacs"),
    ],
)
def test_database_url(url: str, driver: str, name: str) -> None:
    parsed = database_url(url)
    assert (parsed.drivername, parsed.database) == (driver, name)
    if "%40" in url:
        assert parsed.password == "p@ss"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "pacsbridge.db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite://pacsbridge.db",
        "postgresql://u:hush@db/pacs",
        "mysql://u:hush@db",
        "mysql:///pacs",
        "mysql://u:hush@db:port/pacs",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^database\.url: ") as caught:
        database_url(url)
    assert "hush" not in str(caught.value)


async def test_a_transaction_commits_whole(database: Database) -> None:
    await _put(database, "a", 1)
    assert await _count(database, "a") == 1


async def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    async def half() -> None:
        async with database.transaction() as connection:
            await connection.execute(insert(attempts).values(bucket="a", counted=1, window_ends_at=WHEN))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await half()
    assert await _count(database, "a") is None


async def test_a_cancelled_transaction_leaves_nothing_and_frees_the_lock(database: Database) -> None:
    inside = asyncio.Event()

    async def write() -> None:
        async with database.transaction() as connection:
            await connection.execute(insert(attempts).values(bucket="a", counted=1, window_ends_at=WHEN))
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(write())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await _count(database, "a") is None
    await _put(database, "a")


async def test_transactions_do_not_nest(database: Database) -> None:
    with pytest.raises(RuntimeError, match="pass the connection on"):
        async with database.transaction(), database.transaction():
            pass
    await _put(database, "a")


async def _add_one(database: Database, bucket: str) -> None:
    async with database.transaction() as connection:
        query = select(attempts.c.counted).where(attempts.c.bucket == bucket).with_for_update()
        count = (await connection.execute(query)).scalar_one()
        await connection.execute(
            update(attempts).where(attempts.c.bucket == bucket).values(counted=count + 1)
        )


async def test_fifty_writers_that_read_first_all_get_through(database: Database) -> None:
    await _put(database, "a", 0)
    await asyncio.gather(*(_add_one(database, "a") for _ in range(50)))
    assert await _count(database, "a") == 50


async def test_writers_in_two_processes_wait_for_each_other(url: str, database: Database) -> None:
    """Two objects, as in two processes: the lock inside one doesn't help here."""
    await _put(database, "a", 0)
    other = Database(url)
    try:
        await asyncio.gather(*(_add_one(each, "a") for _ in range(10) for each in (database, other)))
    finally:
        await other.close()
    assert await _count(database, "a") == 20


async def test_readers_do_not_wait_for_the_writer(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(insert(attempts).values(bucket="a", counted=1, window_ends_at=WHEN))
        async with asyncio.timeout(5):
            assert await _count(database, "a") is None


async def test_a_deadlock_is_tried_again(database: Database) -> None:
    for bucket in ("a", "b"):
        await _put(database, bucket, 0)
    first_round = asyncio.Barrier(2)
    rounds: list[str] = []

    async def add(first: str, second: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            rounds.append(first)
            for bucket in (first, second):
                await connection.execute(
                    update(attempts).where(attempts.c.bucket == bucket).values(counted=attempts.c.counted + 1)
                )
                if bucket == first and len(rounds) <= 2 and database.dialect == "mysql":
                    await first_round.wait()

        await database.atomically(work)

    await asyncio.gather(add("a", "b"), add("b", "a"))
    assert [await _count(database, bucket) for bucket in ("a", "b")] == [2, 2]
    assert len(rounds) == (3 if database.dialect == "mysql" else 2)


@pytest.mark.parametrize(
    "when",
    [
        WHEN,
        datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=2))),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ],
)
async def test_a_moment_comes_back_as_it_went_in(database: Database, when: datetime) -> None:
    await _put(database, "a", when=when)
    async with database.session() as connection:
        assert await connection.scalar(select(attempts.c.window_ends_at)) == when
        later = attempts.c.window_ends_at >= when
        assert await connection.scalar(select(attempts.c.bucket).where(later)) == "a"
        if when.year < 9999:
            sooner = attempts.c.window_ends_at < when + timedelta(microseconds=1)
            assert await connection.scalar(select(attempts.c.bucket).where(sooner)) == "a"


async def test_a_moment_without_a_time_zone_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="time zone"):
        await _put(database, "a", when=datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake


async def test_text_is_compared_byte_by_byte(database: Database) -> None:
    for bucket in ("a", "A", "ä", "Ä", "😀"):
        await _put(database, bucket)
    with pytest.raises(IntegrityError):
        await _put(database, "😀")


async def test_foreign_keys_are_enforced(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.transaction() as connection:
            await connection.execute(
                insert(grants).values(
                    user_id="nobody", kind="study", value="1.2", granted_at=WHEN, granted_by="x"
                )
            )


async def test_a_server_that_is_away_is_said_in_words(tmp_path: object) -> None:
    for url in (
        f"mysql://someone:hush@127.0.0.1:{closed_port()}/x",
        f"sqlite:///{tmp_path}/absent/file.db",
    ):
        database = Database(url)
        with pytest.raises(DatabaseUnavailable) as caught:
            await database.connect()
        assert "hush" not in str(caught.value)
        await database.close()
    # aiosqlite's thread of a failed connection ends by itself: before the loop does, please.
    async with asyncio.timeout(5):
        while any("_connection_worker_thread" in thread.name for thread in threading.enumerate()):
            await asyncio.sleep(0.01)


async def test_a_file_that_stays_locked_is_said_in_words(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacsbridge.db.engine.SQLITE_BUSY_SECONDS", 0.05)
    upgrade(sqlite_url)
    holder, waiter = Database(sqlite_url), Database(sqlite_url)
    async with holder.transaction():
        with pytest.raises(DatabaseUnavailable):
            await _put(waiter, "a")
    await holder.close()
    await waiter.close()


async def test_a_mistake_in_a_statement_is_not_called_an_outage(database: Database) -> None:
    with pytest.raises(Exception, match="no_such_table"):
        async with database.session() as connection:
            await connection.execute(text("SELECT * FROM no_such_table"))


async def test_connections_that_the_server_closed_are_replaced(mariadb_url: str, database: Database) -> None:
    if database.dialect != "mysql":
        return
    async with database.session() as connection:
        number = await connection.scalar(text("SELECT CONNECTION_ID()"))
    async with database.session() as first, database.session() as second:
        await first.execute(text("SELECT 1"))
        own = await second.scalar(text("SELECT CONNECTION_ID()"))
        victim = number if own != number else await first.scalar(text("SELECT CONNECTION_ID()"))
        await second.execute(text(f"KILL {victim}"))
        await first.invalidate()
    await database.ping()

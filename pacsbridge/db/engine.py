"""The engine: one URL opened, transactions handed out, and what goes wrong said in words."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from pacsbridge.config import ConfigError
from pacsbridge.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from sqlalchemy.engine import Connection
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

T = TypeVar("T")

SQLITE = "sqlite"
MYSQL = "mysql"
_SCHEMES = {
    "sqlite": "sqlite",
    "sqlite+aiosqlite": "sqlite",
    "mysql": "mysql",
    "mysql+aiomysql": "mysql",
    "mariadb": "mysql",
}
_ASYNC_DRIVERS = {SQLITE: "sqlite+aiosqlite", MYSQL: "mysql+aiomysql"}

CONNECT_TIMEOUT_SECONDS = 5
PING_TIMEOUT_SECONDS = 5
SQLITE_BUSY_SECONDS = 30
"""How long a SQLite connection waits for another process's write."""
MYSQL_RECYCLE_SECONDS = 1800
"""Connections are replaced well before a server's usual wait_timeout or a firewall forgets them."""
DEADLOCK_ATTEMPTS = 5

_WRITE = "pacsbridge_write"
_MYSQL_LOCK_WAIT_TIMEOUT = 1205
_MYSQL_DEADLOCK = 1213
_SQLITE_AWAY = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
)


def database_url(url: str) -> URL:
    """Check ``database.url`` and return it without a driver in its scheme.

    Parameters
    ----------
    url
        ``sqlite:///./pacsbridge.db`` or ``mysql://user:password@host:3306/name``;
        ``mariadb://`` is the same.

    Raises
    ------
    ConfigError
        The URL names another database, no file or no schema. The message does not repeat the URL: it has a
        password in it.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "database.url: is not a URL; write sqlite:///./pacsbridge.db or mysql://user:password@host:3306/name"
        ) from None
    scheme = _SCHEMES.get(parsed.drivername)
    if scheme is None:
        raise ConfigError("database.url: must start with sqlite:/// or mysql://")
    if scheme == SQLITE:
        if not parsed.database or parsed.database == ":memory:" or parsed.host:
            raise ConfigError("database.url: must name a file: sqlite:///./pacsbridge.db (three slashes)")
        return parsed.set(drivername=SQLITE)
    if not parsed.host or not parsed.database:
        raise ConfigError(
            "database.url: must name a host and a database: mysql://user:password@host:3306/name"
        )
    return parsed.set(drivername=MYSQL).update_query_dict({"charset": "utf8mb4"})


class Database:
    """The database behind accounts, jobs and links.

    ``session()`` is for reading, ``transaction()`` for writing: what is written in one is committed whole at
    its end, and rolled back whole when its block raises. Both give an ``AsyncConnection``.
    """

    def __init__(self, url: str) -> None:
        self.url = database_url(url)
        self._engine = _create_engine(self.url)
        # SQLite has one writer at a time. Waiting here is fair and takes no thread; its own busy handler
        # polls, and is left for other processes.
        self._one_writer = asyncio.Lock() if self.url.drivername == SQLITE else None
        self._writing: set[asyncio.Task[Any] | None] = set()

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``mysql``."""
        return self.url.drivername

    async def connect(self) -> None:
        """Open the first connection, so that a wrong URL is known at the start.

        Raises
        ------
        DatabaseUnavailable
            The database can't be reached or refuses the user.
        """
        await self.ping()

    async def ping(self) -> None:
        """Try the database with a statement.

        Raises
        ------
        DatabaseUnavailable
            It doesn't answer within ``PING_TIMEOUT_SECONDS``.
        """
        try:
            async with asyncio.timeout(PING_TIMEOUT_SECONDS), self.session() as connection:
                await connection.execute(text("SELECT 1"))
        except TimeoutError as error:
            raise DatabaseUnavailable("The database does not answer.", retry_after=5) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for reading: one consistent view on SQLite, the latest commits on MySQL."""
        with _said_in_words():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for writes that belong together.

        It commits at the end of the block and rolls back when the block raises. Transactions don't nest: pass
        the connection on to what belongs to it.
        """
        task = asyncio.current_task()
        if task in self._writing:
            raise RuntimeError("a transaction inside a transaction: pass the connection on instead")
        async with self._one_writer or nullcontext():
            self._writing.add(task)
            try:
                with _said_in_words():
                    async with self._engine.connect() as connection:
                        await connection.execution_options(**{_WRITE: True})
                        async with connection.begin():
                            yield connection
            finally:
                self._writing.discard(task)

    async def atomically(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run ``work`` in a transaction, again when MySQL chose it as a deadlock's victim."""
        for attempt in range(1, DEADLOCK_ATTEMPTS + 1):
            try:
                async with self.transaction() as connection:
                    return await work(connection)
            except OperationalError as error:
                if attempt == DEADLOCK_ATTEMPTS or not _is_deadlock(error):
                    raise
        raise AssertionError("unreachable")


def _create_engine(url: URL) -> AsyncEngine:
    url = url.set(drivername=_ASYNC_DRIVERS[url.drivername])
    if url.drivername == _ASYNC_DRIVERS[MYSQL]:
        # READ COMMITTED takes no gap locks: two transactions that insert different rows don't deadlock.
        return create_async_engine(
            url,
            pool_pre_ping=True,
            pool_recycle=MYSQL_RECYCLE_SECONDS,
            hide_parameters=True,  # they hold accession numbers and names, and errors are logged
            isolation_level="READ COMMITTED",
            connect_args={"connect_timeout": CONNECT_TIMEOUT_SECONDS},
        )
    engine = create_async_engine(
        url,
        pool_pre_ping=True,
        hide_parameters=True,
        # The driver begins no transaction of its own: _begin_sqlite does, with the right kind.
        connect_args={"timeout": SQLITE_BUSY_SECONDS, "isolation_level": None},
    )
    event.listen(engine.sync_engine, "connect", enforce_foreign_keys)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def enforce_foreign_keys(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """Switch on what SQLite leaves off for each new connection."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later may find its view outdated and fail at once, whatever
    # the busy time-out (SQLITE_BUSY_SNAPSHOT). One that means to write therefore takes the lock at its start.
    writes = connection.get_execution_options().get(_WRITE)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _said_in_words() -> Iterator[None]:
    """Turn a database that is away into an error that says so; other errors pass."""
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailable("The database is busy.", retry_after=5) from error
    except DBAPIError as error:
        if _is_away(error):
            raise DatabaseUnavailable("The database can't be used now.", retry_after=5) from error
        raise


def _is_away(error: DBAPIError) -> bool:
    """Tell whether the database is the problem, not the statement."""
    if isinstance(error.orig, sqlite3.OperationalError):
        return error.orig.sqlite_errorcode in _SQLITE_AWAY
    no_statement_ran = error.statement is None and not _is_deadlock(error)
    return error.connection_invalidated or no_statement_ran


def _is_deadlock(error: DBAPIError) -> bool:
    arguments = error.orig.args if error.orig else ()
    return bool(arguments) and arguments[0] in (_MYSQL_DEADLOCK, _MYSQL_LOCK_WAIT_TIMEOUT)

"""Bringing the schema up to date: from any process, any number of times, one at a time."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from pacsbridge.db.engine import (
    CONNECT_TIMEOUT_SECONDS,
    MYSQL,
    SQLITE,
    SQLITE_BUSY_SECONDS,
    database_url,
    enforce_foreign_keys,
)
from pacsbridge.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL, Connection, Engine

log = structlog.get_logger(__name__)

LOCK_SECONDS = 120
"""How long one process waits while another one migrates."""
PRIVATE_MODE = 0o600
"""A database holds patients' names and the hashes of passwords: others on the machine need not read it."""
WAL_ATTEMPTS = 50
WAL_PAUSE_SECONDS = 0.1
_ALEMBIC = threading.Lock()
"""Alembic keeps its context in a module: one migration at a time in a process."""


def upgrade(url: str) -> None:
    """Bring the schema of the database at ``url`` up to date; it blocks until that is done.

    A database that is up to date stays as it is. Of several processes that start at once, one migrates and
    the others wait.

    Raises
    ------
    ConfigError
        ``url`` can't be used; see ``database_url``.
    DatabaseUnavailable
        The database can't be reached, or another process keeps it locked, or a newer pacsbridge has
        migrated it further than this one knows.
    """
    parsed = database_url(url)
    with _ALEMBIC, _opened(parsed) as connection:
        config = AlembicConfig()
        config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
        config.attributes["connection"] = connection
        current = MigrationContext.configure(connection).get_current_revision()
        script = ScriptDirectory.from_config(config)
        if current == script.get_current_head():
            return
        if current is not None and current not in {step.revision for step in script.walk_revisions()}:
            raise DatabaseUnavailable(
                f"The database's schema ({current}) is newer than this pacsbridge: upgrade pacsbridge."
            )
        command.upgrade(config, "head")
        log.info("schema upgraded", before=current or "empty", now=script.get_current_head())


async def upgrade_in_thread(url: str) -> None:
    """Do what ``upgrade`` does, off the event loop."""
    await asyncio.to_thread(upgrade, url)


def _scripts() -> Path:
    return Path(__file__).parent / "migrations"


@contextmanager
def _opened(url: URL) -> Iterator[Connection]:
    """Lend a connection that no other migration has; the block is committed whole where the database can."""
    engine = _sqlite_engine(url) if url.drivername == SQLITE else _mysql_engine(url)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        try:
            connection = stack.enter_context(engine.connect())
            stack.enter_context(connection.begin())
            if url.drivername == MYSQL:
                _lock_mysql(connection, url.database or "")
            else:
                # SQLite's driver begins at the first statement: here the lock is taken.
                connection.execute(text("SELECT 1"))
        except OperationalError as error:
            raise DatabaseUnavailable(f"The database can't be opened: {_reason(error)}") from error
        yield connection


def _sqlite_engine(url: URL) -> Engine:
    _use_wal(Path(url.database or ""))
    engine = create_engine(
        url, poolclass=NullPool, connect_args={"timeout": LOCK_SECONDS, "isolation_level": None}
    )
    event.listen(engine, "connect", enforce_foreign_keys)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _mysql_engine(url: URL) -> Engine:
    return create_engine(
        url.set(drivername="mysql+pymysql"),
        poolclass=NullPool,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_SECONDS},
    )


def _lock_mysql(connection: Connection, database: str) -> None:
    """Take a lock that belongs to the connection: it is free again when this process is gone, however."""
    name = "pacsbridge:" + hashlib.sha256(database.encode()).hexdigest()[:40]
    if (
        connection.execute(
            text("SELECT GET_LOCK(:name, :seconds)"), {"name": name, "seconds": LOCK_SECONDS}
        ).scalar()
        != 1
    ):
        raise DatabaseUnavailable("Another process has been changing the schema for too long.")


def _use_wal(file: Path) -> None:
    """Make the file, for this user's eyes only, and let readers and the writer not wait for each other.

    Raises
    ------
    DatabaseUnavailable
        There is no such folder, or it can't be written.
    """
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, PRIVATE_MODE))
    except OSError as error:
        raise DatabaseUnavailable(f"The database file can't be opened: {error.strerror}") from error
    for attempt in range(1, WAL_ATTEMPTS + 1):
        try:
            with closing(sqlite3.connect(file, timeout=SQLITE_BUSY_SECONDS)) as connection:
                (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
                if mode != "wal":
                    connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # Two processes that switch at once: SQLite tells one of them so without waiting.
            if "locked" not in str(error) or attempt == WAL_ATTEMPTS:
                raise DatabaseUnavailable(f"The database file can't be opened: {error}") from error
            time.sleep(WAL_PAUSE_SECONDS)


def _reason(error: OperationalError) -> str:
    """Give the driver's words without SQLAlchemy's: they name no password."""
    return str(error.orig.args[-1]) if error.orig and error.orig.args else "it does not answer"

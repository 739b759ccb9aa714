"""Statements that SQLite and MySQL spell differently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import mysql, sqlite

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection


async def insert_unless_exists(connection: AsyncConnection, table: Table, **values: Any) -> None:
    """Insert a row unless one with the same primary or unique key is there; that one stays as it is.

    Afterwards the row can be locked with ``SELECT ... FOR UPDATE``, whoever made it: of two that do this at
    once, the second waits for the first to commit.
    """
    if connection.dialect.name == "sqlite":
        await connection.execute(sqlite.insert(table).values(**values).on_conflict_do_nothing())
        return
    key = next(iter(table.primary_key))
    # Not INSERT IGNORE: it would turn other errors, a text too long for one, into warnings.
    await connection.execute(mysql.insert(table).values(**values).on_duplicate_key_update({key.name: key}))

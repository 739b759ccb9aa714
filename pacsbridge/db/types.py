"""Column types that behave the same on SQLite and on MySQL or MariaDB."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import DateTime, TypeDecorator
from sqlalchemy.dialects import mysql

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine

MICROSECONDS = 6
"""Digits of the fraction of a second: MySQL keeps none unless told to."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, kept in UTC to the microsecond, timezone-aware in Python.

    Neither database keeps an offset with a DATETIME: what goes in is turned into UTC, what comes out says so.
    A naive datetime is refused, for nobody can tell what moment it means.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime]:
        """Ask MySQL for microseconds; SQLite's text has them anyway."""
        kind = mysql.DATETIME(fsp=MICROSECONDS) if dialect.name in ("mysql", "mariadb") else DateTime()
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Turn an aware datetime into the naive UTC one that is stored."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime for the database must have a time zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Say that what was stored is UTC."""
        return None if value is None else value.replace(tzinfo=UTC)

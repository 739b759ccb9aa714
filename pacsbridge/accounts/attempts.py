"""Counting attempts, so that guessing ends early and nobody is locked out for good.

Each limit counts in a window that starts with the first attempt and ends by itself; an attempt that is
refused doesn't count, so that waiting always helps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import case, delete, select, update

from pacsbridge.accounts.values import sha256, utc_now
from pacsbridge.db.schema import attempts
from pacsbridge.db.statements import insert_unless_exists
from pacsbridge.errors import TooManyRequests

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from pacsbridge.accounts.values import Clock


@dataclass(frozen=True, slots=True)
class Limit:
    """So many attempts in a window."""

    name: str
    maximum: int
    window: timedelta


LOGIN_HERE = Limit("login account and address", 5, timedelta(minutes=15))
"""One person who forgot a password, or one guesser."""
LOGIN_ACCOUNT = Limit("login account", 50, timedelta(minutes=15))
"""One account guessed from many addresses; not for addresses that the account has signed in from."""
LOGIN_ADDRESS = Limit("login address", 100, timedelta(minutes=15))
"""Many accounts guessed from one address; a hospital's proxy is one address too."""
REGISTER = Limit("register", 10, timedelta(hours=1))
REFRESH = Limit("refresh", 100, timedelta(minutes=15))
"""Refused refreshes from one address."""
OPEN_LINK = Limit("open link", 60, timedelta(minutes=15))
"""Links that don't exist, from one address."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A limit and what it counts: an account, an address, or both."""

    limit: Limit
    what: tuple[str, ...]

    @property
    def bucket(self) -> str:
        """The key of the row: a hash, for what is counted may be an email."""
        return sha256("\0".join((self.limit.name, *self.what)))


class Attempts:
    """Counts, in the caller's transaction."""

    def __init__(self, *, clock: Clock = utc_now) -> None:
        self._clock = clock

    async def check(self, connection: AsyncConnection, counted: Counted) -> None:
        """Refuse when the limit is reached, without counting.

        Raises
        ------
        TooManyRequests
            With the seconds until the window ends.
        """
        query = select(attempts).where(attempts.c.bucket == counted.bucket)
        row = (await connection.execute(query)).one_or_none()
        if row is not None:
            self._refuse(counted.limit, row.counted, row.window_ends_at)

    async def count(self, connection: AsyncConnection, *counted: Counted) -> None:
        """Count an attempt in each, or in none when one of them is full.

        Raises
        ------
        TooManyRequests
            The attempt must not be made. It ends the transaction, so nothing is counted.
        """
        now = self._clock()
        # In the order of the keys: two that count the same ones never wait for each other crosswise.
        for each in sorted(counted, key=lambda one: one.bucket):
            await insert_unless_exists(
                connection, attempts, bucket=each.bucket, counted=0, window_ends_at=now + each.limit.window
            )
            query = select(attempts).where(attempts.c.bucket == each.bucket).with_for_update()
            row = (await connection.execute(query)).one()
            self._refuse(each.limit, row.counted, row.window_ends_at)
            worn_out = row.window_ends_at <= now
            await connection.execute(
                update(attempts)
                .where(attempts.c.bucket == each.bucket)
                .values(
                    counted=1 if worn_out else row.counted + 1,
                    window_ends_at=now + each.limit.window if worn_out else row.window_ends_at,
                )
            )

    async def forgive(self, connection: AsyncConnection, counted: Counted) -> None:
        """Take one attempt back: it succeeded."""
        fewer = case((attempts.c.counted > 0, attempts.c.counted - 1), else_=0)
        await connection.execute(
            update(attempts).where(attempts.c.bucket == counted.bucket).values(counted=fewer)
        )

    async def clear(self, connection: AsyncConnection, *counted: Counted) -> None:
        """Start again from nothing."""
        await connection.execute(
            delete(attempts).where(attempts.c.bucket.in_([each.bucket for each in counted]))
        )

    async def remove_worn_out(self, connection: AsyncConnection) -> None:
        """Delete what counts no more."""
        await connection.execute(delete(attempts).where(attempts.c.window_ends_at <= self._clock()))

    def _refuse(self, limit: Limit, count: int, window_ends_at: datetime) -> None:
        left = (window_ends_at - self._clock()).total_seconds()
        if count >= limit.maximum and left > 0:
            minutes = math.ceil(left / 60)
            raise TooManyRequests(
                f"Too many attempts. Try again in {minutes} minute{'s' if minutes > 1 else ''}.",
                retry_after=math.ceil(left),
            )

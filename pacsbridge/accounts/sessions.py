"""Sessions: a sign-in and its family of refresh tokens (RFC 9700 4.14.2).

A refresh token is used once: it is exchanged for its successor. Whoever comes with a used one has lost the
answer (then they come at once, and get the same successor) or has stolen it: then the session ends, for the
thief and for the owner. Tokens are kept as hashes. A successor is made from its predecessor, a random nonce
and a key that is not in the database, which is how the same one can be given again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from pacsbridge.accounts.tokens import derived_key
from pacsbridge.accounts.values import Caller, new_id, sha256, utc_now
from pacsbridge.db.schema import refresh_tokens, sessions

if TYPE_CHECKING:
    from sqlalchemy.engine import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from pacsbridge.accounts.values import Clock

GRACE = timedelta(seconds=10)
"""How long a used token still gives the same successor: an answer may be lost, two tabs may ask at once."""
KEPT_AFTER_END = timedelta(days=30)
"""How long an ended session stays to be looked at."""


@dataclass(frozen=True, slots=True)
class Session:
    """A sign-in.

    Parameters
    ----------
    credential
        For a user of the configuration: the hash of their password's hash, so that a new password there
        ends the session. Empty for others.
    """

    id: str
    subject: str
    credential: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    end_reason: str
    address: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class Rotation:
    """What came of a refresh token: a successor, or, where it was used before, the end of its session."""

    session: Session
    successor: str | None


class Sessions:
    """Begins, rotates and ends sessions, in the caller's transaction.

    Parameters
    ----------
    secret
        ``accounts.jwt_secret``; the key for successors is derived from it.
    lifetime
        How long a session lives without being used.
    """

    def __init__(self, secret: str, lifetime: timedelta, *, clock: Clock = utc_now) -> None:
        self._key = derived_key(secret, "refresh tokens")
        self.lifetime = lifetime
        self._clock = clock

    async def begin(
        self, connection: AsyncConnection, subject: str, caller: Caller, *, credential: str = ""
    ) -> tuple[str, str]:
        """Begin a session; return its identifier and its first refresh token."""
        now = self._clock()
        session_id, token = new_id(), _encode(secrets.token_bytes(32))
        await connection.execute(
            insert(sessions).values(
                id=session_id,
                subject=subject,
                credential=credential,
                created_at=now,
                used_at=now,
                expires_at=now + self.lifetime,
                end_reason="",
                address=caller.address,
                user_agent=caller.user_agent,
            )
        )
        await self._keep(connection, session_id, token)
        return session_id, token

    async def rotate(self, connection: AsyncConnection, token: str) -> Rotation | None:
        """Exchange a refresh token; nothing for one that is unknown, or whose session has ended."""
        now = self._clock()
        query = (
            select(
                refresh_tokens.c.used_at.label("token_used_at"), refresh_tokens.c.successor_nonce, sessions
            )
            .join_from(refresh_tokens, sessions)
            .where(refresh_tokens.c.token_hash == sha256(token))
            .with_for_update()
        )
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        session = _session(row)
        if session.ended_at is not None or session.expires_at <= now:
            return None
        if row.token_used_at is not None:
            return await self._used_again(connection, session, token, row)
        nonce = new_id()
        successor = self._successor(token, nonce)
        await connection.execute(
            update(refresh_tokens)
            .where(refresh_tokens.c.token_hash == sha256(token))
            .values(used_at=now, successor_nonce=nonce)
        )
        await self._keep(connection, session.id, successor)
        await self.extend(connection, session.id)
        return Rotation(session, successor)

    async def extend(self, connection: AsyncConnection, session_id: str) -> None:
        """Let a session that is in use live on."""
        now = self._clock()
        await connection.execute(
            update(sessions)
            .where(sessions.c.id == session_id, sessions.c.ended_at.is_(None))
            .values(used_at=now, expires_at=now + self.lifetime)
        )

    async def end(self, connection: AsyncConnection, session_id: str, reason: str) -> None:
        """End one session."""
        await self._end(connection, reason, session_id=session_id)

    async def end_all(self, connection: AsyncConnection, subject: str, reason: str) -> None:
        """End all sessions of somebody."""
        await self._end(connection, reason, subject=subject)

    async def alive(self, connection: AsyncConnection, session_id: str) -> Session | None:
        """Read a session that has neither ended nor expired."""
        row = (await connection.execute(select(sessions).where(sessions.c.id == session_id))).one_or_none()
        if row is None or row.ended_at is not None or row.expires_at <= self._clock():
            return None
        return _session(row)

    async def latest(self, connection: AsyncConnection, subject: str, limit: int = 20) -> list[Session]:
        """Read somebody's last sessions, the newest first."""
        query = (
            select(sessions)
            .where(sessions.c.subject == subject)
            .order_by(sessions.c.created_at.desc(), sessions.c.id)
            .limit(limit)
        )
        return [_session(row) for row in await connection.execute(query)]

    async def known_address(self, connection: AsyncConnection, subject: str, address: str) -> bool:
        """Tell whether somebody has signed in from an address before."""
        query = select(sessions.c.id).where(sessions.c.subject == subject, sessions.c.address == address)
        return (await connection.execute(query.limit(1))).one_or_none() is not None

    async def remove_worn_out(self, connection: AsyncConnection) -> None:
        """Delete sessions, and their tokens, that ended long ago."""
        before = self._clock() - KEPT_AFTER_END
        await connection.execute(delete(sessions).where(sessions.c.expires_at < before))

    async def _keep(self, connection: AsyncConnection, session_id: str, token: str) -> None:
        await connection.execute(
            insert(refresh_tokens).values(
                token_hash=sha256(token), session_id=session_id, created_at=self._clock(), successor_nonce=""
            )
        )

    async def _used_again(
        self, connection: AsyncConnection, session: Session, token: str, row: Row[tuple[object, ...]]
    ) -> Rotation:
        if self._clock() - row.token_used_at <= GRACE:
            successor = self._successor(token, row.successor_nonce)
            query = select(refresh_tokens.c.used_at).where(refresh_tokens.c.token_hash == sha256(successor))
            kept = (await connection.execute(query)).one_or_none()
            if kept is not None and kept.used_at is None:
                return Rotation(session, successor)
        await self.end(connection, session.id, "refresh token used twice")
        return Rotation(session, None)

    async def _end(self, connection: AsyncConnection, reason: str, **which: str) -> None:
        query = update(sessions).where(sessions.c.ended_at.is_(None))
        if "session_id" in which:
            query = query.where(sessions.c.id == which["session_id"])
        else:
            query = query.where(sessions.c.subject == which["subject"])
        await connection.execute(query.values(ended_at=self._clock(), end_reason=reason))

    def _successor(self, token: str, nonce: str) -> str:
        return _encode(hmac.digest(self._key, f"{nonce}.{token}".encode(), hashlib.sha256))


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _session(row: Row[tuple[object, ...]]) -> Session:
    return Session(**{column.name: getattr(row, column.name) for column in sessions.c})

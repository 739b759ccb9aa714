"""From a session to the principal as they are now: role, grants, not disabled, not expired.

What a patient may see is read here at each request, not from the token, and kept for seconds.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import select

from pacsbridge.accounts.passwords import is_password_hash
from pacsbridge.accounts.values import Grants, Principal, Role, sha256, utc_now, valid_email, valid_grants
from pacsbridge.config import ConfigError
from pacsbridge.db.schema import grants, short_link_items, short_links, users
from pacsbridge.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from pacsbridge.accounts.sessions import Session, Sessions
    from pacsbridge.accounts.values import Clock
    from pacsbridge.config import StaticUser
    from pacsbridge.db import Database

USER = "user"
STATIC = "static"
LINK = "link"
KEPT_SECONDS = 3.0
"""How long a change made by another process may go unseen; one made by this process is seen at once."""
KEPT_PRINCIPALS = 10_000
STUDY_KIND = "study"
ACCESSION_KIND = "accession"


@dataclass(frozen=True, slots=True)
class StaticAccount:
    """A user of the configuration."""

    principal: Principal
    password_hash: str

    @property
    def credential(self) -> str:
        """What a session remembers of the password: another hash in the configuration ends it."""
        return sha256(self.password_hash)


def static_accounts(configured: Iterable[StaticUser]) -> dict[str, StaticAccount]:
    """Check ``accounts.static_users`` and return them by email.

    Raises
    ------
    ConfigError
        An email, a hash or a grant can't be used; the message names the entry.
    """
    accounts: dict[str, StaticAccount] = {}
    for number, user in enumerate(configured):
        where = f"accounts.static_users[{number}]"
        try:
            email = valid_email(user.email)
            granted = valid_grants(user.study_iuids, user.accession_numbers)
        except RequestError as error:
            raise ConfigError(f"{where}: {error.message}") from None
        if email in accounts:
            raise ConfigError(f"{where}.email: is there twice")
        password_hash = user.password_hash.get_secret_value()
        if not is_password_hash(password_hash):
            raise ConfigError(f"{where}.password_hash: make one with: pacsbridge user hash")
        principal = Principal(
            subject=f"{STATIC}:{email}",
            session_id="",
            role=Role(user.role),
            email=email,
            ref_doctor=user.ref_doctor,
            grants=granted,
        )
        accounts[email] = StaticAccount(principal, password_hash)
    return accounts


class Principals:
    """Reads principals, each once in a few seconds however many requests want it."""

    def __init__(
        self,
        database: Database,
        sessions: Sessions,
        static: dict[str, StaticAccount],
        *,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._static = static
        self._clock = clock
        self._kept: dict[str, tuple[float, Principal]] = {}
        self._loading: dict[str, asyncio.Task[Principal | None]] = {}

    def at_hand(self, session_id: str) -> Principal | None:
        """Return who a session belongs to where that was read a moment ago; None is no answer."""
        kept = self._kept.get(session_id)
        return kept[1] if kept is not None and kept[0] > time.monotonic() else None

    async def get(self, session_id: str) -> Principal | None:
        """Return who a session belongs to; nobody when it, the user or the link is no more."""
        kept = self.at_hand(session_id)
        if kept is not None:
            return kept
        task = self._loading.get(session_id)
        if task is None:
            task = asyncio.create_task(self._read(session_id))
            self._loading[session_id] = task
            task.add_done_callback(lambda done: self._loaded(session_id, done))
        # Many wait for one query; one who leaves doesn't take it from the others.
        return await asyncio.shield(task)

    def forget(self) -> None:
        """Forget everybody: something has changed."""
        self._kept.clear()
        self._loading.clear()

    async def load(self, connection: AsyncConnection, session: Session) -> Principal | None:
        """Read who a session belongs to, in the caller's transaction."""
        kind, _, key = session.subject.partition(":")
        if kind == USER:
            return await self._user(connection, session, key)
        if kind == LINK:
            return await self._link(connection, session, key)
        account = self._static.get(key)
        if account is None or account.credential != session.credential:
            return None
        return with_session(account.principal, session.id)

    async def _read(self, session_id: str) -> Principal | None:
        async with self._database.session() as connection:
            session = await self._sessions.alive(connection, session_id)
            return None if session is None else await self.load(connection, session)

    def _loaded(self, session_id: str, task: asyncio.Task[Principal | None]) -> None:
        if self._loading.get(session_id) is not task:
            return  # forgotten while it was read: what it found may be outdated
        del self._loading[session_id]
        if task.cancelled() or task.exception() is not None:
            return
        principal = task.result()
        self._kept.pop(session_id, None)
        if principal is not None:
            if len(self._kept) >= KEPT_PRINCIPALS:
                self._kept.clear()
            self._kept[session_id] = (time.monotonic() + KEPT_SECONDS, principal)

    async def _user(self, connection: AsyncConnection, session: Session, key: str) -> Principal | None:
        row = (await connection.execute(select(users).where(users.c.id == key))).one_or_none()
        if row is None or row.disabled_at is not None:
            return None
        return Principal(
            subject=session.subject,
            session_id=session.id,
            role=Role(row.role),
            email=row.email,
            name=row.name,
            ref_doctor=row.ref_doctor,
            grants=await granted_to_user(connection, key),
        )

    async def _link(self, connection: AsyncConnection, session: Session, key: str) -> Principal | None:
        row = (await connection.execute(select(short_links).where(short_links.c.id == key))).one_or_none()
        if row is None or row.revoked_at is not None or row.expires_at <= self._clock():
            return None
        return Principal(
            subject=session.subject,
            session_id=session.id,
            role=Role.PATIENT,
            name=row.patient_name,
            grants=await granted_to_link(connection, key),
        )


def with_session(principal: Principal, session_id: str) -> Principal:
    """Return the principal as part of a session."""
    return replace(principal, session_id=session_id)


async def granted_to_user(connection: AsyncConnection, user_id: str) -> Grants:
    """Read what is granted to a user, the oldest first."""
    return await _granted(connection, grants, grants.c.user_id == user_id, grants.c.id)


async def granted_to_link(connection: AsyncConnection, link_id: str) -> Grants:
    """Read what a link opens, in its order."""
    return await _granted(
        connection, short_link_items, short_link_items.c.link_id == link_id, short_link_items.c.position
    )


async def _granted(
    connection: AsyncConnection, table: Table, which: ColumnElement[bool], order: ColumnElement[int]
) -> Grants:
    rows = (await connection.execute(select(table.c.kind, table.c.value).where(which).order_by(order))).all()
    return Grants(
        tuple(row.value for row in rows if row.kind == STUDY_KIND),
        tuple(row.value for row in rows if row.kind == ACCESSION_KIND),
    )

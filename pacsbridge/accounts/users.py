"""Users: what an admin does with them, each change in one transaction with its audit record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from pacsbridge.accounts import audit
from pacsbridge.accounts.audit import AuditRecord, Outcome
from pacsbridge.accounts.passwords import check_password
from pacsbridge.accounts.principals import ACCESSION_KIND, STUDY_KIND, USER, granted_to_user
from pacsbridge.accounts.values import Grants, Role, new_id, storable, utc_now, valid_email, valid_name
from pacsbridge.db.schema import grants, users
from pacsbridge.db.statements import insert_unless_exists
from pacsbridge.errors import InvalidParameter, NotFound

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from pacsbridge.accounts.audit import Actor
    from pacsbridge.accounts.passwords import Passwords
    from pacsbridge.accounts.principals import Principals
    from pacsbridge.accounts.sessions import Session, Sessions
    from pacsbridge.accounts.values import Clock
    from pacsbridge.db import Database

FOUND_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class User:
    """A user as an admin sees them; the password's hash stays in the database."""

    id: str
    email: str
    name: str
    role: Role
    ref_doctor: str
    created_at: datetime
    password_changed_at: datetime
    signed_in_at: datetime | None
    disabled_at: datetime | None

    @property
    def subject(self) -> str:
        """The user's name in tokens and audit records."""
        return f"{USER}:{self.id}"


@dataclass(frozen=True, slots=True)
class NewUser:
    """What a user is made from, checked."""

    email: str
    password: str
    name: str = ""
    role: Role = Role.PATIENT
    ref_doctor: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "email", valid_email(self.email))
        object.__setattr__(self, "name", valid_name(self.name))
        object.__setattr__(self, "ref_doctor", valid_name(self.ref_doctor, "referring physician's name"))
        check_password(self.password, email=self.email)


class Users:
    """Finds users and changes them."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        sessions: Sessions,
        principals: Principals,
        *,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._sessions = sessions
        self._principals = principals
        self.clock = clock

    async def add(self, new: NewUser, by: Actor) -> User:
        """Add a user.

        Raises
        ------
        InvalidParameter
            The email is taken.
        """
        password_hash = await self._passwords.hash(new.password)
        now, user_id = self.clock(), new_id()
        try:
            async with self._database.transaction() as connection:
                await connection.execute(
                    insert(users).values(
                        id=user_id,
                        email=new.email,
                        name=new.name,
                        password_hash=password_hash,
                        role=new.role.value,
                        ref_doctor=new.ref_doctor,
                        search_text=_search_text(new),
                        created_at=now,
                        password_changed_at=now,
                    )
                )
                await self._record(connection, "user added", user_id, by, new.role.value)
        except IntegrityError:
            raise InvalidParameter("There is a user with that email already.") from None
        return await self.get(user_id)

    async def find(self, text: str = "", *, role: Role | None = None, offset: int = 0) -> list[User]:
        """Find users whose email or name holds the text, by email; at most ``FOUND_AT_ONCE``."""
        query = select(users).order_by(users.c.email).limit(FOUND_AT_ONCE).offset(offset)
        for word in storable(text).casefold().split():
            query = query.where(users.c.search_text.contains(word, autoescape=True))
        if role is not None:
            query = query.where(users.c.role == role.value)
        async with self._database.session() as connection:
            return [_user(row) for row in await connection.execute(query)]

    async def get(self, user: str) -> User:
        """Read a user, named by identifier or by email.

        Raises
        ------
        NotFound
            There is none.
        """
        async with self._database.session() as connection:
            return await self._get(connection, user)

    async def disable(self, user: str, by: Actor) -> User:
        """Refuse the user from now on and end their sessions."""
        async with self._database.transaction() as connection:
            found = await self._get(connection, user)
            if found.disabled_at is None:
                await self._change(connection, found, disabled_at=self.clock())
                await self._sessions.end_all(connection, found.subject, "user disabled")
                await self._record(connection, "user disabled", found.id, by)
        self._principals.forget()
        return await self.get(found.id)

    async def enable(self, user: str, by: Actor) -> User:
        """Let a disabled user sign in again."""
        async with self._database.transaction() as connection:
            found = await self._get(connection, user)
            await self._change(connection, found, disabled_at=None)
            await self._record(connection, "user enabled", found.id, by)
        self._principals.forget()
        return await self.get(found.id)

    async def set_password(self, user: str, password: str, by: Actor) -> None:
        """Give the user a new password and end their sessions."""
        found = await self.get(user)
        check_password(password, email=found.email)
        password_hash = await self._passwords.hash(password)
        async with self._database.transaction() as connection:
            await self._change(
                connection, found, password_hash=password_hash, password_changed_at=self.clock()
            )
            await self._sessions.end_all(connection, found.subject, "password changed")
            await self._record(connection, "password changed", found.id, by)
        self._principals.forget()

    async def assign(self, user: str, granted: Grants, by: Actor) -> Grants:
        """Let the user see studies, beside those they see already; return all of them."""
        async with self._database.transaction() as connection:
            found = await self._get(connection, user)
            for kind, value in _items(granted):
                await insert_unless_exists(
                    connection,
                    grants,
                    user_id=found.id,
                    kind=kind,
                    value=value,
                    granted_at=self.clock(),
                    granted_by=by.subject,
                )
            await self._record_grants(connection, "study assigned", found, granted, by)
            now_granted = await granted_to_user(connection, found.id)
        self._principals.forget()
        return now_granted

    async def unassign(self, user: str, granted: Grants, by: Actor) -> Grants:
        """Take studies from the user; return those that are left."""
        async with self._database.transaction() as connection:
            found = await self._get(connection, user)
            for kind, value in _items(granted):
                await connection.execute(
                    delete(grants).where(
                        grants.c.user_id == found.id, grants.c.kind == kind, grants.c.value == value
                    )
                )
            await self._record_grants(connection, "study unassigned", found, granted, by)
            left = await granted_to_user(connection, found.id)
        self._principals.forget()
        return left

    async def granted(self, user: str) -> Grants:
        """Read what a user may see."""
        async with self._database.session() as connection:
            return await granted_to_user(connection, (await self._get(connection, user)).id)

    async def sessions(self, user: str) -> list[Session]:
        """Read a user's last sessions, the newest first."""
        async with self._database.session() as connection:
            return await self._sessions.latest(connection, (await self._get(connection, user)).subject)

    async def end_session(self, user: str, session_id: str, by: Actor) -> None:
        """End one session of a user.

        Raises
        ------
        NotFound
            The user has no such session.
        """
        async with self._database.transaction() as connection:
            found = await self._get(connection, user)
            session = await self._sessions.alive(connection, session_id)
            if session is None or session.subject != found.subject:
                raise NotFound("There is no such session, or it has ended.")
            await self._sessions.end(connection, session_id, "ended by an admin")
            await self._record(connection, "session ended", found.id, by)
        self._principals.forget()

    async def end_sessions(self, user: str, by: Actor) -> None:
        """End all sessions of a user."""
        async with self._database.transaction() as connection:
            found = await self._get(connection, user)
            await self._sessions.end_all(connection, found.subject, "ended by an admin")
            await self._record(connection, "sessions ended", found.id, by)
        self._principals.forget()

    async def _get(self, connection: AsyncConnection, user: str) -> User:
        named = storable(user).strip()
        query = select(users).where(or_(users.c.id == named, users.c.email == named.casefold()))
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NotFound("There is no such user.")
        return _user(row)

    async def _change(self, connection: AsyncConnection, user: User, **values: Any) -> None:
        await connection.execute(update(users).where(users.c.id == user.id).values(**values))

    async def _record(
        self, connection: AsyncConnection, event: str, user_id: str, by: Actor, detail: str = ""
    ) -> None:
        about = f"{USER}:{user_id} {detail}".strip()
        await audit.write(connection, AuditRecord(event, Outcome.OK, by, detail=about, at=self.clock()))

    async def _record_grants(
        self, connection: AsyncConnection, event: str, user: User, granted: Grants, by: Actor
    ) -> None:
        at = self.clock()
        await audit.write(
            connection,
            *(
                AuditRecord(event, Outcome.OK, by, study_iuid=uid, detail=user.subject, at=at)
                for uid in granted.study_iuids
            ),
            *(
                AuditRecord(event, Outcome.OK, by, accession_number=number, detail=user.subject, at=at)
                for number in granted.accession_numbers
            ),
        )


def _items(granted: Grants) -> list[tuple[str, str]]:
    return [(STUDY_KIND, uid) for uid in granted.study_iuids] + [
        (ACCESSION_KIND, number) for number in granted.accession_numbers
    ]


def _search_text(new: NewUser) -> str:
    """Make what ``find`` looks in: folded here, for SQLite folds ASCII only."""
    return f"{new.email} {new.name} {new.ref_doctor}".casefold()


def _user(row: Row[Any]) -> User:
    return User(
        id=row.id,
        email=row.email,
        name=row.name,
        role=Role(row.role),
        ref_doctor=row.ref_doctor,
        created_at=row.created_at,
        password_changed_at=row.password_changed_at,
        signed_in_at=row.signed_in_at,
        disabled_at=row.disabled_at,
    )

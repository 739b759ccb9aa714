"""Values that the tests of accounts share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from argon2 import PasswordHasher
from sqlalchemy import event, select

from pacsbridge.accounts.audit import Actor
from pacsbridge.accounts.users import NewUser, User
from pacsbridge.accounts.values import SHELL, Caller, Grants, Role
from pacsbridge.db.schema import audit_records

if TYPE_CHECKING:
    from pacsbridge.accounts.service import Accounts
    from pacsbridge.db import Database

SECRET = "kD8v2ZtQm5xW1uYh7LrB3nPc9sGfJ4eA6oTiRwUy0XM"
PASSWORD = "Tr0mbone-Lantern"
ENGINEER = Actor("shell", "", SHELL)
HERE = Caller("192.0.2.1", "a browser", "r1")
THERE = Caller("198.51.100.7")
HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Clock:
    """A clock that stands until told."""

    def __init__(self) -> None:
        self.now = datetime(2026, 6, 1, 12, 0, 0, 500000, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **much: float) -> None:
        self.now += timedelta(**much)


def statics() -> list[dict[str, Any]]:
    return [
        {
            "email": "Head@Example.org",
            "password_hash": HASHER.hash(PASSWORD),
            "role": "doctor",
            "ref_doctor": "Smith^Jane",
            "study_iuids": ["1.2.9"],
        }
    ]


async def add(accounts: Accounts, email: str = "pat@example.org", role: Role = Role.PATIENT) -> User:
    return await accounts.users.add(NewUser(email, PASSWORD, "Pat Doe", role), ENGINEER)


def studies(*uids: str) -> Grants:
    return Grants(study_iuids=uids)


async def events(database: Database) -> list[tuple[str, str]]:
    """Read the audit trail as pairs of event and outcome, the oldest first."""
    query = select(audit_records.c.event, audit_records.c.outcome).order_by(audit_records.c.id)
    async with database.session() as connection:
        return [(row.event, row.outcome) for row in await connection.execute(query)]


class Fault(Exception):
    """What a test breaks a transaction with."""


class FaultAt:
    """Raise before the first statement that holds a text, as a server that goes away there."""

    def __init__(self, database: Database, text: str) -> None:
        self._engine = database._engine.sync_engine
        self._text = text
        self.hit = False

    def _before(self, *arguments: Any) -> None:
        if self._text in arguments[2]:
            self.hit = True
            raise Fault

    def __enter__(self) -> Self:
        event.listen(self._engine, "before_cursor_execute", self._before)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._before)
        assert self.hit, f"no statement held {self._text!r}"

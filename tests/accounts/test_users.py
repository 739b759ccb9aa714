from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from pacsbridge.accounts.users import FOUND_AT_ONCE, NewUser
from pacsbridge.accounts.values import Grants, Role
from pacsbridge.db.schema import grants
from pacsbridge.errors import InvalidParameter, MissingParameter, NotFound
from tests.accounts.examples import ENGINEER, HERE, PASSWORD, THERE, Fault, FaultAt, add, events, studies

if TYPE_CHECKING:
    from pacsbridge.accounts.service import Accounts
    from pacsbridge.db import Database

EMAIL = "pat@example.org"


async def test_add_and_get(accounts: Accounts) -> None:
    user = await accounts.users.add(
        NewUser(" Olena@Example.org", PASSWORD, " Олена Іваненко ", Role.DOCTOR, "Ivanenko^Olena"), ENGINEER
    )
    assert (user.email, user.name, user.role) == ("olena@example.org", "Олена Іваненко", Role.DOCTOR)
    assert user.ref_doctor == "Ivanenko^Olena"
    assert user.created_at == user.password_changed_at
    for key in (user.id, "olena@example.org", " OLENA@EXAMPLE.ORG"):
        assert await accounts.users.get(key) == user


async def test_an_email_is_taken_once_however_it_is_written(accounts: Accounts) -> None:
    await add(accounts, "müller@example.org")
    with pytest.raises(InvalidParameter, match="already"):
        await add(accounts, "MÜLLER@example.org")
    await add(accounts, "muller@example.org")


async def test_of_two_who_add_an_email_at_once_one_succeeds(accounts: Accounts) -> None:
    answers = await asyncio.gather(*(add(accounts) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(answer, InvalidParameter) for answer in answers) == 4


@pytest.mark.parametrize("key", ["", "nobody", "nobody@example.org", "%", "\0", "\ud800"])
async def test_a_user_who_is_not_there(accounts: Accounts, key: str) -> None:
    await add(accounts)
    with pytest.raises(NotFound):
        await accounts.users.get(key)


async def test_find(accounts: Accounts) -> None:
    for email, name, role in (
        ("b@example.org", "Björn Österberg", Role.DOCTOR),
        ("a@example.org", "Олена 100%", Role.STAFF),
        ("c_c@example.org", "Carl", Role.PATIENT),
    ):
        await accounts.users.add(NewUser(email, PASSWORD, name, role), ENGINEER)

    async def found(text: str, role: Role | None = None) -> list[str]:
        return [user.email for user in await accounts.users.find(text, role=role)]

    everybody = ["a@example.org", "b@example.org", "c_c@example.org"]
    assert await found("") == everybody
    assert await found("EXAMPLE.org") == everybody
    assert await found("öSTER björn") == ["b@example.org"]
    assert await found("ОЛЕНА") == ["a@example.org"]
    assert await found("100%") == ["a@example.org"]
    assert await found("%") == ["a@example.org"]
    assert await found("c_c") == ["c_c@example.org"]
    assert await found("b_") == []
    assert await found("'; DROP TABLE users; --") == []
    assert await found("example", Role.STAFF) == ["a@example.org"]


async def test_find_gives_a_page(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacsbridge.accounts.users.FOUND_AT_ONCE", 2)
    for letter in "abc":
        await add(accounts, f"{letter}@example.org")
    assert [user.email[0] for user in await accounts.users.find()] == ["a", "b"]
    assert [user.email[0] for user in await accounts.users.find(offset=2)] == ["c"]
    assert FOUND_AT_ONCE >= 20


async def test_assign_and_unassign(accounts: Accounts, database: Database) -> None:
    await add(accounts)
    users = accounts.users
    assert await users.assign(EMAIL, Grants(("1.2.3", "1.2.4"), ("A1",)), ENGINEER) == Grants(
        ("1.2.3", "1.2.4"), ("A1",)
    )
    assert await users.assign(EMAIL, Grants(("1.2.4", "1.2.5"), ("A1",)), ENGINEER) == Grants(
        ("1.2.3", "1.2.4", "1.2.5"), ("A1",)
    )
    assert await users.unassign(EMAIL, Grants(("1.2.3", "9.9"), ("A1",)), ENGINEER) == studies(
        "1.2.4", "1.2.5"
    )
    assert await users.granted(EMAIL) == studies("1.2.4", "1.2.5")
    assert (await events(database)).count(("study assigned", "ok")) == 6
    assert (await events(database)).count(("study unassigned", "ok")) == 3


async def test_grants_go_with_nobody_else(accounts: Accounts) -> None:
    await add(accounts)
    await add(accounts, "other@example.org")
    await accounts.users.assign(EMAIL, studies("1.2.3"), ENGINEER)
    assert await accounts.users.granted("other@example.org") == Grants()
    await accounts.users.assign("other@example.org", studies("1.2.3"), ENGINEER)
    await accounts.users.unassign(EMAIL, studies("1.2.3"), ENGINEER)
    assert await accounts.users.granted("other@example.org") == studies("1.2.3")


async def test_a_fault_in_the_middle_of_an_assignment_leaves_nothing(
    accounts: Accounts, database: Database
) -> None:
    await add(accounts)
    with FaultAt(database, "INSERT INTO audit_records"), pytest.raises(Fault):
        await accounts.users.assign(EMAIL, studies("1.2.3", "1.2.4"), ENGINEER)
    async with database.session() as connection:
        assert await connection.scalar(select(func.count()).select_from(grants)) == 0


@pytest.mark.parametrize("statement", ["UPDATE sessions", "INSERT INTO audit_records"])
async def test_a_fault_in_the_middle_of_disabling_leaves_the_user_enabled(
    accounts: Accounts, database: Database, statement: str
) -> None:
    await add(accounts)
    signed_in = await accounts.sign_in(EMAIL, PASSWORD, HERE)
    with FaultAt(database, statement), pytest.raises(Fault):
        await accounts.users.disable(EMAIL, ENGINEER)
    assert (await accounts.users.get(EMAIL)).disabled_at is None
    await accounts.principal(signed_in.access_token)


async def test_a_fault_in_the_middle_of_a_password_change_keeps_the_old_one(
    accounts: Accounts, database: Database
) -> None:
    await add(accounts)
    with FaultAt(database, "UPDATE sessions"), pytest.raises(Fault):
        await accounts.users.set_password(EMAIL, "An0ther-Lantern", ENGINEER)
    await accounts.sign_in(EMAIL, PASSWORD, HERE)


async def test_a_weak_password_is_refused(accounts: Accounts) -> None:
    await add(accounts)
    for password in ("short", "password1", EMAIL):
        with pytest.raises(InvalidParameter):
            await accounts.users.set_password(EMAIL, password, ENGINEER)
        with pytest.raises(InvalidParameter):
            NewUser(EMAIL, password)
    with pytest.raises(MissingParameter):
        NewUser(" ", PASSWORD)


async def test_sessions(accounts: Accounts) -> None:
    await add(accounts)
    await add(accounts, "other@example.org")
    one = await accounts.sign_in(EMAIL, PASSWORD, HERE)
    two = await accounts.sign_in(EMAIL, PASSWORD, THERE)
    others = await accounts.sign_in("other@example.org", PASSWORD, THERE)
    listed = await accounts.users.sessions(EMAIL)
    assert {session.id for session in listed} == {one.principal.session_id, two.principal.session_id}
    assert {(session.address, session.user_agent) for session in listed} == {
        (HERE.address, HERE.user_agent),
        (THERE.address, ""),
    }
    await accounts.users.end_session(EMAIL, one.principal.session_id, ENGINEER)
    await accounts.principal(two.access_token)
    for session_id in (one.principal.session_id, others.principal.session_id, "none"):
        with pytest.raises(NotFound):
            await accounts.users.end_session(EMAIL, session_id, ENGINEER)
    await accounts.principal(others.access_token)


async def test_what_an_admin_does_is_on_record(accounts: Accounts, database: Database) -> None:
    await add(accounts)
    await accounts.users.disable(EMAIL, ENGINEER)
    await accounts.users.disable(EMAIL, ENGINEER)
    await accounts.users.enable(EMAIL, ENGINEER)
    await accounts.users.set_password(EMAIL, "An0ther-Lantern", ENGINEER)
    await accounts.users.end_sessions(EMAIL, ENGINEER)
    assert [event for event, _ in await events(database)] == [
        "user added",
        "user disabled",
        "user enabled",
        "password changed",
        "sessions ended",
    ]

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from argon2 import PasswordHasher
from sqlalchemy import func, select, update

from pacsbridge.accounts import service
from pacsbridge.accounts.service import Accounts
from pacsbridge.accounts.values import Caller, Role
from pacsbridge.config import AccountsConfig, ConfigError
from pacsbridge.db import Database
from pacsbridge.db.schema import sessions, users
from pacsbridge.errors import (
    Busy,
    DatabaseUnavailable,
    Forbidden,
    InvalidParameter,
    MissingParameter,
    TooManyRequests,
    Unauthorized,
)
from tests.accounts.examples import (
    ENGINEER,
    HASHER,
    HERE,
    PASSWORD,
    SECRET,
    THERE,
    Fault,
    FaultAt,
    add,
    events,
    statics,
    studies,
)

if TYPE_CHECKING:
    from tests.accounts.examples import Clock

EMAIL = "pat@example.org"


async def count(database: Database, table: object) -> int:
    async with database.session() as connection:
        return int(await connection.scalar(select(func.count()).select_from(table)) or 0)  # type: ignore[arg-type] # a Table


async def test_sign_in(accounts: Accounts, database: Database) -> None:
    user = await add(accounts, role=Role.DOCTOR)
    signed_in = await accounts.sign_in(" PAT@example.org ", PASSWORD, HERE)
    principal = signed_in.principal
    assert (principal.subject, principal.id, principal.email) == (f"user:{user.id}", user.id, EMAIL)
    assert (principal.role, principal.name) == (Role.DOCTOR, "Pat Doe")
    assert signed_in.expires_in == 900
    assert await accounts.principal(signed_in.access_token) == principal
    assert await accounts.session(signed_in.session_token) == (principal, None)
    assert (await accounts.users.get(EMAIL)).signed_in_at is not None
    assert await events(database) == [("user added", "ok"), ("sign-in", "ok")]


async def test_wrong_email_wrong_password_and_disabled_look_the_same(
    accounts: Accounts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(accounts)
    await add(accounts, "gone@example.org")
    await accounts.users.disable("gone@example.org", ENGINEER)
    answers, hashed = set(), []
    verify = accounts.passwords.verify

    async def spy(password: str, password_hash: str | None) -> bool:
        hashed.append(password)
        return await verify(password, password_hash)

    monkeypatch.setattr(accounts.passwords, "verify", spy)
    tries = [
        (EMAIL, "wrong-password"),
        ("nobody@example.org", PASSWORD),
        ("gone@example.org", PASSWORD),
        ("not an email", PASSWORD),
        ("", ""),
        ("head@example.org", "wrong-password"),
        (EMAIL, "x" * 100_000),
        (EMAIL, "half a pair \ud800"),
        ("\ud800@example.org", PASSWORD),
    ]
    for email, password in tries:
        with pytest.raises(Unauthorized) as caught:
            await accounts.sign_in(email, password, HERE)
        answers.add((caught.value.code, caught.value.message, caught.value.retry_after))
    assert answers == {("unauthorized", "Wrong email or password.", None)}
    assert len(hashed) == len(tries)
    assert (await events(database)).count(("sign-in", "refused")) == len(tries)


async def test_the_sixth_guess_waits_and_the_owner_elsewhere_does_not(
    accounts: Accounts, clock: Clock
) -> None:
    await add(accounts)
    for _ in range(5):
        with pytest.raises(Unauthorized):
            await accounts.sign_in(EMAIL, "wrong-password", THERE)
    with pytest.raises(TooManyRequests) as caught:
        await accounts.sign_in(EMAIL, PASSWORD, THERE)
    assert caught.value.retry_after == 900
    await accounts.sign_in(EMAIL, PASSWORD, HERE)
    clock.forward(minutes=10)
    with pytest.raises(TooManyRequests) as caught:
        await accounts.sign_in(EMAIL, PASSWORD, THERE)
    assert caught.value.retry_after == 300
    clock.forward(minutes=5)
    await accounts.sign_in(EMAIL, PASSWORD, THERE)


async def test_fifty_guesses_at_once_are_no_more_than_one_after_the_other(accounts: Accounts) -> None:
    await add(accounts)
    answers = await asyncio.gather(
        *(accounts.sign_in(EMAIL, f"wrong-password-{n}", THERE) for n in range(50)), return_exceptions=True
    )
    assert sum(isinstance(answer, Unauthorized) for answer in answers) == 5
    assert sum(isinstance(answer, TooManyRequests) for answer in answers) == 45


async def test_waiting_for_a_turn_costs_no_attempt(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(accounts)
    verify = accounts.passwords.verify

    async def busy(*_: object) -> bool:
        raise Busy("Too many sign-ins at once.")

    monkeypatch.setattr(accounts.passwords, "verify", busy)
    for _ in range(10):
        with pytest.raises(Busy):
            await accounts.sign_in(EMAIL, PASSWORD, HERE)
    monkeypatch.setattr(accounts.passwords, "verify", verify)
    await accounts.sign_in(EMAIL, PASSWORD, HERE)


async def test_a_success_clears_the_count(accounts: Accounts) -> None:
    await add(accounts)
    for _ in range(3):
        for _ in range(4):
            with pytest.raises(Unauthorized):
                await accounts.sign_in(EMAIL, "wrong-password", HERE)
        await accounts.sign_in(EMAIL, PASSWORD, HERE)


async def test_a_guesser_with_many_addresses_is_slowed_and_the_owner_at_home_is_not(
    accounts: Accounts, clock: Clock
) -> None:
    await add(accounts)
    await accounts.sign_in(EMAIL, PASSWORD, HERE)
    for number in range(50):
        with pytest.raises(Unauthorized):
            await accounts.sign_in(EMAIL, "wrong-password", Caller(f"198.51.100.{number}"))
    with pytest.raises(TooManyRequests):
        await accounts.sign_in(EMAIL, PASSWORD, Caller("203.0.113.1"))
    await accounts.sign_in(EMAIL, PASSWORD, HERE)
    clock.forward(minutes=15)
    await accounts.sign_in(EMAIL, PASSWORD, Caller("203.0.113.1"))


async def test_one_address_may_not_try_every_account(accounts: Accounts) -> None:
    for number in range(100):
        with pytest.raises(Unauthorized):
            await accounts.sign_in(f"nobody{number}@example.org", PASSWORD, THERE)
    with pytest.raises(TooManyRequests):
        await accounts.sign_in("somebody@example.org", PASSWORD, THERE)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE users", "INSERT INTO sessions", "INSERT INTO refresh_tokens", "INSERT INTO audit_records"],
)
async def test_a_fault_in_a_sign_in_leaves_nothing(
    accounts: Accounts, database: Database, statement: str
) -> None:
    await add(accounts)
    with FaultAt(database, statement), pytest.raises(Fault):
        await accounts.sign_in(EMAIL, PASSWORD, HERE)
    assert await count(database, sessions) == 0
    assert (await accounts.users.get(EMAIL)).signed_in_at is None
    assert await events(database) == [("user added", "ok")]


async def test_an_old_hash_is_made_anew(accounts: Accounts, database: Database) -> None:
    await add(accounts)
    old = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1).hash(PASSWORD)
    async with database.transaction() as connection:
        await connection.execute(update(users).values(password_hash=old))
    await accounts.sign_in(EMAIL, PASSWORD, HERE)
    async with database.session() as connection:
        new = str(await connection.scalar(select(users.c.password_hash)))
    assert not accounts.passwords.outdated(new)
    await accounts.sign_in(EMAIL, PASSWORD, HERE)


async def test_a_password_changed_during_the_check_is_refused(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(accounts)
    verify = accounts.passwords.verify

    async def slow(password: str, password_hash: str | None) -> bool:
        good = await verify(password, password_hash)
        await accounts.users.set_password(EMAIL, "An0ther-Lantern", ENGINEER)
        return good

    monkeypatch.setattr(accounts.passwords, "verify", slow)
    with pytest.raises(Unauthorized):
        await accounts.sign_in(EMAIL, PASSWORD, HERE)


async def test_what_ends_a_session(accounts: Accounts) -> None:
    await add(accounts)

    async def refused_after(deed: object) -> None:
        signed_in = await accounts.sign_in(EMAIL, PASSWORD, HERE)
        await accounts.principal(signed_in.access_token)
        await deed  # type: ignore[misc] # a coroutine
        for attempt in (
            accounts.principal(signed_in.access_token),
            accounts.session(signed_in.session_token),
            accounts.refresh(signed_in.refresh_token, HERE),
        ):
            with pytest.raises(Unauthorized):
                await attempt

    await refused_after(accounts.users.end_sessions(EMAIL, ENGINEER))
    await refused_after(accounts.users.set_password(EMAIL, PASSWORD, ENGINEER))
    signed_in = await accounts.sign_in(EMAIL, PASSWORD, HERE)
    await accounts.sign_out(signed_in.principal, HERE)
    with pytest.raises(Unauthorized):
        await accounts.principal(signed_in.access_token)
    await refused_after(accounts.users.disable(EMAIL, ENGINEER))
    await accounts.users.enable(EMAIL, ENGINEER)
    await accounts.sign_in(EMAIL, PASSWORD, HERE)


async def test_a_token_of_another_session_or_role_is_refused(accounts: Accounts, database: Database) -> None:
    await add(accounts)
    signed_in = await accounts.sign_in(EMAIL, PASSWORD, HERE)
    async with database.transaction() as connection:
        await connection.execute(update(users).values(role="staff"))
    accounts.principals.forget()
    with pytest.raises(Unauthorized):
        await accounts.principal(signed_in.access_token)


async def test_what_a_patient_may_see_is_read_at_each_request(accounts: Accounts) -> None:
    await add(accounts)
    await accounts.users.assign(EMAIL, studies("1.2.3", "1.2.4"), ENGINEER)
    signed_in = await accounts.sign_in(EMAIL, PASSWORD, HERE)
    assert signed_in.principal.grants == studies("1.2.3", "1.2.4")
    await accounts.users.unassign(EMAIL, studies("1.2.3"), ENGINEER)
    assert (await accounts.principal(signed_in.access_token)).grants == studies("1.2.4")


async def test_a_change_by_another_process_is_seen_in_seconds(
    accounts: Accounts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("pacsbridge.accounts.principals.time.monotonic", lambda: now[0])
    await add(accounts)
    signed_in = await accounts.sign_in(EMAIL, PASSWORD, HERE)
    await accounts.principal(signed_in.access_token)
    async with database.transaction() as connection:
        await connection.execute(update(users).values(disabled_at=users.c.created_at))
    now[0] += 2.9
    await accounts.principal(signed_in.access_token)
    now[0] += 0.2
    with pytest.raises(Unauthorized):
        await accounts.principal(signed_in.access_token)


async def test_a_hundred_requests_at_once_read_the_principal_once(
    accounts: Accounts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(accounts)
    signed_in = await accounts.sign_in(EMAIL, PASSWORD, HERE)
    reads = []
    read = accounts.principals._read

    async def spy(session_id: str) -> object:
        reads.append(session_id)
        return await read(session_id)

    monkeypatch.setattr(accounts.principals, "_read", spy)
    first = asyncio.create_task(accounts.principal(signed_in.access_token))
    rest = [asyncio.create_task(accounts.principal(signed_in.access_token)) for _ in range(99)]
    await asyncio.sleep(0)
    first.cancel()
    assert len({(await task).subject for task in rest}) == 1
    assert len(reads) == 1


async def test_a_change_during_a_read_is_not_missed(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(accounts)
    signed_in = await accounts.sign_in(EMAIL, PASSWORD, HERE)
    was_read, go_on = asyncio.Event(), asyncio.Event()
    read = accounts.principals._read

    async def slow(session_id: str) -> object:
        principal = await read(session_id)
        was_read.set()
        await go_on.wait()
        return principal

    monkeypatch.setattr(accounts.principals, "_read", slow)
    reading = asyncio.create_task(accounts.principal(signed_in.access_token))
    await was_read.wait()
    await accounts.users.disable(EMAIL, ENGINEER)
    go_on.set()
    await reading  # it was asked before the change
    with pytest.raises(Unauthorized):
        await accounts.principal(signed_in.access_token)


async def test_the_cookie_is_renewed_while_it_is_used(accounts: Accounts, clock: Clock) -> None:
    await add(accounts)
    cookie = (await accounts.sign_in(EMAIL, PASSWORD, HERE)).session_token
    for _ in range(3):
        clock.forward(days=6)
        accounts._renewed.clear()
        answers = await asyncio.gather(*(accounts.session(cookie) for _ in range(20)))
        (cookie,) = [renewed for _, renewed in answers if renewed is not None]
    clock.forward(days=7)
    with pytest.raises(Unauthorized):
        await accounts.session(cookie)


async def test_registration(accounts: Accounts, database: Database) -> None:
    await accounts.register("New@Example.org", PASSWORD, "New Person", HERE)
    signed_in = await accounts.sign_in("new@example.org", PASSWORD, HERE)
    assert signed_in.principal.role is Role.PATIENT
    assert not signed_in.principal.grants
    assert signed_in.principal.name == "New Person"


async def test_registering_a_known_email_tells_and_changes_nothing(
    accounts: Accounts, database: Database
) -> None:
    await add(accounts)
    for email in (EMAIL, "head@example.org"):
        await accounts.register(email, "An0ther-Lantern", "Somebody Else", HERE)
        with pytest.raises(Unauthorized):
            await accounts.sign_in(email, "An0ther-Lantern", HERE)
        await accounts.sign_in(email, PASSWORD, HERE)
    assert await count(database, users) == 1


async def test_registering_costs_a_hash_whoever_is_known(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(accounts)
    hashed = []
    hash_ = accounts.passwords.hash

    async def spy(password: str) -> str:
        hashed.append(password)
        return await hash_(password)

    monkeypatch.setattr(accounts.passwords, "hash", spy)
    for email in (EMAIL, "head@example.org", "new@example.org"):
        await accounts.register(email, PASSWORD, "", HERE)
    assert len(hashed) == 3


async def test_registrations_are_counted(accounts: Accounts) -> None:
    for number in range(10):
        await accounts.register(f"new{number}@example.org", PASSWORD, "", HERE)
    with pytest.raises(TooManyRequests):
        await accounts.register("new10@example.org", PASSWORD, "", HERE)


@pytest.mark.parametrize(
    ("email", "password", "error"),
    [
        ("", PASSWORD, MissingParameter),
        ("nobody", PASSWORD, InvalidParameter),
        ("a b@example.org", PASSWORD, InvalidParameter),
        ("a@" + "x" * 260, PASSWORD, InvalidParameter),
        ("a\x00@example.org", PASSWORD, InvalidParameter),
        ("new@example.org", "short", InvalidParameter),
        ("new@example.org", "password1", InvalidParameter),
        ("long.name@example.org", "long.name", InvalidParameter),
    ],
)
async def test_registration_with_what_will_not_do(
    accounts: Accounts, email: str, password: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await accounts.register(email, password, "", HERE)


async def test_registration_is_closed_unless_opened(database: Database) -> None:
    accounts = Accounts(AccountsConfig.model_validate({"jwt_secret": SECRET}), database)
    with pytest.raises(Forbidden):
        await accounts.register("new@example.org", PASSWORD, "", HERE)
    await accounts.close()


async def test_a_user_of_the_configuration(accounts: Accounts) -> None:
    signed_in = await accounts.sign_in("HEAD@example.org", PASSWORD, HERE)
    assert signed_in.principal.subject == "static:head@example.org"
    assert signed_in.principal.role is Role.DOCTOR
    assert signed_in.principal.ref_doctor == "Smith^Jane"
    assert signed_in.principal.grants == studies("1.2.9")
    refreshed = await accounts.refresh(signed_in.refresh_token, HERE)
    assert await accounts.principal(refreshed.access_token) == signed_in.principal


async def test_a_new_hash_or_no_entry_in_the_configuration_ends_the_sessions(
    accounts: Accounts, database: Database, clock: Clock
) -> None:
    signed_in = await accounts.sign_in("head@example.org", PASSWORD, HERE)
    changed = statics()
    changed[0]["password_hash"] = HASHER.hash("An0ther-Lantern")
    for users_now in (changed, []):
        config = AccountsConfig.model_validate({"jwt_secret": SECRET, "static_users": users_now})
        restarted = Accounts(config, database, clock=clock)
        with pytest.raises(Unauthorized):
            await restarted.principal(signed_in.access_token)
        await restarted.close()
    with pytest.raises(Unauthorized):
        await accounts.refresh("", HERE)
    await accounts.refresh(signed_in.refresh_token, HERE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"email": "nobody"}, r"accounts\.static_users\[1\]: That is not an email"),
        ({"email": "head@example.ORG"}, r"accounts\.static_users\[1\]\.email: is there twice"),
        ({"password_hash": "hunter2"}, r"accounts\.static_users\[1\]\.password_hash: make one with"),
        ({"study_iuids": ["1.2.*"]}, r"accounts\.static_users\[1\]: A Study Instance UID"),
        ({"accession_numbers": ["A*"]}, r"accounts\.static_users\[1\]: An accession number"),
    ],
)
async def test_a_user_of_the_configuration_that_will_not_do_is_named(
    sqlite_url: str, change: dict[str, object], message: str
) -> None:

    entry = statics()[0] | {"email": "other@example.org"} | change
    config = AccountsConfig.model_validate({"jwt_secret": SECRET, "static_users": [*statics(), entry]})
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        Accounts(config, Database(sqlite_url))
    assert "hunter2" not in str(caught.value)


async def test_without_a_secret_there_are_no_accounts(sqlite_url: str) -> None:

    with pytest.raises(ConfigError, match=r"accounts\.jwt_secret: is missing; make one with"):
        Accounts(AccountsConfig(), Database(sqlite_url))


async def test_housekeeping_outlives_a_database_that_is_away(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:

    done = asyncio.Event()
    calls = []

    async def failing() -> None:
        calls.append(1)
        if len(calls) == 2:
            done.set()
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(accounts, "remove_worn_out", failing)
    monkeypatch.setattr(service, "HOUSEKEEPING_SECONDS", 0.001)
    task = asyncio.create_task(accounts._keep_house())
    async with asyncio.timeout(5):
        await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

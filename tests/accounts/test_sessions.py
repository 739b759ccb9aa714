from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from pacsbridge.accounts.service import Accounts
from pacsbridge.accounts.sessions import GRACE
from pacsbridge.accounts.values import sha256
from pacsbridge.config import AccountsConfig
from pacsbridge.db.schema import refresh_tokens, sessions
from pacsbridge.errors import Unauthorized
from tests.accounts.examples import HERE, PASSWORD, SECRET, THERE, Fault, FaultAt, add, events

if TYPE_CHECKING:
    from pacsbridge.accounts.service import SignedIn
    from pacsbridge.db import Database
    from tests.accounts.examples import Clock


async def signed_in(accounts: Accounts) -> SignedIn:
    await add(accounts)
    return await accounts.sign_in("pat@example.org", PASSWORD, HERE)


async def end_reason(database: Database) -> str:
    async with database.session() as connection:
        return str(await connection.scalar(select(sessions.c.end_reason)))


async def tokens_kept(database: Database) -> int:
    async with database.session() as connection:
        return int(await connection.scalar(select(func.count()).select_from(refresh_tokens)) or 0)


async def test_a_refresh_gives_a_new_pair_of_the_same_session(accounts: Accounts) -> None:
    first = await signed_in(accounts)
    second = await accounts.refresh(first.refresh_token, HERE)
    assert second.refresh_token != first.refresh_token
    assert second.access_token != first.access_token
    assert second.principal == first.principal
    assert await accounts.principal(second.access_token) == first.principal


async def test_tokens_are_kept_as_hashes_only(accounts: Accounts, database: Database) -> None:
    token = (await signed_in(accounts)).refresh_token
    async with database.session() as connection:
        rows = (await connection.execute(select(refresh_tokens))).all()
    assert [row.token_hash for row in rows] == [sha256(token)]
    assert token not in repr(rows)


async def test_fifty_at_once_get_one_new_pair(accounts: Accounts, database: Database) -> None:
    first = await signed_in(accounts)
    answers = await asyncio.gather(*(accounts.refresh(first.refresh_token, HERE) for _ in range(50)))
    assert len({answer.refresh_token for answer in answers}) == 1
    assert await tokens_kept(database) == 2
    await accounts.refresh(answers[0].refresh_token, HERE)


async def test_fifty_at_once_in_two_processes_get_one_new_pair(
    accounts: Accounts, database: Database, clock: Clock
) -> None:
    config = AccountsConfig.model_validate({"jwt_secret": SECRET})
    other_database = type(database)(database.url.render_as_string(hide_password=False))
    other = Accounts(config, other_database, clock=clock)
    first = await signed_in(accounts)
    try:
        answers = await asyncio.gather(
            *(each.refresh(first.refresh_token, HERE) for _ in range(25) for each in (accounts, other))
        )
        assert len({answer.refresh_token for answer in answers}) == 1
        assert await tokens_kept(database) == 2
    finally:
        await other.close()
        await other_database.close()


async def test_a_replay_after_the_grace_ends_the_session(
    accounts: Accounts, database: Database, clock: Clock
) -> None:
    first = await signed_in(accounts)
    second = await accounts.refresh(first.refresh_token, HERE)
    clock.now += GRACE
    assert (await accounts.refresh(first.refresh_token, HERE)).refresh_token == second.refresh_token
    clock.forward(seconds=1)
    with pytest.raises(Unauthorized):
        await accounts.refresh(first.refresh_token, THERE)
    for token in (first.refresh_token, second.refresh_token):
        with pytest.raises(Unauthorized):
            await accounts.refresh(token, HERE)
    with pytest.raises(Unauthorized):
        await accounts.principal(second.access_token)
    assert await end_reason(database) == "refresh token used twice"
    assert ("refresh", "refused") in await events(database)


async def test_a_replay_within_the_grace_ends_the_session_once_the_successor_was_used(
    accounts: Accounts,
) -> None:
    first = await signed_in(accounts)
    second = await accounts.refresh(first.refresh_token, HERE)
    third = await accounts.refresh(second.refresh_token, HERE)
    with pytest.raises(Unauthorized):
        await accounts.refresh(first.refresh_token, HERE)
    with pytest.raises(Unauthorized):
        await accounts.refresh(third.refresh_token, HERE)


async def test_only_that_session_ends(accounts: Accounts, clock: Clock) -> None:
    first = await signed_in(accounts)
    other = await accounts.sign_in("pat@example.org", PASSWORD, THERE)
    await accounts.refresh(first.refresh_token, HERE)
    clock.forward(minutes=1)
    with pytest.raises(Unauthorized):
        await accounts.refresh(first.refresh_token, HERE)
    await accounts.refresh(other.refresh_token, THERE)


@pytest.mark.parametrize(
    "statement", ["UPDATE refresh_tokens", "INSERT INTO refresh_tokens", "UPDATE sessions", "FROM grants"]
)
async def test_a_fault_in_the_middle_leaves_the_old_token_good(
    accounts: Accounts, database: Database, clock: Clock, statement: str
) -> None:
    first = await signed_in(accounts)
    with FaultAt(database, statement), pytest.raises(Fault):
        await accounts.refresh(first.refresh_token, HERE)
    assert await tokens_kept(database) == 1
    clock.now += 2 * GRACE
    await accounts.refresh(first.refresh_token, HERE)


@pytest.mark.parametrize("token", ["", "x", "x" * 10_000, "\0", "ü", "\ud800"])
async def test_an_unknown_token_is_refused(accounts: Accounts, token: str) -> None:
    with pytest.raises(Unauthorized):
        await accounts.refresh(token, HERE)


async def test_a_session_lives_while_it_is_used_and_dies_when_not(accounts: Accounts, clock: Clock) -> None:
    current = await signed_in(accounts)
    for _ in range(3):
        clock.forward(days=6)
        current = await accounts.refresh(current.refresh_token, HERE)
    clock.forward(days=7)
    with pytest.raises(Unauthorized):
        await accounts.refresh(current.refresh_token, HERE)


async def test_worn_out_rows_go_away(accounts: Accounts, database: Database, clock: Clock) -> None:
    await signed_in(accounts)
    await accounts.remove_worn_out()
    assert await tokens_kept(database) == 1
    clock.forward(days=38)
    await accounts.remove_worn_out()
    assert await tokens_kept(database) == 0

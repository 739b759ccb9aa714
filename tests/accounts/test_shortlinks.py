from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select

from pacsbridge.accounts.shortlinks import LinkRequest
from pacsbridge.accounts.values import Grants, Role, sha256
from pacsbridge.db.schema import short_links
from pacsbridge.errors import InvalidParameter, MissingParameter, NotFound, TooManyRequests, Unauthorized
from tests.accounts.examples import ENGINEER, HERE, THERE, Fault, FaultAt, events, studies

if TYPE_CHECKING:
    from pacsbridge.accounts.service import Accounts
    from pacsbridge.db import Database
    from tests.accounts.examples import Clock


def asked(*uids: str, reference: str = "visit-1", **more: Any) -> LinkRequest:
    return LinkRequest(reference, studies(*uids), **more)


async def test_a_link_opens_just_its_studies(accounts: Accounts) -> None:
    link, created = await accounts.links.put(asked("1.2.4", "1.2.3", patient_name="Doe^Jane"), ENGINEER)
    assert created
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", link.code)
    opened, signed_in = await accounts.open_link(link.code, HERE)
    assert opened.grants == studies("1.2.4", "1.2.3")
    principal = await accounts.principal(signed_in.access_token)
    assert (principal.role, principal.name) == (Role.PATIENT, "Doe^Jane")
    assert principal.grants == studies("1.2.4", "1.2.3")
    assert await accounts.session(signed_in.session_token) == (principal, None)
    assert (await accounts.links.get(link.code)).opened_count == 1


async def test_the_same_reference_is_one_link_with_the_new_studies(
    accounts: Accounts, database: Database
) -> None:
    first, _ = await accounts.links.put(asked("1.2.3", "1.2.4"), ENGINEER)
    _, signed_in = await accounts.open_link(first.code, HERE)
    second, created = await accounts.links.put(asked("1.2.4", "1.2.5", patient_name="Doe^Jane"), ENGINEER)
    assert not created
    assert (second.id, second.code) == (first.id, first.code)
    assert (await accounts.principal(signed_in.access_token)).grants == studies("1.2.4", "1.2.5")
    async with database.session() as connection:
        assert await connection.scalar(select(func.count()).select_from(short_links)) == 1


async def test_twenty_at_once_with_one_reference_make_one_link(
    accounts: Accounts, database: Database
) -> None:
    answers = await asyncio.gather(*(accounts.links.put(asked(f"1.2.{n}"), ENGINEER) for n in range(20)))
    assert len({link.code for link, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    link = await accounts.links.get(answers[0][0].code)
    assert len(link.grants.study_iuids) == 1


async def test_other_references_are_other_links(accounts: Accounts) -> None:
    one, _ = await accounts.links.put(asked("1.2.3", reference="visit-1"), ENGINEER)
    two, created = await accounts.links.put(asked("1.2.4", reference="VISIT-1"), ENGINEER)
    assert created
    assert one.code != two.code
    assert (await accounts.links.get(one.code)).grants == studies("1.2.3")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE short_links",
        "DELETE FROM short_link_items",
        "INSERT INTO short_link_items",
        "INSERT INTO audit_records",
    ],
)
async def test_a_fault_in_the_middle_leaves_the_link_as_it_was(
    accounts: Accounts, database: Database, statement: str
) -> None:
    before, _ = await accounts.links.put(asked("1.2.3"), ENGINEER)
    with FaultAt(database, statement), pytest.raises(Fault):
        await accounts.links.put(asked("1.2.4", patient_name="Doe^Jane"), ENGINEER)
    assert await accounts.links.get(before.code) == before


async def test_a_fault_in_the_first_making_leaves_no_link(accounts: Accounts, database: Database) -> None:
    with FaultAt(database, "INSERT INTO short_link_items"), pytest.raises(Fault):
        await accounts.links.put(asked("1.2.3"), ENGINEER)
    _, created = await accounts.links.put(asked("1.2.3"), ENGINEER)
    assert created


async def test_unknown_expired_and_revoked_look_the_same(accounts: Accounts, clock: Clock) -> None:
    expired, _ = await accounts.links.put(asked("1.2.3", reference="a", expires_in_hours=1), ENGINEER)
    revoked, _ = await accounts.links.put(asked("1.2.3", reference="b"), ENGINEER)
    _, of_expired = await accounts.open_link(expired.code, HERE)
    _, of_revoked = await accounts.open_link(revoked.code, HERE)
    await accounts.links.revoke(revoked.code, ENGINEER)
    clock.forward(hours=1)
    accounts.principals.forget()
    messages = set()
    codes = (
        expired.code,
        revoked.code,
        "A" * 22,
        "",
        "short",
        "A" * 23,
        expired.code.lower(),
        "ü" * 22,
        "%2e",
    )
    for code in codes:
        for attempt in (
            accounts.open_link(code, HERE),
            accounts.links.get(code),
            accounts.links.revoke(code, ENGINEER),
        ):
            with pytest.raises(NotFound) as caught:
                await attempt
            messages.add(caught.value.message)
    assert len(messages) == 1
    for signed_in in (of_expired, of_revoked):
        with pytest.raises(Unauthorized):
            await accounts.session(signed_in.session_token)
        with pytest.raises(Unauthorized):
            await accounts.refresh(signed_in.refresh_token, HERE)


async def test_a_revoked_code_stays_dead_when_its_reference_is_asked_for_again(accounts: Accounts) -> None:
    first, _ = await accounts.links.put(asked("1.2.3"), ENGINEER)
    _, signed_in = await accounts.open_link(first.code, HERE)
    await accounts.links.revoke(first.code, ENGINEER)
    second, created = await accounts.links.put(asked("1.2.3"), ENGINEER)
    assert created
    assert second.code != first.code
    with pytest.raises(NotFound):
        await accounts.links.get(first.code)
    with pytest.raises(Unauthorized):
        await accounts.session(signed_in.session_token)
    await accounts.open_link(second.code, HERE)


async def test_an_expired_link_opens_again_when_asked_for_again(accounts: Accounts, clock: Clock) -> None:
    first, _ = await accounts.links.put(asked("1.2.3", expires_in_hours=1), ENGINEER)
    clock.forward(hours=2)
    second, created = await accounts.links.put(asked("1.2.3"), ENGINEER)
    assert (created, second.code) == (False, first.code)
    await accounts.open_link(first.code, HERE)


async def test_codes_are_kept_as_hashes_and_never_the_same(accounts: Accounts, database: Database) -> None:
    links = [(await accounts.links.put(asked("1.2", reference=str(n)), ENGINEER))[0] for n in range(20)]
    assert len({link.code for link in links}) == 20
    async with database.session() as connection:
        rows = (await connection.execute(select(short_links))).all()
    assert {row.code_hash for row in rows} == {sha256(link.code) for link in links}
    assert not any(link.code in repr(rows) for link in links)


async def test_with_another_secret_old_links_open_and_get_a_new_code(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = await accounts.links.put(asked("1.2.3"), ENGINEER)
    monkeypatch.setattr(accounts.links, "_key", b"another")
    await accounts.open_link(first.code, HERE)
    second, created = await accounts.links.put(asked("1.2.3"), ENGINEER)
    assert not created
    assert second.code != first.code
    await accounts.open_link(second.code, HERE)


async def test_guessing_codes_ends_early_and_opening_does_not(accounts: Accounts, clock: Clock) -> None:
    link, _ = await accounts.links.put(asked("1.2.3"), ENGINEER)
    for number in range(60):
        with pytest.raises(NotFound):
            await accounts.open_link(f"{number:022}", THERE)
    with pytest.raises(TooManyRequests):
        await accounts.open_link(link.code, THERE)
    for _ in range(100):
        await accounts.open_link(link.code, HERE)
    clock.forward(minutes=15)
    await accounts.open_link(link.code, THERE)


async def test_the_trail_of_a_link(accounts: Accounts, database: Database) -> None:
    request = LinkRequest("r", Grants(("1.2.3",), ("A1",)))
    link, _ = await accounts.links.put(request, ENGINEER)
    await accounts.links.put(request, ENGINEER)
    await accounts.open_link(link.code, HERE)
    await accounts.links.revoke(link.code, ENGINEER)
    assert [event for event, _ in await events(database)] == [
        *["link made"] * 2,
        *["link updated"] * 2,
        *["link opened"] * 2,
        "sign-in by link",
        *["link revoked"] * 2,
    ]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"reference": ""}, MissingParameter),
        ({"reference": " "}, MissingParameter),
        ({"reference": "x" * 129}, InvalidParameter),
        ({"reference": "a\nb"}, InvalidParameter),
        ({"grants": Grants()}, MissingParameter),
        ({"grants": Grants(tuple(f"1.{n}" for n in range(501)))}, InvalidParameter),
        ({"expires_in_hours": 0}, InvalidParameter),
        ({"expires_in_hours": -1}, InvalidParameter),
        ({"expires_in_hours": float("nan")}, InvalidParameter),
        ({"expires_in_hours": float("inf")}, InvalidParameter),
        ({"expires_in_hours": 366 * 24 + 1}, InvalidParameter),
        ({"patient_name": "x" * 201}, InvalidParameter),
    ],
)
def test_a_link_that_cannot_be_made(change: dict[str, Any], error: type[Exception]) -> None:
    good: dict[str, Any] = {"reference": "r", "grants": studies("1.2")}
    with pytest.raises(error):
        LinkRequest(**(good | change))

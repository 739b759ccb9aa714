"""The admin API: users, grants, sessions, and who may touch them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pacsbridge.accounts.values import Role
from tests.accounts.examples import PASSWORD, add, events

if TYPE_CHECKING:
    from pacsbridge.db import Database
    from tests.http.desk import Desk

USERS = "/api/admin/users"
NEW = {
    "email": "new@example.org",
    "password": PASSWORD,
    "role": "doctor",
    "name": "New",
    "ref_doctor": "N^ew",
}


async def test_a_weeks_work(desk: Desk) -> None:
    admin = await desk.bearer("admin@example.org", Role.ADMIN)

    async def do(method: str, path: str, body: Any = None) -> Any:
        answer = await desk.ask(method, USERS + path, json=body, headers=admin)
        assert answer.status in (200, 201, 204), answer.body
        return answer.json

    user = await do("POST", "", NEW)
    assert (user["email"], user["role"], user["ref_doctor"]) == ("new@example.org", "doctor", "N^ew")
    assert "password" not in str(user)
    path = f"/{user['id']}"
    assert [each["id"] for each in (await do("GET", "?q=NEW&role=doctor"))["users"]] == [user["id"]]
    assert await do("POST", f"{path}/assign", {"study_iuids": ["1.2.3"], "accession_numbers": ["A1"]}) == {
        "study_iuids": ["1.2.3"],
        "accession_numbers": ["A1"],
    }
    await do("POST", f"{path}/unassign", {"accession_numbers": ["A1"]})
    signed = await desk.post("/auth/login", {"email": "new@example.org", "password": PASSWORD})
    shown = await do("GET", path)
    assert shown["study_iuids"] == ["1.2.3"]
    assert [session["ended_at"] for session in shown["sessions"]] == [None]
    await do("DELETE", f"{path}/sessions/{shown['sessions'][0]['id']}")
    bearer = {"Authorization": f"Bearer {signed.json['access_token']}"}
    assert (await desk.ask("GET", "/auth/me", headers=bearer)).status == 401
    await do("POST", f"{path}/password", {"password": "An0ther-Lantern"})
    assert (await desk.post("/auth/login", {"email": "new@example.org", "password": PASSWORD})).status == 401
    assert (await do("POST", f"{path}/disable"))["disabled_at"]
    login = {"email": "new@example.org", "password": "An0ther-Lantern"}
    assert (await desk.post("/auth/login", login)).status == 401
    assert (await do("POST", f"{path}/enable"))["disabled_at"] is None
    assert (await desk.post("/auth/login", login)).status == 200
    await do("DELETE", f"{path}/sessions")


@pytest.mark.parametrize("role", [None, Role.PATIENT, Role.DOCTOR, Role.STAFF])
async def test_nobody_else_may(desk: Desk, database: Database, role: Role | None) -> None:
    victim = await add(desk.accounts, "victim@example.org")
    headers = await desk.bearer("other@example.org", role) if role else {}
    for method, path in (
        ("GET", ""),
        ("POST", ""),
        ("GET", f"/{victim.id}"),
        ("POST", f"/{victim.id}/disable"),
        ("POST", f"/{victim.id}/enable"),
        ("POST", f"/{victim.id}/password"),
        ("POST", f"/{victim.id}/assign"),
        ("POST", f"/{victim.id}/unassign"),
        ("DELETE", f"/{victim.id}/sessions"),
        ("DELETE", f"/{victim.id}/sessions/x"),
    ):
        answer = await desk.ask(method, USERS + path, headers=headers, json=NEW)
        assert answer.status == (403 if role else 401)
    for method, path in (
        ("GET", "/admin"),
        ("POST", "/admin/users"),
        ("GET", f"/admin/users/{victim.id}"),
        *(
            ("POST", f"/admin/users/{victim.id}/{action}")
            for action in ("disable", "enable", "password", "assign", "unassign", "end")
        ),
    ):
        answer = await desk.ask(method, path, headers=headers)
        assert answer.status == (403 if role else 401)
    assert (await desk.accounts.users.get(victim.id)).disabled_at is None
    await desk.accounts.trail.close()
    refused = [event for event in await events(database) if event == ("manage users", "refused")]
    assert len(refused) == (19 if role else 0)


async def test_an_admin_can_not_lock_themselves_out(desk: Desk) -> None:
    admin = await desk.bearer("admin@example.org", Role.ADMIN)
    user = await desk.accounts.users.get("admin@example.org")
    answer = await desk.ask("POST", f"{USERS}/{user.id}/disable", headers=admin)
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_parameter")
    assert (await desk.ask("GET", USERS, headers=admin)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "?role=boss", None, 400),
        ("GET", "?offset=-1", None, 400),
        ("GET", "?offset=1e9", None, 400),
        ("GET", "?offset=٣", None, 400),
        ("GET", "?q=%00%ff", None, 200),
        ("POST", "", NEW | {"role": "boss"}, 400),
        ("POST", "", NEW | {"password": "short"}, 400),
        ("POST", "", NEW | {"email": "admin@example.org"}, 400),
        ("GET", "/nobody", None, 404),
        ("POST", "/nobody/disable", None, 404),
        ("POST", "/nobody/password", {"password": PASSWORD}, 404),
        ("POST", "/nobody/assign", {"study_iuids": ["1.2"]}, 404),
        ("POST", "/admin@example.org/assign", {}, 400),
        ("POST", "/admin@example.org/assign", {"study_iuids": ["x"]}, 400),
        ("DELETE", "/admin@example.org/sessions/none", None, 404),
    ],
)
async def test_what_will_not_do(sqlite_desk: Desk, method: str, path: str, body: Any, status: int) -> None:
    admin = await sqlite_desk.bearer("admin@example.org", Role.ADMIN)
    answer = await sqlite_desk.ask(method, USERS + path, json=body, headers=admin)
    assert answer.status == status, answer.body

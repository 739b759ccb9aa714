"""Signing in over HTTP: the bearer token, the cookie, and what must not be believed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from pacsbridge.accounts.values import Grants, Role
from pacsbridge.app import running_accounts
from pacsbridge.config import Config, ConfigError
from tests.accounts.examples import ENGINEER, PASSWORD, SECRET, add
from tests.http.desk import ORIGIN, running_desk

if TYPE_CHECKING:
    from pacsbridge.db import Database
    from tests.http.desk import Desk

EMAIL = "pat@example.org"
GOOD = {"email": EMAIL, "password": PASSWORD}


async def test_sign_in(desk: Desk) -> None:
    user = await add(desk.accounts)
    await desk.accounts.users.assign(EMAIL, Grants(("1.2.3",), ("A1",)), ENGINEER)
    answer = await desk.post("/auth/login", GOOD)
    assert answer.status == 200
    shown = {
        "id": user.id,
        "email": EMAIL,
        "name": "Pat Doe",
        "role": "patient",
        "study_iuids": ["1.2.3"],
        "accession_numbers": ["A1"],
    }
    assert set(answer.json) == {"access_token", "refresh_token", "token_type", "expires_in", "user"}
    assert (answer.json["token_type"], answer.json["expires_in"]) == ("Bearer", 900)
    assert answer.json["user"] == shown
    assert answer.headers["Cache-Control"] == "no-store"
    me = await desk.ask("GET", "/auth/me", headers={"Authorization": f"bearer {answer.json['access_token']}"})
    assert (me.status, me.json) == (200, shown)
    me = await desk.ask("GET", "/auth/me", headers={"Cookie": f"pacsbridge_session={answer.cookie}"})
    assert (me.status, me.json) == (200, shown)


async def test_the_cookie_is_for_this_site_and_no_script(desk: Desk) -> None:
    header = (await desk.sign_in(EMAIL, Role.PATIENT)).headers["Set-Cookie"]
    attributes = {part.strip().lower() for part in header.split(";")[1:]}
    assert attributes == {"httponly", "samesite=lax", "path=/", "max-age=604800"}


async def test_the_cookie_is_secure_where_the_site_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.accounts.examples import Clock
    from tests.http.desk import cheap_hashes

    cheap_hashes(monkeypatch)
    async with running_desk(database, Clock(), server={"public_url": "https://images.example"}) as desk:
        assert "Secure" in (await desk.sign_in(EMAIL, Role.PATIENT)).headers["Set-Cookie"]


async def test_me_lists_all_studies_however_many(desk: Desk) -> None:
    await add(desk.accounts)
    grants = Grants(tuple(f"1.2.{'3' * 50}.{n}" for n in range(300)))
    await desk.accounts.users.assign(EMAIL, grants, ENGINEER)
    token = (await desk.post("/auth/login", GOOD)).json["access_token"]
    me = await desk.ask("GET", "/auth/me", headers={"Authorization": f"Bearer {token}"})
    assert me.json["study_iuids"] == list(grants.study_iuids)


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, True),
        ({"Authorization": "Bearer nonsense"}, True),
        ({"Authorization": "Bearer "}, True),
        ({"Authorization": "Bearer \xff\xfe"}, True),
        ({"Authorization": "Basic cGF0OnB3"}, True),
        ({"Cookie": "pacsbridge_session=nonsense"}, True),
        ({"Cookie": "pacsbridge_session="}, True),
    ],
)
async def test_without_credentials_nobody_is_somebody(
    sqlite_desk: Desk, headers: dict[str, str], challenge: bool
) -> None:
    answer = await sqlite_desk.ask("GET", "/auth/me", headers=headers)
    assert (answer.status, answer.json["error"]["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer") is challenge


async def test_one_kind_of_token_does_not_pass_for_another(desk: Desk) -> None:
    answer = await desk.sign_in(EMAIL, Role.PATIENT)
    tokens = {
        "access": answer.json["access_token"],
        "refresh": answer.json["refresh_token"],
        "cookie": answer.cookie,
    }
    for name in ("refresh", "cookie"):
        me = await desk.ask("GET", "/auth/me", headers={"Authorization": f"Bearer {tokens[name]}"})
        assert me.status == 401
    for name in ("refresh", "access"):
        me = await desk.ask("GET", "/auth/me", headers={"Cookie": f"pacsbridge_session={tokens[name]}"})
        assert me.status == 401
    for name in ("access", "cookie"):
        assert (await desk.post("/auth/refresh", {"refresh_token": tokens[name]})).status == 401


async def test_a_bad_bearer_is_not_saved_by_a_good_cookie(desk: Desk) -> None:
    headers = await desk.cookie(EMAIL, Role.PATIENT) | {"Authorization": "Bearer nonsense"}
    assert (await desk.ask("GET", "/auth/me", headers=headers)).status == 401


async def test_refresh_and_replay(desk: Desk) -> None:
    first = (await desk.sign_in(EMAIL, Role.PATIENT)).json
    body = {"refresh_token": first["refresh_token"]}
    answers = await asyncio.gather(*(desk.post("/auth/refresh", body) for _ in range(10)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.json["refresh_token"] for answer in answers}) == 1
    assert all(answer.cookie for answer in answers)
    desk.clock.forward(seconds=11)
    assert (await desk.post("/auth/refresh", body)).status == 401
    second = {"refresh_token": answers[0].json["refresh_token"]}
    assert (await desk.post("/auth/refresh", second)).status == 401


@pytest.mark.parametrize("how", ["bearer", "cookie", "refresh"])
async def test_signing_out_ends_the_session_however_it_is_shown(desk: Desk, how: str) -> None:
    signed = await desk.sign_in(EMAIL, Role.PATIENT)
    bearer = {"Authorization": f"Bearer {signed.json['access_token']}"}
    cookie = {"Cookie": f"pacsbridge_session={signed.cookie}", "Origin": desk.url}
    if how == "refresh":
        out = await desk.post("/auth/logout", {"refresh_token": signed.json["refresh_token"]})
    else:
        out = await desk.ask("POST", "/auth/logout", headers=bearer if how == "bearer" else cookie)
    assert out.status == 204
    assert "Max-Age=0" in out.headers["Set-Cookie"]
    assert (await desk.ask("GET", "/auth/me", headers=bearer)).status == 401
    assert (await desk.ask("GET", "/auth/me", headers=cookie)).status == 401
    assert (await desk.post("/auth/refresh", {"refresh_token": signed.json["refresh_token"]})).status == 401
    assert (await desk.ask("POST", "/auth/logout", headers=bearer)).status == 204


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 403),
        ("", 403),
        ("null", 403),
        ("https://evil.example", 403),
        ("http://127.0.0.1", 403),
        ("http://[", 403),
        ("{url}.evil.example", 403),
        ("https://evil.example/{url}", 403),
        ("{url}", 204),
        ("http://localhost:8080", 204),
        (ORIGIN, 204),
    ],
)
async def test_with_the_cookie_a_change_must_come_from_our_pages(
    sqlite_desk: Desk, origin: str | None, status: int
) -> None:
    headers = await sqlite_desk.cookie(EMAIL, Role.PATIENT)
    del headers["Origin"]
    if origin is not None:
        headers["Origin"] = origin.format(url=sqlite_desk.url)
    answer = await sqlite_desk.ask("POST", "/auth/logout", headers=headers)
    assert answer.status == status
    me = await sqlite_desk.ask("GET", "/auth/me", headers={"Cookie": headers["Cookie"]})
    assert me.status == (401 if status == 204 else 200)


async def test_a_cookie_in_use_is_renewed(desk: Desk) -> None:
    headers = await desk.cookie(EMAIL, Role.PATIENT)
    assert (await desk.ask("GET", "/auth/me", headers=headers)).cookie is None
    desk.clock.forward(minutes=16)
    renewed = (await desk.ask("GET", "/auth/me", headers=headers)).cookie
    assert renewed
    desk.clock.forward(days=6, hours=23)
    headers["Cookie"] = f"pacsbridge_session={renewed}"
    assert (await desk.ask("GET", "/auth/me", headers=headers)).status == 200


async def test_register(desk: Desk) -> None:
    body = {"email": "new@example.org", "password": PASSWORD, "name": "New"}
    first, again = await desk.post("/auth/register", body), await desk.post("/auth/register", body)
    assert first.status == again.status == 201
    assert first.json == again.json
    signed = await desk.post("/auth/login", {"email": "new@example.org", "password": PASSWORD})
    assert signed.json["user"]["role"] == "patient"


async def test_too_many_guesses(desk: Desk) -> None:
    await add(desk.accounts)
    for _ in range(5):
        assert (await desk.post("/auth/login", GOOD | {"password": "wrong-password"})).status == 401
    answer = await desk.post("/auth/login", GOOD)
    assert (answer.status, answer.json["error"]["code"]) == (429, "too_many_requests")
    assert answer.headers["Retry-After"] == "900"


async def test_a_forged_forwarding_header_is_no_way_around(desk: Desk) -> None:
    await add(desk.accounts)
    for number in range(5):
        headers = {"X-Forwarded-For": f"203.0.113.{number}"}
        await desk.post("/auth/login", GOOD | {"password": "wrong-password"}, headers=headers)
    headers = {"X-Forwarded-For": "203.0.113.9"}
    assert (await desk.post("/auth/login", GOOD, headers=headers)).status == 429


@pytest.mark.parametrize("path", ["/auth/login", "/auth/register", "/auth/refresh"])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"null", "application/json"),
        (b"\xff", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"{}", "application/json"),
        (b'{"email": 1, "password": [], "refresh_token": {}}', "application/json"),
        (b'{"email": "", "password": "", "refresh_token": null}', "application/json"),
        (b'{"email": "a@b.c", "password": "x", "refresh_token": "x"}', "text/plain"),
        (b"email=a@b.c&password=x", "application/x-www-form-urlencoded"),
    ],
)
async def test_a_body_that_will_not_do_is_a_clear_error(
    sqlite_desk: Desk, path: str, body: bytes, kind: str
) -> None:
    answer = await sqlite_desk.ask("POST", path, data=body, headers={"Content-Type": kind})
    assert answer.status == 400
    assert answer.json["error"]["code"] in ("missing_parameter", "invalid_parameter")


async def test_half_a_surrogate_pair_is_no_error_of_ours(desk: Desk) -> None:
    half = b'{"email": "\\ud800@example.org", "password": "a long \\ud800 word", "refresh_token": "\\ud800"}'
    headers = {"Content-Type": "application/json"}
    for path, status in (("/auth/login", 401), ("/auth/refresh", 401), ("/auth/register", 400)):
        assert (await desk.ask("POST", path, data=half, headers=headers)).status == status


async def test_without_a_secret_the_accounts_are_off(database: Database) -> None:
    async with running_accounts(Config(), database) as accounts:
        assert accounts is None


@pytest.mark.parametrize("secret", ["", "short", "change-me-change-me-change-me-change-me"])
async def test_with_the_proxy_on_a_bad_secret_stops_the_start(database: Database, secret: str) -> None:
    config = Config.model_validate(
        {"dicomweb": {"upstream": "dicomweb", "url": "http://x"}, "accounts": {"jwt_secret": secret}}
    )
    with pytest.raises(ConfigError, match=r"^accounts\.jwt_secret: .* make one with: "):
        async with running_accounts(config, database):
            pass


async def test_no_secret_is_logged(desk: Desk) -> None:
    with capture_logs() as lines:
        signed = await desk.sign_in(EMAIL, Role.PATIENT)
        bearer = {"Authorization": f"Bearer {signed.json['access_token']}"}
        await desk.ask("GET", "/auth/me", headers=bearer)
        await desk.post("/auth/refresh", {"refresh_token": signed.json["refresh_token"]})
        await desk.post("/auth/login", GOOD | {"password": "wrong-password"})
    assert "/auth/login" in [line.get("route") for line in lines]
    for secret in (
        PASSWORD,
        "wrong-password",
        SECRET,
        EMAIL,
        "Pat Doe",
        signed.json["access_token"],
        signed.json["refresh_token"],
        str(signed.cookie),
    ):
        assert secret not in str(lines)

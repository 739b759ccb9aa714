"""Accounts in the whole service: from the configuration to a signed-in request, on both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp

from pacsbridge.accounts.shell import open_users
from pacsbridge.accounts.users import NewUser
from pacsbridge.accounts.values import Role
from tests.accounts.examples import ENGINEER, PASSWORD, SECRET
from tests.databases import closed_port
from tests.e2e.service import make_config, running
from tests.studies import make_study

if TYPE_CHECKING:
    from pathlib import Path

ON = {"jwt_secret": SECRET}
LOGIN = {"email": "desk@example.org", "password": PASSWORD}


async def test_a_user_made_at_the_shell_signs_in_and_makes_a_link(
    tmp_path: Path, url: str, make_pacs: Any
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    make_study(folder, "A1")
    config = make_config(
        tmp_path,
        make_pacs(folder=folder),
        accounts=ON,
        database={"url": url},
        auth={"enabled": True, "api_key": "the-key-of-the-his"},
    )
    async with open_users(config) as users:
        await users.add(NewUser("desk@example.org", PASSWORD, "Desk", Role.STAFF), ENGINEER)
    async with running(config) as service:
        status, _, _ = await service.get("/api/jobs")
        assert status == 401
        async with service.session.post(f"{service.url}/auth/login", json=LOGIN) as answer:
            assert answer.status == 200
            bearer = {"Authorization": f"Bearer {(await answer.json())['access_token']}"}
        status, _, _ = await service.get("/api/jobs", headers=bearer)
        assert status == 200
        body = {"reference": "visit-1", "accession_numbers": ["A1"]}
        async with service.session.post(f"{service.url}/api/shortlinks", json=body, headers=bearer) as answer:
            code = (await answer.json())["code"]
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            async with browser.get(f"{service.url}/s/{code}", allow_redirects=False) as answer:
                assert answer.status == 302
                assert answer.headers["Location"].startswith("/viewer?StudyInstanceUIDs=2.25.")
            async with browser.get(f"{service.url}/auth/me") as answer:
                assert (await answer.json())["accession_numbers"] == ["A1"]
            async with browser.get(f"{service.url}/api/jobs") as answer:
                assert answer.status == 403


async def test_without_a_secret_discs_go_on_and_accounts_say_they_are_off(
    tmp_path: Path, make_pacs: Any
) -> None:
    async with running(make_config(tmp_path, make_pacs())) as service:
        assert (await service.error("/auth/me")) == (503, "not_configured")
        assert (await service.error("/login")) == (503, "not_configured")
        status, _, _ = await service.get("/api/jobs")
        assert status == 200


async def test_with_the_database_away_the_service_starts_and_says_so(tmp_path: Path, make_pacs: Any) -> None:
    url = f"mysql://someone:hush@127.0.0.1:{closed_port()}/x"
    config = make_config(tmp_path, make_pacs(), accounts=ON, database={"url": url})
    async with running(config) as service:
        async with service.session.post(f"{service.url}/auth/login", json=LOGIN) as answer:
            assert answer.status == 503
            assert (await answer.json())["error"]["code"] == "database_unavailable"
            assert answer.headers["Retry-After"]
        status, _, body = await service.get("/api/health")
        assert status == 200
        assert b"hush" not in body

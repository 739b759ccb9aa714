"""pacsbridge as viewers meet it: accounts and the proxy, no discs; and who looks."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from yarl import URL

from pacsbridge.accounts import audit
from pacsbridge.accounts.service import Accounts
from pacsbridge.accounts.users import NewUser
from pacsbridge.app import access_policy, running_server
from pacsbridge.config import Config
from pacsbridge.db import Database, upgrade_in_thread
from pacsbridge.dicomweb.catalog import DicomwebCatalog
from pacsbridge.dicomweb.service import running_dicomweb
from pacsbridge.dicomweb.trail import StudyTrail
from pacsbridge.http.services import Services
from tests.accounts.examples import ENGINEER, HERE, PASSWORD, SECRET
from tests.http.desk import NoWorks
from tests.peers import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pacsbridge.accounts.values import Grants, Role
    from pacsbridge.dicomweb.service import Dicomweb

ORIGIN = "https://viewer.example"


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        import json

        return json.loads(self.body)


@dataclass
class Viewing:
    """A running server, and what a test needs to look through it."""

    url: str
    config: Config
    accounts: Accounts
    proxy: Dicomweb
    database: Database
    session: aiohttp.ClientSession

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def user(self, email: str, role: Role, grants: Grants | None = None, ref_doctor: str = "") -> str:
        """Make a user, and give their access token."""
        users = self.accounts.users
        user = await users.add(NewUser(email, PASSWORD, "Some Body", role, ref_doctor=ref_doctor), ENGINEER)
        if grants:
            await users.assign(user.id, grants, ENGINEER)
        return (await self.accounts.sign_in(email, PASSWORD, HERE)).access_token

    async def ask(self, token: str, path: str, method: str = "GET", **more: Any) -> Answer:
        """Ask the proxy for something below ``/dicomWeb``; an empty token for nobody."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= more.pop("headers", {})
        more.setdefault("allow_redirects", False)
        url = URL(f"{self.url}/dicomWeb{path}", encoded=True)  # it goes out as it stands
        async with self.session.request(method, url, headers=headers, **more) as response:
            return Answer(response.status, response.headers, await response.read())

    async def audited(self) -> list[dict[str, Any]]:
        """Give the audit trail, the oldest first."""
        await self.accounts.trail._queue.join()
        async with self.database.session() as connection:
            return list(reversed(await audit.latest(connection, limit=1000)))


@asynccontextmanager
async def running_viewing(folder: Path, **sections: Any) -> AsyncIterator[Viewing]:
    """Run the server; keyword arguments are sections of the configuration."""
    url = f"sqlite:///{folder / 'viewing.db'}"
    values: dict[str, Any] = {
        "server": {
            "host": HOST,
            "port": 0,
            "public_url": "https://images.example.org",
            "allowed_origins": [ORIGIN],
            "shutdown_timeout_seconds": 1,
        },
        "accounts": {"jwt_secret": SECRET},
        "database": {"url": url},
    }
    for section, keys in sections.items():
        values[section] = values.get(section, {}) | keys
    config = Config.model_validate(values)
    await upgrade_in_thread(url)
    database = Database(url)
    accounts = Accounts(config.accounts, database)
    accounts.start()
    policy = access_policy(config)
    nothing = cast("Any", None)  # no disc is made here
    try:
        async with running_dicomweb(config, policy) as proxy:
            assert proxy is not None
            services = Services(
                config=config,
                works=cast("Any", NoWorks()),
                patients=nothing,
                checks=nothing,
                accounts=accounts,
                catalog=DicomwebCatalog(proxy.upstream),
                dicomweb=proxy,
                study_trail=StudyTrail(accounts.trail),
                policy=policy,
            )
            async with (
                running_server(services) as port,
                aiohttp.ClientSession(
                    cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=200)
                ) as session,
            ):
                yield Viewing(f"http://{HOST}:{port}", config, accounts, proxy, database, session)
    finally:
        await accounts.close()
        await database.close()

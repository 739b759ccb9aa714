"""The HTTP application with accounts, over a database of the tests and no PACS."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import aiohttp

from pacsbridge.accounts import passwords
from pacsbridge.accounts.policy import AccessPolicy
from pacsbridge.accounts.service import Accounts
from pacsbridge.app import running_server
from pacsbridge.config import Config
from pacsbridge.errors import PacsUnreachable
from pacsbridge.http.services import Services
from tests.accounts.examples import PASSWORD, SECRET, Clock, add
from tests.peers import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pacsbridge.accounts.catalog import FoundStudy
    from pacsbridge.accounts.values import Role
    from pacsbridge.db import Database

ORIGIN = "https://viewer.example"
API_KEY = "the-key-of-the-his"


class Shelf:
    """A catalogue that knows what the test puts in; it is away when told so."""

    def __init__(self) -> None:
        self.studies: dict[str, list[FoundStudy]] = {}
        self.away = False

    async def of_accession_number(self, accession_number: str) -> Sequence[FoundStudy]:
        if self.away:
            raise PacsUnreachable("No connection.")
        return self.studies.get(accession_number, ())


class NoWorks:
    """Makes no disc; the server waits for its orders when it stops."""

    @property
    def engine(self) -> NoWorks:
        return self

    async def finish_orders(self, seconds: float) -> None:
        """There are none."""


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes
    json: Any
    cookie: str | None


@dataclass
class Desk:
    """A running server, and what a test needs to talk to it."""

    url: str
    accounts: Accounts
    catalog: Shelf
    clock: Clock
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **more: Any) -> Answer:
        """Send a request without any cookie that isn't named, and follow nothing."""
        more.setdefault("allow_redirects", False)
        async with self.session.request(method, self.url + path, **more) as response:
            body = await response.read()
            is_json = response.content_type == "application/json"
            cookie = response.cookies.get("pacsbridge_session")
            return Answer(
                response.status,
                response.headers,
                body,
                await response.json() if is_json else None,
                cookie.value if cookie else None,
            )

    async def post(self, path: str, body: Any, **more: Any) -> Answer:
        return await self.ask("POST", path, json=body, **more)

    async def sign_in(self, email: str, role: Role) -> Answer:
        await add(self.accounts, email, role)
        return await self.post("/auth/login", {"email": email, "password": PASSWORD})

    async def bearer(self, email: str, role: Role) -> dict[str, str]:
        """Make a user and give the header of their token."""
        return {"Authorization": f"Bearer {(await self.sign_in(email, role)).json['access_token']}"}

    async def cookie(self, email: str, role: Role, origin: str = "") -> dict[str, str]:
        """Make a user and give the headers that their browser sends."""
        token = (await self.sign_in(email, role)).cookie
        return {"Cookie": f"pacsbridge_session={token}", "Origin": origin or self.url}


@asynccontextmanager
async def running_desk(database: Database, clock: Clock, **sections: Any) -> AsyncIterator[Desk]:
    """Run the application; keyword arguments are sections of the configuration."""
    values: dict[str, Any] = {
        "server": {"host": HOST, "port": 0, "allowed_origins": [ORIGIN], "shutdown_timeout_seconds": 1},
        "accounts": {"jwt_secret": SECRET, "registration": "patients"},
        "dicomweb": {"upstream": "dicomweb", "url": "http://127.0.0.1:1/dicom-web"},
    }
    for section, keys in sections.items():
        values[section] = values.get(section, {}) | keys
    config = Config.model_validate(values)
    accounts = Accounts(config.accounts, database, clock=clock)
    accounts.start()
    catalog = Shelf()
    nothing = cast("Any", None)  # nobody asks
    services = Services(
        config=config,
        works=cast("Any", NoWorks()),
        patients=nothing,
        checks=nothing,
        accounts=accounts,
        catalog=catalog,
        policy=AccessPolicy(doctor_scope=config.dicomweb.doctor_scope),
    )
    try:
        async with (
            running_server(services) as port,
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        ):
            yield Desk(f"http://{HOST}:{port}", accounts, catalog, clock, session)
    finally:
        await accounts.close()


def cheap_hashes(monkeypatch: Any) -> None:
    monkeypatch.setattr(passwords, "MEMORY_KIB", 8)
    monkeypatch.setattr(passwords, "TIME_COST", 1)

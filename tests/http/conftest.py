from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pacsbridge.db import Database, upgrade_in_thread
from tests.accounts.examples import Clock
from tests.http.desk import API_KEY, cheap_hashes, running_desk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.http.desk import Desk


@pytest.fixture
async def desk(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """Give the application with accounts, open to whoever reaches the port."""
    cheap_hashes(monkeypatch)
    async with running_desk(database, Clock()) as desk:
        yield desk


@pytest.fixture
async def locked_desk(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """Give the same with ``auth.enabled``."""
    cheap_hashes(monkeypatch)
    async with running_desk(database, Clock(), auth={"enabled": True, "api_key": API_KEY}) as desk:
        yield desk


@pytest.fixture
async def sqlite_desk(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """Give the application for what has nothing to do with the database, and need not be tried on each."""
    cheap_hashes(monkeypatch)
    await upgrade_in_thread(sqlite_url)
    database = Database(sqlite_url)
    async with running_desk(database, Clock()) as desk:
        yield desk
    await database.close()

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pacsbridge.accounts import passwords
from pacsbridge.accounts.service import Accounts
from pacsbridge.config import AccountsConfig
from tests.accounts.examples import SECRET, Clock, statics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pacsbridge.db import Database


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "MEMORY_KIB", 8)
    monkeypatch.setattr(passwords, "TIME_COST", 1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def accounts(database: Database, clock: Clock) -> AsyncIterator[Accounts]:
    config = AccountsConfig.model_validate(
        {"jwt_secret": SECRET, "registration": "patients", "static_users": statics()}
    )
    accounts = Accounts(config, database, clock=clock)
    accounts.start()
    yield accounts
    await accounts.close()

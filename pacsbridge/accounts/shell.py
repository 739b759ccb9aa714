"""Users for the engineer at the command line: the database alone, with no running service."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from pacsbridge.accounts.passwords import Passwords
from pacsbridge.accounts.principals import Principals
from pacsbridge.accounts.sessions import Sessions
from pacsbridge.accounts.users import Users
from pacsbridge.db import Database, upgrade_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pacsbridge.config import Config


@asynccontextmanager
async def open_users(config: Config) -> AsyncIterator[Users]:
    """Bring the schema up to date and lend the users.

    No token is made here, so ``jwt_secret`` isn't needed.

    Raises
    ------
    ConfigError, DatabaseUnavailable
        The database can't be used.
    """
    url = config.database.url.get_secret_value()
    await upgrade_in_thread(url)
    database, passwords = Database(url), Passwords()
    sessions = Sessions("", timedelta(days=config.accounts.refresh_token_days))
    try:
        yield Users(database, passwords, sessions, Principals(database, sessions, {}))
    finally:
        passwords.close()
        await database.close()

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect, text

import pacsbridge.db
from pacsbridge.db import Database, upgrade, upgrade_in_thread
from pacsbridge.db.migrations.versions import v0001_first_schema as first
from pacsbridge.db.schema import metadata
from pacsbridge.errors import DatabaseUnavailable
from tests.databases import closed_port


async def test_the_migrated_schema_is_the_one_the_code_knows(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    async with database.session() as connection:
        assert await connection.run_sync(differences) == []


async def test_tables_hold_any_text_whatever_the_server_prefers(database: Database) -> None:
    if database.dialect == "mysql":
        async with database.session() as connection:
            rows = await connection.execute(
                text(
                    "SELECT table_name, table_collation, engine FROM information_schema.tables"
                    " WHERE table_schema = database()"
                )
            )
            for name, collation, engine in rows:
                if name != "alembic_version":
                    assert (collation, engine) == ("utf8mb4_bin", "InnoDB"), name


def test_upgrade_twice_changes_nothing(url: str) -> None:
    upgrade(url)
    upgrade(url)


def test_upgrade_goes_on_where_a_broken_one_stopped(url: str) -> None:
    engine = create_engine(url.replace("mysql://", "mysql+pymysql://"))
    with engine.begin() as connection:
        users = first.metadata.tables["users"]
        users.create(connection)
        for index in users.indexes:
            index.drop(connection)
    upgrade(url)
    with engine.connect() as connection:
        assert "ix_users_role" in {index["name"] for index in inspect(connection).get_indexes("users")}
        assert set(metadata.tables) <= set(inspect(connection).get_table_names())
    engine.dispose()


def test_processes_that_start_at_once_all_succeed(url: str) -> None:
    code = "import sys; from pacsbridge.db import upgrade; upgrade(sys.argv[1])"
    running = [subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE) for _ in range(4)]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()


async def test_upgrades_at_once_in_one_process(url: str) -> None:
    await asyncio.gather(*(upgrade_in_thread(url) for _ in range(4)))


def test_a_schema_from_the_future_is_left_alone(sqlite_url: str) -> None:
    upgrade(sqlite_url)
    file = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    file.execute("UPDATE alembic_version SET version_num = '9999'")
    file.commit()
    file.close()
    with pytest.raises(DatabaseUnavailable, match="newer than this pacsbridge"):
        upgrade(sqlite_url)


def test_a_new_file_is_for_its_owner_only(sqlite_url: str) -> None:
    upgrade(sqlite_url)
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    for each in file.parent.glob(f"{file.name}*"):
        assert each.stat().st_mode & 0o077 == 0, each


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="can't be opened"):
        upgrade(f"sqlite:///{tmp_path}/absent/pacsbridge.db")


def test_a_server_that_is_not_there_is_said() -> None:
    with pytest.raises(DatabaseUnavailable, match="can't be opened") as caught:
        upgrade(f"mysql://someone:hush@127.0.0.1:{closed_port()}/x")
    assert "hush" not in str(caught.value)


def test_the_steps_are_part_of_the_package() -> None:
    """setuptools leaves out a folder that is no package: an installed wheel would have no steps."""
    migrations = Path(pacsbridge.db.__file__).parent / "migrations"
    for step in migrations.rglob("*.py"):
        assert (step.parent / "__init__.py").is_file()

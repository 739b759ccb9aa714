"""The databases that tests run on: SQLite in a temp folder, and a real MariaDB."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from pacsbridge.db import Database, upgrade_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

START_SECONDS = 60


@pytest.fixture(scope="session")
def mariadb_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start a MariaDB that listens on a socket in a temp folder only: no port to clash on."""
    for program in ("mariadbd", "mariadb-install-db", "mariadb"):
        if shutil.which(program) is None:
            if os.environ.get("CI"):
                pytest.fail(f"{program} is not installed")
            pytest.skip(f"{program} is not installed")
    folder = tmp_path_factory.mktemp("mariadb")
    data, sock, log = folder / "data", folder / "m.sock", folder / "log"
    # In a shared one, a server that starts removes the temporary tables of those that are starting beside it.
    temporary = folder / "tmp"
    temporary.mkdir()
    user = getpass.getuser()
    subprocess.run(
        [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            f"--tmpdir={temporary}",
            f"--user={user}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *_SMALL,
        ],
        check=True,
        capture_output=True,
    )
    server = subprocess.Popen(
        [
            "mariadbd",
            "--no-defaults",
            f"--datadir={data}",
            f"--tmpdir={temporary}",
            f"--user={user}",
            f"--socket={sock}",
            f"--pid-file={folder / 'pid'}",
            f"--log-error={log}",
            "--skip-networking",
            *_SMALL,
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(sock, server, log)
        yield sock
    finally:
        server.terminate()
        server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


# What makes an empty server quick to start and small: nothing here outlives the tests.
_SMALL = (
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-file-size=8M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-fast-shutdown=2",
    "--performance-schema=OFF",
    "--skip-log-bin",
)


def _wait_for(sock: Path, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while _client(sock, "SELECT 1").returncode != 0:
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"MariaDB did not start:\n{log.read_text() if log.exists() else ''}")
        time.sleep(0.05)


def _client(sock: Path, statement: str) -> subprocess.CompletedProcess[bytes]:
    command = ["mariadb", "--no-defaults", f"--socket={sock}", "--user=root", "-e", statement]
    return subprocess.run(command, capture_output=True, check=False)


def mariadb_statement(sock: Path, statement: str) -> None:
    """Run one statement as root."""
    done = _client(sock, statement)
    assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def mariadb_url(mariadb_socket: Path) -> Iterator[str]:
    """Make an empty database on the MariaDB, in a character set that is not ours."""
    name = f"t{uuid4().hex}"
    mariadb_statement(mariadb_socket, f"CREATE DATABASE {name} CHARACTER SET latin1")
    yield f"mysql://root@localhost/{name}?unix_socket={mariadb_socket}"
    mariadb_statement(mariadb_socket, f"DROP DATABASE {name}")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'pacsbridge.db'}"


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    """Give an empty database, once of each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """Give a migrated, open database, once of each kind."""
    await upgrade_in_thread(url)
    database = Database(url)
    await database.connect()
    yield database
    await database.close()


def closed_port() -> int:
    """Give a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""``pacsbridge demo``: an embedded PACS with sample patients, the service in front of it, and links that work."""

from __future__ import annotations

import asyncio
import secrets
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from pacsbridge.accounts.passwords import Passwords
from pacsbridge.app import serve
from pacsbridge.config import (
    AccountsConfig,
    Config,
    DatabaseConfig,
    MediaConfig,
    PacsConfig,
    ScpPort,
    ServerConfig,
    StaticUser,
    StorageScpConfig,
)
from pacsbridge.demo.pacs import DemoPacs
from pacsbridge.demo.patients import write_sample_patients
from pacsbridge.logs import set_up_logging

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacsbridge.demo.patients import SamplePatient

_HOST = "127.0.0.1"
_ADMIN = "admin@demo.example"


def run_demo(port: int) -> int:
    """Run the demo until it is stopped; everything that it writes goes with it.

    Parameters
    ----------
    port
        The HTTP port.
    """
    set_up_logging(ServerConfig(log_level="error"))
    with tempfile.TemporaryDirectory(prefix="pacsbridge-demo-") as folder:
        root = Path(folder)
        print("Drawing the sample patients ...", flush=True)
        patients = write_sample_patients(root / "pacs")
        first, second = _free_ports(2)
        pool = (ScpPort(port=first, ae_title="CDRECORD"), ScpPort(port=second, ae_title="CDRECORD2"))
        destinations = {entry.ae_title: (_HOST, entry.port) for entry in pool}
        with DemoPacs(root / "pacs", destinations=destinations) as pacs:
            asyncio.run(_serve(root, pacs, pool, port, patients))
    return 0


async def _serve(
    root: Path, pacs: DemoPacs, pool: tuple[ScpPort, ...], port: int, patients: Sequence[SamplePatient]
) -> None:
    password = secrets.token_urlsafe(9)
    passwords = Passwords()
    try:
        password_hash = await passwords.hash(password)
    finally:
        passwords.close()
    config = Config(
        server=ServerConfig(
            host=_HOST,
            port=port,
            public_url=f"http://localhost:{port}",
            log_level="error",
            shutdown_timeout_seconds=5,
        ),
        pacs=PacsConfig(ae_title=pacs.ae_title, host=_HOST, port=pacs.port),
        storage_scp=StorageScpConfig(host=_HOST, ports=pool),
        media=MediaConfig(spool_dir=root / "spool", institution="Demo Hospital"),
        database=DatabaseConfig(url=SecretStr(f"sqlite:///{root / 'pacsbridge.db'}")),
        accounts=AccountsConfig(
            jwt_secret=SecretStr(secrets.token_hex(32)),
            static_users=(StaticUser(email=_ADMIN, password_hash=SecretStr(password_hash), role="admin"),),
        ),
    )
    await serve(config, on_start=lambda: _show(config, patients, password))


def _show(config: Config, patients: Sequence[SamplePatient], password: str) -> None:
    url = config.server.public_url
    print(
        f"\nThe PACS {config.pacs.ae_title} listens on port {config.pacs.port}. A disc of each sample patient:\n"
    )
    for patient in patients:
        numbers = ",".join(patient.accession_numbers)
        several = len(patient.accession_numbers) > 1
        link = (
            f"download-multiple?accession_numbers={numbers}"
            if several
            else f"download?accession_number={numbers}"
        )
        print(f"  {url}/api/iso/{link}\n      {patient.shows}")
    number = patients[0].accession_numbers[0]
    numbers = next(",".join(p.accession_numbers) for p in patients if len(p.accession_numbers) > 1)
    print("\nPages:\n")
    for path, what in (
        ("/discs", "the desk: make discs, watch them"),
        (f"/discs?accession_number={number}", "the same, as a link in the HIS opens it"),
        ("/admin", f"users and their studies; sign in as {_ADMIN} with {password}"),
        ("/api/docs", "the API"),
        ("/api/health", "health"),
    ):
        print(f"  {url}{path}\n      {what}")
    print("\nOr from another shell:\n")
    body = f'{{"kind": "iso", "accession_numbers": ["{number}"]}}'
    for line in (
        f"curl -OJ '{url}/api/iso/download?accession_number={number}'",
        f"curl -OJ '{url}/api/iso/download-multiple?accession_numbers={numbers}'",
        f"curl -OJ '{url}/mkiso.php?accession_number={number}'",
        f"curl -s '{url}/api/iso/download?accession_number=NOSUCH'",
        f"curl -s '{url}/api/jobs' -H 'Content-Type: application/json' -d '{body}'",
        f"curl -s '{url}/api/jobs'",
        f"curl -s '{url}/api/health'",
    ):
        print(f"  {line}")
    print("\nCtrl-C ends it.", flush=True)


def _free_ports(count: int) -> list[int]:
    """Find TCP ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((_HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()

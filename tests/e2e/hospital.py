"""The service with everything switched on: a PACS, a publisher, a DICOMweb server, accounts, an API key."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.accounts.examples import HASHER, PASSWORD, SECRET
from tests.e2e.service import Service, make_config, running
from tests.peers import HOST, free_port
from tests.studies import Patient, make_study

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from pacsbridge.accounts.values import Role
    from pacsbridge.config import Config
    from tests.misbehaving import MisbehavingPacs

API_KEY = "the-key-of-the-his"
#: Two studies of one patient, and one of another.
NUMBERS = ("CT1001", "CT1002", "MR2001")
_ROLES = ("patient", "doctor", "staff", "admin")


def email_of(role: Role | str) -> str:
    """Name the account of a role; its password is `PASSWORD`."""
    return f"{role}@hospital.example"


def make_hospital(tmp_path: Path, make_pacs: Callable[..., MisbehavingPacs]) -> tuple[Config, dict[str, str]]:
    """Make the configuration, and the studies by accession number."""
    folder = tmp_path / "pacs"
    made = [make_study(folder, number, instances=2, size=16) for number in NUMBERS[:2]]
    made.append(
        make_study(folder, NUMBERS[2], instances=2, size=16, patient=Patient("OTHER", "Other^Person"))
    )
    pacs = make_pacs(folder=folder)
    studies = {study.AccessionNumber: study.StudyInstanceUID for study in made}
    users = [
        {"email": email_of(role), "password_hash": HASHER.hash(PASSWORD), "role": role}
        | {"study_iuids": [studies[NUMBERS[0]]]}
        for role in _ROLES
    ]
    port, upstream = free_port(), free_port()
    config = make_config(
        tmp_path,
        pacs,
        server={
            "host": HOST,
            "port": port,
            "public_url": f"http://{HOST}:{port}",
            "shutdown_timeout_seconds": 2,
            "trusted_proxies": [HOST],
            "read_timeout_seconds": 5,
        },
        publisher={"host": HOST, "port": pacs.port},
        auth={"enabled": True, "api_key": API_KEY},
        accounts={"jwt_secret": SECRET, "registration": "patients", "static_users": users},
        dicomweb={"upstream": "dicomweb", "url": f"http://{HOST}:{upstream}/dicom-web"},
    )
    return config, studies


@asynccontextmanager
async def running_hospital(config: Config, studies: dict[str, str]) -> AsyncIterator[Service]:
    """Run the service and the DICOMweb server behind it."""
    async with (
        _archive(int(config.dicomweb.url.rpartition(":")[2].partition("/")[0]), studies),
        running(config) as service,
    ):
        yield service


@asynccontextmanager
async def _archive(port: int, studies: dict[str, str]) -> AsyncIterator[None]:
    """Answer searches for studies, and nothing else."""

    async def search(_request: web.Request) -> web.Response:
        rows = [_row(number, uid) for number, uid in studies.items()]
        return web.json_response(rows, content_type="application/dicom+json")

    app = web.Application()
    app.router.add_get("/dicom-web/studies", search)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        yield
    finally:
        await runner.cleanup()


def _row(number: str, uid: str) -> dict[str, Any]:
    """A study as QIDO-RS tells it (PS3.18, F.2)."""
    return {
        "00080050": {"vr": "SH", "Value": [number]},
        "0020000D": {"vr": "UI", "Value": [uid]},
        "00080090": {"vr": "PN", "Value": [{"Alphabetic": "Smith^Jane"}]},
    }

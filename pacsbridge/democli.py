"""``pacsbridge demo``: an embedded PACS with sample patients, the service in front of it, and links that work."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import SecretStr

from pacsbridge.accounts.audit import Actor
from pacsbridge.accounts.passwords import Passwords
from pacsbridge.accounts.shortlinks import LinkRequest
from pacsbridge.accounts.values import Caller, Grants
from pacsbridge.app import serve
from pacsbridge.config import (
    ENV_PREFIX,
    AccountsConfig,
    Config,
    ConfigError,
    DatabaseConfig,
    DicomwebConfig,
    MediaConfig,
    PacsConfig,
    ScpPort,
    ServerConfig,
    StaticUser,
    StorageScpConfig,
)
from pacsbridge.demo.dicomweb import running_dicomweb_server
from pacsbridge.demo.pacs import DemoPacs
from pacsbridge.demo.patients import write_sample_patients
from pacsbridge.logs import set_up_logging

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacsbridge.demo.patients import SamplePatient
    from pacsbridge.http.services import Services

_HOST = "127.0.0.1"
_ADMIN, _DOCTOR, _STAFF, _PATIENT = (f"{who}@demo.example" for who in ("admin", "doctor", "staff", "patient"))
#: Where scripts/get-ohif puts it, seen from the folder that the demo is started in.
_OHIF = Path("ohif")
_INDEX = "index.html"
_OHIF_VARIABLE = f"{ENV_PREFIX}DICOMWEB__OHIF_DIR"


@dataclass(frozen=True, slots=True)
class _Demo:
    """A demo, before it runs."""

    root: Path
    pacs: DemoPacs
    pool: tuple[ScpPort, ...]
    port: int
    patients: Sequence[SamplePatient]
    ohif_dir: str
    password: str

    @property
    def with_two_studies(self) -> SamplePatient:
        """The patient who has a link, and an account."""
        return next(one for one in self.patients if len(one.accession_numbers) > 1)


def run_demo(port: int, ohif_dir: str = "") -> int:
    """Run the demo until it is stopped; everything that it writes goes with it.

    Parameters
    ----------
    port
        The HTTP port.
    ohif_dir
        A built OHIF; else what the environment names, else ``./ohif`` where there is one.

    Raises
    ------
    ConfigError
        The folder that was named holds no viewer.
    """
    set_up_logging(ServerConfig(log_level="error"))
    ohif = _find_ohif(ohif_dir)
    with tempfile.TemporaryDirectory(prefix="pacsbridge-demo-") as folder:
        root = Path(folder)
        print("Drawing the sample patients ...", flush=True)
        patients = write_sample_patients(root / "pacs")
        first, second = _free_ports(2)
        pool = (ScpPort(port=first, ae_title="CDRECORD"), ScpPort(port=second, ae_title="CDRECORD2"))
        destinations = {entry.ae_title: (_HOST, entry.port) for entry in pool}
        with DemoPacs(root / "pacs", destinations=destinations) as pacs:
            asyncio.run(_serve(_Demo(root, pacs, pool, port, patients, ohif, secrets.token_urlsafe(9))))
    return 0


def _find_ohif(named: str) -> str:
    named = named or os.environ.get(_OHIF_VARIABLE, "")
    if named and not Path(named, _INDEX).is_file():
        raise ConfigError(f"{named} holds no {_INDEX}; get OHIF with scripts/get-ohif")
    return named or (str(_OHIF) if (_OHIF / _INDEX).is_file() else "")


async def _serve(demo: _Demo) -> None:
    async with running_dicomweb_server(demo.pacs.index) as dicomweb:
        config = _config(demo, dicomweb, await _hash(demo.password))

        async def started(services: Services) -> None:
            link = await _patient_link(services, demo.with_two_studies) if demo.ohif_dir else ""
            _show(demo, config.server.public_url, link)

        await serve(config, on_start=started)


async def _hash(password: str) -> SecretStr:
    passwords = Passwords()
    try:
        return SecretStr(await passwords.hash(password))
    finally:
        passwords.close()


def _config(demo: _Demo, dicomweb: str, password_hash: SecretStr) -> Config:
    own = demo.with_two_studies.StudyInstanceUIDs
    users = (
        StaticUser(email=_ADMIN, password_hash=password_hash, role="admin"),
        StaticUser(email=_DOCTOR, password_hash=password_hash, role="doctor"),
        StaticUser(email=_STAFF, password_hash=password_hash, role="staff"),
        StaticUser(email=_PATIENT, password_hash=password_hash, role="patient", study_iuids=own),
    )
    return Config(
        server=ServerConfig(
            host=_HOST,
            port=demo.port,
            public_url=f"http://localhost:{demo.port}",
            log_level="error",
            shutdown_timeout_seconds=5,
        ),
        pacs=PacsConfig(ae_title=demo.pacs.ae_title, host=_HOST, port=demo.pacs.port),
        storage_scp=StorageScpConfig(host=_HOST, ports=demo.pool),
        media=MediaConfig(spool_dir=demo.root / "spool", institution="Demo Hospital"),
        database=DatabaseConfig(url=SecretStr(f"sqlite:///{demo.root / 'pacsbridge.db'}")),
        accounts=AccountsConfig(jwt_secret=SecretStr(secrets.token_hex(32)), static_users=users),
        dicomweb=DicomwebConfig(upstream="dicomweb", url=dicomweb, ohif_dir=demo.ohif_dir),
    )


async def _patient_link(services: Services, patient: SamplePatient) -> str:
    """Make a short link, as the HIS does over the API."""
    if services.accounts is None:
        raise RuntimeError("the demo has accounts")
    asked = LinkRequest("demo", Grants(patient.StudyInstanceUIDs), patient.PatientName)
    link, _ = await services.accounts.links.put(asked, Actor("shell", "", Caller(_HOST)))
    return f"{services.config.server.public_url}/s/{link.code}"


def _show(demo: _Demo, url: str, link: str) -> None:
    print(
        f"\nThe PACS {demo.pacs.ae_title} listens on port {demo.pacs.port}. A disc of each sample patient:\n"
    )
    for patient in demo.patients:
        numbers = ",".join(patient.accession_numbers)
        several = len(patient.accession_numbers) > 1
        path = (
            f"download-multiple?accession_numbers={numbers}"
            if several
            else f"download?accession_number={numbers}"
        )
        print(f"  {url}/api/iso/{path}\n      {patient.shows}")
    print("\nPages:\n")
    number = demo.patients[0].accession_numbers[0]
    for path, what in (
        ("/discs", "the desk: make discs, watch them"),
        (f"/discs?accession_number={number}", "the same, as a link in the HIS opens it"),
        ("/admin", f"users and their studies; sign in as {_ADMIN}"),
        ("/api/docs", "the API"),
        ("/api/health", "health"),
    ):
        print(f"  {url}{path}\n      {what}")
    _show_viewing(demo, url, link)
    _show_commands(demo, url)
    print("\nCtrl-C ends it.", flush=True)


def _show_viewing(demo: _Demo, url: str, link: str) -> None:
    print(f"\nImages; the password of {_DOCTOR}, {_PATIENT}, {_STAFF} and {_ADMIN} is {demo.password}:\n")
    if demo.ohif_dir:
        study = quote(f"/viewer?StudyInstanceUIDs={demo.patients[0].StudyInstanceUIDs[0]}", safe="")
        for address, what in (
            (link, f"a patient's short link, no sign-in: {demo.with_two_studies.shows}"),
            (f"{url}/login?next={study}", f"a study in OHIF; sign in as {_DOCTOR}"),
            (f"{url}/login", "the study list, for the doctor; for the patient their own studies"),
        ):
            print(f"  {address}\n      {what}")
    else:
        print("  OHIF is not here: scripts/get-ohif puts it into ./ohif; then start the demo again.")
    print(f"  {url}/dicomWeb/studies\n      DICOMweb, for whoever has signed in at {url}/login")


def _show_commands(demo: _Demo, url: str) -> None:
    print("\nOr from another shell:\n")
    number, other = (patient.accession_numbers[0] for patient in demo.patients[:2])
    numbers = ",".join(demo.with_two_studies.accession_numbers)
    body = f'{{"kind": "iso", "accession_numbers": ["{number}"]}}'
    json_type = "-H 'Content-Type: application/json'"
    who = f'{{"email": "{_DOCTOR}", "password": "{demo.password}"}}'
    take = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"access_token\"])'"
    for line in (
        f"curl -OJ '{url}/api/iso/download?accession_number={number}'",
        f"curl -OJ '{url}/api/iso/download-multiple?accession_numbers={numbers}'",
        f"curl -OJ '{url}/mkiso.php?accession_number={other}'",
        f"curl -s '{url}/api/iso/download?accession_number=NOSUCH'",
        f"curl -s '{url}/api/jobs' {json_type} -d '{body}'",
        f"curl -s '{url}/api/jobs'",
        f"curl -s '{url}/api/health'",
        f"TOKEN=$(curl -s '{url}/auth/login' {json_type} -d '{who}' | {take})",
        f"curl -s '{url}/dicomWeb/studies' -H \"Authorization: Bearer $TOKEN\"",
    ):
        print(f"  {line}")


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

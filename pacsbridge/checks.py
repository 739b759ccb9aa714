"""Is everything there that a disc needs? Asked by health, readiness and ``pacsbridge check``."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pydicom import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import text

from pacsbridge.config import ConfigError
from pacsbridge.db import Database
from pacsbridge.dimse.move import Final, NoAssociation
from pacsbridge.dimse.mover import mover
from pacsbridge.dimse.query import ask
from pacsbridge.dimse.retrieve import MOVE_DESTINATION_UNKNOWN
from pacsbridge.dimse.scp import PortUnavailable, StorageScp
from pacsbridge.dimse.scu import VERIFICATION, Peer, Scu
from pacsbridge.dimse.tls import ClientTls, own_certificate, own_peer
from pacsbridge.dimse.wire import TlsFailure
from pacsbridge.errors import PacsbridgeError
from pacsbridge.his.patients import PatientApiFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from pacsbridge.config import Config, ScpPort, ServerTlsConfig
    from pacsbridge.his.patients import PatientApi

Status = Literal["ok", "failed", "off"]
#: A report is made anew when it is asked for at this age; the one who asks gets the old one meanwhile ...
_FRESH_SECONDS = 5.0
#: ... unless it is as old as this.
_OLD_SECONDS = 15.0
#: No probe of health takes longer.
_PROBE_SECONDS = 5.0
#: Below this much free space the spool can't take a study.
_LEAST_FREE_BYTES = 200_000_000
#: What must work before discs can be made; the rest only degrades.
_REQUIRED = frozenset({"pacs", "storage_scp", "destination", "spool"})
#: Addresses to listen on that are none to connect to.
_WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not listened on
#: No study has it: what is looked for to see whether the PACS answers queries.
_NO_NUMBER = "PACSBRIDGE-CHECK"


@dataclass(frozen=True, slots=True)
class Check:
    """One dependency: how it is, and a line for the engineer."""

    name: str
    status: Status
    detail: str

    @property
    def required(self) -> bool:
        """Whether no disc can be made without it."""
        return self.name.split(" ")[0] in _REQUIRED


@dataclass(frozen=True, slots=True)
class Report:
    """All dependencies at one moment."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        return all(check.status != "failed" for check in self.checks)

    @property
    def ready(self) -> bool:
        """Whether discs can be made."""
        return all(check.status != "failed" for check in self.checks if check.required)


class ProbeFailed(Exception):
    """A dependency is not as it should be; the message is a line for the engineer."""


class Checks:
    """Probes every dependency, at most every few seconds however often it is asked.

    Whoever asks often waits for no probe: a load balancer's look must not depend on how quick the PACS is.

    Parameters
    ----------
    probes
        For each name a coroutine function: it returns a detail, or None where the feature is off, and raises
        ProbeFailed or PacsbridgeError.
    """

    def __init__(self, probes: Mapping[str, Callable[[], Awaitable[str | None]]]) -> None:
        self._probes = dict(probes)
        self._report: Report | None = None
        self._made_at = 0.0
        self._making: asyncio.Task[Report] | None = None

    async def report(self) -> Report:
        """Return a report that is some seconds old at most."""
        age = time.monotonic() - self._made_at
        if self._report is not None and age <= _FRESH_SECONDS:
            return self._report
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._make())
        if self._report is not None and age <= _OLD_SECONDS:
            return self._report
        # Others wait for the same one, so that whoever leaves must not cancel it.
        return await asyncio.shield(self._making)

    async def close(self) -> None:
        """Ask nothing any more."""
        if self._making is not None:
            self._making.cancel()
            await asyncio.gather(self._making, return_exceptions=True)

    async def _make(self) -> Report:
        checks = await asyncio.gather(*(self._probe(name) for name in self._probes))
        self._report, self._made_at = Report(tuple(checks)), time.monotonic()
        return self._report

    async def _probe(self, name: str) -> Check:
        return await probe(name, self._probes[name])


async def probe(name: str, ask: Callable[[], Awaitable[str | None]]) -> Check:
    """Run one probe, and tell what came of it."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            detail = await ask()
    except TimeoutError:
        return Check(name, "failed", f"no answer within {_PROBE_SECONDS:g} s")
    except (ProbeFailed, PacsbridgeError, ConfigError) as error:
        return Check(name, "failed", str(error))
    return Check(name, "off", "not configured") if detail is None else Check(name, "ok", detail)


async def probe_pacs(config: Config) -> str:
    """Send C-ECHO to the PACS (PS3.4, Annex A)."""
    peer = Peer.pacs(config.pacs)
    await _echo(peer)
    return f"{peer} answers"


async def probe_query(config: Config) -> str:
    """Ask the PACS for an accession number that it can't have (PS3.4, C.4.1)."""
    peer = _bounded(Peer.pacs(config.pacs))
    await ask(peer, lambda query: query.find_studies(_NO_NUMBER))
    return f"{peer} answers queries"


async def probe_database(url: str) -> str:
    """Connect to the database."""
    database = Database(url)
    try:
        async with database.session() as connection:
            await connection.execute(text("SELECT 1"))
    finally:
        await database.close()
    return "answers"


async def probe_publisher(config: Config) -> str | None:
    """Send C-ECHO to the CD publisher."""
    publisher = config.publisher
    if not publisher.host:
        return None
    peer = Peer.publisher(publisher, config.pacs.calling_ae_title)
    try:
        await _echo(peer)
    except PacsbridgeError as error:
        raise ProbeFailed(
            error.message.replace("The PACS", "The publisher").replace("pacs.", "publisher.")
        ) from None
    return f"{peer} answers"


async def probe_spool(config: Config) -> str:
    """Write to the spool and look at the room that is left."""
    return await asyncio.to_thread(_look_at_spool, config)


async def probe_patient_api(patients: PatientApi) -> str | None:
    """Ask the patient-data API once."""
    if not patients.enabled:
        return None
    try:
        await patients.check()
    except PatientApiFailure as error:
        raise ProbeFailed(
            f"{error.message}; check patient_api.base_url and patient_api.api_key. Discs are named by the images"
        ) from None
    return "answers"


async def probe_port(config: Config, port: ScpPort) -> str:
    """Bind a port of the pool, or find the service that already listens there."""
    own = config.storage_scp.model_copy(update={"ports": (port,)})
    secured = await asyncio.to_thread(_try_certificate, own.tls) if own.tls.enabled else ""
    scp = StorageScp(own)
    try:
        await asyncio.to_thread(scp.start)
    except PortUnavailable as error:
        host = "127.0.0.1" if config.storage_scp.host in _WILDCARDS else config.storage_scp.host
        peer = replace(Peer.pacs(config.pacs), host=host, port=port.port, ae_title=port.ae_title)
        try:
            await _echo(replace(peer, tls=ClientTls.of(own_peer(own.tls), host)))
        except PacsbridgeError:
            raise ProbeFailed(str(error)) from None
        return f"a Storage SCP listens on port {port.port} already (a running pacsbridge?){secured}"
    await asyncio.to_thread(scp.stop)
    return f"port {port.port} can be bound{secured}"


async def probe_destination(config: Config, port: ScpPort) -> str | None:
    """Find out whether the PACS knows a destination: ask it to move a study that does not exist."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = generate_uid()

    association = mover(_bounded(Peer.pacs(config.pacs, fast=config.dimse.fast)))

    def move() -> Final | None:
        try:
            association.open()
        except NoAssociation as refused:
            raise refused.error from refused
        try:
            return association.move(identifier, port.ae_title)
        finally:
            association.close()

    try:
        final = await asyncio.to_thread(move)
    finally:
        association.abort()  # when nobody waits for it any more
    status = final.status if final else None
    if status == MOVE_DESTINATION_UNKNOWN:
        raise ProbeFailed(
            f"the PACS does not know it; register there AE title {port.ae_title}, this machine's address, "
            f"port {port.port}"
        )
    if status == 0:
        return "the PACS knows it"
    return (
        f"the PACS does not say whether it knows it: see there that AE title {port.ae_title} leads to this "
        f"machine's address, port {port.port}"
    )


def _try_certificate(tls: ServerTlsConfig) -> str:
    try:
        return f"; TLS, the certificate is valid until {own_certificate(tls)}"
    except TlsFailure as problem:
        raise ProbeFailed(f"{problem}; renew storage_scp.tls.certificate_path") from None


async def _echo(peer: Peer) -> None:
    def echo() -> None:
        with Scu(_bounded(peer), VERIFICATION) as scu:
            scu.echo()

    await asyncio.to_thread(echo)


def _bounded(peer: Peer) -> Peer:
    seconds = _PROBE_SECONDS - 1
    return replace(
        peer,
        connect_timeout_seconds=min(peer.connect_timeout_seconds, seconds),
        response_timeout_seconds=min(peer.response_timeout_seconds, seconds),
    )


def _look_at_spool(config: Config) -> str:
    root = config.media.spool_dir
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as file:
            file.write(b"pacsbridge")
        free = shutil.disk_usage(root).free
    except OSError as error:
        raise ProbeFailed(f"{root} can't be written ({error.strerror}); check media.spool_dir") from None
    if free < _LEAST_FREE_BYTES:
        raise ProbeFailed(f"{root} has {free / 1e6:,.0f} MB free only; make room or move media.spool_dir")
    return f"{free / 1e9:,.1f} GB free"

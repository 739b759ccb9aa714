"""What the handlers call: put together by the application, found under one key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from pacsbridge.accounts.policy import AccessPolicy

if TYPE_CHECKING:
    import asyncio

    from pacsbridge.accounts.catalog import StudyCatalog
    from pacsbridge.accounts.service import Accounts
    from pacsbridge.checks import Checks
    from pacsbridge.config import Config
    from pacsbridge.dicomweb.service import Dicomweb
    from pacsbridge.dicomweb.trail import StudyTrail
    from pacsbridge.dimse.pool import PortPool
    from pacsbridge.dimse.scp import StorageScp
    from pacsbridge.his.patients import PatientApi
    from pacsbridge.jobs.engine import Engine
    from pacsbridge.jobs.spool import Spool


@dataclass(frozen=True, slots=True)
class Works:
    """What makes discs and prints."""

    engine: Engine
    pool: PortPool
    scp: StorageScp
    spool: Spool


@dataclass(slots=True)
class Services:
    """The parts of the running service; `draining` once it is about to end, `handling` what it still does."""

    config: Config
    works: Works
    patients: PatientApi
    checks: Checks
    accounts: Accounts | None = None
    catalog: StudyCatalog | None = None
    dicomweb: Dicomweb | None = None
    study_trail: StudyTrail | None = None
    policy: AccessPolicy = field(default_factory=AccessPolicy)
    draining: bool = False
    handling: set[asyncio.Future[Any]] = field(default_factory=set)

    @property
    def engine(self) -> Engine:
        """The engine of jobs."""
        return self.works.engine


SERVICES: web.AppKey[Services] = web.AppKey("services")

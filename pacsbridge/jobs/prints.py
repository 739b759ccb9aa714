"""The way of a print: accession numbers, studies, instances, one order at the CD publisher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from pacsbridge.errors import NotConfigured

if TYPE_CHECKING:
    from pacsbridge.config import Config
    from pacsbridge.jobs.job import Job
    from pacsbridge.jobs.receive import Receiving
    from pacsbridge.jobs.spool import Spool

log = structlog.get_logger(__name__)


class Printer:
    """Sends the studies of jobs to the CD publisher."""

    def __init__(self, config: Config, receiving: Receiving, spool: Spool) -> None:
        self._publisher = config.publisher
        self._receiving = receiving
        self._spool = spool

    async def send(self, job: Job) -> None:
        if not self._publisher.host:
            raise NotConfigured("There is no CD publisher here. Set publisher.host to print.")
        raise NotConfigured("not yet")

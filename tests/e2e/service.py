"""The whole service in this process, on free ports, in front of a PACS of the tests."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from pacsbridge.app import running_server, running_services
from pacsbridge.config import Config
from pacsbridge.jobs.job import Kind
from tests.peers import HOST, free_port
from tests.ways import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from pacsbridge.http.services import Services
    from pacsbridge.jobs.shelf import KeptDisc


@dataclass
class Service:
    """A running pacsbridge."""

    url: str
    config: Config
    services: Services
    session: aiohttp.ClientSession

    @property
    def spool(self) -> Path:
        return self.config.media.spool_dir

    def spooled(self) -> list[Path]:
        """What is in the spool."""
        return list(self.spool.rglob("*"))

    @asynccontextmanager
    async def disc(self, *numbers: str) -> AsyncIterator[KeptDisc]:
        """Make a disc by the engine, and hold it."""
        engine = self.services.engine
        async with engine.disc(engine.submit(Kind.ISO, numbers)) as kept:
            yield kept

    async def get(self, path: str, **parameters: Any) -> tuple[int, Mapping[str, str], bytes]:
        """Ask, and give status, headers and body."""
        headers = parameters.pop("headers", {})
        async with self.session.get(self.url + path, params=parameters, headers=headers) as response:
            return response.status, response.headers, await response.read()

    async def error(self, path: str, **parameters: Any) -> tuple[int, str]:
        """Ask for something that fails, and give status and code."""
        async with self.session.get(self.url + path, params=parameters) as response:
            body = await response.json()
            assert set(body) == {"error"}
            assert set(body["error"]) == {"code", "message", "request_id"}
            assert body["error"]["request_id"] == response.headers["X-Request-ID"]
            return response.status, body["error"]["code"]

    async def wait_until_idle(self) -> None:
        """Wait until no job is unfinished."""
        async with asyncio.timeout(20):
            while any(not job.state.final for job in self.services.engine.jobs):
                await asyncio.sleep(0.05)


def make_config(tmp_path: Path, pacs: Any, /, *, ports: int = 2, **sections: Any) -> Config:
    """Make a configuration for `pacs` (`port` or `dicom_port`, `ae_title`), and tell it the destinations."""
    pool = [{"port": free_port(), "ae_title": f"CDRECORD{number}"} for number in range(1, ports + 1)]
    values: dict[str, Any] = {
        "server": {"host": HOST, "port": 0, "shutdown_timeout_seconds": 2},
        "pacs": {
            "ae_title": pacs.ae_title,
            "host": HOST,
            "port": getattr(pacs, "dicom_port", None) or pacs.port,
            "connect_timeout_seconds": 2,
            "response_timeout_seconds": 3,
        },
        "storage_scp": {"host": HOST, "ports": pool},
        "media": {"spool_dir": str(tmp_path / "spool")},
        "dimse": {"fast": FAST},
        "database": {"url": f"sqlite:///{tmp_path / 'pacsbridge.db'}"},
    }
    for section, keys in sections.items():
        values[section] = values.get(section, {}) | keys
    tell_destinations(pacs, values["storage_scp"]["ports"])
    return Config.model_validate(values)


def tell_destinations(pacs: Any, pool: list[dict[str, Any]]) -> None:
    """Register the pool's AE titles at the PACS."""
    for port in pool:
        if hasattr(pacs, "set_destination"):
            pacs.set_destination(port["ae_title"], port["port"])
        elif hasattr(pacs, "destinations"):
            pacs.destinations[port["ae_title"]] = (HOST, port["port"])


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Service]:
    """Run the service."""
    async with running_services(config) as services, running_server(services) as port:
        timeout = aiohttp.ClientTimeout(total=90)
        connector = aiohttp.TCPConnector(limit=100)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            yield Service(f"http://{HOST}:{port}", config, services, session)

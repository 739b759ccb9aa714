"""``/metrics`` for Prometheus: the counters of all rooms, and what is the case at this moment."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector

from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from pacsbridge.http.services import Services


def add_routes(app: web.Application) -> None:
    """Add the route of this module."""
    app.router.add_get("/metrics", _metrics)


async def _metrics(request: web.Request) -> web.Response:
    """Answer with everything that is measured."""
    now = CollectorRegistry()
    now.register(_Now(request.app[SERVICES]))
    body = generate_latest(REGISTRY) + generate_latest(now)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"})


class _Now(Collector):
    """What is the case at this moment: read when it is asked for, so that it can't drift."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        works = self._services.works
        jobs = GaugeMetricFamily("pacsbridge_jobs", "Jobs that are remembered", labels=["kind", "state"])
        for (kind, state), count in Counter((job.kind, job.state) for job in works.engine.jobs).items():
            jobs.add_metric([kind, state], count)
        yield jobs
        for name, told, value in (
            ("pacsbridge_port_leases", "Ports of the pool that a job holds", works.pool.in_use),
            ("pacsbridge_port_waiting", "Jobs that wait for a port", works.pool.waiting),
            ("pacsbridge_spool_bytes", "Bytes that the spool holds", works.spool.used),
            ("pacsbridge_spool_max_bytes", "The bound of the spool", works.spool.max_bytes),
        ):
            yield GaugeMetricFamily(name, told, value=value)

"""Health and readiness: ``/api/health``, ``/api/ready``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from pacsbridge import __version__
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from pacsbridge.checks import Report


def add_routes(app: web.Application) -> None:
    """Add the routes of this module."""
    app.router.add_get("/api/health", _health)
    app.router.add_get("/api/ready", _ready)


async def _health(request: web.Request) -> web.Response:
    """Answer 200 always, and say what is missing."""
    return web.json_response(_body(await request.app[SERVICES].checks.report()))


async def _ready(request: web.Request) -> web.Response:
    """Answer 503 when discs can't be made now."""
    services = request.app[SERVICES]
    report = await services.checks.report()
    ready = report.ready and not services.draining
    return web.json_response(_body(report), status=200 if ready else 503)


def _body(report: Report) -> dict[str, Any]:
    return {
        "status": "ok" if report.ok else "degraded",
        "version": __version__,
        "checks": {check.name: {"status": check.status, "detail": check.detail} for check in report.checks},
    }

"""Jobs: ``/api/jobs`` and all below it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Literal

from aiohttp import web
from aiohttp_sse import sse_response
from pydantic import BaseModel, ConfigDict, ValidationError

from pacsbridge.errors import Forbidden, InvalidParameter, NotFound
from pacsbridge.http.access import CALLER, guarded
from pacsbridge.http.bodies import json_object
from pacsbridge.http.discs import answer_with_image
from pacsbridge.http.links import Purpose
from pacsbridge.http.parameters import distinct_accession_numbers
from pacsbridge.http.services import SERVICES
from pacsbridge.jobs.job import Job, Kind, State

if TYPE_CHECKING:
    from datetime import datetime

    from pacsbridge.http.services import Services

#: Watchers are told at most this often.
_LOOK_SECONDS = 0.3
#: How long a cancelled job is waited for before it is shown.
_CANCEL_SECONDS = 10.0
_LISTED = 100


class NewJob(BaseModel):
    """The body of ``POST /api/jobs``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["iso", "print"]
    accession_numbers: list[str]
    again: bool = False


def add_routes(app: web.Application) -> None:
    """Add the routes of this module."""
    for method, path, handler in (
        ("POST", "/api/jobs", _create),
        ("GET", "/api/jobs", _list),
        ("GET", "/api/jobs/{id}", _show),
        ("DELETE", "/api/jobs/{id}", _cancel),
        ("POST", "/api/jobs/{id}/again", _again),
        ("GET", "/api/jobs/{id}/events", _events),
        ("GET", "/api/jobs/{id}/iso", _iso),
    ):
        app.router.add_route(method, path, guarded(handler, Purpose.DESK))
    app.router.add_route("HEAD", "/api/jobs/{id}/iso", guarded(_iso, Purpose.DESK))


def describe(job: Job, public_url: str) -> dict[str, Any]:
    """Describe a job as the contract does."""
    counts = job.look()
    link = f"{public_url}/api/jobs/{job.id}"
    links = {"self": link, "events": f"{link}/events"}
    if job.disc is not None and not job.disc.gone:
        links["iso"] = f"{link}/iso"
    if job.state.final:
        links["again"] = f"{link}/again"
    return {
        "id": job.id,
        "kind": job.kind,
        "accession_numbers": list(job.accession_numbers),
        "state": job.state,
        "stage": job.stage,
        "place": job.place,
        "progress": round(job.progress, 4),
        "instances": {
            "expected": counts.expected,
            "received": counts.received,
            "sent": counts.sent,
            "failed": counts.failed,
        },
        "bytes": counts.bytes,
        "error": {"code": job.error.code, "message": job.error.message} if job.error else None,
        "notes": list(job.notes),
        "created_at": _moment(job.created_at),
        "finished_at": _moment(job.finished_at),
        "links": links,
    }


async def _create(request: web.Request) -> web.Response:
    """Start a job, or join the same work."""
    services = request.app[SERVICES]
    try:
        wanted = NewJob.model_validate(await json_object(request))
    except ValidationError as error:
        raise InvalidParameter(_mistake(error)) from None
    numbers = distinct_accession_numbers(wanted.accession_numbers, "accession_numbers")
    caller = request[CALLER]
    caller.require(numbers)
    job = services.engine.submit(
        Kind(wanted.kind), numbers, keep=True, again=wanted.again, requested_by=caller.name
    )
    return _accepted(services, job)


async def _list(request: web.Request) -> web.Response:
    """List the jobs that the caller may see, newest first."""
    services, caller = request.app[SERVICES], request[CALLER]
    url = services.config.server.public_url
    seen = [job for job in reversed(list(services.engine.jobs)) if caller.may(job.accession_numbers)]
    return _json({"jobs": [describe(job, url) for job in seen[:_LISTED]]})


async def _show(request: web.Request) -> web.Response:
    """Show a job."""
    return _json(describe(_job(request), request.app[SERVICES].config.server.public_url))


async def _cancel(request: web.Request) -> web.Response:
    """Cancel a job, and show how it ended; one that has ended stays as it is."""
    services, job = request.app[SERVICES], _job(request)
    services.engine.cancel(job)
    try:
        async with asyncio.timeout(_CANCEL_SECONDS):
            await job.finished.wait()
    except TimeoutError:
        pass
    return _json(describe(job, services.config.server.public_url))


async def _again(request: web.Request) -> web.Response:
    """Run an ended job again; a print then is a second order."""
    services, job = request.app[SERVICES], _job(request)
    if not job.state.final:
        raise InvalidParameter("This job has not ended yet.")
    new = services.engine.submit(
        job.kind, job.accession_numbers, keep=True, again=True, requested_by=request[CALLER].name
    )
    return _accepted(services, new)


async def _events(request: web.Request) -> web.StreamResponse:
    """Tell every change of a job as server-sent events, and end with its final state.

    Every event is the whole job as it is then, so that a slow or returning reader misses nothing that matters:
    it is told the present, not the past. The event's id stands for what was told; a reader that returns with it
    in ``Last-Event-ID`` hears of the next change.
    """
    services, job = request.app[SERVICES], _job(request)
    url, patience = services.config.server.public_url, services.config.server.write_timeout_seconds
    told = request.headers.get("Last-Event-ID", "")
    async with sse_response(request, headers={"X-Accel-Buffering": "no"}) as stream:
        while not services.draining:
            final = job.state.final
            text = json.dumps(describe(job, url))
            event_id = _event_id(job)
            if event_id != told or final:
                async with asyncio.timeout(patience):
                    await stream.send(text, event="job", id=event_id)
                told = event_id
            if final:
                break
            await _until_change(job)
    return stream


async def _iso(request: web.Request) -> web.StreamResponse:
    """Answer with the finished image."""
    job = _job(request)
    if job.kind is not Kind.ISO:
        raise NotFound("This job is a print: it has no image.")
    if job.state is not State.DONE:
        raise NotFound("The image is not there: the job has not ended well.")
    return await answer_with_image(request, job, named_after_patient=len(job.accession_numbers) > 1)


def _job(request: web.Request) -> Job:
    job = request.app[SERVICES].engine.find(request.match_info["id"])
    if not request[CALLER].may(job.accession_numbers):
        raise Forbidden("This link is for other accession numbers.")
    return job


async def _until_change(job: Job) -> None:
    """Wait a moment, less when the job ends."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            await job.finished.wait()
    except TimeoutError:
        return


def _event_id(job: Job) -> str:
    """Name what there is to tell of a job: the same id, nothing new."""
    counts = job.look()
    parts = (job.state, job.stage, job.place or 0, round(job.progress * 10000), counts.received, counts.sent)
    return "-".join(str(part) for part in parts)


def _accepted(services: Services, job: Job) -> web.Response:
    described = describe(job, services.config.server.public_url)
    return _json(described, status=202, headers={"Location": described["links"]["self"]})


def _json(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers={"Cache-Control": "no-store", **(headers or {})})


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else None


def _mistake(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    return f"{path}: {first['msg']}" if path else f"The body must be a JSON object: {first['msg']}"

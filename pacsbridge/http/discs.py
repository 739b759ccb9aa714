"""Discs: ``/api/iso/download``, ``/api/iso/download-multiple``, ``/api/iso/print`` and their PHP paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from pacsbridge.errors import InvalidParameter
from pacsbridge.http.access import CALLER, guarded
from pacsbridge.http.image import send_image
from pacsbridge.http.links import Purpose
from pacsbridge.http.names import ascii_stem, attachment, patient_stem
from pacsbridge.http.parameters import accession_numbers, one_accession_number
from pacsbridge.http.services import SERVICES
from pacsbridge.jobs.job import Kind

if TYPE_CHECKING:
    from pacsbridge.http.services import Services
    from pacsbridge.jobs.job import Job
    from pacsbridge.media.disc import Disc


def add_routes(app: web.Application, *, legacy_php_routes: bool) -> None:
    """Add the routes of this module."""
    download = guarded(_download, Purpose.DOWNLOAD)
    download_multiple = guarded(_download_multiple, Purpose.DOWNLOAD)
    order = guarded(_print, Purpose.PRINT)
    app.router.add_get("/api/iso/download", download)
    app.router.add_get("/api/iso/download-multiple", download_multiple)
    app.router.add_get("/api/iso/print", order, allow_head=False)
    if legacy_php_routes:
        app.router.add_get("/mkiso.php", download)
        app.router.add_get("/mkiso2.php", download)
        app.router.add_get("/mkiso_multiple.php", download_multiple)
        app.router.add_get("/send_rimage_multiple.php", order, allow_head=False)


async def answer_with_image(
    request: web.Request, job: Job, *, named_after_patient: bool
) -> web.StreamResponse:
    """Wait for a job's disc and send it, named after its patient or after its accession number."""
    services = request.app[SERVICES]
    brand_new = not job.state.final
    async with services.engine.disc(job) as kept:
        if named_after_patient:
            disposition = await _named_after_patient(services, job, kept.disc)
        else:
            disposition = attachment(_number_stem(job.accession_numbers[0]), "disc", "iso")
        patience = services.config.server.write_timeout_seconds
        return await send_image(request, kept.disc, disposition, patience, brand_new=brand_new)


async def _download(request: web.Request) -> web.StreamResponse:
    """Answer with the disc of one accession number, named after it."""
    job = _submit(request, (one_accession_number(request.query),))
    return await answer_with_image(request, job, named_after_patient=False)


async def _download_multiple(request: web.Request) -> web.StreamResponse:
    """Answer with one disc of several accession numbers, named after the patient."""
    job = _submit(request, accession_numbers(request.query))
    return await answer_with_image(request, job, named_after_patient=True)


def _submit(request: web.Request, numbers: tuple[str, ...]) -> Job:
    return request.app[SERVICES].engine.submit(Kind.ISO, numbers, requested_by=request[CALLER].name)


async def _print(request: web.Request) -> web.Response:
    """Send the studies to the CD publisher, and answer when it has them.

    The order goes on when the client leaves: half an order would be a wrong disc.
    """
    services = request.app[SERVICES]
    numbers = accession_numbers(request.query, "accession_number")
    job = services.engine.submit(
        Kind.PRINT, numbers, keep=True, again=_flag(request, "again"), requested_by=request[CALLER].name
    )
    await services.engine.run(job)
    return web.json_response(
        {
            "status": "sent",
            "accession_numbers": list(job.accession_numbers),
            "instances": job.counts.received,
            "sent": job.counts.sent,
            "failed": job.counts.failed,
            "publisher": services.config.publisher.ae_title,
            "notes": list(job.notes),
            "job_id": job.id,
        },
        headers={"Cache-Control": "no-store"},
    )


def _flag(request: web.Request, name: str) -> bool:
    value = request.query.get(name, "false").lower()
    if value not in {"true", "false", "1", "0"}:
        raise InvalidParameter(f"{name} is true or false.")
    return value in {"true", "1"}


async def _named_after_patient(services: Services, job: Job, disc: Disc) -> str:
    """Name the disc as the HIS names the patient, else as the images do."""
    first = job.accession_numbers[0]
    patient = await services.patients.patient(first)
    from_images = patient_stem(disc.patient_name)
    stem = (patient_stem(patient.name) if patient else "") or from_images
    return attachment(stem or _number_stem(first), ascii_stem(from_images) or first, "iso")


def _number_stem(number: str) -> str:
    """Keep an accession number as it is where a file name can hold it."""
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in number)

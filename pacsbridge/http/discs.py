"""Discs: ``/api/iso/download``, ``/api/iso/download-multiple`` and their PHP paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacsbridge.http.access import guarded
from pacsbridge.http.image import send_image
from pacsbridge.http.names import attachment, patient_stem
from pacsbridge.http.parameters import accession_numbers, one_accession_number
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from pacsbridge.http.services import Services
    from pacsbridge.media.disc import Disc


def add_routes(app: web.Application, *, legacy_php_routes: bool) -> None:
    """Add the routes of this module."""
    download, download_multiple = guarded(_download), guarded(_download_multiple)
    app.router.add_get("/api/iso/download", download)
    app.router.add_get("/api/iso/download-multiple", download_multiple)
    if legacy_php_routes:
        app.router.add_get("/mkiso.php", download)
        app.router.add_get("/mkiso2.php", download)
        app.router.add_get("/mkiso_multiple.php", download_multiple)


async def _download(request: web.Request) -> web.StreamResponse:
    """Answer with the disc of one accession number, named after it."""
    services = request.app[SERVICES]
    number = one_accession_number(request.query)
    async with services.engine.disc([number]) as (_, kept):
        disposition = attachment(_number_stem(number), "disc", "iso")
        return await send_image(request, kept.disc, disposition, services.config.server.write_timeout_seconds)


async def _download_multiple(request: web.Request) -> web.StreamResponse:
    """Answer with one disc of several accession numbers, named after the patient."""
    services = request.app[SERVICES]
    numbers = accession_numbers(request.query)
    async with services.engine.disc(numbers) as (_, kept):
        disposition = await _named_after_patient(services, numbers, kept.disc)
        return await send_image(request, kept.disc, disposition, services.config.server.write_timeout_seconds)


async def _named_after_patient(services: Services, numbers: Sequence[str], disc: Disc) -> str:
    """Name the disc as the HIS names the patient, else as the images do."""
    patient = await services.patients.patient(numbers[0])
    from_images = patient_stem(disc.patient_name)
    stem = (patient_stem(patient.name) if patient else "") or from_images
    return attachment(stem or _number_stem(numbers[0]), from_images or numbers[0], "iso")


def _number_stem(number: str) -> str:
    """Keep an accession number as it is where a file name can hold it."""
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in number)

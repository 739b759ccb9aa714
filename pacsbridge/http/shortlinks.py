"""Short links: ``/api/shortlinks`` for the HIS, ``/s/{code}`` for the patient."""

from __future__ import annotations

import contextlib
import io
from functools import partial
from typing import TYPE_CHECKING, Any

import segno
from aiohttp import hdrs, web

from pacsbridge.accounts.catalog import studies_of
from pacsbridge.accounts.policy import Action
from pacsbridge.accounts.principals import LINK
from pacsbridge.accounts.shortlinks import DEFAULT_HOURS, LinkRequest
from pacsbridge.accounts.values import valid_grants
from pacsbridge.errors import NotFound
from pacsbridge.http.access import guarded
from pacsbridge.http.bodies import json_object, number, text, texts
from pacsbridge.http.clients import caller_of
from pacsbridge.http.identity import accounts_of, actor_of, principal_of, set_cookie
from pacsbridge.http.pages import page
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from pacsbridge.accounts.shortlinks import ShortLink

_NOT_KEPT = {hdrs.CACHE_CONTROL: "no-store"}
_PRIVATE = {hdrs.CACHE_CONTROL: "no-store", "Referrer-Policy": "no-referrer"}
_guarded = partial(guarded, purpose=None, action=Action.MAKE_LINK)
_QR_SCALE = 8
#: Modules around the code that stay white (ISO/IEC 18004, 6.3.8).
_QR_BORDER = 4


def add_routes(app: web.Application) -> None:
    """Add the routes of this module."""
    app.router.add_post("/api/shortlinks", _guarded(_put))
    app.router.add_get("/api/shortlinks/{code}", _guarded(_get))
    app.router.add_delete("/api/shortlinks/{code}", _guarded(_revoke))
    app.router.add_get("/api/shortlinks/{code}/qr.png", _guarded(_qr_png))
    app.router.add_get("/api/shortlinks/{code}/qr.svg", _guarded(_qr_svg))
    # Not HEAD: programs that only look at a link must not open a session.
    app.router.add_get("/s/{code}", _open, allow_head=False)
    app.router.add_get("/s/{code}/studies", _studies, allow_head=False)


async def _put(request: web.Request) -> web.Response:
    """Create the link of a reference, 201, or update it, 200."""
    links = accounts_of(request).links
    body = await json_object(request)
    asked = LinkRequest(
        reference=text(body, "reference"),
        grants=valid_grants(texts(body, "study_iuids"), texts(body, "accession_numbers")),
        patient_name=text(body, "patient_name", optional=True),
        expires_in_hours=number(body, "expires_in_hours", DEFAULT_HOURS),
    )
    link, created = await links.put(asked, await actor_of(request))
    shown = _shown(request, link)
    headers = _NOT_KEPT | {hdrs.LOCATION: shown["links"]["self"]}
    return web.json_response(shown, status=201 if created else 200, headers=headers)


async def _get(request: web.Request) -> web.Response:
    link = await accounts_of(request).links.get(request.match_info["code"])
    return web.json_response(_shown(request, link), headers=_NOT_KEPT)


async def _revoke(request: web.Request) -> web.Response:
    await accounts_of(request).links.revoke(request.match_info["code"], await actor_of(request))
    return web.Response(status=204, headers=_NOT_KEPT)


async def _qr_png(request: web.Request) -> web.Response:
    return await _qr(request, "png", "image/png")


async def _qr_svg(request: web.Request) -> web.Response:
    return await _qr(request, "svg", "image/svg+xml")


async def _qr(request: web.Request, kind: str, content_type: str) -> web.Response:
    """Draw the link as a QR code (ISO/IEC 18004), for the HIS to print."""
    link = await accounts_of(request).links.get(request.match_info["code"])
    drawing = io.BytesIO()
    code = segno.make_qr(_url(request, link), error="m")
    code.save(drawing, kind=kind, scale=_QR_SCALE, border=_QR_BORDER)
    return web.Response(body=drawing.getvalue(), content_type=content_type, headers=_NOT_KEPT)


async def _open(request: web.Request) -> web.Response:
    """Sign the patient in and lead them to the viewer, with the first study."""
    services = request.app[SERVICES]
    link = await _entered(request)
    found = await studies_of(link.grants, services.catalog)
    viewer = services.config.dicomweb.viewer_url.format(study_iuids=found[0].StudyInstanceUID)
    return web.Response(status=302, headers=_PRIVATE | {hdrs.LOCATION: viewer})


async def _studies(request: web.Request) -> web.Response:
    """Show all studies of the link, each leading to the viewer."""
    services = request.app[SERVICES]
    link = await _entered(request)
    found = await studies_of(link.grants, services.catalog)
    viewer = services.config.dicomweb.viewer_url
    response = page(
        request,
        "studies.html",
        patient_name=link.patient_name.partition("=")[0].replace("^", " ").strip(),
        studies=[(study, viewer.format(study_iuids=study.StudyInstanceUID)) for study in found],
        expires_at=link.expires_at,
    )
    response.headers.update(_PRIVATE)  # the page's address has the code in it
    return response


async def _entered(request: web.Request) -> ShortLink:
    """Sign the patient in, unless their browser is so already."""
    accounts, code = accounts_of(request), request.match_info["code"]
    principal = await principal_of(request)
    if principal is not None and principal.subject.startswith(f"{LINK}:"):
        with contextlib.suppress(NotFound):  # another, then: the next lines tell, and count
            link = await accounts.links.get(code)
            if link.subject == principal.subject:
                return link
    link, signed = await accounts.open_link(code, caller_of(request))
    set_cookie(request, signed.session_token)
    return link


def _url(request: web.Request, link: ShortLink) -> str:
    return f"{request.app[SERVICES].config.server.public_url}/s/{link.code}"


def _shown(request: web.Request, link: ShortLink) -> dict[str, Any]:
    url = _url(request, link)
    own = f"{request.app[SERVICES].config.server.public_url}/api/shortlinks/{link.code}"
    return {
        "code": link.code,
        "url": url,
        "reference": link.reference,
        "patient_name": link.patient_name,
        "study_iuids": list(link.grants.study_iuids),
        "accession_numbers": list(link.grants.accession_numbers),
        "created_at": link.created_at.isoformat(),
        "updated_at": link.updated_at.isoformat(),
        "expires_at": link.expires_at.isoformat(),
        "opened_at": link.opened_at.isoformat() if link.opened_at else None,
        "opened_count": link.opened_count,
        "links": {
            "self": own,
            "studies": f"{url}/studies",
            "qr_png": f"{own}/qr.png",
            "qr_svg": f"{own}/qr.svg",
        },
    }

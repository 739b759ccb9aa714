"""The sign-in page: ``/login``, a form that works without a script, and ``/logout``."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from pacsbridge.accounts.catalog import studies_of
from pacsbridge.accounts.values import Role
from pacsbridge.errors import PacsbridgeError, TooManyRequests, Unauthorized
from pacsbridge.http.bodies import form_fields
from pacsbridge.http.clients import caller_of
from pacsbridge.http.identity import accounts_of, check_origin, drop_cookie, principal_of, set_cookie
from pacsbridge.http.pages import page, redirect
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from pacsbridge.accounts.values import Principal
    from pacsbridge.http.services import Services


def add_routes(app: web.Application) -> None:
    """Add the routes of this module."""
    app.router.add_get("/login", _show)
    app.router.add_post("/login", _sign_in)
    app.router.add_post("/logout", _sign_out)


async def _show(request: web.Request) -> web.Response:
    accounts_of(request)
    principal = await principal_of(request)
    onward = _own_path(request.query.get("next", ""))
    if principal is None:
        return page(request, "login.html", onward=onward, email="", problem="")
    home = onward or await _home(request.app[SERVICES], principal)
    return page(request, "signed_in.html", who=principal.name or principal.email, home=home)


async def _sign_in(request: web.Request) -> web.Response:
    accounts = accounts_of(request)
    check_origin(request)
    form = await form_fields(request)
    email, password, onward = (form.get(name, "") for name in ("email", "password", "next"))
    onward = _own_path(onward)
    try:
        signed = await accounts.sign_in(email, password, caller_of(request))
    except (Unauthorized, TooManyRequests) as error:
        response = page(
            request, "login.html", status=error.status, onward=onward, email=email, problem=error.message
        )
        if error.retry_after is not None:
            response.headers[hdrs.RETRY_AFTER] = str(error.retry_after)
        return response
    set_cookie(request, signed.session_token)
    home = onward or await _home(request.app[SERVICES], signed.principal)
    return redirect(home)


async def _sign_out(request: web.Request) -> web.Response:
    accounts = accounts_of(request)
    check_origin(request)
    principal = await principal_of(request)
    if principal is not None:
        await accounts.sign_out(principal, caller_of(request))
    drop_cookie(request)
    return redirect("/login")


async def _home(services: Services, principal: Principal) -> str:
    """Choose where somebody goes after signing in: to their work."""
    dicomweb = services.config.dicomweb
    if principal.role is Role.ADMIN:
        return "/admin"
    if principal.role is Role.STAFF or dicomweb.upstream == "off":
        return "/discs"
    viewer = urlsplit(dicomweb.viewer_url)
    study_list = f"{viewer.scheme}://{viewer.netloc}/" if viewer.netloc else "/"
    if principal.role is Role.DOCTOR or not principal.grants:
        return study_list
    try:
        first = (await studies_of(principal.grants, services.catalog))[0]
    except PacsbridgeError:
        return study_list  # signed in all the same; the viewer tells what it can't show
    return dicomweb.viewer_url.format(study_iuids=first.StudyInstanceUID)


def _own_path(onward: str) -> str:
    """Return a path of this server, or nothing: nobody is led elsewhere by a prepared link."""
    own = onward.startswith("/") and not onward.startswith("//") and "\\" not in onward
    return onward if own and onward.isascii() and onward.isprintable() else ""

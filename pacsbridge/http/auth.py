"""Signing in and out: ``/auth/register``, ``login``, ``refresh``, ``logout``, ``me``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from pacsbridge.errors import Unauthorized
from pacsbridge.http.bodies import json_object, text
from pacsbridge.http.clients import caller_of
from pacsbridge.http.identity import accounts_of, drop_cookie, principal_of, set_cookie, signed_in

if TYPE_CHECKING:
    from pacsbridge.accounts.service import SignedIn
    from pacsbridge.accounts.values import Principal

_NOT_KEPT = {"Cache-Control": "no-store"}


def add_routes(app: web.Application) -> None:
    """Add the routes of this module."""
    app.router.add_post("/auth/register", _register)
    app.router.add_post("/auth/login", _login)
    app.router.add_post("/auth/refresh", _refresh)
    app.router.add_post("/auth/logout", _logout)
    app.router.add_get("/auth/me", _me)


async def _register(request: web.Request) -> web.Response:
    """Make a patient's account; the answer is the same when the email has one already."""
    accounts = accounts_of(request)
    body = await json_object(request)
    email, password = text(body, "email"), text(body, "password")
    name = text(body, "name", optional=True)
    await accounts.register(email, password, name, caller_of(request))
    return web.json_response({"status": "registered"}, status=201, headers=_NOT_KEPT)


async def _login(request: web.Request) -> web.Response:
    accounts = accounts_of(request)
    body = await json_object(request)
    signed = await accounts.sign_in(text(body, "email"), text(body, "password"), caller_of(request))
    return _answer(request, signed)


async def _refresh(request: web.Request) -> web.Response:
    accounts = accounts_of(request)
    body = await json_object(request)
    signed = await accounts.refresh(text(body, "refresh_token"), caller_of(request))
    return _answer(request, signed)


async def _logout(request: web.Request) -> web.Response:
    """End the session of whatever is sent: the bearer token, the cookie, or a refresh token in the body."""
    accounts = accounts_of(request)
    body = await json_object(request, optional=True)
    try:
        principal = await principal_of(request)
        token = text(body, "refresh_token", optional=True)
        if principal is None and token:
            principal = (await accounts.refresh(token, caller_of(request))).principal
    except Unauthorized:
        principal = None  # it has ended already
    if principal is not None:
        await accounts.sign_out(principal, caller_of(request))
    drop_cookie(request)
    return web.Response(status=204, headers=_NOT_KEPT)


async def _me(request: web.Request) -> web.Response:
    """Tell who is asking, and all that they may see: a token lists the first studies only."""
    return web.json_response(_user(await signed_in(request)), headers=_NOT_KEPT)


def _answer(request: web.Request, signed: SignedIn) -> web.Response:
    set_cookie(request, signed.session_token)
    return web.json_response(
        {
            "access_token": signed.access_token,
            "refresh_token": signed.refresh_token,
            "token_type": "Bearer",
            "expires_in": signed.expires_in,
            "user": _user(signed.principal),
        },
        headers=_NOT_KEPT,
    )


def _user(principal: Principal) -> dict[str, Any]:
    return {
        "id": principal.id,
        "email": principal.email,
        "name": principal.name,
        "role": principal.role.value,
        "study_iuids": list(principal.grants.study_iuids),
        "accession_numbers": list(principal.grants.accession_numbers),
    }

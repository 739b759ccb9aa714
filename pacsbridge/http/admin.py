"""Accounts for scripts: ``/api/admin/users``, for whom the policy lets manage users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from pacsbridge.accounts.audit import Actor
from pacsbridge.accounts.policy import Action
from pacsbridge.accounts.users import FOUND_AT_ONCE, NewUser
from pacsbridge.accounts.values import Role, valid_grants
from pacsbridge.errors import InvalidParameter, MissingParameter
from pacsbridge.http.bodies import json_object, text, texts
from pacsbridge.http.clients import caller_of
from pacsbridge.http.identity import accounts_of, permitted

if TYPE_CHECKING:
    from datetime import datetime

    from pacsbridge.accounts.sessions import Session
    from pacsbridge.accounts.users import User, Users
    from pacsbridge.accounts.values import Grants

_NOT_KEPT = {"Cache-Control": "no-store"}
_USERS = "/api/admin/users"
_USER = f"{_USERS}/{{id}}"


def add_routes(app: web.Application) -> None:
    """Add the routes of this module."""
    app.router.add_get(_USERS, _find)
    app.router.add_post(_USERS, _add)
    app.router.add_get(_USER, _show)
    app.router.add_post(f"{_USER}/disable", _disable)
    app.router.add_post(f"{_USER}/enable", _enable)
    app.router.add_post(f"{_USER}/password", _password)
    app.router.add_post(f"{_USER}/assign", _assign)
    app.router.add_post(f"{_USER}/unassign", _unassign)
    app.router.add_delete(f"{_USER}/sessions", _end_sessions)
    app.router.add_delete(f"{_USER}/sessions/{{session}}", _end_session)


async def admin_of(request: web.Request) -> tuple[Users, Actor]:
    """Return the users and who is asking for them.

    Raises
    ------
    Unauthorized, Forbidden
        Nobody who has signed in; somebody who may not manage users.
    """
    principal = await permitted(request, Action.MANAGE_USERS)
    return accounts_of(request).users, Actor.of(principal, caller_of(request))


def not_oneself(user: User, by: Actor) -> None:
    """Keep an admin from locking themselves out."""
    if user.subject == by.subject:
        raise InvalidParameter("You can't disable your own account: ask another admin.")


def role_of(name: str) -> Role:
    """Take a role by its name."""
    try:
        return Role(name)
    except ValueError:
        raise InvalidParameter(f"role must be one of {', '.join(Role)}.") from None


async def _find(request: web.Request) -> web.Response:
    users, _ = await admin_of(request)
    query = request.query
    role = role_of(query["role"]) if query.get("role") else None
    offset = query.get("offset", "0")
    if not (offset.isascii() and offset.isdigit() and len(offset) <= 9):
        raise InvalidParameter("offset must be a whole number.")
    found = await users.find(query.get("q", ""), role=role, offset=int(offset))
    body = {"users": [_shown(user) for user in found], "more": len(found) == FOUND_AT_ONCE}
    return web.json_response(body, headers=_NOT_KEPT)


async def _add(request: web.Request) -> web.Response:
    users, by = await admin_of(request)
    body = await json_object(request)
    new = NewUser(
        email=text(body, "email"),
        password=text(body, "password"),
        name=text(body, "name", optional=True),
        role=role_of(text(body, "role")),
        ref_doctor=text(body, "ref_doctor", optional=True),
    )
    return web.json_response(_shown(await users.add(new, by)), status=201, headers=_NOT_KEPT)


async def _show(request: web.Request) -> web.Response:
    users, _ = await admin_of(request)
    user = await users.get(request.match_info["id"])
    body = _shown(user) | _shown_grants(await users.granted(user.id))
    body["sessions"] = [_shown_session(session) for session in await users.sessions(user.id)]
    return web.json_response(body, headers=_NOT_KEPT)


async def _disable(request: web.Request) -> web.Response:
    users, by = await admin_of(request)
    user = await users.get(request.match_info["id"])
    not_oneself(user, by)
    return web.json_response(_shown(await users.disable(user.id, by)), headers=_NOT_KEPT)


async def _enable(request: web.Request) -> web.Response:
    users, by = await admin_of(request)
    return web.json_response(_shown(await users.enable(request.match_info["id"], by)), headers=_NOT_KEPT)


async def _password(request: web.Request) -> web.Response:
    users, by = await admin_of(request)
    password = text(await json_object(request), "password")
    await users.set_password(request.match_info["id"], password, by)
    return web.Response(status=204)


async def _assign(request: web.Request) -> web.Response:
    users, by = await admin_of(request)
    granted = await users.assign(request.match_info["id"], await _named(request), by)
    return web.json_response(_shown_grants(granted), headers=_NOT_KEPT)


async def _unassign(request: web.Request) -> web.Response:
    users, by = await admin_of(request)
    granted = await users.unassign(request.match_info["id"], await _named(request), by)
    return web.json_response(_shown_grants(granted), headers=_NOT_KEPT)


async def _end_sessions(request: web.Request) -> web.Response:
    users, by = await admin_of(request)
    await users.end_sessions(request.match_info["id"], by)
    return web.Response(status=204)


async def _end_session(request: web.Request) -> web.Response:
    users, by = await admin_of(request)
    await users.end_session(request.match_info["id"], request.match_info["session"], by)
    return web.Response(status=204)


async def _named(request: web.Request) -> Grants:
    body = await json_object(request)
    granted = valid_grants(texts(body, "study_iuids"), texts(body, "accession_numbers"))
    if not granted:
        raise MissingParameter("study_iuids or accession_numbers are needed.")
    return granted


def _shown(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "role": user.role.value,
        "ref_doctor": user.ref_doctor,
        "created_at": user.created_at.isoformat(),
        "signed_in_at": _moment(user.signed_in_at),
        "disabled_at": _moment(user.disabled_at),
    }


def _shown_grants(granted: Grants) -> dict[str, Any]:
    return {
        "study_iuids": list(granted.study_iuids),
        "accession_numbers": list(granted.accession_numbers),
    }


def _shown_session(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "created_at": session.created_at.isoformat(),
        "used_at": session.used_at.isoformat(),
        "expires_at": session.expires_at.isoformat(),
        "ended_at": _moment(session.ended_at),
        "end_reason": session.end_reason,
        "address": session.address,
        "user_agent": session.user_agent,
    }


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None

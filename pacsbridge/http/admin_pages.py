"""Accounts for people: ``/admin``, plain forms that work with the keyboard alone."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from aiohttp import web

from pacsbridge.accounts.users import FOUND_AT_ONCE, NewUser
from pacsbridge.accounts.values import Role, valid_grants
from pacsbridge.errors import MissingParameter, RequestError
from pacsbridge.http.admin import admin_of, not_oneself, role_of
from pacsbridge.http.bodies import form_fields
from pacsbridge.http.pages import page, redirect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pacsbridge.accounts.audit import Actor
    from pacsbridge.accounts.users import User, Users

_USER = "/admin/users/{id}"
#: Random bytes of a password that is made here: 16 characters.
_PASSWORD_BYTES = 12
_DONE = {
    "added": "The user was added.",
    "disabled": "The user can't sign in any more; their sessions have ended.",
    "enabled": "The user can sign in again.",
    "password": "The user has a new password; their sessions have ended.",
    "assigned": "The user may see the studies now.",
    "unassigned": "The user may not see that any more.",
    "ended": "The session has ended.",
}


def add_routes(app: web.Application) -> None:
    """Add the routes of this module."""
    app.router.add_get("/admin", _list)
    app.router.add_post("/admin/users", _add)
    app.router.add_get(_USER, _show)
    app.router.add_post(_USER + "/{action}", _change)


async def _list(request: web.Request) -> web.Response:
    users, by = await admin_of(request)
    return await _list_page(request, users, by)


async def _list_page(
    request: web.Request,
    users: Users,
    by: Actor,
    *,
    problem: str = "",
    entered: Mapping[str, str] | None = None,
) -> web.Response:
    search, role = request.query.get("q", ""), request.query.get("role", "")
    found = await users.find(search, role=role_of(role) if role else None)
    return page(
        request,
        "admin.html",
        status=400 if problem else 200,
        users=found,
        more=len(found) == FOUND_AT_ONCE,
        search=search,
        role=role,
        roles=list(Role),
        own=by.subject,
        entered=entered or {},
        problem=problem,
        done=_DONE.get(request.query.get("done", ""), ""),
    )


async def _add(request: web.Request) -> web.Response:
    users, by = await admin_of(request)
    form = await _form(request)
    try:
        password = form.get("password") or _new_password()
        new = NewUser(
            form.get("email", ""),
            password,
            form.get("name", ""),
            role_of(form.get("role", "")),
            form.get("ref_doctor", ""),
        )
        user = await users.add(new, by)
    except RequestError as error:
        return await _list_page(request, users, by, problem=error.message, entered=form)
    if not form.get("password"):
        return await _user_page(request, users, user, by, made=password, done=_DONE["added"])
    return redirect(f"/admin/users/{user.id}?done=added")


async def _show(request: web.Request) -> web.Response:
    users, by = await admin_of(request)
    user = await users.get(request.match_info["id"])
    return await _user_page(request, users, user, by, done=_DONE.get(request.query.get("done", ""), ""))


async def _user_page(
    request: web.Request,
    users: Users,
    user: User,
    by: Actor,
    *,
    problem: str = "",
    made: str = "",
    done: str = "",
) -> web.Response:
    return page(
        request,
        "user.html",
        status=400 if problem else 200,
        user=user,
        granted=await users.granted(user.id),
        sessions=await users.sessions(user.id),
        now=users.clock(),
        own=by.subject,
        problem=problem,
        made=made,
        done=done,
    )


async def _change(request: web.Request) -> web.Response:
    """Do what a button of the user's page says, then show the page again."""
    users, by = await admin_of(request)
    action = _ACTIONS.get(request.match_info["action"])
    if action is None:
        raise web.HTTPNotFound
    user = await users.get(request.match_info["id"])
    form = await _form(request)
    try:
        done, made = await action(users, user, by, form)
    except RequestError as error:
        return await _user_page(request, users, user, by, problem=error.message)
    if made:
        user = await users.get(user.id)
        return await _user_page(request, users, user, by, made=made, done=_DONE[done])
    return redirect(f"/admin/users/{user.id}?done={done}")


async def _disable(users: Users, user: User, by: Actor, _form: Mapping[str, str]) -> tuple[str, str]:
    not_oneself(user, by)
    await users.disable(user.id, by)
    return "disabled", ""


async def _enable(users: Users, user: User, by: Actor, _form: Mapping[str, str]) -> tuple[str, str]:
    await users.enable(user.id, by)
    return "enabled", ""


async def _password(users: Users, user: User, by: Actor, form: Mapping[str, str]) -> tuple[str, str]:
    password = form.get("password", "")
    made = "" if password else _new_password()
    await users.set_password(user.id, password or made, by)
    return "password", made


async def _assign(users: Users, user: User, by: Actor, form: Mapping[str, str]) -> tuple[str, str]:
    named = valid_grants(_lines(form.get("study_iuids", "")), _lines(form.get("accession_numbers", "")))
    if not named:
        raise MissingParameter("Name a study: by accession number or by Study Instance UID.")
    await users.assign(user.id, named, by)
    return "assigned", ""


async def _unassign(users: Users, user: User, by: Actor, form: Mapping[str, str]) -> tuple[str, str]:
    named = valid_grants(_lines(form.get("study_iuids", "")), _lines(form.get("accession_numbers", "")))
    await users.unassign(user.id, named, by)
    return "unassigned", ""


async def _end(users: Users, user: User, by: Actor, form: Mapping[str, str]) -> tuple[str, str]:
    if form.get("session"):
        await users.end_session(user.id, form["session"], by)
    else:
        await users.end_sessions(user.id, by)
    return "ended", ""


_ACTIONS = {
    "disable": _disable,
    "enable": _enable,
    "password": _password,
    "assign": _assign,
    "unassign": _unassign,
    "end": _end,
}


async def _form(request: web.Request) -> dict[str, str]:
    form = await form_fields(request)
    return {name: value if name == "password" else value.strip() for name, value in form.items()}


def _lines(text: str) -> tuple[str, ...]:
    """Take apart what was pasted: one on each line, or with commas between."""
    return tuple(part.strip() for part in text.replace(",", "\n").splitlines() if part.strip())


def _new_password() -> str:
    return secrets.token_urlsafe(_PASSWORD_BYTES)

"""Who is asking: the bearer token, or the cookie of the same origin beside it."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from pacsbridge.accounts.audit import Actor
from pacsbridge.accounts.policy import Decision
from pacsbridge.accounts.tokens import TokenType
from pacsbridge.errors import Forbidden, NotConfigured, Unauthorized
from pacsbridge.http.clients import caller_of
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from pacsbridge.accounts.policy import Action
    from pacsbridge.accounts.service import Accounts
    from pacsbridge.accounts.values import Principal

COOKIE = "pacsbridge_session"
_BEARER = "bearer "
_SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
_DAY_SECONDS = 86_400

_PRINCIPAL: web.RequestKey[Principal] = web.RequestKey("principal")
_NEW_COOKIE: web.RequestKey[str] = web.RequestKey("new_cookie")


def accounts_of(request: web.Request) -> Accounts:
    """Return the accounts.

    Raises
    ------
    NotConfigured
        There are none.
    """
    accounts = request.app[SERVICES].accounts
    if accounts is None:
        raise NotConfigured("Accounts are switched off: set accounts.jwt_secret to use them.")
    return accounts


async def principal_of(request: web.Request) -> Principal | None:
    """Return who is asking; nobody without credentials, or with a cookie that has worn out.

    Raises
    ------
    Unauthorized
        The bearer token is not to be believed.
    Forbidden
        A request that changes something comes with the cookie, but from another site.
    """
    if _PRINCIPAL in request:
        return request[_PRINCIPAL]
    accounts = request.app[SERVICES].accounts
    if accounts is None:
        return None
    header = request.headers.get(hdrs.AUTHORIZATION, "")
    if header[: len(_BEARER)].lower() == _BEARER:
        principal = await accounts.principal(header[len(_BEARER) :].strip())
    else:
        found = await _principal_of_cookie(request, accounts)
        if found is None:
            return None
        principal = found
    request[_PRINCIPAL] = principal
    return principal


def principal_at_hand(accounts: Accounts, authorization: str, cookie: str) -> Principal | None:
    """Return who is asking for something that changes nothing, where `principal_of` would not have to wait.

    None is no answer.

    Raises
    ------
    Unauthorized
        The bearer token, or the cookie, is not to be believed.
    """
    if authorization[: len(_BEARER)].lower() == _BEARER:
        return accounts.principal_at_hand(authorization[len(_BEARER) :].strip(), TokenType.ACCESS)
    return accounts.principal_at_hand(cookie, TokenType.SESSION) if cookie else None


async def signed_in(request: web.Request) -> Principal:
    """Return who is asking.

    Raises
    ------
    Unauthorized
        Nobody who has signed in.
    """
    accounts_of(request)
    principal = await principal_of(request)
    if principal is None:
        raise Unauthorized("Sign in first.")
    return principal


async def permitted(request: web.Request, action: Action) -> Principal:
    """Return who is asking when the policy lets them do something.

    Raises
    ------
    Unauthorized, Forbidden
        Nobody who has signed in; somebody who may not.
    """
    principal = await signed_in(request)
    if request.app[SERVICES].policy.decide(principal, action) is not Decision.ALLOW:
        await accounts_of(request).refused(action.value, principal, caller_of(request))
        raise Forbidden(f"Your account may not do this: {action.value}.")
    return principal


async def actor_of(request: web.Request) -> Actor:
    """Name whoever is asking, for the audit trail, where an endpoint is open to more than accounts."""
    principal = await principal_of(request)
    caller = caller_of(request)
    return Actor.of(principal, caller) if principal else Actor("api", "", caller)


def check_origin(request: web.Request) -> None:
    """Refuse what another site makes a browser send (RFC 6265bis 8.2 tells why SameSite alone won't do).

    Raises
    ------
    Forbidden
        The header ``Origin`` is missing, or it is neither ours nor a configured one.
    """
    origin = request.headers.get(hdrs.ORIGIN, "")
    server = request.app[SERVICES].config.server
    own = (request.headers.get(hdrs.HOST, ""), urlsplit(server.public_url).netloc)
    # An origin is a scheme, "://" and what Host holds (RFC 6454 6.1); "null" has neither.
    host = origin.partition("://")[2].casefold()
    if origin in server.allowed_origins or (host and host in map(str.casefold, own)):
        return
    raise Forbidden("This request comes from another site: its Origin is not allowed.")


def set_cookie(request: web.Request, session_token: str) -> None:
    """Have the answer carry the cookie of a session, whatever kind of answer it becomes."""
    request[_NEW_COOKIE] = session_token


def drop_cookie(request: web.Request) -> None:
    """Have the answer take the cookie away."""
    request[_NEW_COOKIE] = ""


async def add_cookie(request: web.Request, response: web.StreamResponse) -> None:
    """Put on an answer, streams included, what ``set_cookie`` asked for, and how to sign in on a 401."""
    if response.status == web.HTTPUnauthorized.status_code:
        response.headers.setdefault(hdrs.WWW_AUTHENTICATE, 'Bearer realm="pacsbridge"')
    if _NEW_COOKIE not in request:
        return
    config = request.app[SERVICES].config
    token = request[_NEW_COOKIE]
    cookie: SimpleCookie = SimpleCookie({COOKIE: token})
    attributes: dict[str, Any] = {
        "path": "/",
        "httponly": True,
        "samesite": "Lax",
        "secure": config.server.public_url.startswith("https:"),
        "max-age": int(config.accounts.refresh_token_days * _DAY_SECONDS) if token else 0,
    }
    cookie[COOKIE].update(attributes)
    # The response's own cookies have become headers by now.
    response.headers.add(hdrs.SET_COOKIE, cookie[COOKIE].OutputString())


async def _principal_of_cookie(request: web.Request, accounts: Accounts) -> Principal | None:
    token = request.cookies.get(COOKIE)
    if not token:
        return None
    if request.method not in _SAFE_METHODS:
        check_origin(request)
    try:
        principal, renewed = await accounts.session(token)
    except Unauthorized:
        return None
    if renewed is not None:
        set_cookie(request, renewed)
    return principal

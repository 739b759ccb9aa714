"""The DICOMweb proxy: ``/dicomWeb/*``. Who asks, for what, may they; then the answer is passed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from pacsbridge.accounts.audit import Outcome
from pacsbridge.accounts.policy import Action, Decision, Scope
from pacsbridge.dicomweb import wado_uri
from pacsbridge.dicomweb.headers import for_upstream
from pacsbridge.dicomweb.keys import checked_query, parse_keys, rendering_query
from pacsbridge.dicomweb.paths import Kind, Level, parse_path
from pacsbridge.dicomweb.service import PUBLIC_PREFIX
from pacsbridge.dicomweb.studies import JSON_TYPE, RowsRefused
from pacsbridge.dicomweb.upstream import Body, Question
from pacsbridge.errors import Forbidden, NotConfigured, NotFound
from pacsbridge.http.clients import caller_of
from pacsbridge.http.identity import signed_in
from pacsbridge.http.passing import pass_on, request_body, rows_answer, upstream_refused
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from pacsbridge.accounts.values import Principal
    from pacsbridge.dicomweb.paths import Resource
    from pacsbridge.dicomweb.service import Dicomweb
    from pacsbridge.dicomweb.studies import Row

_READS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
_HAVE_ADDRESSES = frozenset({Kind.SEARCH_STUDIES, Kind.SEARCH_SERIES, Kind.SEARCH_INSTANCES,
                             Kind.SEARCH_IN_STUDY, Kind.METADATA})  # fmt: skip


def add_routes(app: web.Application) -> None:
    """Add the routes of this module."""
    app.router.add_route("*", PUBLIC_PREFIX + "{tail:.*}", _serve)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, understood.

    Attributes
    ----------
    who
        None where the path is a public one.
    accept
        Replaces the client's header where WADO-URI said it in the query.
    scoped
        Whether the one who asks may see some studies only; nothing of the query passes unread then.
    """

    resource: Resource
    query: str
    action: Action
    who: Principal | None
    accept: str
    scoped: bool


async def _serve(request: web.Request) -> web.StreamResponse:
    """Answer a request of DICOMweb (PS3.18, 8 and 10)."""
    proxy = request.app[SERVICES].dicomweb
    if proxy is None:
        raise NotConfigured("Images can't be viewed here: dicomweb.upstream is off.")
    asked = await _understand(request, proxy)
    outcome = Outcome.FAILED
    try:
        response = await _answer(request, proxy, asked)
        outcome = Outcome.OK if response.status < 400 else Outcome.FAILED
        return response
    except Forbidden:
        outcome = Outcome.REFUSED
        raise
    finally:
        await _record(request, asked, outcome)


async def _understand(request: web.Request, proxy: Dicomweb) -> Asked:
    """Find out what is asked for and by whom; nothing is asked of upstream yet."""
    path, query = _target(request)
    accept = ""
    if path == wado_uri.PATH and request.method in _READS:
        translated = wado_uri.translate(query)
        resource, query, accept = translated.resource, translated.query, translated.accept
    else:
        resource = parse_path(path)
    public = request.method in _READS and proxy.is_public(resource.path)
    who = None if public else await signed_in(request)
    action = _action(request.method, resource)
    if who is None:
        return Asked(resource, query, action, None, accept, resource.level is not Level.ROOT)
    scope = request.app[SERVICES].policy.scope(who.role, action)
    return Asked(resource, query, action, who, accept, scope is not Scope.ALL)


def _target(request: web.Request) -> tuple[str, str]:
    """Split what stands on the request line: aiohttp's own idea of the path is decoded and normalised."""
    path, _, query = request.raw_path.partition("?")
    if not path.startswith(PUBLIC_PREFIX):
        raise NotFound("There is no such DICOMweb resource.")
    return path[len(PUBLIC_PREFIX) :], checked_query(query)


def _action(method: str, resource: Resource) -> Action:
    if method in _READS:
        return {
            Kind.SEARCH_STUDIES: Action.SEARCH_STUDIES,
            Kind.SEARCH_SERIES: Action.SEARCH_EVERYTHING,
            Kind.SEARCH_INSTANCES: Action.SEARCH_EVERYTHING,
        }.get(resource.kind, Action.READ_STUDY)
    if method == hdrs.METH_POST and resource.takes_instances:
        return Action.STORE_STUDY
    if method == hdrs.METH_DELETE and resource.can_be_deleted:
        return Action.DELETE_STUDY
    allowed = [hdrs.METH_GET, hdrs.METH_HEAD]
    allowed += [hdrs.METH_POST] if resource.takes_instances else []
    allowed += [hdrs.METH_DELETE] if resource.can_be_deleted else []
    raise web.HTTPMethodNotAllowed(method, allowed)


async def _answer(request: web.Request, proxy: Dicomweb, asked: Asked) -> web.StreamResponse:
    if asked.scoped:
        if asked.who is not None:
            await _permit(request, proxy, asked.who, asked)
        if asked.resource.is_search and request.method in _READS:
            return await _search(request, proxy, asked)
    question = _question(request, asked)
    return await pass_on(request, proxy, question, strict=asked.scoped, shared=asked.who is None)


async def _permit(request: web.Request, proxy: Dicomweb, who: Principal, asked: Asked) -> None:
    """Refuse what the policy doesn't let somebody do, who may see some studies only."""
    uid = asked.resource.StudyInstanceUID
    if uid:
        await proxy.studies.require(who, asked.action, uid)
        return
    decision = request.app[SERVICES].policy.decide(who, asked.action)
    # Which studies are in a body that stores is only known when it has been stored.
    if decision is not Decision.ALLOW or asked.action is Action.STORE_STUDY:
        raise Forbidden(f"Your account may not do this: {asked.action.value}.")


async def _search(request: web.Request, proxy: Dicomweb, asked: Asked) -> web.Response:
    """Search for somebody who may see some studies only."""
    accepted = request.headers.get(hdrs.ACCEPT, "").lower()
    if accepted and "json" not in accepted and "*/*" not in accepted and "application/*" not in accepted:
        raise web.HTTPNotAcceptable(reason=f"Searches are answered as {JSON_TYPE}.")
    keys = parse_keys(asked.query)
    rows: list[Row]
    try:
        if asked.resource.kind is Kind.SEARCH_STUDIES and asked.who is not None:
            rows = await proxy.search.find_studies(asked.who, keys)
        else:
            rows = await proxy.search.find_within(asked.resource, keys)
    except RowsRefused as refused:
        return upstream_refused(request, refused.status, refused.retry_after)
    return rows_answer(rows, proxy.rewriter)


def _question(request: web.Request, asked: Asked) -> Question:
    headers = for_upstream(request.headers.items())
    if asked.accept:
        headers["Accept"] = asked.accept
    if asked.resource.kind in _HAVE_ADDRESSES:
        # Its addresses are rewritten: in a coding that can be taken off, and whole.
        coded = "gzip" in headers.get("Accept-Encoding", "")
        headers["Accept-Encoding"] = "gzip" if coded else "identity"
        headers.pop("Range", None)
        if asked.scoped:
            headers["Accept"] = JSON_TYPE
    query = asked.query
    if asked.scoped:
        query = rendering_query(query) if asked.resource.kind is Kind.RENDERED else ""
    body = None
    if request.method == hdrs.METH_POST:
        patience = request.app[SERVICES].config.server.read_timeout_seconds
        body = Body(request_body(request, patience), request.content_length)
    elif request.can_read_body:
        raise web.HTTPBadRequest(reason="Such a request has no body.")
    return Question(request.method, asked.resource.path, query, tuple(headers.items()), body)


async def _record(request: web.Request, asked: Asked, outcome: Outcome) -> None:
    trail = request.app[SERVICES].study_trail
    if trail is None:
        return
    uid = asked.resource.StudyInstanceUID
    if uid:
        await trail.done(asked.action.value, asked.who, lambda: caller_of(request), uid, outcome)
    elif asked.action is Action.STORE_STUDY:
        await trail.done(asked.action.value, asked.who, lambda: caller_of(request), "", outcome)
    else:
        await trail.searched(asked.who, caller_of(request), outcome, asked.resource.path)

"""The DICOMweb proxy: ``/dicomWeb/*``. Who asks, for what, may they; then the answer is passed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from pacsbridge.accounts.audit import Outcome
from pacsbridge.accounts.policy import Action, Decision, Scope
from pacsbridge.dicomweb.headers import for_upstream
from pacsbridge.dicomweb.keys import parse_keys
from pacsbridge.dicomweb.paths import Kind, Level
from pacsbridge.dicomweb.service import PUBLIC_PREFIX
from pacsbridge.dicomweb.studies import JSON_TYPE, RowsRefused
from pacsbridge.dicomweb.upstream import Body
from pacsbridge.errors import Forbidden, NotConfigured
from pacsbridge.http.asking import READS, question_for, read_target
from pacsbridge.http.clients import caller_of
from pacsbridge.http.identity import signed_in
from pacsbridge.http.passing import pass_on, request_body, rows_answer, upstream_refused
from pacsbridge.http.services import SERVICES
from pacsbridge.http.shortway import begun_answer

if TYPE_CHECKING:
    from pacsbridge.accounts.values import Principal
    from pacsbridge.dicomweb.paths import Resource
    from pacsbridge.dicomweb.service import Dicomweb
    from pacsbridge.dicomweb.studies import Row
    from pacsbridge.dicomweb.upstream import Question
    from pacsbridge.http.asking import Wanted


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
    scoped
        Whether the one who asks may see some studies only; nothing of the query passes unread then.
    """

    wanted: Wanted
    who: Principal | None
    scoped: bool

    @property
    def resource(self) -> Resource:
        """What the path names."""
        return self.wanted.resource

    @property
    def action(self) -> Action:
        """What is to be done to it."""
        return self.wanted.action


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
    wanted = read_target(request.method, request.raw_path)
    public = request.method in READS and proxy.is_public(wanted.resource.path)
    who = None if public else await signed_in(request)
    if who is None:
        return Asked(wanted, None, wanted.resource.level is not Level.ROOT)
    scope = request.app[SERVICES].policy.scope(who.role, wanted.action)
    return Asked(wanted, who, scope is not Scope.ALL)


async def _answer(request: web.Request, proxy: Dicomweb, asked: Asked) -> web.StreamResponse:
    if asked.scoped:
        if asked.who is not None:
            await _permit(request, proxy, asked.who, asked)
        if asked.resource.is_search and request.method in READS:
            return await _search(request, proxy, asked)
    question = _question(request, asked)
    return await pass_on(
        request,
        proxy,
        question,
        strict=asked.scoped,
        shared=asked.who is None,
        begun=begun_answer(request, question),
    )


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
    keys = parse_keys(asked.wanted.query)
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
    body = None
    if request.method == hdrs.METH_POST:
        patience = request.app[SERVICES].config.server.read_timeout_seconds
        body = Body(request_body(request, patience), request.content_length)
    elif request.can_read_body:
        raise web.HTTPBadRequest(reason="Such a request has no body.")
    passed = for_upstream(request.headers.items())
    return question_for(asked.wanted, passed, scoped=asked.scoped, body=body)


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

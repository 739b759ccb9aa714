"""What a request below ``/dicomWeb`` asks for, and the question to upstream that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from pacsbridge.accounts.policy import Action
from pacsbridge.dicomweb import wado_uri
from pacsbridge.dicomweb.keys import checked_query, rendering_query
from pacsbridge.dicomweb.paths import Kind, parse_path
from pacsbridge.dicomweb.service import PUBLIC_PREFIX
from pacsbridge.dicomweb.studies import JSON_TYPE
from pacsbridge.dicomweb.upstream import Body, Question
from pacsbridge.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pacsbridge.dicomweb.paths import Resource

READS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for, whoever asks.

    Attributes
    ----------
    method
        As upstream will see it.
    accept
        Replaces the client's header where WADO-URI said it in the query.
    """

    method: str
    resource: Resource
    query: str
    accept: str = ""

    @property
    def action(self) -> Action:
        """What is to be done to the resource.

        Raises
        ------
        web.HTTPMethodNotAllowed
            This can't be done to it.
        """
        return _action(self.method, self.resource)


def read_target(method: str, target: str) -> Wanted:
    """Understand a request line.

    Parameters
    ----------
    target
        What stands there as it is: aiohttp's own idea of the path is decoded and normalised.

    Raises
    ------
    NotFound, InvalidParameter, MissingParameter
        It names nothing that DICOMweb knows.
    """
    path, _, query = target.partition("?")
    if not path.startswith(PUBLIC_PREFIX):
        raise NotFound("There is no such DICOMweb resource.")
    path = path[len(PUBLIC_PREFIX) :]
    query = checked_query(query) if query else ""
    if path == wado_uri.PATH and method in READS:
        translated = wado_uri.translate(query)
        return Wanted(method, translated.resource, translated.query, translated.accept)
    return Wanted(method, parse_path(path), query)


def question_for(wanted: Wanted, passed: Mapping[str, str], *, scoped: bool, body: Body | None) -> Question:
    """Make the question to upstream.

    Parameters
    ----------
    passed
        The client's headers that pass (`headers.for_upstream`).
    scoped
        Whether the one who asks may see some studies only; nothing of the query passes unread then.
    """
    headers = passed
    resource = wanted.resource
    if wanted.accept:
        headers = {**headers, "Accept": wanted.accept}
    if resource.has_addresses:
        # They are rewritten: in a coding that can be taken off, and whole.
        coded = "gzip" in headers.get("Accept-Encoding", "")
        headers = {**headers, "Accept-Encoding": "gzip" if coded else "identity"}
        headers.pop("Range", None)
        if scoped:
            headers["Accept"] = JSON_TYPE
    query = wanted.query
    if scoped and query:
        query = rendering_query(query) if resource.kind is Kind.RENDERED else ""
    return Question(wanted.method, resource.path, query, tuple(headers.items()), body)


def _action(method: str, resource: Resource) -> Action:
    if method in READS:
        if resource.kind is Kind.SEARCH_STUDIES:
            return Action.SEARCH_STUDIES
        if resource.kind in (Kind.SEARCH_SERIES, Kind.SEARCH_INSTANCES):
            return Action.SEARCH_EVERYTHING
        return Action.READ_STUDY
    if method == hdrs.METH_POST and resource.takes_instances:
        return Action.STORE_STUDY
    if method == hdrs.METH_DELETE and resource.can_be_deleted:
        return Action.DELETE_STUDY
    allowed = [hdrs.METH_GET, hdrs.METH_HEAD]
    allowed += [hdrs.METH_POST] if resource.takes_instances else []
    allowed += [hdrs.METH_DELETE] if resource.can_be_deleted else []
    raise web.HTTPMethodNotAllowed(method, allowed)

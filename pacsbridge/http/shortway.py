"""The short way of an image: a GET below ``/dicomWeb`` passed on in the callbacks of the two connections.

A viewer asks for a thousand frames, and aiohttp's request and response, its two tasks and our four middlewares
cost more than all that is done for one of them. Here a request goes from the client's socket to upstream's, and
the answer back, with nothing in between but reading the heads and deciding.

It decides nothing of its own: who asks, what for and whether they may comes from where the long way has it too.
What is not at hand at once, is not plain, or is not allowed is left to the long way, which waits, asks, refuses,
records, and says why; an answer that turns out not to be plain is handed over to it with the request.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from functools import lru_cache, partial
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING

import structlog
from aiohttp import hdrs, web
from aiohttp.helpers import rfc822_formatted_time

from pacsbridge.accounts.audit import Outcome
from pacsbridge.accounts.policy import Action, Scope
from pacsbridge.accounts.values import Caller
from pacsbridge.dicomweb.headers import for_client, for_upstream
from pacsbridge.dicomweb.rewrite import is_json
from pacsbridge.dicomweb.service import PUBLIC_PREFIX
from pacsbridge.dicomweb.upstream import Answer
from pacsbridge.errors import PacsbridgeError, UpstreamError
from pacsbridge.http.asking import question_for, read_target
from pacsbridge.http.clients import client_address, networks
from pacsbridge.http.identity import COOKIE, principal_at_hand
from pacsbridge.http.middleware import (
    IMAGES_ROUTE,
    REQUEST_ID_HEADER,
    cors_headers,
    note_end,
    sane_request_id,
)
from pacsbridge.http.passing import cutting_off, drained

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from pacsbridge.accounts.values import Principal
    from pacsbridge.dicomweb.service import Dicomweb
    from pacsbridge.dicomweb.upstream import Answered, Pending, Question
    from pacsbridge.http.asking import Wanted
    from pacsbridge.http.services import Services

    class LongWay(Protocol):
        """The protocol of a connection, as aiohttp has it."""

        transport: asyncio.Transport | None

        @property
        def is_idle(self) -> bool:
            """Whether no request is being read or answered."""

        def take(self, data: bytes) -> None:
            """Take data as it was received."""

        def rest(self) -> None:
            """Count the time until the connection is closed as idle from now on."""

        async def drain(self) -> None:
            """Wait until the client has taken what was written."""


log = structlog.get_logger(__name__)

_HEAD_END = b"\r\n\r\n"
_LONGEST_HEAD = 8190
_REQUEST_LINE = re.compile(rb"(GET|HEAD) (/[!-~]*) HTTP/1\.1")
#: Names are tokens, values are visible ASCII with spaces between (RFC 9110, 5.5 and 5.6.2).
_HEADERS = re.compile(rb"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*)*")
#: What makes a request more than a head, or its connection more than that of one request after the other.
_NOT_PLAIN = frozenset({"content-length", "transfer-encoding", "upgrade", "expect", "te", "trailer"})
_KEPT_BLOCKS = 512
_PLAIN = {200: "200 OK", 206: "206 Partial Content"}
_READ_STUDY = Action.READ_STUDY.value


@dataclass(frozen=True, slots=True)
class _Block:
    """The header fields of a request; a viewer sends the same ones with each.

    Attributes
    ----------
    plain
        Whether nothing in them needs the long way.
    """

    plain: bool
    passed: Mapping[str, str]
    authorization: str
    cookie: str
    origin: str | None
    request_id: str
    agent: str
    forwarded: tuple[str, ...]


@lru_cache(maxsize=_KEPT_BLOCKS)
def _read_block(block: bytes) -> _Block | None:
    """Read header fields, each with its CR LF before it; None where they can't be, or where a body follows."""
    if not _HEADERS.fullmatch(block):
        return None
    pairs = [line.partition(":") for line in block.decode("ascii").split("\r\n")[1:]]
    fields = [(name.lower(), value.strip(" \t")) for name, _, value in pairs]
    first = dict(reversed(fields))
    if not _NOT_PLAIN.isdisjoint(first):
        return None
    plain = (
        len(first) == len(fields)
        and "host" in first
        and first.get("connection", "keep-alive").lower() == "keep-alive"
    )
    return _Block(
        plain,
        for_upstream(fields),
        first.get("authorization", ""),
        _cookie(first.get("cookie", "")),
        first.get("origin"),
        first.get("x-request-id", ""),
        first.get("user-agent", ""),
        tuple(value for name, value in fields if name == "x-forwarded-for"),
    )


def _cookie(header: str) -> str:
    try:
        cookies = SimpleCookie(header)
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


@dataclass(slots=True)
class _Exchange:
    """A request that is being answered.

    Attributes
    ----------
    data
        The request as it came, for the long way.
    pending
        Until upstream's answer begins.
    relaying
        While its body is passed on.
    """

    data: bytes
    block: _Block
    who: Principal
    wanted: Wanted
    question: Question
    done: asyncio.Future[object]
    began: float
    pending: Pending | None = None
    relaying: asyncio.Task[int | str] | None = None


class ShortWay:
    """What one connection needs to go the short way.

    Parameters
    ----------
    connection
        What goes the long way.
    """

    __slots__ = ("_begun", "_connection", "_exchange", "_follows", "_held", "_services")

    def __init__(self, services: Services, connection: LongWay) -> None:
        self._services = services
        self._connection = connection
        #: Whether what comes next begins a request: nobody but aiohttp knows once a body was on its way.
        self._follows = True
        self._exchange: _Exchange | None = None
        self._held = b""
        self._begun: tuple[Question, Answer | UpstreamError] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self._exchange is not None

    def takes(self, data: bytes) -> bool:
        """Take what was received, where it is a request for the short way; otherwise nothing has happened."""
        if self._exchange is not None:
            self._hold(data)
            return True
        if not self._follows:
            return False
        end = data.find(b"\r\n")
        line = (
            _REQUEST_LINE.fullmatch(data[:end]) if end > 0 and data.find(_HEAD_END) == len(data) - 4 else None
        )
        block = _read_block(data[end:-4]) if line is not None and len(data) <= _LONGEST_HEAD else None
        if line is None or block is None:
            self._follows = False
            return False
        method, target = line.groups()
        if method != b"GET" or not target.startswith(_PREFIX) or not block.plain:
            return False
        return self._connection.is_idle and self._begin(data, target.decode("ascii"), block)

    def take_begun(self, question: Question) -> Answered:
        """Give what upstream answered to this very question; None where it wasn't asked."""
        begun, self._begun = self._begun, None
        if begun is None:
            return None
        asked, answer = begun
        if asked == question:
            return answer
        if isinstance(answer, Answer):
            answer.close()
        return None

    def drop_begun(self) -> None:
        """Close what the long way had no use for."""
        begun, self._begun = self._begun, None
        if begun is not None and isinstance(begun[1], Answer):
            begun[1].close()

    def lost(self) -> None:
        """Stop: the client has left."""
        self._held = b""
        self.drop_begun()
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.relaying is not None:
            exchange.relaying.cancel()
        elif exchange.pending is not None:
            exchange.pending.give_up()
            self._end(exchange, "client left")

    def _hold(self, data: bytes) -> None:
        """Keep what a client sends before it has its answer; nothing more is read until then."""
        self._held += data
        if self._connection.transport is not None:
            self._connection.transport.pause_reading()

    def _begin(self, data: bytes, target: str, block: _Block) -> bool:
        services = self._services
        proxy, accounts = services.dicomweb, services.accounts
        transport = self._connection.transport
        if proxy is None or accounts is None or services.draining or transport is None:
            return False
        if transport.get_write_buffer_size():
            return False
        try:
            who = principal_at_hand(accounts, block.authorization, block.cookie)
            wanted = read_target(hdrs.METH_GET, target)
        except PacsbridgeError:
            return False
        scoped = services.policy.scope(who.role, Action.READ_STUDY) is not Scope.ALL if who else True
        if who is None or not self._permits(proxy, who, wanted, scoped=scoped):
            return False
        question = question_for(wanted, block.passed, scoped=scoped, body=None)
        loop = asyncio.get_running_loop()
        exchange = _Exchange(data, block, who, wanted, question, loop.create_future(), time.monotonic())
        exchange.pending = proxy.upstream.ask_now(question, self._answered)
        if exchange.pending is None:
            return False
        self._exchange = exchange
        services.handling.add(exchange.done)
        return True

    def _permits(self, proxy: Dicomweb, who: Principal, wanted: Wanted, *, scoped: bool) -> bool:
        """Tell whether somebody may read this, has been seen to, and its rows need not be checked."""
        uid = wanted.resource.StudyInstanceUID
        if not uid or proxy.is_public(wanted.resource.path):
            return False
        if scoped and (
            wanted.resource.is_search or not proxy.studies.allows_at_once(who, Action.READ_STUDY, uid)
        ):
            return False
        trail = self._services.study_trail
        return trail is None or trail.is_done(_READ_STUDY, who.session_id, uid, Outcome.OK)

    def _answered(self, answer: Answered) -> None:
        exchange, transport = self._exchange, self._connection.transport
        if exchange is None or transport is None:
            if isinstance(answer, Answer):
                answer.close()
            return
        exchange.pending = None
        if isinstance(answer, Answer) and answer.status in _PLAIN:
            json = is_json(answer.headers.get("content-type", ""))
            if answer.complete and not (json and "content-encoding" in answer.headers):
                self._pass_whole(exchange, transport, answer, rewrite=json)
                return
            if not json and "content-length" in answer.headers:
                relaying = asyncio.create_task(self._relay(exchange, transport, answer))
                # Not in the task itself: one that is cancelled before its first step does nothing.
                relaying.add_done_callback(partial(self._relayed, exchange, answer))
                exchange.relaying = relaying
                return
        self._hand_over(exchange, answer)

    def _pass_whole(
        self, exchange: _Exchange, transport: asyncio.Transport, answer: Answer, *, rewrite: bool
    ) -> None:
        body = answer.read_now()
        proxy = self._services.dicomweb
        if rewrite and proxy is not None:
            body = proxy.rewriter.whole(body)
        headers = for_client(answer.headers)
        headers["Content-Length"] = str(len(body))
        status = answer.status
        answer.close()
        transport.write(b"%b%b" % (self._head(exchange, status, headers), body))
        self._end(exchange, status)

    async def _relay(self, exchange: _Exchange, transport: asyncio.Transport, answer: Answer) -> int | str:
        """Pass on a body whose length is known, as it comes; one that breaks off breaks the connection."""
        patience = self._services.config.server.write_timeout_seconds
        try:
            async with cutting_off(transport):
                head = self._head(exchange, answer.status, for_client(answer.headers))
                transport.write(answer.begin_with(head))
                await answer.relay(transport, lambda: drained(transport, self._connection.drain, patience))
        except (UpstreamError, TimeoutError, ConnectionError):
            return "broken off"
        except Exception:
            log.exception("an image could not be passed on")
            transport.abort()
            return "broken off"
        return answer.status

    def _relayed(self, exchange: _Exchange, answer: Answer, relaying: asyncio.Task[int | str]) -> None:
        answer.close()
        self._end(exchange, "client left" if relaying.cancelled() else relaying.result())

    def _head(self, exchange: _Exchange, status: int, headers: dict[str, str]) -> bytes:
        block = exchange.block
        headers[REQUEST_ID_HEADER] = sane_request_id(block.request_id)
        headers[hdrs.DATE] = rfc822_formatted_time()
        lines = [f"HTTP/1.1 {_PLAIN[status]}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
        allowed_origins = self._services.config.server.allowed_origins
        lines += [f"{name}: {value}\r\n" for name, value in cors_headers(allowed_origins, block.origin)]
        lines.append("\r\n")
        return "".join(lines).encode()

    def _end(self, exchange: _Exchange, status: int | str) -> None:
        self._exchange = None
        self._leave_handling(exchange)
        note_end(hdrs.METH_GET, IMAGES_ROUTE, status, time.monotonic() - exchange.began)
        if not isinstance(status, int):
            self._record_failure(exchange)
        self._connection.rest()
        self._go_on()

    def _hand_over(self, exchange: _Exchange, answer: Answered) -> None:
        """Let the long way answer, with what upstream said, where asking again would not do as well."""
        if isinstance(answer, Answer) and answer.status == web.HTTPUnauthorized.status_code:
            answer.close()  # the long way gets another token
        elif answer is not None:
            self._begun = (exchange.question, answer)
        self._exchange = None
        self._leave_handling(exchange)
        self._connection.rest()
        self._connection.take(exchange.data)
        self._go_on()

    def _leave_handling(self, exchange: _Exchange) -> None:
        self._services.handling.discard(exchange.done)
        if not exchange.done.done():
            exchange.done.set_result(None)

    def _go_on(self) -> None:
        """Take what the client has sent meanwhile."""
        held, self._held = self._held, b""
        transport = self._connection.transport
        if held and transport is not None:
            transport.resume_reading()
            if not self.takes(held):
                self._connection.take(held)

    def _record_failure(self, exchange: _Exchange) -> None:
        services = self._services
        if services.study_trail is None:
            return
        uid = exchange.wanted.resource.StudyInstanceUID
        recording = asyncio.ensure_future(
            services.study_trail.done(
                _READ_STUDY, exchange.who, lambda: self._caller(exchange.block), uid, Outcome.FAILED
            )
        )
        services.handling.add(recording)
        recording.add_done_callback(services.handling.discard)

    def _caller(self, block: _Block) -> Caller:
        transport = self._connection.transport
        peer = transport.get_extra_info("peername") if transport is not None else None
        trusted = networks(self._services.config.server.trusted_proxies)
        address = client_address(str(peer[0]) if peer else "", list(block.forwarded), trusted)
        return Caller(address, block.agent, block.request_id)


_PREFIX = PUBLIC_PREFIX.encode() + b"/"


def begun_answer(request: web.Request, question: Question) -> Answered:
    """Give what has come already of a question that this request asks, if it was asked on the short way."""
    short_way = getattr(request.protocol, "short_way", None)
    return short_way.take_begun(question) if isinstance(short_way, ShortWay) else None

"""The DICOMweb server behind the proxy: one question, one answer, as a stream."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from pacsbridge.dicomweb.connection import BodyTooLarge, ConnectionBroken, ConnectionStalled
from pacsbridge.errors import UpstreamError, UpstreamTimeout, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
    from typing import Self

    from pacsbridge.dicomweb.connection import Connection, Drain, Sink
    from pacsbridge.dicomweb.credentials import Credentials
    from pacsbridge.dicomweb.pool import Pool
    from pacsbridge.dicomweb.wire import Head

log = structlog.get_logger(__name__)

UNAUTHORIZED = 401
#: What can be asked twice without harm (RFC 9110, 9.2.2).
_IDEMPOTENT = frozenset({"GET", "HEAD", "DELETE"})
#: Neither a space nor a line end nor anything else that could end the request line early.
_SAFE_TARGET = re.compile(r"[!-~]*", re.ASCII)
_SAFE_VALUE = re.compile(r"[\t -~\x80-\U0010ffff]*")


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a request.

    Attributes
    ----------
    length
        None where it isn't known before its end.
    """

    pieces: AsyncIterable[bytes]
    length: int | None


@dataclass(frozen=True, slots=True)
class Question:
    """A request to the upstream server, without its credentials.

    Parameters
    ----------
    path
        Below the DICOMweb root, as `paths` built it.
    query
        The query string, without ``?``.
    headers
        What to send beside Host and Authorization.
    """

    method: str
    path: str
    query: str = ""
    headers: Sequence[tuple[str, str]] = ()
    body: Body | None = None


class Answer:
    """An answer whose body is still to be read; close it in every case, a broken one is never used again."""

    def __init__(self, pool: Pool, connection: Connection, head: Head) -> None:
        self._pool = pool
        self._connection: Connection | None = connection
        self.status = head.status
        self.headers = head.headers

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; when the body was not read to its end, that ends the reading."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)

    async def read(self, limit: int) -> bytes:
        """Read the body whole.

        Raises
        ------
        UpstreamUnreachable, UpstreamTimeout
            It broke off; it is longer than `limit` bytes.
        """
        try:
            return await self._open().read(limit)
        except BodyTooLarge:
            raise UpstreamUnreachable("The image archive's answer is too long.") from None
        except ConnectionBroken as error:
            raise _told(error) from error

    async def pieces(self) -> AsyncIterator[memoryview]:
        """Give the body piece by piece; each is good until the next is asked for.

        Raises
        ------
        UpstreamUnreachable, UpstreamTimeout
            It broke off.
        """
        try:
            async for piece in self._open().pieces():
                yield piece
        except ConnectionBroken as error:
            raise _told(error) from error

    def read_now(self) -> bytes:
        """Read the body of an answer that is `complete`."""
        return self._open().read_now()

    @property
    def complete(self) -> bool:
        """Whether the body has arrived whole already, as small ones do with their head."""
        return self._open().complete

    def begin_with(self, head: bytes) -> bytes | memoryview:
        """Give a head for the client, in one piece with what came of the body already."""
        return self._open().begin_with(head)

    async def relay(self, sink: Sink, drain: Drain) -> None:
        """Pass the body on to a transport as it comes.

        Raises
        ------
        UpstreamUnreachable, UpstreamTimeout
            It broke off.
        """
        try:
            await self._open().relay(sink, drain)
        except ConnectionBroken as error:
            raise _told(error) from error

    def _open(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("the answer is closed")
        return self._connection


Answered = Answer | UpstreamError | None
"""How `Upstream.ask_now` ends."""


class Pending:
    """A question that was sent, whose answer has not begun."""

    __slots__ = ("_answered", "_connection", "_pool")

    def __init__(self, pool: Pool, connection: Connection, answered: Callable[[Answered], None]) -> None:
        self._pool = pool
        self._connection = connection
        self._answered = answered
        connection.when_answered(self._tell)

    def give_up(self) -> None:
        """Want the answer no more: upstream may stop working on it."""
        self._connection.when_answered(None)
        self._end()

    def _tell(self) -> None:
        head = self._connection.answer_head()
        if not isinstance(head, ConnectionBroken):
            self._answered(Answer(self._pool, self._connection, head))
            return
        self._end()
        self._answered(_told(head) if isinstance(head, ConnectionStalled) else None)

    def _end(self) -> None:
        self._connection.abort()
        self._pool.give_back(self._connection)


class Upstream:
    """Asks a DICOMweb server, with our credentials."""

    def __init__(self, pool: Pool, credentials: Credentials) -> None:
        self._pool = pool
        self._credentials = credentials
        self.root = pool.root

    async def ask(self, question: Question) -> Answer:
        """Send a request and wait for the head of its answer.

        A refused token is replaced and the request repeated, once, unless it had a body, which is gone then.

        Raises
        ------
        UpstreamError, Busy
            The server can't be asked.
        """
        header = await self._credentials.header()
        answer = await self._ask_twice(question, header)
        if answer.status == UNAUTHORIZED and question.body is None:
            try:
                again = await self._credentials.refused(header)
            except BaseException:
                answer.close()
                raise
            if again:
                answer.close()
                answer = await self._ask_twice(question, await self._credentials.header())
        return answer

    def ask_now(self, question: Question, answered: Callable[[Answered], None]) -> Pending | None:
        """Send a request without a body at once, where a connection and credentials are at hand.

        Parameters
        ----------
        answered
            Called once with the answer, which is the callee's to close; with an error; or with None when the
            server closed the idle connection, so that `ask` has to be used.

        Returns
        -------
        Pending
            What can be given up until then; None when nothing was sent, and `answered` won't be called.
        """
        authorization = self._credentials.at_hand()
        connection = None if authorization is None else self._pool.take_now()
        if authorization is None or connection is None:
            return None
        try:
            connection.send(question.method, self._head(question, authorization))
        except ConnectionBroken:
            connection.abort()
            self._pool.give_back(connection)
            return None
        return Pending(self._pool, connection, answered)

    async def _ask_twice(self, question: Question, authorization: str) -> Answer:
        """Ask, and once more where the server closed an idle connection at the moment it was used again."""
        repeatable = question.body is None and question.method in _IDEMPOTENT
        connection = await self._pool.take(fresh=not repeatable)
        used_before = connection.requests > 0
        try:
            return await self._send(connection, question, authorization)
        except ConnectionStalled as error:
            raise _told(error) from error
        except ConnectionBroken as error:
            if not (used_before and repeatable):
                raise _told(error) from error
        connection = await self._pool.take(fresh=True)
        try:
            return await self._send(connection, question, authorization)
        except ConnectionBroken as error:
            raise _told(error) from error

    async def _send(self, connection: Connection, question: Question, authorization: str) -> Answer:
        try:
            connection.send(question.method, self._head(question, authorization))
            if question.body is None:
                head = await connection.head()
            else:
                head = await _head_while_sending(connection, question.body)
        except BaseException:
            connection.abort()
            self._pool.give_back(connection)
            raise
        return Answer(self._pool, connection, head)

    def _head(self, question: Question, authorization: str) -> bytes:
        query = f"?{question.query}" if question.query else ""
        target = f"{self.root.path}{question.path}{query}"
        lines = [f"{question.method} {target} HTTP/1.1\r\nHost: {self.root.authority}\r\n"]
        if authorization:
            lines.append(f"Authorization: {authorization}\r\n")
        for name, value in question.headers:
            if not _SAFE_VALUE.fullmatch(value):
                raise ValueError(f"the header {name} would end too early")
            lines.append(f"{name}: {value}\r\n")
        if question.body is not None:
            length = question.body.length
            lines.append(
                "Transfer-Encoding: chunked\r\n" if length is None else f"Content-Length: {length}\r\n"
            )
        if not _SAFE_TARGET.fullmatch(target):
            raise ValueError("the request line would end too early")
        lines.append("\r\n")
        return "".join(lines).encode()


async def _head_while_sending(connection: Connection, body: Body) -> Head:
    """Send a body, and listen at the same time: a server that refuses it says so before it has come."""
    sending = asyncio.create_task(connection.send_body(body.pieces, chunked=body.length is None))
    answering = asyncio.create_task(connection.head())
    try:
        await asyncio.wait((sending, answering), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            await sending  # it has ended; where it failed, the client has left
        return await answering
    finally:
        if not sending.done():
            connection.spoil()
        sending.cancel()
        answering.cancel()
        await asyncio.gather(sending, answering, return_exceptions=True)


def _told(error: ConnectionBroken) -> UpstreamError:
    """Say it so that the one who reads it knows what to do, and nothing about the server behind us."""
    log.warning("upstream failed", reason=str(error))
    if isinstance(error, ConnectionStalled):
        return UpstreamTimeout("The image archive does not answer. Try again later.", retry_after=10)
    return UpstreamUnreachable("The image archive broke off. Try again.", retry_after=1)

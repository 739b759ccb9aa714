"""The proxy, put together from the configuration."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from pacsbridge.dicomweb.credentials import configured_credentials
from pacsbridge.dicomweb.google import DicomStore, GoogleCredentials
from pacsbridge.dicomweb.pool import Pool, Root
from pacsbridge.dicomweb.rewrite import Rewriter
from pacsbridge.dicomweb.search import ScopedSearch
from pacsbridge.dicomweb.studies import JSON_TYPE, Studies
from pacsbridge.dicomweb.upstream import Question, Upstream
from pacsbridge.errors import UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pacsbridge.accounts.policy import AccessPolicy
    from pacsbridge.config import Config

log = structlog.get_logger(__name__)

PUBLIC_PREFIX = "/dicomWeb"
_PROBE_BYTES = 4_000_000
_UNAUTHORIZED = 401
_FORBIDDEN = 403


class Dicomweb:
    """What the handlers of ``/dicomWeb`` call.

    Attributes
    ----------
    upstream
        For questions that nobody's scope narrows.
    studies, search
        For those whose scope does.
    """

    def __init__(
        self, config: Config, upstream: Upstream, policy: AccessPolicy, google: GoogleCredentials | None
    ) -> None:
        self.upstream = upstream
        self.studies = Studies(upstream, policy)
        self.search = ScopedSearch(upstream, policy, self.studies, wildcards=google is None)
        self.rewriter = Rewriter(upstream.root.path, config.server.public_url + PUBLIC_PREFIX)
        self.public_paths = tuple(tuple(path.strip("/").split("/")) for path in config.dicomweb.public_paths)
        self._google = google

    def is_public(self, path: str) -> bool:
        """Tell whether a path, as `paths` built it, is one that needs no sign-in, or is below one."""
        if not self.public_paths:
            return False
        parts = tuple(path[1:].split("/"))
        return any(parts[: len(public)] == public for public in self.public_paths)

    async def check(self, *, new_token: bool = False) -> str:
        """Ask upstream for one study.

        Parameters
        ----------
        new_token
            Whether to get a token from Google first, for real.

        Raises
        ------
        UpstreamError
            It doesn't answer, or not as a DICOMweb server; the message is a line for the engineer.
        """
        root = self.upstream.root
        if self._google is not None:
            if new_token:
                await self._google.check()
            if self._google.problem:
                raise UpstreamUnreachable(self._google.problem)
        question = Question("GET", "/studies", "limit=1", (("Accept", JSON_TYPE),))
        async with await self.upstream.ask(question) as answer:
            await answer.read(_PROBE_BYTES)
        if answer.status in {_UNAUTHORIZED, _FORBIDDEN}:
            what = "role of the service account" if self._google else "dicomweb.username and password"
            raise UpstreamUnreachable(f"{root.authority} answers {answer.status}: check the {what}")
        if answer.status >= 300:
            raise UpstreamUnreachable(f"{root.authority} answers {answer.status}: check the URL")
        return f"{root.authority} answers"


@asynccontextmanager
async def running_dicomweb(config: Config, policy: AccessPolicy) -> AsyncIterator[Dicomweb | None]:
    """Start the proxy, where the configuration switches it on.

    What is wrong with Google's credentials is told at once, and stops nothing else.

    Raises
    ------
    ConfigError
        The address of the upstream server can't be one.
    """
    section = config.dicomweb
    if section.upstream == "off":
        yield None
        return
    async with AsyncExitStack() as stack:
        google = None
        if section.upstream == "google":
            root = Root.parse(DicomStore.configured(config.google).url, "google.base_url")
            google = GoogleCredentials(config.google.credentials_path)
            stack.push_async_callback(google.close)
        else:
            root = Root.parse(section.url, "dicomweb.url")
        pool = await stack.enter_async_context(Pool(root, section.read_timeout_seconds))
        plain = configured_credentials(section.username, section.password.get_secret_value())
        dicomweb = Dicomweb(config, Upstream(pool, google or plain), policy, google)
        if google is not None:
            # Not waited for: discs don't need Google.
            first = asyncio.create_task(google.check(), name="first google token")
            stack.push_async_callback(_ended, first)
        yield dicomweb


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

"""The DICOM store of the Google Cloud Healthcare API: where it is, and the tokens that it wants."""

from __future__ import annotations

import asyncio
import http.client
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import structlog
from google.auth import transport
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.oauth2 import service_account

from pacsbridge.config import ConfigError
from pacsbridge.errors import UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pacsbridge.config import GoogleConfig

log = structlog.get_logger(__name__)

SCOPE = "https://www.googleapis.com/auth/cloud-healthcare"
#: A token is replaced so long before its end, or after four fifths of a short life.
_AHEAD_SECONDS = 300.0
_AHEAD_SHARE = 0.2
_TOKEN_SECONDS = 20.0
#: After a failure nobody asks again at once: a hundred frames wait behind each failure.
_PAUSE_SECONDS = 2.0
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
#: Project IDs may carry the domain of an organisation: ``example.org:project``.
_PROJECT = r"[a-z0-9][a-z0-9.:-]*"
_STORE_URL = re.compile(
    rf"(?P<base>https?://[^\s?#]+?)/projects/(?P<project>{_PROJECT})/locations/(?P<location>{_NAME})"
    rf"/datasets/(?P<dataset>{_NAME})/dicomStores/(?P<store>{_NAME})/dicomWeb",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class DicomStore:
    """A DICOM store. One that exists has a valid address.

    Raises
    ------
    ValueError
        A part of it can't be one; the message names the key of the configuration.
    """

    project_id: str
    location: str
    dataset: str
    dicom_store: str
    base_url: str = "https://healthcare.googleapis.com/v1"

    def __post_init__(self) -> None:
        for key in ("project_id", "location", "dataset", "dicom_store"):
            value = getattr(self, key)
            if not re.fullmatch(_PROJECT if key == "project_id" else _NAME, value, re.ASCII):
                raise ValueError(f"{key}: {'is missing' if not value else 'is no name that Google gives'}")
        if not re.fullmatch(r"https?://[^\s?#/][^\s?#]*(?<!/)", self.base_url, re.ASCII):
            raise ValueError("base_url: must be a URL such as https://healthcare.googleapis.com/v1")

    @property
    def url(self) -> str:
        """The root of its DICOMweb services."""
        return (
            f"{self.base_url}/projects/{self.project_id}/locations/{self.location}"
            f"/datasets/{self.dataset}/dicomStores/{self.dicom_store}/dicomWeb"
        )

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Take a store's URL apart.

        Raises
        ------
        ValueError
            It is none.
        """
        match = _STORE_URL.fullmatch(url)
        if match is None:
            raise ValueError("is not the URL of a DICOM store's dicomWeb")
        return cls(match["project"], match["location"], match["dataset"], match["store"], match["base"])

    @classmethod
    def configured(cls, config: GoogleConfig) -> Self:
        """Take the store of the configuration.

        Raises
        ------
        ConfigError
            A part of it is missing or wrong.
        """
        try:
            return cls(
                config.project_id, config.location, config.dataset, config.dicom_store, config.base_url
            )
        except ValueError as error:
            raise ConfigError(f"google.{error}") from None


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    ends_at: datetime


class GoogleCredentials:
    """The tokens of a service account: one for all requests, replaced before it ends.

    google-auth asks for tokens synchronously, so it does that in a thread; whoever needs a token while one is
    on its way waits for that one.

    Parameters
    ----------
    path
        The service account's JSON file. It is read when the first token is needed, and again after a failure,
        so that a file that is put right later needs no restart.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        self._replace_at = 0.0
        self._ends_at = 0.0
        self._refreshing: asyncio.Task[None] | None = None
        self._failed: UpstreamUnreachable | None = None
        self._failed_at = 0.0
        self._problem = ""

    async def header(self) -> str:
        """Give the value of ``Authorization``.

        Raises
        ------
        UpstreamUnreachable
            There is no token to be had; the log says why.
        """
        now = time.monotonic()
        if now >= self._ends_at:
            await self._refresh()
        elif now >= self._replace_at:
            self._begin_refresh()  # the old one is still good: nobody waits
        return f"Bearer {self._token}"

    def at_hand(self) -> str | None:
        """Give the value while the token is young; when it gets old, whoever waits for `header` renews it."""
        return f"Bearer {self._token}" if time.monotonic() < self._replace_at else None

    async def refused(self, header: str) -> bool:
        """Replace a token that Google refused, unless that has happened already."""
        if header == f"Bearer {self._token}":
            self._ends_at = self._replace_at = 0.0
            await self._refresh()
        return True

    async def check(self) -> None:
        """Get a token now, for real; what goes wrong is in `problem`."""
        await asyncio.shield(self._begin_refresh())

    @property
    def problem(self) -> str:
        """What is wrong with it, as a line for the engineer; empty where the last token came."""
        return self._problem

    async def close(self) -> None:
        """Wait for a token that is on its way."""
        if self._refreshing is not None:
            await asyncio.gather(self._refreshing, return_exceptions=True)

    def _begin_refresh(self) -> asyncio.Task[None]:
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._fetch_and_keep(), name="google token")
            self._refreshing.add_done_callback(self._refreshed)
        return self._refreshing

    async def _refresh(self) -> None:
        if self._failed is not None and time.monotonic() - self._failed_at < _PAUSE_SECONDS:
            raise self._failed
        # Many wait for one token; one who leaves doesn't take it from the others.
        await asyncio.shield(self._begin_refresh())
        if self._failed is not None:
            raise self._failed

    def _refreshed(self, _task: asyncio.Task[None]) -> None:
        self._refreshing = None

    async def _fetch_and_keep(self) -> None:
        try:
            self._keep(await asyncio.to_thread(self._fetch))
        except (OSError, ValueError, GoogleAuthError) as error:
            self._problem = explain(self._path, error)
            log.error("no token from Google", reason=self._problem)  # noqa: TRY400 - it says it all
            self._failed = UpstreamUnreachable(
                "The image archive can't be asked at the moment. Try again later.", retry_after=10
            )
            self._failed_at = time.monotonic()
            # While the old token is good the next try can wait.
            self._replace_at = self._failed_at + _PAUSE_SECONDS
        else:
            self._failed, self._problem = None, ""

    def _keep(self, token: _Token) -> None:
        life = token.ends_at.timestamp() - time.time()
        now = time.monotonic()
        self._token = token.text
        self._ends_at = now + life
        self._replace_at = self._ends_at - min(_AHEAD_SECONDS, life * _AHEAD_SHARE)

    def _fetch(self) -> _Token:
        account = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call] # google-auth is untyped
            str(self._path), scopes=[SCOPE]
        )
        account.refresh(_Transport())
        if not account.token or account.expiry is None:
            raise RefreshError("a token without a time")  # type: ignore[no-untyped-call] # as above
        # google-auth's times are UTC, and say so nowhere.
        return _Token(str(account.token), account.expiry.replace(tzinfo=UTC))


def explain(path: Path, error: Exception) -> str:
    """Say what is wrong with a service account, and what to do."""
    if isinstance(error, RefreshError):
        return f"Google refuses the service account of {path}: {error.args[0]}; make a new key for it"
    if isinstance(error, TransportError):
        return f"Google can't be reached for a token: {error}"
    if isinstance(error, FileNotFoundError):
        return f"google.credentials_path: there is no file {path}; download a key of the service account"
    if isinstance(error, OSError):
        return f"google.credentials_path: {path} can't be read: {error.strerror}"
    return f"google.credentials_path: {path} is not the key of a service account"


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: dict[str, str]
    data: bytes


class _Transport(transport.Request):
    """What google-auth sends its requests with: its own transport would need another HTTP library."""

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_more: Any,
    ) -> _Response:
        if not url.startswith(("https://", "http://")):
            raise TransportError("token_uri is no web address")  # type: ignore[no-untyped-call] # as above
        request = urllib.request.Request(url, data=body, headers=dict(headers or {}), method=method)  # noqa: S310 - checked above
        try:
            with urllib.request.urlopen(request, timeout=timeout or _TOKEN_SECONDS) as response:  # noqa: S310
                return _Response(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return _Response(error.code, dict(error.headers), error.read())
        except (OSError, http.client.HTTPException) as error:
            raise TransportError(getattr(error, "reason", None) or error) from error  # type: ignore[no-untyped-call] # as above

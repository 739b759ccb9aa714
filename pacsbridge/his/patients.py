"""The patient-data API of the HIS: the patient's name for an accession number.

A disc is made without it as well: every failure here ends in None and one line in the log.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import aiohttp
import structlog

from pacsbridge.errors import PacsbridgeError

if TYPE_CHECKING:
    from types import TracebackType

    from pacsbridge.config import PatientApiConfig

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS = 0.25
_SERVER_ERROR = 500
_MAX_ANSWER_BYTES = 1_000_000


class PatientApiFailure(PacsbridgeError):
    """The HIS gave no usable answer; told by ``pacsbridge check`` and in health only."""


@dataclass(frozen=True, slots=True)
class Patient:
    """What the HIS knows of the patient; empty where it says nothing."""

    patient_id: str
    name: str
    birth_date: str
    sex: str


class PatientApi:
    """A client of the HIS; `None` is its answer to everything when ``base_url`` is empty."""

    def __init__(self, config: PatientApiConfig) -> None:
        self._config = config
        self._session: aiohttp.ClientSession | None = None

    @property
    def enabled(self) -> bool:
        """Whether there is an API to ask."""
        return bool(self._config.base_url)

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=self._config.timeout_seconds)
        key = self._config.api_key.get_secret_value()
        headers = {"Accept": "application/json"} | ({"X-API-Key": key} if key else {})
        self._session = aiohttp.ClientSession(timeout=timeout, headers=headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def patient(self, accession_number: str) -> Patient | None:
        """Ask for the patient of an accession number; None when the HIS can't say."""
        if not self.enabled:
            return None
        try:
            answer = await self._ask(accession_number)
        except PatientApiFailure as error:
            log.warning("the patient-data API did not help", reason=error.message)
            return None
        return self._read(answer)

    async def check(self) -> None:
        """Try the API once.

        Raises
        ------
        PatientApiFailure
            There is no answer, or a server error.
        """
        status, _ = await self._get("0")
        if status >= _SERVER_ERROR or status in {401, 403}:
            raise PatientApiFailure(f"it answered with status {status}")

    async def _ask(self, accession_number: str) -> Any:
        """Ask with retries: on connection errors, time-outs and 5xx, waiting twice as long each time."""
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(self._config.retries + 1):
            last = attempt == self._config.retries
            try:
                status, answer = await self._get(accession_number)
            except PatientApiFailure:
                if last:
                    raise
            else:
                if status < _SERVER_ERROR or last:
                    if status != 200:
                        raise PatientApiFailure(f"it answered with status {status}")
                    return answer
            await asyncio.sleep(pause)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    async def _get(self, accession_number: str) -> tuple[int, Any]:
        if self._session is None:
            raise PatientApiFailure("the client is not open")
        path = self._config.path.format(accession_number=quote(accession_number, safe=""))
        url = self._config.base_url + path
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                body = await response.content.read(_MAX_ANSWER_BYTES)
                if response.status != 200:
                    return response.status, None
                return response.status, _parse(body)
        except TimeoutError:
            raise PatientApiFailure(f"no answer within {self._config.timeout_seconds:g} s") from None
        except (aiohttp.ClientError, ValueError, RecursionError) as error:
            raise PatientApiFailure(f"no usable answer ({type(error).__name__})") from None

    def _read(self, answer: Any) -> Patient:
        fields = self._config.fields
        return Patient(
            patient_id=_dig(answer, fields.patient_id),
            name=_dig(answer, fields.name),
            birth_date=_dig(answer, fields.birth_date),
            sex=_dig(answer, fields.sex),
        )


def _parse(body: bytes) -> Any:
    return json.loads(body.decode("utf-8-sig"))


def _dig(answer: Any, path: str) -> str:
    """Follow a dotted path (``data.0.name``); empty where it leads nowhere."""
    value = answer
    for step in path.split(".") if path else ():
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return ""
    return str(value).strip() if isinstance(value, (str, int)) else ""

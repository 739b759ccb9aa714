"""What upstream tells of single studies, kept for seconds: decisions about access depend on it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import structlog

from pacsbridge.accounts.policy import Action, Decision, Study
from pacsbridge.dicomweb.upstream import Question
from pacsbridge.errors import Forbidden, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacsbridge.accounts.policy import AccessPolicy
    from pacsbridge.accounts.values import Principal
    from pacsbridge.dicomweb.upstream import Upstream

log = structlog.get_logger(__name__)

#: Of the attributes of a study that decide about access: how old they may be.
KEPT_SECONDS = 30.0
_KEPT_STUDIES = 20_000
#: The attributes that a decision may need (PS3.6), asked for by keyword.
DECIDING = ("StudyInstanceUID", "AccessionNumber", "ReferringPhysicianName")
JSON_TYPE = "application/dicom+json"
_ROWS_BYTES = 64_000_000
_OK = 200
_NO_CONTENT = 204
_NOT_FOUND = 404

_STUDY_INSTANCE_UID = "0020000D"
_ACCESSION_NUMBER = "00080050"
_REFERRING_PHYSICIAN_NAME = "00080090"

Row = dict[str, Any]
"""A data set of the DICOM JSON model (PS3.18, Annex F), keyed by tag."""


class RowsRefused(Exception):
    """Upstream answered a search with an error; `status` and `retry_after` are its own."""

    def __init__(self, status: int, retry_after: str) -> None:
        super().__init__(status)
        self.status = status
        self.retry_after = retry_after


async def search(upstream: Upstream, path: str, query: str) -> list[Row]:
    """Ask upstream, and read the whole answer.

    Raises
    ------
    RowsRefused
        It answered with an error.
    UpstreamError, Busy
        It can't be asked; its answer is no JSON of rows.
    """
    headers = (("Accept", JSON_TYPE), ("Accept-Encoding", "identity"))
    async with await upstream.ask(Question("GET", path, query, headers)) as answer:
        body = await answer.read(_ROWS_BYTES)
    if answer.status in {_NO_CONTENT, _NOT_FOUND} or (answer.status == _OK and not body.strip()):
        return []
    if answer.status != _OK:
        raise RowsRefused(answer.status, answer.headers.get("retry-after", ""))
    try:
        rows = json.loads(body)
    except ValueError:
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UpstreamUnreachable("The image archive's answer can't be read.")
    return rows


def study_of(row: Row) -> Study:
    """Take from a row what decides about access; what isn't there is not known.

    Raises
    ------
    ValueError
        It names no study, or more than one.
    """
    uids = _values(row, _STUDY_INSTANCE_UID)
    if len(uids) != 1 or not isinstance(uids[0], str):
        raise ValueError("a row without its study")
    return Study(uids[0], _text(row, _ACCESSION_NUMBER), _person_name(row, _REFERRING_PHYSICIAN_NAME))


def value_of(row: Row, tag: str) -> str:
    """Give the first value of an attribute as text; empty where there is none."""
    return next(iter(values_of(row, tag)), "")


def values_of(row: Row, tag: str) -> tuple[str, ...]:
    """Give the values of an attribute as texts."""
    return tuple(str(value) for value in _values(row, tag) if isinstance(value, str | int | float))


def _values(row: Row, tag: str) -> Sequence[Any]:
    element = row.get(tag)
    values = element.get("Value", []) if isinstance(element, dict) else []
    return values if isinstance(values, list) else []


def _text(row: Row, tag: str) -> str | None:
    """Give the only value of an attribute; None where it isn't in the row, or has several."""
    if tag not in row:
        return None
    values = _values(row, tag)
    if not values:
        return ""
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def _person_name(row: Row, tag: str) -> str | None:
    """Join the component groups of a name (PS3.18, F.2.2) as PS3.5 6.2.1 writes them."""
    if tag not in row:
        return None
    values = _values(row, tag)
    if not values:
        return ""
    if len(values) != 1 or not isinstance(values[0], dict):
        return None
    groups = [values[0].get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
    return "=".join(groups) if all(isinstance(group, str) for group in groups) else None


class Studies:
    """Decides whether somebody may do something to a study, and asks upstream where the policy needs more.

    What is kept is what upstream says of a study, not what was decided: who loses a grant loses it at once.
    """

    def __init__(self, upstream: Upstream, policy: AccessPolicy) -> None:
        self._upstream = upstream
        self._policy = policy
        self._kept: dict[str, tuple[float, Study | None]] = {}
        self._asking: dict[str, asyncio.Task[Study | None]] = {}

    async def require(self, principal: Principal, action: Action, StudyInstanceUID: str) -> None:
        """Refuse what somebody may not do to a study.

        Raises
        ------
        Forbidden
            It is not theirs; there being no such study looks the same.
        UpstreamError, Busy
            Upstream has to be asked, and can't be.
        """
        decision = self._policy.decide(principal, action, Study(StudyInstanceUID))
        if decision is Decision.CHECK:
            study = await self._study(StudyInstanceUID)
            # An attribute that stays unknown denies.
            decision = self._policy.decide(principal, action, study) if study else Decision.DENY
        if decision is not Decision.ALLOW:
            raise Forbidden("This study is not open to you.")

    def allows_at_once(self, principal: Principal, action: Action, StudyInstanceUID: str) -> bool:
        """Tell whether somebody may do something to a study, as far as is known now; False is no answer."""
        decision = self._policy.decide(principal, action, Study(StudyInstanceUID))
        if decision is Decision.CHECK:
            kept = self._kept.get(StudyInstanceUID)
            study = kept[1] if kept is not None and kept[0] > time.monotonic() else None
            decision = self._policy.decide(principal, action, study) if study else Decision.DENY
        return decision is Decision.ALLOW

    def remember(self, study: Study) -> None:
        """Keep what a search has just told of a study: the viewer opens it next."""
        if study.AccessionNumber is None or study.ReferringPhysicianName is None:
            return
        if len(self._kept) >= _KEPT_STUDIES:
            self._kept.clear()
        self._kept[study.StudyInstanceUID] = (time.monotonic() + KEPT_SECONDS, study)

    async def _study(self, uid: str) -> Study | None:
        kept = self._kept.get(uid)
        if kept is not None and kept[0] > time.monotonic():
            return kept[1]
        task = self._asking.get(uid)
        if task is None:
            task = self._asking[uid] = asyncio.create_task(self._ask(uid))
            task.add_done_callback(lambda _: self._asking.pop(uid, None))
        # A viewer asks for a hundred frames at once: one question for all of them.
        return await asyncio.shield(task)

    async def _ask(self, uid: str) -> Study | None:
        fields = "&".join(f"includefield={keyword}" for keyword in DECIDING)
        try:
            rows = await search(self._upstream, "/studies", f"StudyInstanceUID={uid}&{fields}")
        except RowsRefused as error:
            log.warning("upstream refused to tell of a study", status=error.status)
            raise UpstreamUnreachable(
                "The image archive can't be asked at the moment. Try again later.", retry_after=5
            ) from None
        found = None
        for row in rows:
            try:
                study = study_of(row)
            except ValueError:
                continue
            if study.StudyInstanceUID == uid:
                found = study
        if found is not None:
            self.remember(found)
        return found

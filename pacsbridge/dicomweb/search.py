"""Searching for somebody who may see some studies only.

A filter that is added to the query protects nobody: a server may ignore what it doesn't support (PS3.18,
8.3.4), and none takes long lists. So upstream is asked study by study, every row that comes back is checked,
and merging, sorting and paging happen here.
"""

from __future__ import annotations

import asyncio
import fnmatch
from typing import TYPE_CHECKING, Any

import structlog

from pacsbridge.accounts.policy import Action, Decision, Scope, person_name_key
from pacsbridge.dicomweb.paths import is_uid
from pacsbridge.dicomweb.studies import DECIDING, search, study_of, value_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from pacsbridge.accounts.policy import AccessPolicy
    from pacsbridge.accounts.values import Principal
    from pacsbridge.dicomweb.keys import SearchKeys
    from pacsbridge.dicomweb.paths import Resource
    from pacsbridge.dicomweb.studies import Row, Studies
    from pacsbridge.dicomweb.upstream import Upstream

log = structlog.get_logger(__name__)

#: So many questions at once for one search; a patient with a hundred studies takes no more.
_AT_ONCE = 8
#: The most that Google gives of studies at once, and how many times a doctor's are asked for.
_PAGE_ROWS = 5000
_MOST_PAGES = 10
_SORT_FIELDS = ("StudyDate", "StudyTime")
_STUDY_INSTANCE_UID = "0020000D"
_SERIES_INSTANCE_UID = "0020000E"
_STUDY_DATE = "00080020"
_STUDY_TIME = "00080030"
_UID_SEPARATORS = str.maketrans({"\\": ",", "+": ","})


class ScopedSearch:
    """Searches within what somebody may see.

    Parameters
    ----------
    wildcards
        Whether upstream knows them (PS3.4, C.2.2.2.4): then names are found however they are padded.
    """

    def __init__(
        self, upstream: Upstream, policy: AccessPolicy, studies: Studies, *, wildcards: bool
    ) -> None:
        self._wildcards = wildcards
        self._upstream = upstream
        self._policy = policy
        self._studies = studies

    async def find_studies(self, principal: Principal, keys: SearchKeys) -> list[Row]:
        """Search for studies (PS3.18, 10.6): those that match and are theirs, the newest first.

        Raises
        ------
        RowsRefused, UpstreamError, Busy
            Upstream can't be asked, or refuses: half of the studies would look like all of them.
        """
        places = asyncio.Semaphore(_AT_ONCE)

        async def ask(query: str) -> list[Row]:
            async with places:
                return await search(self._upstream, "/studies", query)

        questions = [ask(query) for query in self._questions(principal, keys)]
        if self._asks_for_referrals(principal, keys):
            questions.append(self._find_referred(principal, keys))
        found: dict[str, Row] = {}
        for row in await _together(questions):
            uid = self._own(principal, row, keys)
            if uid:
                found.setdefault(uid, row)
        rows = sorted(
            found.values(),
            key=lambda row: (value_of(row, _STUDY_DATE), value_of(row, _STUDY_TIME)),
            reverse=True,
        )
        stop = None if keys.limit is None else keys.offset + keys.limit
        return rows[keys.offset : stop]

    async def find_within(self, resource: Resource, keys: SearchKeys) -> list[Row]:
        """Search for series or instances of one study that is theirs.

        A row that names another study, or another series than the path, is left away.
        """
        named = {
            "StudyInstanceUID": resource.StudyInstanceUID,
            "SeriesInstanceUID": resource.SeriesInstanceUID,
        }
        for keyword, uid in named.items():
            if uid and any(uid not in _uids(value) for value in keys.values(keyword)):
                return []
        below = keys.without(*(keyword for keyword, uid in named.items() if uid))
        paging = [("limit", str(keys.limit))] if keys.limit is not None else []
        paging += [("offset", str(keys.offset))] if keys.offset else []
        rows = await search(self._upstream, resource.path, below.query(paging))
        return [row for row in rows if _belongs(row, resource)]

    def _questions(self, principal: Principal, keys: SearchKeys) -> list[str]:
        """Make the queries whose answers hold all that is theirs and matches."""
        fields = (*DECIDING, *_SORT_FIELDS)
        grants = principal.grants
        named = _named_studies(keys)
        if named is not None:
            # By UID, whatever makes it theirs: the check of the rows finds out.
            may_have_others = bool(grants.accession_numbers) or self._is_referred(principal)
            uids: Iterable[str] = [uid for uid in named if may_have_others or uid in grants.study_iuids]
            return [_by("StudyInstanceUID", uid, keys, fields) for uid in uids]
        questions = [_by("StudyInstanceUID", uid, keys, fields) for uid in grants.study_iuids]
        questions += [
            _by("AccessionNumber", number, keys, fields)
            for number in grants.accession_numbers
            if all(_matches(number, wanted) for wanted in keys.values("AccessionNumber"))
        ]
        return questions

    def _asks_for_referrals(self, principal: Principal, keys: SearchKeys) -> bool:
        """Tell whether to look for the studies that a doctor ordered: those that are named are asked for by UID."""
        return (
            self._is_referred(principal)
            and _named_studies(keys) is None
            and all(
                _matches_name(principal.ref_doctor, wanted)
                for wanted in keys.values("ReferringPhysicianName")
            )
        )

    async def _find_referred(self, principal: Principal, keys: SearchKeys) -> list[Row]:
        """Ask for the studies that a doctor ordered, page by page: the newest of all may be on the last one."""
        name = _unpadded(principal.ref_doctor)
        asked = [
            ("ReferringPhysicianName", f"{name}*" if self._wildcards else name),
            ("limit", str(_PAGE_ROWS)),
        ]
        own, fields = keys.without("ReferringPhysicianName"), (*DECIDING, *_SORT_FIELDS)
        rows: list[Row] = []
        for _ in range(_MOST_PAGES):
            paging = [("offset", str(len(rows)))] if rows else []
            page = await search(self._upstream, "/studies", own.query([*asked, *paging], fields))
            rows += page
            if len(page) < _PAGE_ROWS:
                return rows
        log.warning("a doctor has more studies than can be listed: some are missing", rows=len(rows))
        return rows

    def _is_referred(self, principal: Principal) -> bool:
        scope = self._policy.scope(principal.role, Action.SEARCH_STUDIES)
        return scope is Scope.REFERRED and bool(person_name_key(principal.ref_doctor))

    def _own(self, principal: Principal, row: Row, keys: SearchKeys) -> str:
        """Give the study of a row that is theirs; empty for one that is not, or that wasn't asked for."""
        try:
            study = study_of(row)
        except ValueError:
            return ""
        decision = self._policy.decide(principal, Action.SEARCH_STUDIES, study)
        named = _named_studies(keys)
        if decision is not Decision.ALLOW or (named is not None and study.StudyInstanceUID not in named):
            return ""
        self._studies.remember(study)
        return study.StudyInstanceUID


async def _together(questions: Iterable[Coroutine[Any, Any, list[Row]]]) -> list[Row]:
    """Ask all, and give all rows; when one fails, the others are stopped and its error is raised."""
    tasks = [asyncio.create_task(question) for question in questions]
    try:
        return [row for rows in await asyncio.gather(*tasks) for row in rows]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _by(keyword: str, value: str, keys: SearchKeys, fields: Iterable[str]) -> str:
    return keys.without(keyword).query([(keyword, value)], fields)


def _uids(value: str) -> set[str]:
    """Take a list of UIDs apart (PS3.18, 8.3.4.1): commas, and the backslash of older clients."""
    return {uid.strip() for uid in value.translate(_UID_SEPARATORS).split(",")}


def _named_studies(keys: SearchKeys) -> list[str] | None:
    """Give the studies that the search names; None where it names none, none at all where it contradicts itself."""
    values = keys.values("StudyInstanceUID")
    if not values:
        return None
    common = set.intersection(*(_uids(value) for value in values))
    return sorted(uid for uid in common if is_uid(uid))


def _belongs(row: Row, resource: Resource) -> bool:
    """Tell whether a row is of the path's study and series; Google's rows don't name the study."""
    uids = (
        (_STUDY_INSTANCE_UID, resource.StudyInstanceUID),
        (_SERIES_INSTANCE_UID, resource.SeriesInstanceUID),
    )
    return all(not uid or tag not in row or value_of(row, tag) in {"", uid} for tag, uid in uids)


def _matches(value: str, wanted: str) -> bool:
    """Compare as a search does (PS3.4, C.2.2.2): ``*`` and ``?`` are wildcards."""
    return fnmatch.fnmatchcase(value.casefold(), wanted.strip().casefold().replace("[", "[[]"))


def _unpadded(name: str) -> str:
    """Take empty components and groups off the ends of a name (PS3.5, 6.2.1.1)."""
    return "=".join(group.strip().rstrip("^ ") for group in name.split("=")).rstrip("=")


def _matches_name(name: str, wanted: str) -> bool:
    return person_name_key(name) == person_name_key(wanted) or _matches(name, wanted)

"""Accession number to studies: C-FIND at STUDY, SERIES and IMAGE level (PS3.4, C.4.1)."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, TypeVar

import structlog
from pydicom import Dataset
from pynetdicom.status import code_to_category

from pacsbridge import metrics
from pacsbridge.dimse.scu import STUDY_ROOT_FIND, Peer, Scu
from pacsbridge.errors import PacsRejected, PacsTimeout, PacsUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = structlog.get_logger(__name__)

#: No accession number names so many studies, no study has so many instances: an archive that lies is left.
_MAX_ANSWERS = 200_000

#: How long an aborted query may take to end its thread.
_ABORT_GRACE_SECONDS = 3.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Series:
    """A series as the archive describes it; `instances` is None where it gives no total."""

    SeriesInstanceUID: str
    instances: int | None


@dataclass(frozen=True, slots=True)
class Study:
    """A study that an accession number names."""

    StudyInstanceUID: str
    AccessionNumber: str
    PatientID: str
    PatientBirthDate: str
    series: tuple[Series, ...]
    total: int | None = None
    """The number of instances as the archive gives it for the study, beside those of the series."""

    @property
    def series_are_all(self) -> bool:
        """Whether the archive listed every series, as far as its numbers tell: then they can be asked for singly."""
        totals = [series.instances for series in self.series]
        return bool(totals) and None not in totals and self.total in (None, self.instances)

    @property
    def instances(self) -> int | None:
        """The number of instances that the archive promises, or None where it gives no totals."""
        totals = [series.instances for series in self.series]
        return None if not totals else sum(total or 0 for total in totals) or None


class Query:
    """C-FIND requests over one association; used from one thread, `abort` from any."""

    def __init__(self, peer: Peer) -> None:
        self._scu = Scu(peer, STUDY_ROOT_FIND)
        self._peer = peer

    def __enter__(self) -> Self:
        self._scu.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._scu.__exit__(*details)  # type: ignore[arg-type]  # what a with statement gives

    def abort(self) -> None:
        """Stop asking; a call that waits ends with PacsUnreachable."""
        self._scu.abort()

    def find_studies(self, accession_number: str) -> tuple[Study, ...]:
        """Find every study that has exactly this accession number, with its series.

        An archive that ignores the key, or takes it as a pattern, answers with other patients' studies: each
        answer is compared, and what is not equal is dropped.
        """
        identifier = _identifier(
            "STUDY", "StudyInstanceUID", "PatientID", "PatientBirthDate", "NumberOfStudyRelatedInstances"
        )
        identifier.AccessionNumber = accession_number
        if not accession_number.isascii():
            identifier.SpecificCharacterSet = "ISO_IR 192"
        studies: dict[str, Study] = {}
        strangers = 0
        for answer in self._find(identifier):
            study_uid = _text(answer, "StudyInstanceUID")
            if _text(answer, "AccessionNumber") != accession_number or not study_uid:
                strangers += 1
            elif study_uid not in studies:
                studies[study_uid] = Study(
                    StudyInstanceUID=study_uid,
                    AccessionNumber=accession_number,
                    PatientID=_text(answer, "PatientID"),
                    PatientBirthDate=_text(answer, "PatientBirthDate"),
                    series=(),
                    total=_count(answer, "NumberOfStudyRelatedInstances"),
                )
        if strangers:
            log.warning("the PACS answered with studies that were not asked for", dropped=strangers)
        return tuple(self._with_series(study) for study in studies.values())

    def find_instances(self, StudyInstanceUID: str, SeriesInstanceUID: str) -> frozenset[str]:
        """List the SOP Instance UIDs of a series."""
        identifier = _identifier("IMAGE", "SOPInstanceUID")
        identifier.StudyInstanceUID = StudyInstanceUID
        identifier.SeriesInstanceUID = SeriesInstanceUID
        return frozenset(
            uid
            for answer in self._find(identifier)
            if _belongs(answer, StudyInstanceUID, SeriesInstanceUID)
            and (uid := _text(answer, "SOPInstanceUID"))
        )

    def _with_series(self, study: Study) -> Study:
        identifier = _identifier("SERIES", "SeriesInstanceUID", "NumberOfSeriesRelatedInstances")
        identifier.StudyInstanceUID = study.StudyInstanceUID
        series: dict[str, Series] = {}
        try:
            for answer in self._find(identifier):
                uid = _text(answer, "SeriesInstanceUID")
                if uid and _belongs(answer, study.StudyInstanceUID):
                    series.setdefault(uid, Series(uid, _count(answer, "NumberOfSeriesRelatedInstances")))
        except PacsRejected:
            log.info("the PACS does not answer queries at SERIES level: there are no totals")
            series.clear()  # some, without the others, would pass for all
        return replace(study, series=tuple(series.values()))

    def _find(self, identifier: Dataset) -> Iterator[Dataset]:
        asked = time.monotonic()
        for number, (status, answer) in enumerate(self._scu.find(identifier)):
            waited, asked = time.monotonic() - asked, time.monotonic()
            if "Status" not in status:
                raise self._broken_off(waited)
            category = code_to_category(status.Status)
            if category == "Pending" and answer is not None:
                yield answer
            elif category not in {"Pending", "Success", "Warning"}:
                metrics.DIMSE_FAILURES.labels("C-FIND", f"0x{status.Status:04X}").inc()
                comment = f": {status.ErrorComment}" if status.get("ErrorComment") else ""
                raise PacsRejected(
                    f"The PACS {self._peer} refused a {identifier.QueryRetrieveLevel} query "
                    f"with status 0x{status.Status:04X}{comment}. Check its log for C-FIND."
                )
            if number > _MAX_ANSWERS:
                raise PacsRejected(
                    f"The PACS {self._peer} does not stop answering a {identifier.QueryRetrieveLevel} query."
                )

    def _broken_off(self, waited: float) -> Exception:
        if waited < self._peer.response_timeout_seconds:
            return PacsUnreachable(f"The PACS {self._peer} broke the connection off during a query.")
        return PacsTimeout(
            f"The PACS {self._peer} did not answer a query within {self._peer.response_timeout_seconds:g} s."
        )


async def ask(peer: Peer, work: Callable[[Query], T]) -> T:
    """Run C-FINDs in a thread; the association is aborted when the task that waits is cancelled."""
    query = Query(peer)

    def run() -> T:
        with query:
            return work(query)

    running = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        query.abort()
        await asyncio.wait({running}, timeout=_ABORT_GRACE_SECONDS)
        if running.done() and not running.cancelled():
            running.exception()  # what it ended with no longer matters; asyncio wants it looked at
        raise


def _identifier(level: str, *keywords: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword in keywords:
        setattr(identifier, keyword, "")
    return identifier


def _belongs(answer: Dataset, StudyInstanceUID: str, SeriesInstanceUID: str | None = None) -> bool:
    """Whether an answer is from the study (and series) asked for; a key that is not repeated is no objection."""
    same_study = _text(answer, "StudyInstanceUID") in {"", StudyInstanceUID}
    return same_study and (
        SeriesInstanceUID is None or _text(answer, "SeriesInstanceUID") in {"", SeriesInstanceUID}
    )


def _text(answer: Dataset, keyword: str) -> str:
    """Return a value without its padding; several values are none."""
    value = answer.get(keyword)
    return str(value).strip(" \0") if value is not None else ""


def _count(answer: Dataset, keyword: str) -> int | None:
    text = _text(answer, keyword)
    return int(text) if text.isdigit() else None

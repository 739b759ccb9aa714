"""Which studies an accession number names: asked of the archive when a link is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pacsbridge.errors import NoDicomData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacsbridge.accounts.values import Grants


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """A study that a link opens, with what the archive tells of it; empty where it doesn't."""

    StudyInstanceUID: str
    AccessionNumber: str = ""
    StudyDate: str = ""
    StudyDescription: str = ""
    ModalitiesInStudy: tuple[str, ...] = ()


class StudyCatalog(Protocol):
    """The archive, as far as links need it."""

    async def of_accession_number(self, accession_number: str) -> Sequence[FoundStudy]:
        """Find the studies with this accession number; none where there is none.

        Raises
        ------
        PacsError, UpstreamError
            The archive can't be asked.
        """
        ...


async def studies_of(grants: Grants, catalog: StudyCatalog | None) -> list[FoundStudy]:
    """List the studies behind grants, each once, those named by UID first.

    Raises
    ------
    NoDicomData
        There is none, or none yet.
    PacsError, UpstreamError
        The archive can't be asked, and no study is known without it.
    """
    found = {uid: FoundStudy(uid) for uid in grants.study_iuids}
    for number in grants.accession_numbers:
        for study in await catalog.of_accession_number(number) if catalog else ():
            # An archive that ignores the key answers with other patients' studies.
            if study.AccessionNumber.strip() == number:
                found[study.StudyInstanceUID] = study
    if not found:
        raise NoDicomData("The images are not in the archive, or not yet. Try again later.")
    return list(found.values())

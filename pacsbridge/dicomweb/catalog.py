"""The upstream server as the catalogue that short links ask: what they open is what the viewer shows."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from pacsbridge.accounts.catalog import FoundStudy
from pacsbridge.dicomweb.paths import is_uid
from pacsbridge.dicomweb.studies import RowsRefused, search, values_of
from pacsbridge.errors import UpstreamUnreachable

if TYPE_CHECKING:
    from pacsbridge.dicomweb.studies import Row
    from pacsbridge.dicomweb.upstream import Upstream

_FIELDS = ("StudyInstanceUID", "AccessionNumber", "StudyDate", "StudyDescription", "ModalitiesInStudy")
_STUDY_INSTANCE_UID = "0020000D"
_ACCESSION_NUMBER = "00080050"
_STUDY_DATE = "00080020"
_STUDY_DESCRIPTION = "00081030"
_MODALITIES_IN_STUDY = "00080061"


class DicomwebCatalog:
    """Asks with QIDO-RS (PS3.18, 10.6)."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def of_accession_number(self, accession_number: str) -> list[FoundStudy]:
        """Find the studies with this accession number; whoever asks compares it, since a server may ignore it.

        Raises
        ------
        UpstreamError
            The server can't be asked, or refuses.
        """
        fields = "&".join(f"includefield={keyword}" for keyword in _FIELDS)
        query = f"AccessionNumber={quote(accession_number, safe='')}&{fields}"
        try:
            rows = await search(self._upstream, "/studies", query)
        except RowsRefused:
            raise UpstreamUnreachable(
                "The image archive can't be asked at the moment. Try again later.", retry_after=10
            ) from None
        return [found for row in rows if is_uid((found := _found(row)).StudyInstanceUID)]


def _found(row: Row) -> FoundStudy:
    def text(tag: str) -> str:
        return next(iter(values_of(row, tag)), "")

    return FoundStudy(
        StudyInstanceUID=text(_STUDY_INSTANCE_UID),
        AccessionNumber=text(_ACCESSION_NUMBER),
        StudyDate=text(_STUDY_DATE),
        StudyDescription=text(_STUDY_DESCRIPTION),
        ModalitiesInStudy=values_of(row, _MODALITIES_IN_STUDY),
    )

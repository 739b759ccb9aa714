"""The PACS as the catalogue that short links ask."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pacsbridge.accounts.catalog import FoundStudy
from pacsbridge.dimse.query import Query
from pacsbridge.dimse.scu import Peer

if TYPE_CHECKING:
    from pacsbridge.config import PacsConfig


class PacsCatalog:
    """Asks the PACS with C-FIND, one association for each question."""

    def __init__(self, config: PacsConfig) -> None:
        self._peer = Peer.pacs(config)

    async def of_accession_number(self, accession_number: str) -> list[FoundStudy]:
        """Find the studies with this accession number.

        Raises
        ------
        PacsError
            The PACS can't be reached, or refuses.
        """
        return await asyncio.to_thread(self._find, accession_number)

    def _find(self, accession_number: str) -> list[FoundStudy]:
        with Query(self._peer) as query:
            return [
                FoundStudy(study.StudyInstanceUID, study.AccessionNumber)
                for study in query.find_studies(accession_number)
            ]

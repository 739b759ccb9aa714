"""C-MOVE by pynetdicom alone: as `pacsbridge.dimse.move`, for an engineer who wants to rule that out."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from pacsbridge.dimse.move import STUDY_ROOT_MOVE, Final, NoAssociation
from pacsbridge.dimse.scu import Peer, Scu, next_message_id
from pacsbridge.dimse.status import is_pending
from pacsbridge.errors import PacsError

if TYPE_CHECKING:
    from pydicom import Dataset


class PlainMove:
    """An association for C-MOVEs; see `pacsbridge.dimse.move.MoveAssociation`, whose promises it keeps."""

    def __init__(self, peer: Peer) -> None:
        self._scu = Scu(peer, STUDY_ROOT_MOVE)
        self._message_id: int | None = None
        self._opened = False
        self.last_response = self.last_change = time.monotonic()

    def open(self) -> None:
        """Ask for the association.

        Raises
        ------
        NoAssociation
            The archive gives none.
        """
        try:
            self._scu.__enter__()
        except PacsError as error:
            raise NoAssociation(error) from error
        self._opened = True

    @property
    def lost(self) -> bool:
        """Whether nothing can be asked over it any more."""
        return self._scu.stopped

    def move(self, identifier: Dataset, destination: str) -> Final | None:
        """Send a request and follow the responses to the final status; None when the association was lost."""
        if self.lost:
            return None
        self._message_id = next_message_id()
        self.last_response = self.last_change = time.monotonic()
        final = None
        try:
            final = self._follow(identifier, destination, self._message_id)
        except (
            RuntimeError,
            ValueError,
            AttributeError,
        ):  # pynetdicom's, where there is no association any more
            final = None
        finally:
            self._message_id = None
        if final is None:
            self.abort()
        return final

    def close(self) -> None:
        """Release the association, or abort it where it is lost; without one, do nothing."""
        if self._opened:
            self._opened = False
            self._scu.__exit__(None, None, None)

    def cancel(self) -> None:
        """Ask the archive to stop the C-MOVE in flight (C-CANCEL, PS3.7, 9.3.2.3); without one, stop."""
        message_id = self._message_id
        if message_id is None:
            self.abort()
            return
        with contextlib.suppress(RuntimeError, ValueError):  # the association ended between the look and this
            self._scu.association.send_c_cancel(message_id, query_model=STUDY_ROOT_MOVE)

    def abort(self) -> None:
        """Stop: the thread sees it soon."""
        self._scu.abort()

    def _follow(self, identifier: Dataset, destination: str, message_id: int) -> Final | None:
        seen = (-1, -1)
        final = None
        responses = self._scu.association.send_c_move(
            identifier, destination, STUDY_ROOT_MOVE, msg_id=message_id
        )
        for status, _ in responses:
            if "Status" not in status:
                return None
            self.last_response = time.monotonic()
            counts = (
                int(status.get("NumberOfCompletedSuboperations") or 0),
                int(status.get("NumberOfFailedSuboperations") or 0),
            )
            if counts != seen:
                seen, self.last_change = counts, self.last_response
            if not is_pending(status.Status):
                final = Final(int(status.Status), counts[1])
        return final

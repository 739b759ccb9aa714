"""Which way a C-MOVE goes: the fast one, or by pynetdicom alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pacsbridge.dimse.move import MoveAssociation
from pacsbridge.dimse.plain_move import PlainMove

if TYPE_CHECKING:
    from pydicom import Dataset

    from pacsbridge.dimse.move import Final
    from pacsbridge.dimse.scu import Peer


class Mover(Protocol):
    """An association for C-MOVEs; see `pacsbridge.dimse.move.MoveAssociation`."""

    last_response: float
    last_change: float

    def open(self) -> None:
        """Ask for the association."""

    @property
    def lost(self) -> bool:
        """Whether nothing can be asked over it any more."""

    def move(self, identifier: Dataset, destination: str) -> Final | None:
        """Send a request and follow the responses to the final status."""

    def close(self) -> None:
        """Release the association, or abort it."""

    def cancel(self) -> None:
        """Ask the archive to stop."""

    def abort(self) -> None:
        """Stop."""


def mover(peer: Peer) -> Mover:
    """Make an association for C-MOVEs, the way that the configuration says."""
    return MoveAssociation(peer) if peer.fast else PlainMove(peer)

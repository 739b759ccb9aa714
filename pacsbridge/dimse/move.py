"""C-MOVE: the request, its responses, its end before time (PS3.4, C.4.2; PS3.7, 9.1.4).

It runs over an association of `pacsbridge.dimse.requestor`: a pending response comes for each instance, and
must cost next to nothing.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelMove,
)

from pacsbridge.dimse.message import (
    DATA_SET_PRESENT,
    NO_DATA_SET,
    PRIORITY_MEDIUM,
    CommandField,
    Control,
    Element,
    InvalidMessage,
    ae,
    command_pdus,
    encode_command,
    fragment_length,
    pdu_header,
    ui,
    us,
)
from pacsbridge.dimse.requestor import (
    Aborted,
    Cancelled,
    Proposal,
    Rejected,
    Requestor,
    SendTimeouts,
    Silent,
)
from pacsbridge.dimse.scu import Peer, next_message_id, not_offered, refusal
from pacsbridge.dimse.status import is_pending
from pacsbridge.dimse.wire import ConnectionEnded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset

    from pacsbridge.dimse.message import Command
    from pacsbridge.errors import PacsError

STUDY_ROOT_MOVE = StudyRootQueryRetrieveInformationModelMove
#: PS3.5, 10.1: every application entity takes it.
_PROPOSAL = Proposal(STUDY_ROOT_MOVE, ImplicitVRLittleEndian)
#: What a peer without a limit of its own is sent at most in a PDU.
_UNLIMITED = 1 << 14


class NoAssociation(Exception):
    """The archive gave no association for a C-MOVE; `error` says why, for a person."""

    def __init__(self, error: PacsError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True, slots=True)
class Final:
    """How a C-MOVE ended: its status, and the sub-operations that failed as the archive counts them."""

    status: int
    failed: int


class MoveAssociation:
    """An association for C-MOVEs, one after the other.

    `open`, `move` and `close` are called in one thread at a time, `cancel` and `abort` from any other.

    Attributes
    ----------
    last_response, last_change
        When (``time.monotonic``) the archive said something, and when it last gave other counts than before.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._requestor = Requestor(
            peer.host,
            peer.port,
            peer.ae_title,
            peer.calling_ae_title,
            [_PROPOSAL],
            # How long it may be silent between responses is for whoever watches the instances too.
            timeouts=SendTimeouts(peer.connect_timeout_seconds, peer.response_timeout_seconds, math.inf),
            cancelled=lambda: self._stop,
            tls=peer.tls,
        )
        self._stop = False
        self._established = False
        self._message_id: int | None = None
        self.last_response = self.last_change = time.monotonic()

    def open(self) -> None:
        """Ask for the association.

        Raises
        ------
        NoAssociation
            The archive gives none.
        """
        try:
            self._requestor.__enter__()
        except (OSError, Rejected, Aborted, Silent, ConnectionEnded, Cancelled) as error:
            raise NoAssociation(refusal(self._peer, error)) from error
        self._established = True
        if _PROPOSAL not in self._requestor.contexts:
            self.close()
            raise NoAssociation(not_offered(self._peer, STUDY_ROOT_MOVE))

    @property
    def lost(self) -> bool:
        """Whether nothing can be asked over it any more."""
        return self._stop

    def move(self, identifier: Dataset, destination: str) -> Final | None:
        """Send a request and follow the responses to the final status; None when the association was lost."""
        message_id = next_message_id()
        try:
            self._requestor.check_cancelled()
            self._requestor.wire.write(self._request(message_id, identifier, destination))
            self._message_id = message_id
            self.last_response = self.last_change = time.monotonic()
            return self._follow(message_id)
        except (Aborted, Cancelled, ConnectionEnded, InvalidMessage):
            self.abort()
            return None
        finally:
            self._message_id = None

    def close(self) -> None:
        """Release the association, or abort it where it is lost; without one, do nothing."""
        releasable = self._established and not self.lost
        self._requestor.__exit__(None if releasable else Cancelled, None, None)

    def cancel(self) -> None:
        """Ask the archive to stop the C-MOVE in flight (C-CANCEL, PS3.7, 9.3.2.3); without one, stop."""
        message_id = self._message_id
        if message_id is None:
            self.abort()
            return
        command = encode_command(
            [
                (Element.CommandField, us(CommandField.C_CANCEL_RQ)),
                (Element.MessageIDBeingRespondedTo, us(message_id)),
                (Element.CommandDataSetType, us(NO_DATA_SET)),
            ]
        )
        # The connection may have ended between the look and the writing.
        with contextlib.suppress(ConnectionEnded):
            self._requestor.wire.write(b"".join(self._command_pdus(command)))

    def abort(self) -> None:
        """Stop: the thread sees it within half a second."""
        self._stop = True

    def _request(self, message_id: int, identifier: Dataset, destination: str) -> list[bytes | memoryview]:
        command = encode_command(
            [
                (Element.AffectedSOPClassUID, ui(STUDY_ROOT_MOVE)),
                (Element.CommandField, us(CommandField.C_MOVE_RQ)),
                (Element.MessageID, us(message_id)),
                (Element.MoveDestination, ae(destination)),
                (Element.Priority, us(PRIORITY_MEDIUM)),
                (Element.CommandDataSetType, us(DATA_SET_PRESENT)),
            ]
        )
        data_set = encode(identifier, is_implicit_vr=True, is_little_endian=True)
        if data_set is None:
            raise ValueError("an identifier that can't be encoded")
        return [*self._command_pdus(command), *self._data_set_pdus(data_set)]

    def _follow(self, message_id: int) -> Final:
        seen = (-1, -1)
        while True:
            response = self._requestor.read_response()
            _check(response, message_id)
            self.last_response = time.monotonic()
            counts = (
                response.count(Element.NumberOfCompletedSuboperations),
                response.count(Element.NumberOfFailedSuboperations),
            )
            if counts != seen:
                seen, self.last_change = counts, self.last_response
            status = response.number(Element.Status)
            if not is_pending(status):
                return Final(status, counts[1])
            self._requestor.check_cancelled()

    @property
    def _maximum_length(self) -> int:
        return self._requestor.maximum_length or _UNLIMITED

    def _command_pdus(self, command: bytes) -> Iterator[bytes]:
        return command_pdus(self._requestor.contexts[_PROPOSAL], command, self._maximum_length)

    def _data_set_pdus(self, data_set: bytes) -> Iterator[bytes]:
        step = fragment_length(self._maximum_length)
        for start in range(0, len(data_set), step):
            part = data_set[start : start + step]
            last = Control.LAST if start + step >= len(data_set) else Control.DATA_SET
            yield pdu_header(self._requestor.contexts[_PROPOSAL], last, len(part)) + part


def _check(response: Command, message_id: int) -> None:
    for element, expected in (
        (Element.CommandField, CommandField.C_MOVE_RSP),
        (Element.MessageIDBeingRespondedTo, message_id),
    ):
        if response.values.get(element) != us(expected):
            raise Aborted("it answered something else")

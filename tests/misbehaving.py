"""A PACS that does what real ones do on bad days, and what they won't do on command."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from enum import Enum
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pydicom import Dataset, dcmread
from pynetdicom import evt
from pynetdicom.dimse_messages import C_FIND_RSP, C_MOVE_RSP, C_STORE_RQ

from pacsbridge.demo.index import Index, Level, StoredInstance
from pacsbridge.demo.pacs import IDENTIFIER_MISMATCH, PENDING, DemoPacs, storage_contexts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pynetdicom.association import Association
    from pynetdicom.events import Event

#: A C-STORE is cut off, where that is wanted, after this many PDUs and one more: the command, and a part of
#: the data set.
_CUT_AFTER_PDUS = 1


class Reject(Enum):
    """How an association is rejected: result, source, reason (PS3.8 Table 9-21)."""

    CALLING_AE_TITLE_NOT_RECOGNISED = (1, 1, 3)
    CALLED_AE_TITLE_NOT_RECOGNISED = (1, 1, 7)
    LOCAL_LIMIT_EXCEEDED = (2, 3, 2)


class Originator(Enum):
    """What a C-STORE says about the C-MOVE that it belongs to."""

    RIGHT = "right"
    WRONG = "wrong"
    NONE = "none"


@dataclass(frozen=True)
class Misbehaviour:
    """What goes wrong; nothing, by default. `after` counts instances that were sent well."""

    reject: Reject | None = None
    reject_beyond: int | None = None
    """Reject every association beyond so many at a time."""
    mute: bool = False
    """Accept the connection and never say a word."""

    find_ignores_key: bool = False
    """Answer everything that there is, whatever was asked."""
    find_answers_accession_number: str | None = None
    """Put this accession number into every answer."""
    find_status: int | None = None
    find_empty_status: bool = False
    find_stalls: bool = False
    no_series_counts: bool = False
    no_series_level: bool = False
    """Refuse queries at SERIES level."""
    no_image_level: bool = False
    """Refuse queries and moves at IMAGE level."""

    move_status: int | None = None
    """Answer a C-MOVE with this status at once: 0xA801, 0xA701, 0xA702, ..."""
    move_empty_status: bool = False
    """Leave the status out of the first response: the requestor sees an empty one."""
    stall_after: int | None = None
    abort_after: int | None = None
    die_after: int | None = None
    """Close all sockets, the listening one too, like a process that was killed."""
    fewer: int = 0
    """Send so many fewer than promised."""
    fewer_status: int | None = None
    """The final status then: 0xB000, or None for a success."""
    stranger: Path | None = None
    """A file that is sent before the second instance, though nobody asked for it."""
    duplicate: bool = False
    """Send every instance twice."""
    originator: Originator = Originator.RIGHT
    cut_bytes: int = 0
    """Take so many bytes off the end of each data set: its last element is shorter than it says."""
    cut_after: int | None = None
    """Close the connection to the Storage SCP amid an instance that is larger than a PDU."""
    delay: float = 0
    """Seconds before each instance."""
    ignores_cancel: bool = False
    late_after_cancel: float | None = None
    """Seconds after which one more instance comes, though the C-MOVE was cancelled."""
    only_moves: int | None = None
    """Misbehave in the first so many C-MOVEs only."""


@dataclass(frozen=True)
class MoveRequest:
    """A C-MOVE that came."""

    level: str
    destination: str
    message_id: int
    StudyInstanceUID: tuple[str, ...]
    SeriesInstanceUID: tuple[str, ...]
    SOPInstanceUID: tuple[str, ...]


class MisbehavingPacs(DemoPacs):
    """A demo PACS with `misbehaviour`, which may be replaced at any time.

    Attributes
    ----------
    moves
        The C-MOVEs that came, in order.
    finds
        The identifiers of the C-FINDs that came, in order.
    cancels
        How many C-CANCELs were seen, obeyed or not.
    """

    def __init__(self, folder: Path, misbehaviour: Misbehaviour | None = None, **arguments: Any) -> None:
        super().__init__(folder, **arguments)
        self.misbehaviour = misbehaviour or Misbehaviour()
        self.moves: list[MoveRequest] = []
        self.finds: list[Dataset] = []
        self.cancels = 0
        self._stopping = threading.Event()
        self._late: list[threading.Thread] = []
        self._statuses: dict[Association, int] = {}

    def start(self) -> None:
        self._stopping.clear()
        super().start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._late:
            thread.join()
        super().stop()

    def die(self) -> None:
        """Close every socket without a word, as the death of a process does; it may be started again."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
        for association in self._ae.active_associations:
            _close(association)

    def handlers(self) -> list[Any]:
        return [*super().handlers(), (evt.EVT_DIMSE_SENT, self._spoil_response)]

    def on_requested(self, event: Event) -> None:
        wrong = self.misbehaviour
        if wrong.mute:
            self._stopping.wait()
        accepted = sum(one.is_acceptor for one in self._ae.active_associations)
        if wrong.reject is not None:
            _reject(event, wrong.reject)
        elif wrong.reject_beyond is not None and accepted > wrong.reject_beyond:
            _reject(event, Reject.LOCAL_LIMIT_EXCEEDED)
        else:
            super().on_requested(event)

    def on_find(self, event: Event) -> Iterator[tuple[int | Dataset, Dataset | None]]:
        wrong = self.misbehaviour
        identifier = event.identifier
        self.finds.append(identifier)
        level = str(identifier.get("QueryRetrieveLevel", ""))
        if wrong.find_stalls:
            self._stopping.wait()
        if wrong.find_status is not None:
            yield wrong.find_status, None
            return
        if (wrong.no_image_level and level == "IMAGE") or (wrong.no_series_level and level == "SERIES"):
            yield IDENTIFIER_MISMATCH, None
            return
        if wrong.find_ignores_key and level == "STUDY":
            yield from self._everything(identifier)
            return
        for status, answer in super().on_find(event):
            yield status, self._spoil_answer(answer)

    def on_move(self, event: Event) -> Iterator[Any]:
        self.moves.append(_move_request(event))
        wrong = self._now()
        level = self.moves[-1].level
        status = IDENTIFIER_MISMATCH if wrong.no_image_level and level == "IMAGE" else wrong.move_status
        if status is not None:
            self._statuses[event.assoc] = status
            yield None, None  # pynetdicom answers at once, and `_spoil_response` changes what
            return
        steps = super().on_move(event)
        destination = next(steps)
        yield destination
        if destination[0] is None:
            return
        promised = next(steps)
        extra = (promised if wrong.duplicate else 0) + (1 if wrong.stranger else 0)
        yield promised + extra
        yield from self._send(event, steps, promised, destination)

    def move_options(self, event: Event, instances: list[StoredInstance]) -> dict[str, Any]:
        wrong = self._now()
        options = super().move_options(event, instances)
        if wrong.stranger is not None:
            options["contexts"] = storage_contexts([*instances, Index().add(wrong.stranger)])
        options["evt_handlers"].append((evt.EVT_DIMSE_SENT, _spoil_store, [wrong]))
        if wrong.cut_after is not None:
            options["evt_handlers"].append((evt.EVT_DIMSE_SENT, _cut_off, [wrong.cut_after]))
        return options

    def is_cancelled(self, event: Event) -> bool:
        if not super().is_cancelled(event):
            return False
        self.cancels += 1
        wrong = self._now()
        if wrong.late_after_cancel is not None:
            thread = threading.Thread(target=self._send_late, args=(event, wrong.late_after_cancel))
            self._late.append(thread)
            thread.start()
        return not wrong.ignores_cancel

    def _now(self) -> Misbehaviour:
        """Give what goes wrong in the C-MOVE that came last."""
        wrong = self.misbehaviour
        if wrong.only_moves is not None and len(self.moves) > wrong.only_moves:
            return Misbehaviour()
        return wrong

    def _send(
        self, event: Event, steps: Iterator[Any], promised: int, destination: tuple[Any, ...]
    ) -> Iterator[Any]:
        wrong = self._now()
        for number, step in enumerate(steps):
            if step[0] == PENDING and number == promised - wrong.fewer:
                break
            if not self._go_on(event, wrong, number):
                return
            if number == 1 and wrong.stranger is not None:
                yield PENDING, dcmread(wrong.stranger)
            yield step
            if wrong.duplicate:
                yield step
        if wrong.fewer and wrong.fewer_status is not None:
            yield wrong.fewer_status, None

    def _go_on(self, event: Event, wrong: Misbehaviour, number: int) -> bool:
        """Do what is due before an instance; False when there is nobody left to send to."""
        if wrong.delay:
            self._stopping.wait(wrong.delay)
        if number == wrong.stall_after:
            self._stopping.wait()
        if number == wrong.abort_after:
            event.assoc.abort()
        if number == wrong.die_after:
            self.die()
        return not self._stopping.is_set() and number not in {wrong.abort_after, wrong.die_after}

    def _send_late(self, event: Event, seconds: float) -> None:
        """Send the last instance of a C-MOVE over an association of its own."""
        self._stopping.wait(seconds)
        host, port = self.destinations[event.move_destination or ""]
        uids = event.identifier.get("StudyInstanceUID")
        instance = next(
            one for one in reversed(self.index.instances()) if one.header.StudyInstanceUID == uids
        )
        options = DemoPacs.move_options(self, event, [instance])
        association = self._ae.associate(host, port, ae_title=event.move_destination or "", **options)
        if association.is_established:
            message_id = event.request.MessageID or 1
            association.send_c_store(
                self.read(instance), originator_aet=self.ae_title, originator_id=message_id
            )
            association.release()

    def _everything(self, identifier: Dataset) -> Iterator[tuple[int, Dataset]]:
        """Answer with every study that there is."""
        keys = Dataset()
        for element in identifier:
            keys.add_new(element.tag, element.VR, None)
        keys.QueryRetrieveLevel = identifier.QueryRetrieveLevel
        for answer in self.index.find(Level.STUDY, keys):
            yield PENDING, answer

    def _spoil_answer(self, answer: Dataset | None) -> Dataset | None:
        wrong = self.misbehaviour
        if answer is None:
            return None
        if wrong.no_series_counts:
            answer.pop("NumberOfSeriesRelatedInstances", None)
        if wrong.find_answers_accession_number is not None:
            answer.AccessionNumber = wrong.find_answers_accession_number
        return answer

    def _spoil_response(self, event: Event) -> None:
        """Change a response after pynetdicom made it and before it is encoded."""
        message, wrong = event.message, self.misbehaviour
        command = message.command_set
        if isinstance(message, C_MOVE_RSP) and event.assoc in self._statuses:
            command.Status = self._statuses.pop(event.assoc)
        empty_find = isinstance(message, C_FIND_RSP) and wrong.find_empty_status
        empty_move = isinstance(message, C_MOVE_RSP) and self._now().move_empty_status
        if empty_find or empty_move:
            del command.Status
            message._set_command_group_length()


def _reject(event: Event, reject: Reject) -> None:
    event.assoc.acse.send_reject(*reject.value)
    event.assoc.kill()  # waits until the rejection is on its way


def _spoil_store(event: Event, wrong: Misbehaviour) -> None:
    message = event.message
    if not isinstance(message, C_STORE_RQ):
        return
    command = message.command_set
    if wrong.originator is Originator.WRONG:
        command.MoveOriginatorApplicationEntityTitle = "SOMEONE"
        command.MoveOriginatorMessageID = (command.MoveOriginatorMessageID + 4711) % 65536
    elif wrong.originator is Originator.NONE:
        del command.MoveOriginatorApplicationEntityTitle
        del command.MoveOriginatorMessageID
    message._set_command_group_length()
    if wrong.cut_bytes and message.data_set is not None:
        message.data_set = BytesIO(message.data_set.getvalue()[: -wrong.cut_bytes])


def _cut_off(event: Event, after: int) -> None:
    """Close the connection amid the C-STORE that follows `after` whole ones."""
    association = event.assoc
    if not isinstance(event.message, C_STORE_RQ):
        return
    sent = getattr(association, "stores_begun", 0)
    association.stores_begun = sent + 1  # type: ignore[attr-defined]  # the count belongs to the association
    if sent == after:
        association.bind(evt.EVT_PDU_SENT, _close_after, [association, iter(range(_CUT_AFTER_PDUS))])


def _close_after(_event: Event, association: Association, pdus: Iterator[int]) -> None:
    if next(pdus, None) is None:
        _close(association)


def _close(association: Association) -> None:
    """Close the connection, as the kernel does for a process that ended."""
    wrapper = association.dul.socket
    if wrapper is not None and wrapper.socket is not None:
        try:
            wrapper.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the peer was faster


def _move_request(event: Event) -> MoveRequest:
    identifier = event.identifier

    def values(keyword: str) -> tuple[str, ...]:
        value = identifier.get(keyword) or ()
        return (str(value),) if isinstance(value, str) else tuple(map(str, value))

    return MoveRequest(
        level=str(identifier.get("QueryRetrieveLevel", "")),
        destination=event.move_destination or "",
        message_id=event.request.MessageID or 0,
        StudyInstanceUID=values("StudyInstanceUID"),
        SeriesInstanceUID=values("SeriesInstanceUID"),
        SOPInstanceUID=values("SOPInstanceUID"),
    )

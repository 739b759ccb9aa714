"""The demo PACS: a small archive that answers C-ECHO, C-FIND, C-MOVE and C-STORE from a folder of files.

It is for trying pacsbridge and for its tests, not for patients: the index lives in memory, anyone may
connect, and a file is sent as it is stored.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Self

import structlog
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import _config, evt
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # named when imported
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
    uid_to_service_class,
)

from pacsbridge.demo.index import IdentifierError, Index, Level, StoredInstance
from pacsbridge.dimse.connection import RequestingAE, on_connection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from pydicom.uid import UID
    from pynetdicom.events import Event
    from pynetdicom.transport import ThreadedAssociationServer

log = structlog.get_logger(__name__)

SUCCESS = 0x0000
PENDING = 0xFF00
CANCELLED = 0xFE00
#: C-FIND and C-MOVE: the identifier does not match the SOP class (PS3.4 Tables C.4-1 and C.4-2).
IDENTIFIER_MISMATCH = 0xA900
#: C-STORE: refused, out of resources (PS3.4 Table B.2-1).
OUT_OF_RESOURCES = 0xA700
#: C-STORE: the data set can't be understood.
CANNOT_UNDERSTAND = 0xC000

#: Accepted associations at a time.
MAXIMUM_ASSOCIATIONS = 50
#: A peer may stay silent for so many seconds; a C-MOVE of many instances counts as silence.
NETWORK_TIMEOUT = 600
#: PS3.8 9.3.2: presentation context IDs are odd and end at 255.
MAXIMUM_CONTEXTS = 128
#: How long stop() waits for each thread to end, in seconds.
JOIN_SECONDS = 5

_MODELS = (
    Verification,
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)
_PATIENT_ROOT = frozenset(
    {PatientRootQueryRetrieveInformationModelFind, PatientRootQueryRetrieveInformationModelMove}
)
#: pynetdicom converts between these without touching a value.
_LITTLE_ENDIAN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
#: What is liked best comes first: the acceptor's order decides.
_ACCEPTED = (*_LITTLE_ENDIAN, *(uid for uid in AllTransferSyntaxes if uid not in _LITTLE_ENDIAN))

Address = tuple[str, int]


class DemoPacs:
    """An archive over a folder.

    Parameters
    ----------
    folder
        Its DICOM files are what the PACS holds; what it is sent is added there.
    ae_title
        Its AE title. Any called AE title is answered.
    host, port
        Where it listens; port 0 takes a free one, and `port` tells which.
    destinations
        The move destinations: AE title → (host, port). May be changed at any time.

    Examples
    --------
    >>> with DemoPacs(folder, destinations={"CDRECORD": ("127.0.0.1", 10104)}) as pacs:
    ...     print(pacs.port)
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "DEMOPACS",
        host: str = "127.0.0.1",
        port: int = 0,
        destinations: Mapping[str, Address] | None = None,
    ) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.host = host
        self.index = Index()
        self.destinations = dict(destinations or {})
        self._asked_port = port
        self._server: ThreadedAssociationServer | None = None
        self._ae = RequestingAE(ae_title)
        self._ae.maximum_associations = MAXIMUM_ASSOCIATIONS
        self._ae.network_timeout = NETWORK_TIMEOUT
        self._ae.maximum_pdu_size = 128 * 1024
        for model in _MODELS:
            self._ae.add_supported_context(model)

    @property
    def port(self) -> int:
        """The port that it listens on; 0 while it is stopped."""
        return int(self._server.server_address[1]) if self._server else 0

    def start(self) -> None:
        """Read the folder and listen.

        Raises
        ------
        OSError
            The port is taken, or may not be used.
        """
        # pynetdicom would log the patients' names and IDs of each identifier, at info.
        _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
        self.folder.mkdir(parents=True, exist_ok=True)
        count = self.index.scan(self.folder)
        address = (self.host, self._asked_port)
        self._server = self._ae.start_server(address, block=False, evt_handlers=self.handlers())
        self._asked_port = self.port  # a second start takes the same one
        log.info("demo PACS started", ae_title=self.ae_title, port=self.port, instances=count)

    def stop(self) -> None:
        """End every association and free the port; no thread is left. Stopping twice is harmless."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()  # first, so that no association is added while the others end
        associations = self._ae.active_associations
        for association in associations:
            association.abort()
            association.dul.to_user_queue.put(None)  # wakes one that still waits for its A-ASSOCIATE-RQ
        for association in associations:
            association.join(JOIN_SECONDS)
            association.dul.join(JOIN_SECONDS)
        if server is not None:
            log.info("demo PACS stopped", ae_title=self.ae_title)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def handlers(self) -> list[Any]:
        """Give what is done at which of pynetdicom's events."""
        return [
            (evt.EVT_CONN_OPEN, on_connection),
            (evt.EVT_REQUESTED, self.on_requested),
            (evt.EVT_C_ECHO, self.on_echo),
            (evt.EVT_C_FIND, self.on_find),
            (evt.EVT_C_MOVE, self.on_move),
            (evt.EVT_C_STORE, self.on_store),
        ]

    def on_requested(self, event: Event) -> None:
        """Support just the storage classes that are asked for: all at once would cost 0.1 s each time."""
        acceptor = event.assoc.acceptor
        proposed = {str(context.abstract_syntax) for context in event.assoc.requestor.requested_contexts}
        storage = [build_context(uid, [*_ACCEPTED]) for uid in proposed if _is_storage(uid)]
        acceptor.supported_contexts = acceptor.supported_contexts + storage

    def on_echo(self, _event: Event) -> int:
        """Answer C-ECHO."""
        return SUCCESS

    def on_find(self, event: Event) -> Iterator[tuple[int | Dataset, Dataset | None]]:
        """Answer C-FIND (PS3.4 C.4.1)."""
        try:
            for answer in self.index.find(_root(event), event.identifier):
                if event.is_cancelled:
                    yield CANCELLED, None
                    return
                answer.RetrieveAETitle = self.ae_title
                answer.InstanceAvailability = "ONLINE"
                yield PENDING, answer
        except IdentifierError as error:
            yield _failure(IDENTIFIER_MISMATCH, str(error)), None

    def on_move(self, event: Event) -> Iterator[Any]:
        """Answer C-MOVE (PS3.4 C.4.2): where to, how many, then each instance, as pynetdicom wants it."""
        destination = self.destinations.get(event.move_destination or "")
        if destination is None:
            yield None, None  # pynetdicom answers 0xA801
            return
        try:
            instances = self.index.select(_root(event), event.identifier)
        except IdentifierError as error:
            yield *destination, {"contexts": [build_context(Verification)]}
            yield 1  # pynetdicom takes a failure only in place of a first instance
            yield _failure(IDENTIFIER_MISMATCH, str(error)), None
            return
        yield *destination, self.move_options(event, instances)
        yield len(instances)
        for instance in instances:
            if self.is_cancelled(event):
                yield CANCELLED, None
                return
            yield PENDING, self.read(instance)

    def is_cancelled(self, event: Event) -> bool:
        """Tell whether a C-CANCEL came for this request."""
        return event.is_cancelled

    def move_options(self, event: Event, instances: list[StoredInstance]) -> dict[str, Any]:
        """Give the arguments of the association that a C-MOVE's instances are sent over."""
        requestor = event.assoc.requestor.ae_title
        return {
            "contexts": storage_contexts(instances),
            "evt_handlers": [
                (evt.EVT_CONN_OPEN, on_connection),
                (evt.EVT_DIMSE_SENT, name_originator, [requestor]),
            ],
        }

    def read(self, instance: StoredInstance) -> Dataset:
        """Read a file to send; its elements stay as they are encoded."""
        return dcmread(instance.path)

    def on_store(self, event: Event) -> int:
        """Keep what is sent, as it was encoded, and answer for it at once."""
        uid = str(event.file_meta.MediaStorageSOPInstanceUID)
        if not re.fullmatch(r"[0-9A-Za-z.]{1,64}", uid):  # it becomes a file name
            return CANNOT_UNDERSTAND
        path = self.folder / f"{uid}.dcm"
        try:
            path.write_bytes(event.encoded_dataset())
            self.index.add(path)
        except OSError as error:
            log.warning("demo PACS can't keep an instance", reason=error.strerror)
            path.unlink(missing_ok=True)
            return OUT_OF_RESOURCES
        except InvalidDicomError:
            path.unlink(missing_ok=True)
            return CANNOT_UNDERSTAND
        return SUCCESS


def storage_contexts(instances: Iterable[StoredInstance]) -> list[PresentationContext]:
    """Propose what the instances need: the stored syntax first, Explicit and Implicit VR LE where possible.

    At most 128 are proposed (PS3.8); instances that would need more fail, and the C-MOVE says so.
    """
    kinds = dict.fromkeys((one.SOPClassUID, one.TransferSyntaxUID) for one in instances)
    contexts = [build_context(sop_class, _proposed(syntax)) for sop_class, syntax in kinds]
    return contexts[:MAXIMUM_CONTEXTS]


def name_originator(event: Event, ae_title: str) -> None:
    """Put the AE that asked for the C-MOVE into a C-STORE request (PS3.7 9.1.1.1.4).

    pynetdicom 3.0.4 names itself there.
    """
    if isinstance(event.message, C_STORE_RQ):
        event.message.command_set.MoveOriginatorApplicationEntityTitle = ae_title
        event.message._set_command_group_length()  # noqa: SLF001 - the length of the title counts in it


def _proposed(syntax: UID) -> list[str | UID]:
    convertible = syntax in (*_LITTLE_ENDIAN, DeflatedExplicitVRLittleEndian)
    others = [uid for uid in _LITTLE_ENDIAN if uid != syntax] if convertible else []
    return [syntax, *others]


def _is_storage(uid: str) -> bool:
    try:
        return uid_to_service_class(uid) is StorageServiceClass
    except NotImplementedError:
        return False


def _root(event: Event) -> Level:
    return Level.PATIENT if event.request.AffectedSOPClassUID in _PATIENT_ROOT else Level.STUDY


def _failure(status: int, comment: str) -> Dataset:
    response = Dataset()
    response.Status = status
    response.ErrorComment = comment[:64]  # VR LO
    return response

"""The Storage SCP: the ports of the pool, who may connect, what is accepted, which inbox a port fills."""

from __future__ import annotations

import ipaddress
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, cast

import structlog
from pydicom.uid import (
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import Verification, uid_to_service_class  # type: ignore[attr-defined]  # made at import
from pynetdicom.transport import AssociationServer, RequestHandler

from pacsbridge.dimse.association import MAXIMUM_LENGTH, AcceptedAssociation
from pacsbridge.dimse.inbox import Inbox, Refused, Sink
from pacsbridge.dimse.status import Status
from pacsbridge.errors import ServiceError
from pacsbridge.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event

    from pacsbridge.config import ScpPort, ServerTlsConfig, StorageScpConfig

log = structlog.get_logger(__name__)

#: What is accepted, the most wanted first: the disc holds Explicit VR Little Endian, so an archive that can
#: send it shall; what is compressed stays so; deflated and big endian come last.
_LAST = (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
_FIRST = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
TRANSFER_SYNTAXES = (*_FIRST, *(uid for uid in AllTransferSyntaxes if uid not in _FIRST + _LAST), *_LAST)

#: Connections that one port holds at a time. An archive that moves by series uses a few; each costs two
#: threads.
MAXIMUM_CONNECTIONS = 32
#: How long a peer may take to ask for an association (ARTIM, PS3.8 9.1.5), in seconds.
NEGOTIATION_SECONDS = 15
#: How long an association may be silent between two messages, in seconds: an archive may fetch from tape.
IDLE_SECONDS = 300
#: How long `stop` waits for threads, in seconds.
STOP_SECONDS = 5.0
_ACCEPT_POLL_SECONDS = 0.1


class PortUnavailable(ServiceError):
    """A port of the Storage SCP can't be listened on."""


class StorageScp:
    """Receives instances on the ports of the pool.

    Parameters
    ----------
    config
        The section ``storage_scp``.
    fast
        Read data sets from the socket straight into the file; otherwise by pynetdicom's own ``EVT_C_STORE``.
    """

    def __init__(self, config: StorageScpConfig, *, fast: bool = True) -> None:
        self._config = config
        self._fast = fast
        self._peers = tuple(ipaddress.ip_network(cidr, strict=False) for cidr in config.allowed_peers)
        self._lock = threading.Lock()
        self._inboxes: dict[int, Inbox] = {}
        self._servers: list[_Server] = []
        self._rejected_peers = 0
        self._refused = 0

    @property
    def rejected_peers(self) -> int:
        """How many connections were closed because the peer may not store, or because there were too many."""
        return self._rejected_peers

    @property
    def refused(self) -> int:
        """How many instances were answered with a failure."""
        return self._refused

    @property
    def running(self) -> bool:
        """Whether every port is being listened on."""
        with self._lock:
            return bool(self._servers) and all(server.thread.is_alive() for server in self._servers)

    def start(self) -> None:
        """Listen on every port, or on none.

        Raises
        ------
        PortUnavailable
            A port can't be bound; the message names it and says what to do.
        """
        with self._lock:
            if self._servers:
                return
            servers: list[_Server] = []
            try:
                servers.extend(self._listen(port) for port in self._config.ports)
            except BaseException:
                for server in servers:
                    server.server_close()
                raise
            self._servers = servers
        for server in servers:
            server.thread.start()

    def stop(self) -> None:
        """Abort what goes on and close every port: no thread or descriptor is left. Can be called again."""
        with self._lock:
            servers, self._servers = self._servers, []
            self._inboxes.clear()
        for server in servers:
            server.shutdown()
        deadline = time.monotonic() + STOP_SECONDS
        associations = [association for server in servers for association in server.associations]
        for association in associations:
            association.hang_up()
        for thread in (*associations, *(server.thread for server in servers)):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.error("a thread of the Storage SCP does not end", seconds=STOP_SECONDS)

    def attach(self, port: ScpPort, inbox: Inbox) -> None:
        """Let the instances that come to `port` go to `inbox`.

        Raises
        ------
        ValueError
            The port has an inbox already.
        """
        with self._lock:
            if port.port in self._inboxes:
                raise ValueError(f"port {port.port} has an inbox already")
            self._inboxes[port.port] = inbox

    def detach(self, port: ScpPort) -> None:
        """Take the inbox from `port`: what comes to it from now on is a stranger's."""
        with self._lock:
            self._inboxes.pop(port.port, None)

    # What the connections ask.

    def allows(self, address: str) -> bool:
        """Tell whether a peer with this IP address may connect."""
        if not self._peers:
            return True
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._peers)

    def reject_peer(self, reason: str, port: int) -> None:
        """Count a connection that is not served."""
        with self._lock:
            self._rejected_peers += 1
        log.warning("connection closed", reason=reason, port=port)

    def receive(
        self,
        port: int,
        *,
        SOPClassUID: str,
        SOPInstanceUID: str,
        TransferSyntaxUID: str,
        calling_ae_title: str,
    ) -> Sink:
        """Open a sink for a C-STORE on `port`: that of the job which holds the port, at this moment."""
        with self._lock:
            inbox = self._inboxes.get(port)
        if inbox is None:
            return Refused(Status.NOT_AUTHORIZED)
        return inbox.receive(
            SOPClassUID=SOPClassUID,
            SOPInstanceUID=SOPInstanceUID,
            TransferSyntaxUID=TransferSyntaxUID,
            SourceApplicationEntityTitle=calling_ae_title,
        )

    def count_refused(self) -> None:
        """Count an instance that was answered with a failure."""
        with self._lock:
            self._refused += 1

    def _listen(self, port: ScpPort) -> _Server:
        ae = AE(ae_title=port.ae_title)
        ae.maximum_pdu_size = MAXIMUM_LENGTH
        ae.acse_timeout = NEGOTIATION_SECONDS
        ae.network_timeout = IDLE_SECONDS
        # The connections are counted before they are given threads.
        ae.maximum_associations = MAXIMUM_CONNECTIONS
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        try:
            tls = self._config.tls if self._config.tls.enabled else None
            return _Server(ae, self._config.host, self, port, fast=self._fast, tls=tls)
        except OSError as error:
            raise PortUnavailable(
                f"storage_scp: can't listen on {self._config.host}:{port.port} ({port.ae_title}): "
                f"{error.strerror or error}. Stop what uses the port, or change storage_scp.ports."
            ) from error


class _Server(AssociationServer):
    """One port: accepts connections, in a thread of its own."""

    request_queue_size: ClassVar[int] = 64  # type: ignore[misc]  # socketserver declares it without ClassVar

    def __init__(
        self, ae: AE, host: str, scp: StorageScp, port: ScpPort, *, fast: bool, tls: ServerTlsConfig | None
    ) -> None:
        contexts = [build_context(Verification)]
        super().__init__(ae, (host, port.port), port.ae_title, contexts, request_handler=_RequestHandler)
        self.scp, self.port, self.fast = scp, port, fast
        self.tls = tls
        self._alive: set[AcceptedAssociation] = set()
        self._alive_lock = threading.Lock()
        self.thread = threading.Thread(
            target=self.serve_forever,
            args=(_ACCEPT_POLL_SECONDS,),
            name=f"storage-scp-{port.port}",
            daemon=True,
        )

    @property
    def associations(self) -> list[AcceptedAssociation]:
        """The associations, and the connections that may become one."""
        with self._alive_lock:
            return list(self._alive)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Let only allowed peers in, and not too many."""
        del request
        if not self.scp.allows(client_address[0]):
            self.scp.reject_peer("not in storage_scp.allowed_peers", self.port.port)
            return False
        if len(self._alive) >= MAXIMUM_CONNECTIONS:
            self.scp.reject_peer("too many connections", self.port.port)
            return False
        return True

    def add(self, association: AcceptedAssociation) -> None:
        """Note a connection."""
        with self._alive_lock:
            self._alive.add(association)

    def remove(self, association: AcceptedAssociation) -> None:
        """Forget a connection whose thread ends."""
        with self._alive_lock:
            self._alive.discard(association)

    def receive(
        self, *, SOPClassUID: str, SOPInstanceUID: str, TransferSyntaxUID: str, calling_ae_title: str
    ) -> Sink:
        """Open a sink for a C-STORE on this port."""
        return self.scp.receive(
            self.port.port,
            SOPClassUID=SOPClassUID,
            SOPInstanceUID=SOPInstanceUID,
            TransferSyntaxUID=TransferSyntaxUID,
            calling_ae_title=calling_ae_title,
        )

    def count_refused(self) -> None:
        """Count an instance that was answered with a failure."""
        self.scp.count_refused()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong while a connection was set up."""
        del request, client_address
        log.error("a connection could not be set up", port=self.port.port)

    def service_actions(self) -> None:
        """Do nothing between connections; pynetdicom would run the garbage collector, for each port."""

    def shutdown(self) -> None:
        """Stop accepting, and close the port."""
        # Not AssociationServer's: that one takes the server off a list that make_server() did not put it on.
        if self.thread.is_alive():
            super(AssociationServer, self).shutdown()
        self.server_close()


class _RequestHandler(RequestHandler):
    """Makes an association of a connection."""

    server: _Server

    def _create_association(self) -> AcceptedAssociation:
        server = self.server
        association = AcceptedAssociation(self.ae, server, server, idle_seconds=IDLE_SECONDS)
        connection: socket.socket = self.request
        association.use(connection)
        association.acceptor.maximum_length = self.ae.maximum_pdu_size
        association.acceptor.ae_title = server.ae_title
        association.acceptor.address_info = self.local
        association.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        association.acceptor.implementation_version_name = self.ae.implementation_version_name
        association.requestor.address_info = self.remote
        association.bind(evt.EVT_REQUESTED, _offer_contexts)
        association.bind(evt.EVT_SOP_COMMON, _name_service_classes)
        association.bind(evt.EVT_C_STORE, _handle_store)
        server.add(association)
        return association


def _offer_contexts(event: Event) -> None:
    """Support what the peer asks for, as far as it is storage: any SOP Class, our order of transfer syntaxes.

    pynetdicom's ``UNRESTRICTED_STORAGE_SERVICE`` accepts any SOP Class too, but takes the requestor's first
    transfer syntax, and is one switch for the whole process; all known SOP Classes with all transfer syntaxes
    take 0.1 s for each association. Made from the request, the list is short and the acceptor's order
    decides.
    """
    asked: dict[str, set[str]] = {}
    for context in _requested(event):
        asked.setdefault(context.abstract_syntax or "", set()).update(context.transfer_syntax)
    event.assoc.acceptor.supported_contexts = [
        _context(abstract_syntax, (uid for uid in TRANSFER_SYNTAXES if uid in transfer_syntaxes))
        for abstract_syntax, transfer_syntaxes in asked.items()
        if abstract_syntax == Verification or is_storage(abstract_syntax)
    ]


def _requested(event: Event) -> list[PresentationContext]:
    """Get the presentation contexts of the A-ASSOCIATE-RQ."""
    request = event.assoc.requestor.primitive
    return [] if request is None else request.presentation_context_definition_list


def _context(abstract_syntax: str, transfer_syntaxes: Iterable[str]) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = abstract_syntax
    context.transfer_syntax = list(transfer_syntaxes)
    return context


def is_storage(SOPClassUID: str) -> bool:
    """Tell whether a SOP Class is a storage one, or one that nobody knows: new, retired or private."""
    return uid_to_service_class(SOPClassUID) in (StorageServiceClass, ServiceClass)


def _name_service_classes(event: Event) -> dict[str, SOPClassCommonExtendedNegotiation]:
    """Say that the SOP Classes which pynetdicom does not know are served by the Storage Service Class."""
    items: dict[str, SOPClassCommonExtendedNegotiation] = {}
    for abstract_syntax in {context.abstract_syntax or "" for context in _requested(event)}:
        if uid_to_service_class(abstract_syntax) is ServiceClass:
            item = SOPClassCommonExtendedNegotiation()
            item.sop_class_uid = abstract_syntax
            item.service_class_uid = StorageServiceClass.uid
            items[abstract_syntax] = item
    return items


def _handle_store(event: Event) -> int:
    """Store a data set that pynetdicom has in memory (``fast=False``)."""
    association = cast("AcceptedAssociation", event.assoc)
    request = cast("C_STORE", event.request)
    sink = association.open_sink(
        SOPClassUID=str(request.AffectedSOPClassUID),
        SOPInstanceUID=str(request.AffectedSOPInstanceUID),
        TransferSyntaxUID=str(event.context.transfer_syntax),
    )
    with cast("BytesIO", request.DataSet).getbuffer() as data:
        sink.write(data)
    status = sink.finish()
    association.note_answer(status)
    return status

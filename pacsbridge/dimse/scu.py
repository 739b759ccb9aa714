"""An association that we request of the PACS, with its failures told in words."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import structlog
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from pacsbridge.dimse.plain import NothingAccepted, PlainAssociation
from pacsbridge.dimse.requestor import Aborted, Rejected, SendTimeouts, Silent
from pacsbridge.dimse.tls import ClientTls
from pacsbridge.dimse.wire import ConnectionEnded, TlsFailure
from pacsbridge.errors import PacsRejected, PacsTimeout, PacsUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from pydicom import Dataset

    from pacsbridge.config import PacsConfig, PublisherConfig
    from pacsbridge.errors import PacsError

log = structlog.get_logger(__name__)

VERIFICATION = Verification
STUDY_ROOT_FIND = StudyRootQueryRetrieveInformationModelFind

#: Reasons of an A-ASSOCIATE-RJ from the service user (PS3.8, 9.3.4): what to check.
_CALLED_AE_NOT_RECOGNIZED = 7
_CALLING_AE_NOT_RECOGNIZED = 3
_SERVICE_USER = 1

_message_ids = itertools.count(1)


def next_message_id() -> int:
    """Give each operation in flight a message ID of its own (PS3.7, 9.1.4.1.1): 1 to 65535."""
    return (next(_message_ids) - 1) % 65535 + 1


@dataclass(frozen=True, slots=True)
class Peer:
    """An application entity that we connect to."""

    host: str
    port: int
    ae_title: str
    calling_ae_title: str
    connect_timeout_seconds: float
    response_timeout_seconds: float
    tls: ClientTls | None = None
    fast: bool = True
    """Whether C-MOVE goes over `pacsbridge.dimse.requestor`, or by pynetdicom alone."""

    @classmethod
    def pacs(cls, config: PacsConfig, *, fast: bool = True) -> Peer:
        """Make a peer of the configuration's ``pacs`` section."""
        return cls(
            host=config.host,
            port=config.port,
            ae_title=config.ae_title,
            calling_ae_title=config.calling_ae_title,
            connect_timeout_seconds=config.connect_timeout_seconds,
            response_timeout_seconds=config.response_timeout_seconds,
            tls=ClientTls.of(config.tls, config.host),
            fast=fast,
        )

    @classmethod
    def publisher(cls, config: PublisherConfig, calling_ae_title: str, *, fast: bool = True) -> Peer:
        """Make a peer of the configuration's ``publisher`` section."""
        return cls(
            host=config.host,
            port=config.port,
            ae_title=config.ae_title,
            calling_ae_title=calling_ae_title,
            connect_timeout_seconds=config.connect_timeout_seconds,
            response_timeout_seconds=config.response_timeout_seconds,
            tls=ClientTls.of(config.tls, config.host),
            fast=fast,
        )

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"


class Scu:
    """One association with the PACS for one SOP class, used from one thread; `abort` from any.

    Raises
    ------
    PacsUnreachable, PacsRejected, PacsTimeout
        On entering: no connection, no association, no answer.
    """

    def __init__(self, peer: Peer, sop_class: str) -> None:
        self.peer = peer
        self.sop_class = sop_class
        self._plain = PlainAssociation(
            peer.host,
            peer.port,
            peer.ae_title,
            peer.calling_ae_title,
            [build_context(sop_class)],
            timeouts=SendTimeouts(peer.connect_timeout_seconds, peer.response_timeout_seconds),
            tls=peer.tls,
        )

    def __enter__(self) -> Self:
        try:
            self._plain.open()
        except NothingAccepted as error:
            raise not_offered(self.peer, self.sop_class) from error
        except (OSError, Rejected, Aborted, Silent, ConnectionEnded) as error:
            raise refusal(self.peer, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._plain.close(release=kind is None)

    @property
    def association(self) -> Any:
        """The association, as pynetdicom has it."""
        return self._plain.pynetdicom

    @property
    def stopped(self) -> bool:
        """Whether it was aborted from our side."""
        return self._plain.stopped

    def abort(self) -> None:
        """End the association now; whoever waits for a response wakes up. Safe to call from any thread."""
        self._plain.abort()

    def echo(self) -> None:
        """Send C-ECHO (PS3.7, 9.1.5)."""
        self.association.dimse_timeout = self.peer.response_timeout_seconds
        status = self.association.send_c_echo(msg_id=next_message_id())
        if "Status" not in status:
            raise PacsTimeout(f"The PACS {self.peer} did not answer a C-ECHO.")
        if status.Status != 0:
            raise PacsRejected(f"The PACS {self.peer} answered a C-ECHO with status 0x{status.Status:04X}.")

    def find(self, identifier: Dataset) -> Iterator[tuple[Dataset, Dataset | None]]:
        """Send C-FIND (PS3.4, C.4.1) and yield each response: its status and its identifier."""
        self.association.dimse_timeout = self.peer.response_timeout_seconds
        responses = self.association.send_c_find(identifier, self.sop_class, msg_id=next_message_id())
        yield from responses


def refusal(peer: Peer, error: Exception) -> PacsError:
    """Say why the PACS gave no association, and what to check."""
    if isinstance(error, TlsFailure):
        kind = PacsRejected if error.certificate else PacsUnreachable
        return kind(f"No TLS connection to the PACS {peer}: {error}. Check pacs.tls, and TLS in the PACS.")
    if isinstance(error, OSError):
        return PacsUnreachable(
            f"No connection to the PACS {peer}. Check that it runs, pacs.host and pacs.port, and the firewall."
        )
    if isinstance(error, Rejected):
        return PacsRejected(_rejection(peer, error.source, error.reason))
    if isinstance(error, Silent):
        return PacsTimeout(f"The PACS {peer} took the connection but did not answer the association request.")
    return PacsUnreachable(
        f"The PACS {peer} broke the connection off during the association request. "
        "Check that pacs.port is its DICOM port, and whether it wants TLS (pacs.tls)."
    )


def not_offered(peer: Peer, sop_class: str) -> PacsRejected:
    """Say that the PACS does not accept a SOP class."""
    service = getattr(sop_class, "name", sop_class)
    return PacsRejected(
        f"The PACS {peer} does not offer {service} to us. Enable it there for {peer.calling_ae_title}."
    )


def _rejection(peer: Peer, source: int, reason: int) -> str:
    """Say what an A-ASSOCIATE-RJ means and what to do (PS3.8, 9.3.4)."""
    if source == _SERVICE_USER and reason == _CALLED_AE_NOT_RECOGNIZED:
        return (
            f"The PACS at {peer.host}:{peer.port} is not called {peer.ae_title} (called AE title not recognized). "
            "Check pacs.ae_title."
        )
    if source == _SERVICE_USER and reason == _CALLING_AE_NOT_RECOGNIZED:
        return (
            f"The PACS {peer} does not know the calling AE title {peer.calling_ae_title}. "
            "Register it in the PACS, or check pacs.calling_ae_title."
        )
    pdu = A_ASSOCIATE_RJ()
    pdu.source, pdu.reason_diagnostic = source, reason
    try:
        words = pdu.reason_str
    except ValueError:  # none that the standard knows
        words = f"source {source}, reason {reason}"
    return (
        f"The PACS {peer} rejected the association ({words}). "
        f"Check there that {peer.calling_ae_title} may connect."
    )

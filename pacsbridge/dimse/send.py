"""Instances to a CD publisher: C-STORE, all over one association, straight from their files (PS3.4, B.2).

A robot makes a job of what comes over one association, and closes it after a silence. So everything goes over
one, without pauses; when it is lost, nothing is sent over another one: that would be a second, incomplete
disc.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import structlog
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacsbridge.dimse.message import InvalidMessage
from pacsbridge.dimse.plain_store import PlainStore
from pacsbridge.dimse.requestor import Aborted, Cancelled, Proposal, Rejected, SendTimeouts, Silent
from pacsbridge.dimse.source import DataSetSource, FileChanged, UnusableFile
from pacsbridge.dimse.status import describe, is_success, is_warning
from pacsbridge.dimse.store import StoreAssociation
from pacsbridge.dimse.wire import ConnectionEnded, TlsFailure
from pacsbridge.errors import PublisherError, PublisherRejected, PublisherUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pacsbridge.dimse.tls import ClientTls
    from pacsbridge.instance import Instance

log = structlog.get_logger(__name__)

_MAXIMUM_CONTEXTS = 128
#: Message IDs are 1 to 65535.
_MESSAGE_IDS = 0xFFFF
_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_CALLING_AE_NOT_RECOGNIZED, _CALLED_AE_NOT_RECOGNIZED = (1, 3), (1, 7)


_Association = StoreAssociation | PlainStore


class Outcome(StrEnum):
    """What became of an instance."""

    SENT = "sent"
    WARNING = "warning"
    """Stored, with something to note."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StoreResult:
    """What became of one instance.

    Parameters
    ----------
    status
        The status that it was answered with; None if there was no answer.
    reason
        For a person; empty when it was sent.
    """

    instance: Instance
    outcome: Outcome
    status: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SendReport:
    """What became of all of them, in their order.

    Parameters
    ----------
    associations
        How many associations it took.
    error
        Why the association was lost, if it was.
    cancelled
        Whether it was cancelled.
    """

    results: tuple[StoreResult, ...]
    associations: int
    error: PublisherError | None = None
    cancelled: bool = False

    @property
    def sent(self) -> int:
        """How many were answered with success or a warning."""
        return len(self.results) - self.failed

    @property
    def warnings(self) -> int:
        """How many were answered with a warning."""
        return sum(result.outcome is Outcome.WARNING for result in self.results)

    @property
    def failed(self) -> int:
        """How many were not stored, or not for certain."""
        return sum(result.outcome is Outcome.FAILED for result in self.results)


@dataclass(frozen=True, slots=True)
class SendProgress:
    """How far it is: instances, and bytes of data sets that were answered with success or a warning."""

    sent: int
    failed: int
    bytes: int


def send_instances(
    instances: Sequence[Instance],
    host: str,
    port: int,
    ae_title: str,
    calling_ae_title: str,
    *,
    on_progress: Callable[[SendProgress], None] = lambda _progress: None,
    cancelled: Callable[[], bool] = lambda: False,
    timeouts: SendTimeouts | None = None,
    transcode: Callable[[Instance, str], bytes] | None = None,
    tls: ClientTls | None = None,
    fast: bool = True,
) -> SendReport:
    """Send instances with C-STORE, each once, and those that fail once more; blocks until done.

    Parameters
    ----------
    instances
        What to send, in this order.
    host, port, ae_title
        The publisher.
    calling_ae_title
        Our name.
    on_progress
        Called after each answer.
    cancelled
        Asked at least twice a second; when it says so, the association is aborted.
    timeouts
        How long the publisher may be silent.
    transcode
        Encodes the data set of an instance in the given uncompressed transfer syntax, for a publisher that
        does not take that of the file; raises when that is impossible.
    tls
        How to connect by TLS; None: without.
    fast
        Straight from the files; otherwise by pynetdicom alone.

    Returns
    -------
    SendReport
        Nothing in it is sent that was not answered with success or a warning.

    Raises
    ------
    PublisherUnreachable, PublisherRejected
        There was no association at all.
    """
    publisher = f"{ae_title} at {host}:{port}"
    sending = _Sending(publisher, on_progress, transcode)
    batches = _batches(instances)
    if len(batches) > 1:
        log.warning("more presentation contexts than an association has", associations=len(batches))
    for batch, proposals in batches:
        association = (StoreAssociation if fast else PlainStore)(
            host,
            port,
            ae_title,
            calling_ae_title,
            proposals,
            timeouts=timeouts or SendTimeouts(),
            cancelled=cancelled,
            tls=tls,
        )
        sending.send(association, batch)
        if sending.error or sending.cancelled:
            break
    if sending.error and not sending.associations:
        raise sending.error
    return sending.report(instances)


def _proposals(instance: Instance) -> list[Proposal]:
    """List what to propose for an instance: its own transfer syntax, and both that all publishers should take.

    Each has a context of its own, so that it is not the publisher who decides that a file is re-encoded.
    """
    syntaxes = dict.fromkeys((instance.TransferSyntaxUID, *_UNCOMPRESSED))
    return [Proposal(instance.SOPClassUID, syntax) for syntax in syntaxes]


def _batches(instances: Sequence[Instance]) -> list[tuple[list[Instance], list[Proposal]]]:
    """Divide the instances among as few associations as their contexts need: nearly always one."""
    batches: list[tuple[list[Instance], list[Proposal]]] = []
    for instance in instances:
        wanted = _proposals(instance)
        for batch, proposals in batches:
            more = [proposal for proposal in wanted if proposal not in proposals]
            if len(proposals) + len(more) <= _MAXIMUM_CONTEXTS:
                batch.append(instance)
                proposals += more
                break
        else:
            batches.append(([instance], wanted))
    return batches


class _Sending:
    """One call of `send_instances`: what has been answered, over one association after another."""

    def __init__(
        self,
        publisher: str,
        on_progress: Callable[[SendProgress], None],
        transcode: Callable[[Instance, str], bytes] | None,
    ) -> None:
        self.associations = 0
        self.error: PublisherError | None = None
        self.cancelled = False
        self._publisher = publisher
        self._on_progress = on_progress
        self._transcode = transcode
        self._results: dict[Instance, StoreResult] = {}
        self._bytes = 0
        self._failed = 0
        self._message_ids = itertools.count()

    def send(self, association: _Association, batch: Sequence[Instance]) -> None:
        """Send a batch over one association; what goes wrong with the association is kept in `error`."""
        answered = len(self._results)
        try:
            with association:
                self.associations += 1
                for instance in batch:
                    self._store(association, instance)
                for instance in batch:
                    if self._may_be_tried_again(instance):
                        self._store(association, instance)
        except Cancelled:
            self.cancelled = True
        except (OSError, Rejected, Aborted, Silent, ConnectionEnded, InvalidMessage, FileChanged) as error:
            self.error = self._explain(error, negotiated=bool(association.contexts))
            log.warning("sending broken off", reason=str(self.error), answered=len(self._results) - answered)

    def report(self, instances: Sequence[Instance]) -> SendReport:
        """Give what became of everything; what has no answer has failed."""
        reason = (
            "cancelled" if self.cancelled else f"no answer: {self.error.message if self.error else 'unknown'}"
        )
        results = tuple(
            self._results.get(instance, StoreResult(instance, Outcome.FAILED, reason=reason))
            for instance in instances
        )
        return SendReport(results, self.associations, self.error, self.cancelled)

    def _store(self, association: _Association, instance: Instance) -> None:
        """Send one instance and note its answer."""
        association.check_cancelled()
        try:
            proposal, source = self._open(association, instance)
        except UnusableFile as error:
            self._note(StoreResult(instance, Outcome.FAILED, reason=str(error)))
            return
        message_id = next(self._message_ids) % _MESSAGE_IDS + 1
        with source:
            if source.length <= 0:
                self._note(StoreResult(instance, Outcome.FAILED, reason="its file holds no data set"))
                return
            try:
                status = association.store(instance, proposal, source, message_id)
            except UnusableFile as error:
                self._note(StoreResult(instance, Outcome.FAILED, reason=str(error)))
                return
        result = _judge(instance, status)
        if result.outcome is not Outcome.FAILED:
            self._bytes += source.length
        self._note(result)

    def _note(self, result: StoreResult) -> None:
        before = self._results.get(result.instance)
        self._results[result.instance] = result
        self._failed += (result.outcome is Outcome.FAILED) - (
            before is not None and before.outcome is Outcome.FAILED
        )
        self._on_progress(SendProgress(len(self._results) - self._failed, self._failed, self._bytes))

    def _may_be_tried_again(self, instance: Instance) -> bool:
        """Tell whether the publisher itself refused it, which may have been a passing trouble."""
        result = self._results[instance]
        return result.outcome is Outcome.FAILED and result.status is not None

    def _open(self, association: _Association, instance: Instance) -> tuple[Proposal, DataSetSource]:
        """Find the context for an instance, and its data set as that context wants it."""
        contexts = association.contexts
        own, *others = _proposals(instance)
        if own in contexts:
            return own, DataSetSource.of_file(instance)
        accepted = next((proposal for proposal in others if proposal in contexts), None)
        if accepted is None:
            raise UnusableFile("the publisher takes no instances of this kind (SOP Class)")
        if self._transcode is None:
            raise UnusableFile("the publisher does not take the transfer syntax of the file")
        try:
            data = self._transcode(instance, accepted.transfer_syntax)
        except Exception as error:  # decoders raise what they like
            log.warning("an instance could not be re-encoded", reason=type(error).__name__)
            raise UnusableFile("the publisher takes it uncompressed only, and it can't be decoded") from error
        return accepted, DataSetSource(len(data), data=data)

    def _explain(self, error: Exception, *, negotiated: bool) -> PublisherError:
        """Say what went wrong with an association, and what to check."""
        publisher = f"the publisher {self._publisher}"
        if isinstance(error, Rejected):
            return PublisherRejected(_rejection(self._publisher, error))
        if isinstance(error, TlsFailure):
            kind = PublisherRejected if error.certificate else PublisherUnreachable
            return kind(f"No TLS connection to {publisher}: {error}. Check publisher.tls, and TLS there.")
        if isinstance(error, Silent):
            during = "during the transfer" if negotiated else "the association request"
            return PublisherUnreachable(
                f"No answer from {publisher} {during}. Check that it works and is not waiting for an operator."
            )
        if isinstance(error, (Aborted, InvalidMessage)):
            return PublisherRejected(f"The association with {publisher} ended: {error}. Look into its log.")
        if isinstance(error, FileChanged):
            return PublisherRejected(f"Sending to {publisher} was broken off: {error}. Try again.")
        if isinstance(error, ConnectionEnded):
            return PublisherUnreachable(
                f"The connection to {publisher} broke ({error}). Check that it runs, that publisher.port is its "
                "DICOM port, and whether it wants TLS (publisher.tls)."
            )
        why = getattr(error, "strerror", None) or str(error)
        return PublisherUnreachable(
            f"No connection to {publisher} ({why}). Check that it runs, publisher.host and publisher.port, and the "
            "firewall."
        )


def _judge(instance: Instance, status: int) -> StoreResult:
    if is_success(status):
        return StoreResult(instance, Outcome.SENT, status)
    outcome = Outcome.WARNING if is_warning(status) else Outcome.FAILED
    return StoreResult(instance, outcome, status, f"the publisher answered {describe(status)}")


def _rejection(publisher: str, error: Rejected) -> str:
    """Say what an A-ASSOCIATE-RJ means and what to do (PS3.8, 9.3.4)."""
    if (error.source, error.reason) == _CALLED_AE_NOT_RECOGNIZED:
        return f"The publisher {publisher} has another name (called AE title not recognized). Check publisher.ae_title."
    if (error.source, error.reason) == _CALLING_AE_NOT_RECOGNIZED:
        return (
            f"The publisher {publisher} does not know us (calling AE title not recognized). "
            "Register our AE title there."
        )
    return f"The publisher {publisher} rejected the association ({error}). Check there that we may connect."

"""C-STORE by pynetdicom alone: as `pacsbridge.dimse.store`, for an engineer who wants to rule that out."""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pynetdicom import _config
from pynetdicom.presentation import build_context

from pacsbridge.dimse.filemeta import encode_file_meta
from pacsbridge.dimse.message import CommandField
from pacsbridge.dimse.plain import PlainAssociation
from pacsbridge.dimse.requestor import Aborted, Cancelled, Proposal, SendTimeouts, Silent
from pacsbridge.dimse.source import UnusableFile
from pacsbridge.dimse.store import check_maximum
from pacsbridge.dimse.wire import TICK_SECONDS, ConnectionEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from pacsbridge.dimse.source import DataSetSource
    from pacsbridge.dimse.tls import ClientTls
    from pacsbridge.instance import Instance

#: What is sent from a file is sent as it is, not decoded and encoded again.
_config.STORE_SEND_CHUNKED_DATASET = True
_WINDOW_BYTES = 1 << 20
#: How long an A-ABORT may wait behind what the peer does not read, in seconds.
_ABORT_SECONDS = 1.0


class PlainStore:
    """An association for C-STOREs; see `pacsbridge.dimse.store.StoreAssociation`, whose promises it keeps.

    A thread beside it looks whether it is to be cancelled and whether the peer is silent, since pynetdicom's
    own functions can't be interrupted; only while the association is asked for, there is no such watch.
    """

    def __init__(
        self,
        host: str,
        port: int,
        ae_title: str,
        calling_ae_title: str,
        proposals: Sequence[Proposal],
        *,
        timeouts: SendTimeouts,
        cancelled: Callable[[], bool],
        tls: ClientTls | None = None,
    ) -> None:
        self._plain = PlainAssociation(
            host,
            port,
            ae_title,
            calling_ae_title,
            [build_context(proposal.abstract_syntax, proposal.transfer_syntax) for proposal in proposals],
            timeouts=timeouts,
            tls=tls,
            on_message=self._see_message,
        )
        self._timeouts = timeouts
        self._is_cancelled = cancelled
        self._cancelled = self._silent = False
        self._asked_at: float | None = None
        self._answered: tuple[int | None, int | None] | None = None
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="plain-store-watch", daemon=True)
        self.contexts: dict[Proposal, int] = {}
        """The IDs of the contexts that the peer accepted."""

    def __enter__(self) -> Self:
        self.check_cancelled()
        try:
            self._plain.open()
        except BaseException:
            self._plain.close(release=False)
            raise
        for context in self._plain.pynetdicom.accepted_contexts:
            self.contexts[Proposal(context.abstract_syntax, context.transfer_syntax[0])] = context.context_id
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asked_at = None
        if kind is None:
            self._plain.close(release=True)
        else:
            self._stop()
            self._plain.close(release=False)
        self._done.set()
        self._watcher.join()

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if that is wanted."""
        if self._cancelled or self._is_cancelled():
            raise Cancelled

    def store(self, instance: Instance, proposal: Proposal, source: DataSetSource, message_id: int) -> int:
        """Send an instance in the context of `proposal`, and give the status that it is answered with.

        Raises
        ------
        Aborted, Silent, Cancelled, ConnectionEnded
            There is no answer.
        UnusableFile
            pynetdicom can't send it.
        """
        check_maximum(self._plain.pynetdicom.acceptor.maximum_length or 0)
        self._answered = None
        try:
            with _file(instance, proposal, source) as path:
                self._asked_at = time.monotonic()
                status = self._plain.pynetdicom.send_c_store(path, msg_id=message_id)
        except RuntimeError as error:  # the association is gone
            raise self._ending() from error
        except (ValueError, AttributeError, OSError) as error:
            raise UnusableFile(f"pynetdicom can't send it: {error}") from error
        finally:
            self._asked_at = None
        if "Status" not in status:
            raise self._ending()
        if self._answered != (CommandField.C_STORE_RSP, message_id):
            raise Aborted("it answered another message")
        return int(status.Status)

    def _see_message(self, message: Any) -> None:
        command = message.command_set
        self._answered = command.get("CommandField"), command.get("MessageIDBeingRespondedTo")

    def _ending(self) -> Exception:
        if self._cancelled:
            return Cancelled()
        if self._silent:
            return Silent()
        if self._plain.aborted_by_peer:
            return Aborted("it aborted the association")
        return ConnectionEnded("closed by the peer")

    def _watch(self) -> None:
        while not self._done.wait(TICK_SECONDS / 2):
            asked_at = self._asked_at
            if self._is_cancelled():
                self._cancelled = True
            elif asked_at is not None:
                moved = max(asked_at, self._plain.last_moved)
                self._silent = time.monotonic() - moved > self._timeouts.response
            if self._cancelled or self._silent:
                self._stop()
                return

    def _stop(self) -> None:
        """Abort, and close the connection under a peer that does not take the A-ABORT."""
        last_resort = threading.Timer(_ABORT_SECONDS, self._plain.hang_up)
        last_resort.start()
        try:
            self._plain.abort()
        finally:
            last_resort.cancel()
            last_resort.join()


@contextmanager
def _file(instance: Instance, proposal: Proposal, source: DataSetSource) -> Iterator[str]:
    """Give the file to send: the instance's own, or one with what was made of it, padded to even length."""
    if source.data is None and source.length % 2 == 0:
        yield instance.path
        return
    meta = encode_file_meta(
        SOPClassUID=instance.SOPClassUID,
        SOPInstanceUID=instance.SOPInstanceUID,
        TransferSyntaxUID=proposal.transfer_syntax,
        SourceApplicationEntityTitle="",
    )
    with tempfile.NamedTemporaryFile(prefix=".send-", dir=Path(instance.path).parent) as made:
        made.write(meta)
        for window in source.windows(_WINDOW_BYTES):
            made.write(window)
        made.write(bytes(source.length % 2))
        made.flush()
        yield made.name

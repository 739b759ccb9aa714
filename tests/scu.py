"""A small Query/Retrieve SCU for the tests of PACSs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # named when imported
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from pacsbridge.dimse.connection import RequestingAE, on_connection
from tests.peers import HOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association

CALLING_AE_TITLE = "CDRECORD"


def identifier(level: str, **keys: object) -> Dataset:
    """Make an identifier."""
    ds = Dataset()
    ds.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    return ds


def associate(port: int, timeout: float = 10, called: str = "ANY-SCP") -> Association:
    """Ask for an association; the caller looks whether it stands."""
    ae = RequestingAE(CALLING_AE_TITLE)
    ae.acse_timeout = ae.dimse_timeout = ae.connection_timeout = timeout
    for model in (
        Verification,
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelMove,
    ):
        ae.add_requested_context(model)
    return ae.associate(HOST, port, ae_title=called, evt_handlers=[(evt.EVT_CONN_OPEN, on_connection)])


def find(port: int, level: str, *, called: str = "ANY-SCP", **keys: object) -> tuple[list[Dataset], Dataset]:
    """Ask; gives the answers and the last status."""
    association = associate(port, called=called)
    assert association.is_established
    query = identifier(level, **keys)
    responses = list(association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind))
    _end(association)
    return [answer for _, answer in responses if answer is not None], responses[-1][0]


def move(
    port: int,
    destination: str,
    level: str = "STUDY",
    *,
    timeout: float = 10,
    called: str = "ANY-SCP",
    on_response: Callable[[Association, Dataset], None] | None = None,
    **keys: object,
) -> list[Dataset]:
    """Move with message ID 7; gives all statuses, with their counts."""
    association = associate(port, timeout, called)
    assert association.is_established
    query = identifier(level, **keys)
    statuses = []
    responses = association.send_c_move(
        query, destination, StudyRootQueryRetrieveInformationModelMove, msg_id=7
    )
    for status, _ in responses:
        statuses.append(status)
        if on_response is not None:
            on_response(association, status)
    _end(association)
    return statuses


def cancel_move(association: Association) -> None:
    """Send a C-CANCEL for the C-MOVE with message ID 7."""
    association.send_c_cancel(7, query_model=StudyRootQueryRetrieveInformationModelMove)


def _end(association: Association) -> None:
    if association.is_established:
        association.release()
    association.join(10)

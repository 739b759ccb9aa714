"""An association that we request: how its refusal is told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from pynetdicom.acse import ACSE

from pacsbridge.dimse.scu import VERIFICATION, Peer, Scu
from pacsbridge.errors import PacsRejected, PacsUnreachable
from tests.misbehaving import Misbehaviour, Reject
from tests.peers import HOST, free_port

if TYPE_CHECKING:
    from tests.conftest import MakePacs


def peer(port: int) -> Peer:
    return Peer(HOST, port, "PACS", "CALLER", connect_timeout_seconds=2, response_timeout_seconds=5)


@pytest.mark.parametrize(
    ("reject", "told"),
    [
        (Reject.CALLED_AE_TITLE_NOT_RECOGNISED, "pacs.ae_title"),
        (Reject.CALLING_AE_TITLE_NOT_RECOGNISED, "pacs.calling_ae_title"),
        (Reject.LOCAL_LIMIT_EXCEEDED, "Local limit exceeded"),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_a_rejection_is_told_however_fast_it_comes(
    reject: Reject, told: str, quick: bool, make_pacs: MakePacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rejection may be through before pynetdicom looks whether the connection stands: an abort, for it."""
    send_request = ACSE.send_request

    def send_and_dawdle(acse: ACSE) -> None:
        send_request(acse)
        end = time.monotonic() + 5
        while acse.dul.is_alive() and time.monotonic() < end:
            time.sleep(0.01)

    if quick:
        monkeypatch.setattr(ACSE, "send_request", send_and_dawdle)
    pacs = make_pacs(Misbehaviour(reject=reject))
    with pytest.raises(PacsRejected, match=told), Scu(peer(pacs.port), VERIFICATION):
        pass


def test_a_pacs_that_is_down_is_unreachable() -> None:
    with pytest.raises(PacsUnreachable, match=r"pacs\.port"), Scu(peer(free_port()), VERIFICATION):
        pass


def test_an_echo_is_answered(make_pacs: MakePacs) -> None:
    pacs: Any = make_pacs()
    with Scu(peer(pacs.port), VERIFICATION) as scu:
        scu.echo()

"""The seam to pynetdicom: these fail when another version moves what we lean on."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import pynetdicom
from pynetdicom import AE, acse, association, dul, events, fsm, transport
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from pacsbridge.dimse.association import AcceptedAssociation
from pacsbridge.dimse.shared_socket import SharedSocket

PINNED = "3.0.4"


def test_pynetdicom_is_the_one_that_we_know() -> None:
    """Another version: read its transport, dul, association, acse and fsm before changing this."""
    assert pynetdicom.__version__ == version("pynetdicom") == PINNED


def test_what_we_override_is_there() -> None:
    for ours, theirs in ((SharedSocket, AssociationSocket), (AcceptedAssociation, Association)):
        for name in ("ready", "recv", "send", "close", "_shutdown_socket"):
            if ours is SharedSocket:
                assert name in vars(theirs), name
        for name in ("run_reactor", "_run_reactor", "kill", "bind", "unbind"):
            if ours is AcceptedAssociation:
                assert name in vars(theirs), name
    assert "_create_association" in vars(RequestHandler)
    assert "self._create_socket(assoc, local_address, tls_args)" in inspect.getsource(AE.associate)
    assert {"get_request", "handle_error", "verify_request", "service_actions", "shutdown"} <= set(
        dir(AssociationServer)
    )


def test_what_we_touch_is_there() -> None:
    server_side = Association(AE(), "acceptor")
    for name in ("_server", "_accepted_cx", "is_established", "is_aborted", "requestor", "acceptor", "dul"):
        assert hasattr(server_side, name), name
    provider = server_side.dul
    assert isinstance(provider, DULServiceProvider)
    for name in ("to_user_queue", "event_queue", "state_machine", "socket", "kill_dul", "send_pdu"):
        assert hasattr(provider, name), name
    assert isinstance(provider._idle_timer, Timer)


def test_the_order_of_things_that_we_rely_on() -> None:
    """Read the sources for what no name can tell."""
    run = inspect.getsource(Association.run_reactor)
    assert run.index("negotiate_association()") < run.index("self._run_reactor()")
    loop = inspect.getsource(DULServiceProvider.run_reactor)
    assert loop.index("_process_recv_primitive()") < loop.index("_is_transport_event()")
    assert "self.socket.ready" in inspect.getsource(DULServiceProvider._is_transport_event)
    assert "self.socket.recv(6)" in inspect.getsource(DULServiceProvider._read_pdu_data)
    assert "dul._send(A_ASSOCIATE_AC(primitive))" in inspect.getsource(fsm.AE_7)
    assert "self.socket.send(pdu.encode())" in inspect.getsource(DULServiceProvider._send)
    negotiate = inspect.getsource(acse.ACSE._negotiate_as_acceptor)
    assert "self.acceptor.supported_contexts" in negotiate
    assert "accepted_common_extended" in inspect.getsource(Association._serve_request)
    for action in (fsm.AA_2, fsm.AR_5):
        assert "EVT_CONN_CLOSE" in inspect.getsource(action)


def test_the_modules_are_the_ones_that_run() -> None:
    for module in (acse, association, dul, events, fsm, transport):
        assert module.__name__.startswith("pynetdicom.")

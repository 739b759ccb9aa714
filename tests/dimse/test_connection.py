import socket
from pathlib import Path

from pacsbridge.demo.pacs import DemoPacs
from pacsbridge.dimse.connection import ClosingSocket, RequestingAE
from tests import scu
from tests.peers import HOST, free_port


def test_a_response_is_kept_for_the_one_who_waits(tmp_path: Path) -> None:
    with DemoPacs(tmp_path) as pacs:
        association = scu.associate(pacs.port)
        association._reactor_checkpoint.clear()  # what send_c_find() does first
        response = (1, object())
        association.dimse.msg_queue.put(response)  # type: ignore[arg-type]  # any message will do
        assert association.dimse.get_msg(block=False) == (None, None)
        assert association.dimse.get_msg(block=True) == response
        association._reactor_checkpoint.set()
        association.release()


def test_nobody_waits_for_a_connection_that_is_gone(tmp_path: Path) -> None:
    with DemoPacs(tmp_path) as pacs:
        association = scu.associate(pacs.port)
    association.join(10)
    association.dimse.msg_queue.queue.clear()
    association.dimse_timeout = 3600
    assert association.dimse.get_msg(block=True) == (None, None)


def test_a_socket_that_was_never_connected_can_be_shut_down() -> None:
    with ClosingSocket() as never:
        never.shutdown(socket.SHUT_RDWR)


def test_a_refused_connection_leaves_no_open_socket() -> None:
    ae = RequestingAE("CDRECORD")
    ae.add_requested_context("1.2.840.10008.1.1")
    before = len(list(Path("/proc/self/fd").iterdir()))
    association = ae.associate(HOST, free_port())
    assert not association.is_established
    assert len(list(Path("/proc/self/fd").iterdir())) <= before

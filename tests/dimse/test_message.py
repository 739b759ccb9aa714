"""Command sets and PDUs: what is encoded is decoded, what is not is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacsbridge.dimse.message import (
    FRAGMENT_OFFSET,
    PDU_HEADER,
    PDV_HEADER,
    Command,
    CommandField,
    Control,
    Element,
    InvalidMessage,
    command_pdus,
    decode_command,
    encode_command,
    encode_response,
    fragment_length,
    lo,
    ui,
    us,
)
from pacsbridge.dimse.status import Status


def test_what_is_encoded_is_decoded() -> None:
    encoded = encode_command(
        [
            (Element.AffectedSOPClassUID, ui("1.2.840.10008.1.1")),
            (Element.MessageID, us(65535)),
            (Element.ErrorComment, lo("odd")),
        ]
    )
    command = decode_command(encoded)
    assert command.uid(Element.AffectedSOPClassUID) == "1.2.840.10008.1.1"
    assert command.number(Element.MessageID) == 65535
    assert command.text(Element.ErrorComment) == "odd"
    assert command.uid(Element.AffectedSOPInstanceUID) == ""
    assert int.from_bytes(command.values[Element.CommandGroupLength], "little") == len(encoded) - 12
    assert len(encoded) % 2 == 0


def test_a_response_names_its_request() -> None:
    request = Command(
        {
            Element.MessageID: us(7),
            Element.AffectedSOPClassUID: ui("1.2"),
            Element.AffectedSOPInstanceUID: ui("1.3"),
        }
    )
    response = decode_command(
        encode_response(request, CommandField.C_STORE_RSP, Status.OUT_OF_RESOURCES, "x" * 100)
    )
    assert response.number(Element.CommandField) == CommandField.C_STORE_RSP
    assert response.number(Element.MessageIDBeingRespondedTo) == 7
    assert response.number(Element.Status) == Status.OUT_OF_RESOURCES
    assert response.uid(Element.AffectedSOPInstanceUID) == "1.3"
    assert len(response.text(Element.ErrorComment)) == 64
    assert list(response.values) == sorted(response.values)


@given(data=st.binary(max_size=200))
def test_takes_any_bytes_as_a_command(data: bytes) -> None:
    try:
        command = decode_command(data)
    except InvalidMessage:
        return
    for element in Element:
        command.uid(element)
        command.text(element)


@given(command=st.binary(min_size=1, max_size=600), maximum=st.integers(8, 300))
def test_pdus_keep_to_the_maximum_and_lose_nothing(command: bytes, maximum: int) -> None:
    pdus = list(command_pdus(5, command, maximum))
    joined = b""
    for number, pdu in enumerate(pdus, start=1):
        _, length = PDU_HEADER.unpack_from(pdu)
        assert length == len(pdu) - PDU_HEADER.size <= maximum
        pdv_length, context_id, control = PDV_HEADER.unpack_from(pdu, PDU_HEADER.size)
        assert (pdv_length, context_id) == (length - 4, 5)
        assert bool(control & Control.LAST) == (number == len(pdus))
        assert control & Control.COMMAND
        joined += pdu[PDU_HEADER.size + FRAGMENT_OFFSET :]
    assert joined == command


@pytest.mark.parametrize(("maximum", "length"), [(16384, 16378), (16383, 16376), (9, 2), (8, 2)])
def test_fragments_are_even(maximum: int, length: int) -> None:
    assert fragment_length(maximum) == length


@pytest.mark.parametrize("maximum", [1, 6, 7])
def test_no_room_for_a_fragment(maximum: int) -> None:
    with pytest.raises(InvalidMessage):
        fragment_length(maximum)

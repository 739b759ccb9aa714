"""What the tests of the DICOM network share: small data sets, and a peer that says anything."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from pacsbridge.config import ScpPort, StorageScpConfig
from pacsbridge.dimse.message import (
    DATA_SET_PRESENT,
    NO_DATA_SET,
    PDU_HEADER,
    PDV_HEADER,
    Command,
    CommandField,
    Control,
    Element,
    PduType,
    decode_command,
    encode_command,
    pdu_header,
    ui,
    us,
)
from pacsbridge.dimse.scp import StorageScp
from tests.peers import HOST, free_port
from tests.ways import FAST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONTEXT_CT = 1
CONTEXT_ECHO = 3


def scp_config(ports: int = 1, **values: Any) -> StorageScpConfig:
    """A pool of free ports of this machine."""
    entries = tuple(ScpPort(port=free_port(), ae_title=f"BRIDGE{number}") for number in range(ports))
    return StorageScpConfig(**{"host": HOST, "ports": entries, **values})


@contextmanager
def running_scp(config: StorageScpConfig, *, fast: bool = FAST) -> Iterator[StorageScp]:
    scp = StorageScp(config, fast=fast)
    scp.start()
    try:
        yield scp
    finally:
        scp.stop()


def descriptors() -> set[str]:
    """What this process has open, by kind and number: two calls can be compared."""
    found = set()
    for entry in os.scandir("/proc/self/fd"):
        try:
            found.add(f"{entry.name} {Path(entry.path).readlink()}")
        except FileNotFoundError:  # the descriptor of this very listing
            continue
    return {name for name in found if "/proc/" not in name}


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


@dataclass
class Sample:
    """A small CT instance."""

    StudyInstanceUID: str = field(default_factory=generate_uid)
    SeriesInstanceUID: str = field(default_factory=generate_uid)
    SOPInstanceUID: str = field(default_factory=generate_uid)
    SOPClassUID: str = CTImageStorage
    pixels: int = 2000

    def dataset(self) -> Dataset:
        dataset = Dataset()
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(dataset, keyword, getattr(self, keyword))
        dataset.Modality = "CT"
        dataset.PatientName = "Sample^Patient"
        dataset.PatientID = "SAMPLE1"
        dataset.Rows = dataset.Columns = 32
        dataset.BitsAllocated = 16
        dataset.add_new("PixelData", "OW", bytes(range(250)) * (self.pixels // 250))
        return dataset

    def encoded(self, TransferSyntaxUID: str = ExplicitVRLittleEndian) -> bytes:
        return encode(self.dataset(), TransferSyntaxUID)

    def command(self, message_id: int = 1, **values: Any) -> bytes:
        return store_command(values.get("SOPClassUID", self.SOPClassUID), self.SOPInstanceUID, message_id)


def encode(dataset: Dataset, TransferSyntaxUID: str = ExplicitVRLittleEndian) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = TransferSyntaxUID == "1.2.840.10008.1.2"
    buffer.is_little_endian = TransferSyntaxUID != "1.2.840.10008.1.2.2"
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def store_command(SOPClassUID: str, SOPInstanceUID: str, message_id: int = 1) -> bytes:
    return encode_command(
        [
            (Element.AffectedSOPClassUID, ui(SOPClassUID)),
            (Element.CommandField, us(CommandField.C_STORE_RQ)),
            (Element.MessageID, us(message_id)),
            (Element.Priority, us(0)),
            (Element.CommandDataSetType, us(DATA_SET_PRESENT)),
            (Element.AffectedSOPInstanceUID, ui(SOPInstanceUID)),
        ]
    )


def echo_command(message_id: int = 7) -> bytes:
    return encode_command(
        [
            (Element.AffectedSOPClassUID, ui(Verification)),
            (Element.CommandField, us(CommandField.C_ECHO_RQ)),
            (Element.MessageID, us(message_id)),
            (Element.CommandDataSetType, us(NO_DATA_SET)),
        ]
    )


def pdv(context_id: int, control: int, data: bytes, length: int | None = None) -> bytes:
    """A PDV, with a length that may lie."""
    return PDV_HEADER.pack(len(data) + 2 if length is None else length, context_id, control) + data


def pdata(*pdvs: bytes, length: int | None = None) -> bytes:
    """A P-DATA-TF, with a length that may lie."""
    body = b"".join(pdvs)
    return PDU_HEADER.pack(PduType.P_DATA_TF, len(body) if length is None else length) + body


def store_pdus(
    sample: Sample, *, context_id: int = CONTEXT_CT, step: int = 1 << 14, syntax: str = ExplicitVRLittleEndian
) -> list[bytes]:
    """A whole C-STORE."""
    data = sample.encoded(syntax)
    parts = [data[start : start + step] for start in range(0, len(data), step)]
    pdus = [pdata(pdv(context_id, Control.COMMAND | Control.LAST, sample.command()))]
    for number, part in enumerate(parts, start=1):
        control = Control.LAST if number == len(parts) else Control.DATA_SET
        pdus.append(pdu_header(context_id, control, len(part)) + part)
    return pdus


def associate_request(
    contexts: Sequence[tuple[str, Sequence[str]]],
    *,
    maximum_length: int = 16384,
    calling_ae_title: str = "PACS",
) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title = calling_ae_title
    primitive.called_ae_title = "BRIDGE0"
    proposed = [build_context(abstract, list(transfer)) for abstract, transfer in contexts]
    for number, context in enumerate(proposed):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = proposed
    length = MaximumLengthNotification()
    length.maximum_length_received = maximum_length
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3.4"
    primitive.user_information = [length, implementation]
    return A_ASSOCIATE_RQ(primitive).encode()


class Peer:
    """A requestor that sends whatever a test wants to be sent."""

    def __init__(self, port: int, host: str = HOST) -> None:
        self.socket = socket.create_connection((host, port), timeout=20)
        self.accepted: dict[int, str] = {}
        """The accepted transfer syntax by context ID."""
        self.maximum_length = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def associate(
        self,
        contexts: Sequence[tuple[str, Sequence[str]]] = (
            (CTImageStorage, [ExplicitVRLittleEndian]),
            (Verification, [ExplicitVRLittleEndian]),
        ),
        **values: Any,
    ) -> Self:
        self.send(associate_request(contexts, **values))
        kind, body = self.receive()
        assert kind == PduType.A_ASSOCIATE_AC, f"answered with PDU type {kind}"
        pdu = A_ASSOCIATE_AC()
        pdu.decode(PDU_HEADER.pack(kind, len(body)) + body)
        primitive = pdu.to_primitive()
        for context in primitive.presentation_context_definition_results_list:
            if context.result == 0 and context.context_id:
                self.accepted[context.context_id] = context.transfer_syntax[0]
        self.maximum_length = primitive.maximum_length_received or 0
        return self

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.socket.sendall(part)

    def receive(self) -> tuple[int, bytes]:
        """Receive a PDU: its type and its body; (0, b"") when the connection is closed."""
        head = self._read(PDU_HEADER.size)
        if len(head) < PDU_HEADER.size:
            return 0, b""
        kind, length = PDU_HEADER.unpack(head)
        return kind, self._read(length)

    def response(self) -> Command:
        """Receive a response, in one PDU."""
        kind, body = self.receive()
        assert kind == PduType.P_DATA_TF, f"answered with PDU type {kind}"
        return decode_command(body[PDV_HEADER.size :])

    def store(self, sample: Sample, **values: Any) -> int:
        """Send a C-STORE and give the status that it is answered with."""
        self.send(*store_pdus(sample, **values))
        return self.response().number(Element.Status)

    def release(self) -> None:
        self.send(PDU_HEADER.pack(PduType.A_RELEASE_RQ, 4) + bytes(4))
        kind, _ = self.receive()
        assert kind == PduType.A_RELEASE_RQ + 1

    def _read(self, count: int) -> bytes:
        data = BytesIO()
        while data.tell() < count:
            try:
                part = self.socket.recv(count - data.tell())
            except ConnectionError:
                break
            if not part:
                break
            data.write(part)
        return data.getvalue()

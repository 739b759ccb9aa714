"""The File Meta Information of a received instance (PS3.10, 7.1)."""

from __future__ import annotations

from struct import pack

from pacsbridge.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_PREAMBLE = bytes(128) + b"DICM"


def encode_file_meta(
    *, SOPClassUID: str, SOPInstanceUID: str, TransferSyntaxUID: str, SourceApplicationEntityTitle: str
) -> bytes:
    """Encode preamble, prefix and File Meta Information in Explicit VR Little Endian.

    Parameters
    ----------
    SOPClassUID, SOPInstanceUID
        As the C-STORE command names them.
    TransferSyntaxUID
        The transfer syntax of the presentation context that the data set came in.
    SourceApplicationEntityTitle
        The AE that sent the data set; left out when empty.
    """
    group = (
        _element(0x0001, b"OB", b"\x00\x01")
        + _element(0x0002, b"UI", _uid(SOPClassUID))
        + _element(0x0003, b"UI", _uid(SOPInstanceUID))
        + _element(0x0010, b"UI", _uid(TransferSyntaxUID))
        + _element(0x0012, b"UI", _uid(IMPLEMENTATION_CLASS_UID))
        + _element(0x0013, b"SH", _text(IMPLEMENTATION_VERSION_NAME))
    )
    if SourceApplicationEntityTitle:
        group += _element(0x0016, b"AE", _text(SourceApplicationEntityTitle))
    return _PREAMBLE + _element(0x0000, b"UL", pack("<L", len(group))) + group


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    head = pack("<HH2s", 0x0002, element, vr)
    # OB has a length of 32 bits after two reserved bytes, the others have 16 bits (PS3.5, 7.1.2).
    return head + (pack("<HL", 0, len(value)) if vr == b"OB" else pack("<H", len(value))) + value


def _uid(value: str) -> bytes:
    encoded = value.encode("ascii")
    return encoded + b"\0" * (len(encoded) % 2)


def _text(value: str) -> bytes:
    encoded = value.encode("ascii", "replace")
    return encoded + b" " * (len(encoded) % 2)

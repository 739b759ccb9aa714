"""Bring an instance's file to Explicit VR Little Endian, STD-GEN-CD's one transfer syntax (PS3.11 annex D).

The new file is written beside the original and takes its place in one step, so that the spool holds each
instance once, and whole. What can't be done safely is not done: the file stays as it came.
"""

from __future__ import annotations

import errno
import os
import tempfile
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pacsbridge.elements import EXPLICIT_BIG, IMPLICIT_LITTLE, Encoding, Malformed
from pacsbridge.errors import SourceChanged, SpoolFull
from pacsbridge.media.decompress import Undecodable, decompress
from pacsbridge.media.element_stream import TRANSFER_SYNTAX_UID, encode_file_meta, read_file_meta
from pacsbridge.media.reencode import Reencoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacsbridge.instance import Instance

_CHUNK = 1024 * 1024
#: Deflated data sets inflate to a multiple; beyond this one of them is an attack.
_MAX_INFLATED = 0xFFFFFFFF
_NATIVE: dict[str, Encoding] = {ImplicitVRLittleEndian: IMPLICIT_LITTLE, ExplicitVRBigEndian: EXPLICIT_BIG}


def transcode(instance: Instance, checkpoint: Callable[[], None] = lambda: None) -> Instance:
    """Re-encode or decode an instance's file, in place, unless it is in Explicit VR Little Endian already.

    What counts is the transfer syntax in the file, so that doing it again does nothing.

    Parameters
    ----------
    instance
        The instance; its file may be replaced.
    checkpoint
        Called now and then; may raise to stop, and then the file is as it was.

    Returns
    -------
    Instance
        The instance with the size and the transfer syntax of its file.

    Raises
    ------
    Undecodable
        It can't be done; the file is as it was.
    SpoolFull
        There is no room for the new file.
    SourceChanged
        The file is gone.
    """
    size = transcode_file(Path(instance.path), checkpoint)
    return replace(instance, size=size, TransferSyntaxUID=str(ExplicitVRLittleEndian))


def transcode_file(path: Path, checkpoint: Callable[[], None]) -> int:
    """Transcode a file as `transcode` does, and give its length in bytes."""
    try:
        with path.open("rb") as source:
            meta = read_file_meta(source)
            syntax = _transfer_syntax(meta)
            if syntax != ExplicitVRLittleEndian:
                head = encode_file_meta(meta, ExplicitVRLittleEndian)
                _replace(path, head, source, syntax, checkpoint)
        return path.stat().st_size
    except Malformed as error:
        raise Undecodable(f"the file {error}") from error
    except FileNotFoundError as error:
        raise SourceChanged("A received file is gone from the spool. Make the disc again.") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpoolFull("There is no room in the spool to decode the images.") from error
        raise


def _transfer_syntax(meta: list[tuple[int, bytes, bytes]]) -> str:
    for tag, _, value in meta:
        if tag == TRANSFER_SYNTAX_UID:
            return value.decode("ascii", "replace").rstrip(" \0")
    raise Malformed("names no transfer syntax")


def _replace(path: Path, head: bytes, source: BinaryIO, syntax: str, checkpoint: Callable[[], None]) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".transcode-{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(head)
            _write_data_set(source, syntax, cast("BinaryIO", out), checkpoint)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def _write_data_set(source: BinaryIO, syntax: str, out: BinaryIO, checkpoint: Callable[[], None]) -> None:
    if syntax in _NATIVE:
        Reencoder(source, _NATIVE[syntax], checkpoint).run(out)
    elif syntax == DeflatedExplicitVRLittleEndian:
        _inflate(source, out, checkpoint)
    else:
        decompress(source, syntax, out, checkpoint)


def _inflate(source: BinaryIO, out: BinaryIO, checkpoint: Callable[[], None]) -> None:
    """Inflate a data set, which is in Explicit VR Little Endian then (PS3.5 A.5, RFC 1951)."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    try:
        while not inflater.eof:
            data = inflater.unconsumed_tail or source.read(_CHUNK)
            piece = inflater.decompress(data, _CHUNK)
            if not data and not piece:
                raise Malformed("ends in the middle of its deflated data set")
            total += len(piece)
            if total > _MAX_INFLATED:
                raise Malformed("inflates to more than 4 GiB")
            out.write(piece)
            checkpoint()
    except zlib.error as error:
        raise Malformed("has a broken deflated data set") from error


def encode_data_set(
    instance: Instance, TransferSyntaxUID: str, bring: Callable[[Instance], Instance] = transcode
) -> bytes:
    """Encode an instance's data set in an uncompressed transfer syntax, for a peer that takes no other.

    The file is transcoded as `transcode` does.

    Parameters
    ----------
    TransferSyntaxUID
        Explicit or Implicit VR Little Endian.
    bring
        What brings its file to Explicit VR Little Endian.

    Raises
    ------
    Undecodable, SpoolFull, SourceChanged
        As `transcode`.
    """
    made = bring(instance)
    with Path(made.path).open("rb") as source:
        read_file_meta(source)
        explicit = source.read()
    if TransferSyntaxUID == ExplicitVRLittleEndian:
        return explicit
    data_set = read_dataset(BytesIO(explicit), is_implicit_VR=False, is_little_endian=True)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = True, True
    write_dataset(buffer, data_set)
    return buffer.getvalue()

"""The names of DIMSE status codes (PS3.7 Annex C; PS3.4 B.2.3, C.4.1.1.4, C.4.2.1.5)."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """A status that pacsbridge answers with, or tells apart when it is answered."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    INVALID_SOP_INSTANCE = 0x0117
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORIZED = 0x0124
    OUT_OF_RESOURCES = 0xA700
    """C-STORE, C-FIND: no room, no memory."""
    CANNOT_COUNT_MATCHES = 0xA701
    """C-MOVE: out of resources, unable to calculate the number of matches."""
    CANNOT_PERFORM_SUBOPERATIONS = 0xA702
    """C-MOVE: out of resources, unable to perform sub-operations."""
    MOVE_DESTINATION_UNKNOWN = 0xA801
    DATA_SET_MISMATCH = 0xA900
    """C-STORE: the data set is not what its command says; C-FIND, C-MOVE: not what the SOP Class asks for."""
    SUBOPERATIONS_INCOMPLETE = 0xB000
    """C-MOVE: finished, and some of the sub-operations failed. C-STORE: coercion of data elements."""
    CANNOT_UNDERSTAND = 0xC000
    CANCELLED = 0xFE00
    PENDING = 0xFF00
    PENDING_WITH_WARNING = 0xFF01
    """C-FIND: pending, and an optional key was not supported."""


#: Warnings outside of 0xBxxx (PS3.7 C.5).
_GENERAL_WARNINGS = frozenset({0x0001, 0x0107, 0x0116})
_WARNING_FIRST, _WARNING_LAST = 0xB000, 0xBFFF


def is_success(status: int) -> bool:
    """Tell whether everything went well."""
    return status == Status.SUCCESS


def is_warning(status: int) -> bool:
    """Tell whether it was done, with something to note (PS3.7 C.1.4: 0001, Bxxx, and 0107, 0116)."""
    return _WARNING_FIRST <= status <= _WARNING_LAST or status in _GENERAL_WARNINGS


def is_pending(status: int) -> bool:
    """Tell whether more responses follow."""
    return status in (Status.PENDING, Status.PENDING_WITH_WARNING)


def is_failure(status: int) -> bool:
    """Tell whether it was not done: whatever is neither success, warning, pending nor cancelled."""
    done = is_success(status) or is_warning(status) or is_pending(status)
    return not done and status != Status.CANCELLED


def describe(status: int) -> str:
    """Write a status for a person: ``0xA700 (out of resources)``."""
    try:
        name = Status(status).name.replace("_", " ").lower()
    except ValueError:
        return f"0x{status:04X}"
    return f"0x{status:04X} ({name})"

"""The kinds of status."""

from __future__ import annotations

import pytest

from pacsbridge.dimse.status import Status, describe, is_failure, is_pending, is_success, is_warning

KINDS = {
    0x0000: is_success,
    0x0001: is_warning,
    0x0107: is_warning,
    0x0116: is_warning,
    0xB000: is_warning,
    0xB007: is_warning,
    0xBFFF: is_warning,
    0xFF00: is_pending,
    0xFF01: is_pending,
    0x0110: is_failure,
    0x0122: is_failure,
    0x0124: is_failure,
    0xA700: is_failure,
    0xA801: is_failure,
    0xA900: is_failure,
    0xC000: is_failure,
    0xFFFF: is_failure,
}


@pytest.mark.parametrize("status", KINDS)
def test_each_status_is_of_one_kind(status: int) -> None:
    kinds = (is_success, is_warning, is_pending, is_failure)
    assert [kind for kind in kinds if kind(status)] == [KINDS[status]]


def test_cancelled_is_none_of_them() -> None:
    assert not any(kind(Status.CANCELLED) for kind in (is_success, is_warning, is_pending, is_failure))


def test_is_described_for_a_person() -> None:
    assert describe(Status.OUT_OF_RESOURCES) == "0xA700 (out of resources)"
    assert describe(0xC123) == "0xC123"

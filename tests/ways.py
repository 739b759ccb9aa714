"""Whether the tests run with the fast paths of DICOM, or with pynetdicom alone: ``PACSBRIDGE__DIMSE__FAST=false``."""

from __future__ import annotations

import os

import pytest

FAST = os.environ.get("PACSBRIDGE__DIMSE__FAST", "true").lower() != "false"


def fast_only(reason: str) -> pytest.MarkDecorator:
    """Leave a test out of the run without the fast paths; it says why."""
    return pytest.mark.skipif(not FAST, reason=f"about the fast paths: {reason}")

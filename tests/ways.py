"""Whether the tests run with the fast paths of DICOM, or with pynetdicom alone: ``PACSBRIDGE__DIMSE__FAST=false``."""

from __future__ import annotations

import os

FAST = os.environ.get("PACSBRIDGE__DIMSE__FAST", "true").lower() != "false"

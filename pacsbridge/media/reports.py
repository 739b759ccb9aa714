"""Structured reports as readable lines: the content tree of PS3.3 C.17.3, one line for each item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from pydicom import Dataset, dcmread

from pacsbridge.media.contents import text
from pacsbridge.media.readable import person_names, readable_date, readable_datetime, readable_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacsbridge.instance import Instance

log = structlog.get_logger(__name__)

#: A report that is longer is cut: the DICOM file has all of it.
MAX_LINES = 600
_MAX_DEPTH = 16
_MAX_SIZE = 4_000_000
_MAX_TEXT = 8_000


#: The attribute of a value type that is one text (PS3.3 table C.17.3-7), and how it is written.
_SIMPLE: dict[str, tuple[str, Callable[[str], str]]] = {
    "TEXT": ("TextValue", str),
    "DATE": ("Date", readable_date),
    "TIME": ("Time", readable_time),
    "DATETIME": ("DateTime", readable_datetime),
}


@dataclass(frozen=True, slots=True)
class Line:
    """An item of a report: what it is about, what it says, how deep it is."""

    depth: int
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Report:
    """A report; `cut` when there is more in the file."""

    title: str
    lines: tuple[Line, ...]
    cut: bool


def read_report(instance: Instance) -> Report | None:
    """Read a structured report; None when it is none, is too large, or can't be read."""
    if instance.size > _MAX_SIZE:
        return None
    try:
        document = dcmread(instance.path, stop_before_pixels=True)
        if "ContentSequence" not in document:
            return None
        lines: list[Line] = []
        whole = _collect(document, 0, lines)
        title = _meaning(document, "ConceptNameCodeSequence") or "Structured report"
        return Report(title, tuple(lines), cut=not whole)
    except Exception as error:  # noqa: BLE001 - pydicom raises what it likes, and a page stops nothing
        log.info("no report page", reason=type(error).__name__)
        return None


def _collect(parent: Dataset, depth: int, lines: list[Line]) -> bool:
    """Add the items below `parent`; False when some were left out."""
    items = parent.get("ContentSequence") or []
    if items and depth >= _MAX_DEPTH:
        return False
    for item in items:
        if len(lines) >= MAX_LINES:
            return False
        name, value = _meaning(item, "ConceptNameCodeSequence"), _value(item)
        shown = bool(value) or (bool(name) and item.get("ValueType") == "CONTAINER")
        if shown:
            lines.append(Line(depth, name, value[:_MAX_TEXT]))
        if not _collect(item, depth + shown, lines):
            return False
    return True


def _meaning(item: Dataset, keyword: str) -> str:
    for code in item.get(keyword) or []:
        return text(code, "CodeMeaning") or text(code, "CodeValue")
    return ""


def _value(item: Dataset) -> str:
    kind = text(item, "ValueType")
    if kind == "CODE":
        return _meaning(item, "ConceptCodeSequence")
    if kind == "NUM":
        return _measurement(item)
    if kind == "PNAME":
        return ", ".join(person_names(item.get("PersonName"))[:1])
    keyword, write = _SIMPLE.get(kind, ("", str))
    return write(text(item, keyword))


def _measurement(item: Dataset) -> str:
    for measured in item.get("MeasuredValueSequence") or []:
        unit = ""
        for code in measured.get("MeasurementUnitsCodeSequence") or []:
            unit = text(code, "CodeValue") or text(code, "CodeMeaning")
        number = text(measured, "NumericValue")
        return number if unit in ("", "1", "{0:1}") else f"{number} {unit}"
    return ""

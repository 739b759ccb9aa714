"""The result as a table for people and as JSON for programs, with the machine and the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacsbridge import __version__
from scripts.benchmarks.measure import Line, Reading, median, median_cpu
from tests.peers import find_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PACKAGES = ("aiohttp", "pydicom", "pynetdicom", "pycdlib", "uvloop")
_PROGRAMS = {
    "Orthanc": ("Orthanc", "--version"),
    "dcmtk": ("storescp", "--version"),
    "genisoimage": ("genisoimage", "--version"),
    "go": ("go", "version"),
    "nginx": ("nginx", "-v"),
}
_HEADINGS = ("row", "work", "pacsbridge", "CPU s", "peer", "it took", "CPU s", "ratio", "target", "met")


def surroundings() -> dict[str, Any]:
    """Tell on what it is measured: date, machine, load, versions."""
    return {
        "date": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory_gigabytes():.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "load": [round(load, 2) for load in os.getloadavg()],
        "versions": {"pacsbridge": __version__, "Python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _PACKAGES if _has(name)}
        | {name: _version(*command) for name, command in _PROGRAMS.items()},
    }


def as_json(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """Give the lines with their medians and ratios."""
    return [
        asdict(line)
        | {
            "median": median(line.ours) if line.ours else None,
            "median_of_peer": median(line.theirs) if line.theirs else None,
            "figure": line.figure,
            "target": str(line.target) if line.target else None,
            "met": line.met,
        }
        for line in lines
    ]


def as_table(lines: Sequence[Line]) -> str:
    """Give the lines as a Markdown table."""
    rows = [_HEADINGS, tuple("---" for _ in _HEADINGS), *(_cells(line) for line in lines)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    notes = dict.fromkeys(f"{line.row} {line.work}: {line.note}" for line in lines if line.note)
    return "\n".join([table, "", *(f"- {note}" for note in notes)])


def _cells(line: Line) -> tuple[str, ...]:
    ratio = f"{line.figure:.2f}" if line.peer and line.figure is not None else ""
    met = {True: "yes", False: "**no**", None: ""}[line.met]
    theirs = "absent" if line.theirs is None else _value(line.theirs, line.unit)
    return (
        line.row,
        line.work,
        _value(line.ours, line.unit) or "not measured",
        _cpu(line.ours),
        line.peer,
        theirs if line.peer else "",
        _cpu(line.theirs or ()),
        ratio,
        str(line.target or ""),
        met,
    )


def _value(readings: tuple[Reading, ...], unit: str) -> str:
    if not readings:
        return ""
    value = median(readings)
    text = f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:,.0f}"
    return f"{text} {unit}"


def _cpu(readings: tuple[Reading, ...]) -> str:
    seconds = median_cpu(readings)
    return "" if seconds is None else f"{seconds:.2f}"


def _has(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _version(program: str, option: str) -> str:
    path = find_program(program)
    if path is None:
        return "absent"
    done = subprocess.run(
        [path, option], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if any(map(str.isdigit, line))]
    return lines[0].strip("$ ") if lines else "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gigabytes() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9

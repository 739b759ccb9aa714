"""What the kernel says about a process: CPU seconds and memory (proc(5))."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path
from typing import Self

_TICKS = os.sysconf("SC_CLK_TCK")
_RESET_PEAK = "5"


def cpu_seconds(pid: int) -> float:
    """Give the user and system time of a process with the children it has waited for, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS


def cpu_seconds_of_children() -> float:
    """Give the user and system time of our own children that ended, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def reset_peak(pid: int) -> None:
    """Start the peak of memory anew."""
    Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)


def megabytes(pid: int, field: str = "VmHWM") -> float:
    """Give the peak of resident memory (VmHWM) or what is resident now (VmRSS), in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / 1e6
    raise LookupError(field)


class DiskWatch:
    """Follows how many bytes of disk a folder takes, and keeps the most that it saw."""

    def __init__(self, folder: Path, seconds: float = 0.1) -> None:
        self.peak = 0
        self._folder = folder
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._seconds):
            self.peak = max(self.peak, used(self._folder))


def used(folder: Path) -> int:
    """Give the bytes of disk that the files below a folder take."""
    total = 0
    try:
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                total += used(Path(entry.path))
            else:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
    except FileNotFoundError:  # it was removed meanwhile
        return total
    return total

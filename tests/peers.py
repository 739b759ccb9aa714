"""Real programs for the tests: whether they are here, starting and ending them, free ports."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HOST = "127.0.0.1"
#: Where pynetdicom puts programs that are called as dcmtk's are: storescp, findscu, ...
_OURS = str(Path(sys.executable).parent)
#: Daemons live where the PATH of a plain user doesn't lead.
_FOLDERS = os.pathsep.join(
    folder
    for folder in (
        *os.environ.get("PATH", os.defpath).split(os.pathsep),
        "/usr/sbin",
        "/usr/local/sbin",
        "/sbin",
    )
    if folder != _OURS
)


def find_program(name: str) -> str | None:
    """Give the path of a program; None where it isn't installed."""
    return shutil.which(name, path=_FOLDERS)


def require(*programs: str) -> str:
    """Give the path of the first program; leave the test out, with the reason, where one of them is missing.

    With the environment variable ``CI`` set, a missing program is a failure.
    """
    missing = [name for name in programs if find_program(name) is None]
    if missing:
        leave_out(f"not installed: {', '.join(missing)}")
    path = find_program(programs[0])
    assert path is not None
    return path


def leave_out(reason: str) -> None:
    """Skip the test, or fail it where ``CI`` is set."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (and CI is set)", pytrace=False)
    pytest.skip(reason)


@cache
def has_docker() -> bool:
    """Tell whether a docker engine answers."""
    docker = find_program("docker")
    if docker is None:
        return False
    answer = subprocess.run([docker, "info"], capture_output=True, timeout=20, check=False)
    return answer.returncode == 0


def free_port() -> int:
    """Give a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Tell whether somebody accepts connections on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def wait_until(done: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait for a condition, and fail the test by name when it doesn't come."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds} s for {what}")
        time.sleep(0.02)


class Process:
    """A program that runs beside the test, in a process group of its own, its output in a file.

    Parameters
    ----------
    command
        The program and its arguments.
    log
        Where its output goes.
    env
        Environment variables beside the test's own.
    """

    def __init__(self, command: Sequence[str | Path], log: Path, env: dict[str, str] | None = None) -> None:
        self.command = [str(part) for part in command]
        self.log = log
        self._env = env or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | self._env,
                start_new_session=True,  # dcmqrscp forks: the group ends as a whole
            )
        return self

    def stop(self, seconds: float = 15) -> None:
        """End it, politely first."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """End it and its children at once, as a power cut does."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait(15)
        self._process = None

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_until_listening(self, port: int, seconds: float = 30) -> None:
        def ready() -> bool:
            if not self.running:
                pytest.fail(f"{self.command[0]} ended early:\n{self.output()[-2000:]}")
            return listens(port)

        wait_until(ready, f"{self.command[0]} on its port", seconds)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def decoding_processes() -> set[int]:
    """Give the processes that decode for this one, and for no other test; see `pacsbridge.media.decoders`."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            with contextlib.suppress(OSError):  # ended between the two looks
                if b"decode_worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.add(int(pid))
    return found


def run(*command: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, and give its output; the caller looks at the return code."""
    return subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )

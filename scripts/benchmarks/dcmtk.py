"""dcmtk and genisoimage, with their defaults and tuned: what the Go server ran, and what it could have run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from scripts.benchmarks.processes import cpu_seconds
from tests.peers import HOST, Process, find_program, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PDU = "131072"


@dataclass(frozen=True)
class Tuning:
    """How dcmtk's programs are run."""

    name: str
    receive: tuple[str, ...] = ()
    send: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


DEFAULT = Tuning("default")
TUNED = Tuning(
    "tuned",
    receive=("-pdu", _PDU),
    send=("-pdu", _PDU, "--max-send-pdu", _PDU),
    environment={"TCP_NODELAY": "1"},
)


def missing(*programs: str) -> str:
    """Name the programs that aren't installed; empty when all are."""
    return ", ".join(name for name in programs if find_program(name) is None)


def run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
    """Run a program to its end.

    Raises
    ------
    RuntimeError
        It failed.
    """
    done = subprocess.run(
        [find_program(str(command[0])) or command[0], *command[1:]],
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout[-500:].decode(errors='replace')}")


def new_folder(folder: Path) -> Path:
    """Make a folder to receive into. It stays until the end of the run.

    ext4 takes no inode that was freed in the last seconds, and looks at each of them before it gives another:
    who receives after somebody has deleted would be charged with that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="received-", dir=folder))


class StoreScp:
    """A storescp that writes what it gets into `folder`."""

    def __init__(self, folder: Path, tuning: Tuning, *options: str, port: int = 0) -> None:
        self.port = port or free_port()
        self.received = new_folder(folder)
        command: list[str | Path] = [
            find_program("storescp") or "storescp", *tuning.receive, *options, "-od", self.received, str(self.port),
        ]  # fmt: skip
        self._process = Process(command, folder / "storescp.log", dict(tuning.environment))

    def __enter__(self) -> Self:
        self._process.start()
        self._process.wait_until_listening(self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def cpu_seconds(self) -> float:
        """Give the CPU seconds that it has used, with the processes that it forked and that have ended."""
        return cpu_seconds(self._process.pid)

    def count(self) -> int:
        """Count the files that it holds."""
        return sum(1 for _ in self.received.iterdir())


def send(folders: Sequence[Path], port: int, tuning: Tuning) -> float:
    """Send each folder with a storescu of its own, all at once; give the seconds that it took."""
    program = find_program("storescu") or "storescu"
    began = time.perf_counter()
    running = [
        subprocess.Popen(
            [program, *tuning.send, "-aec", "BENCH", "+sd", "+r", HOST, str(port), folder],
            env=os.environ | dict(tuning.environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for folder in folders
    ]
    for one in running:
        if one.wait():
            raise RuntimeError("storescu failed")
    return time.perf_counter() - began


def move(pacs: tuple[str, int], destination: str, StudyInstanceUID: str, tuning: Tuning) -> None:
    """Have a study sent to a destination with movescu."""
    ae_title, port = pacs
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={StudyInstanceUID}"]
    run(
        ["movescu", "-S", *tuning.receive, "-aec", ae_title, "-aem", destination, *keys, HOST, str(port)],
        tuning.environment,
    )


def write_image(files: Path, work: Path) -> Path:
    """Make a disc image of received files: 8.3 names, dcmmkdir, genisoimage."""
    tree = work / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "DICOM").mkdir(parents=True)
    for number, file in enumerate(sorted(files.iterdir())):
        file.rename(tree / "DICOM" / f"I{number:07d}")
    run(["dcmmkdir", "+r", "+I", "+id", tree, "+D", tree / "DICOMDIR", "DICOM"])
    image = work / "disc.iso"
    image.unlink(missing_ok=True)
    run(["genisoimage", "-quiet", "-iso-level", "1", "-J", "-V", "DISC", "-o", image, tree])
    return image

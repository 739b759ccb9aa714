"""Parts of pacsbridge as processes of their own: ``python -m scripts.benchmarks.workers receive|send|disc ...``.

Each says on standard output what it did, in JSON.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacsbridge.config import ScpPort, StorageScpConfig
from pacsbridge.dimse.inbox import Inbox
from pacsbridge.dimse.scp import StorageScp
from pacsbridge.dimse.send import send_instances
from pacsbridge.instance import read_instance
from pacsbridge.media.disc import DiscOptions, make_disc
from tests.peers import HOST

if TYPE_CHECKING:
    from collections.abc import Callable


def receive(folder: str, StudyInstanceUID: str, port: str) -> None:
    """Receive a study on a port, until SIGTERM."""
    title = ScpPort(port=int(port), ae_title="BENCH")
    scp = StorageScp(StorageScpConfig(host=HOST, ports=(title,)))
    inbox = Inbox(Path(folder), [StudyInstanceUID])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    scp.start()
    scp.attach(title, inbox)
    stop.wait()
    scp.stop()


def send(folder: str, port: str) -> None:
    """Send the files below a folder over one association."""
    instances = [read_instance(path) for path in sorted(Path(folder).rglob("*.dcm"))]
    began, before = time.perf_counter(), time.process_time()
    report = send_instances(instances, HOST, int(port), "BENCH", "BENCH")
    if report.failed:
        raise RuntimeError(f"{report.failed} instances were not sent: {report.error}")
    _tell({"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - before})


def disc(folder: str, work: str, rounds: str) -> None:
    """Make a disc of the files below a folder, up to its first byte."""
    instances = [read_instance(path) for path in sorted(Path(folder).rglob("*.dcm"))]
    for _ in range(int(rounds)):
        began, before = time.perf_counter(), time.process_time()
        made = make_disc(instances, Path(work), DiscOptions())
        chunks = made.read_chunks()
        next(chunks)
        _tell({"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - before})
        chunks.close()


def _tell(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def command(name: str, *arguments: object) -> list[str]:
    """Give the command line of a part."""
    return [sys.executable, "-m", "scripts.benchmarks.workers", name, *map(str, arguments)]


if __name__ == "__main__":
    parts: dict[str, Callable[..., None]] = {"receive": receive, "send": send, "disc": disc}
    parts[sys.argv[1]](*sys.argv[2:])

"""P9: how quick health and a small proxied request are while two CT discs are made."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scripts.benchmarks import dcmtk, stand_in
from scripts.benchmarks.load import Running
from scripts.benchmarks.measure import Line, Reading, Target, tell
from scripts.benchmarks.proxies import proxying_service, running_nginx, running_stand_in
from tests.peers import find_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.benchmarks.bench import Bench
    from scripts.benchmarks.load import Load
    from scripts.benchmarks.service import Service

_TARGET = Target(3.0)
_DISCS = ("CT", "CT2")
_PAUSE_SECONDS = 0.01
_SWEEP_SECONDS = 0.3
_SECONDS = 8.0
_QUICK_SECONDS = 1.0
_MILLISECONDS = 1000


def measure(bench: Bench) -> Iterator[Line]:
    """Measure both requests, idle and busy in turn."""
    if absent := dcmtk.missing("Orthanc"):
        yield Line("P9", "latency while two discs are made", "ms", (), _TARGET, note=f"{absent} is absent")
        return
    orthanc = bench.orthanc()
    for name in _DISCS:
        bench.stored(name)
    with ExitStack() as stack:
        upstream = stack.enter_context(running_stand_in(bench))
        pacs = {"ae_title": orthanc.ae_title, "port": orthanc.dicom_port}
        service, token = stack.enter_context(proxying_service(bench, upstream, pacs=pacs))
        for title, port in service.destinations.items():
            orthanc.set_destination(title, port)
        for name, path, bearer in (
            ("/api/health", "/api/health", ""),
            ("a small proxied request", "/dicomWeb" + stand_in.SMALL_PATH, token),
        ):
            yield _measure(bench, service, name, Probe(service.port, path, bearer))
        if find_program("nginx"):
            nginx = stack.enter_context(running_nginx(bench, upstream))
            name = "nginx passing the same request on, on the same machine"
            yield replace(_measure(bench, service, name, Probe(nginx.port, stand_in.SMALL_PATH)), target=None)


@dataclass(frozen=True)
class Probe:
    """What is asked for, one request after the other."""

    port: int
    path: str
    token: str = ""


def _measure(bench: Bench, service: Service, name: str, probe: Probe) -> Line:
    seconds = _QUICK_SECONDS if bench.quick else _SECONDS

    def ask() -> Load:
        return Running(
            probe.port, probe.path, probe.token, connections=1, seconds=seconds, pause=_PAUSE_SECONDS
        ).wait()

    idle: list[Reading] = []
    busy: list[Reading] = []
    ask()  # what is made at the first request is not what is measured
    for _ in range(bench.rounds):
        idle.append(Reading(ask().p99 * _MILLISECONDS))
        with _Discs(service, seconds):
            busy.append(Reading(ask().p99 * _MILLISECONDS))
        tell(f"{name}: p99 {idle[-1].value:.1f} ms idle, {busy[-1].value:.1f} ms busy")
    work = f"p99 of {name} while two CT discs are made and read"
    return Line("P9", work, "ms", tuple(busy), _TARGET, "idle", tuple(idle))


class _Discs:
    """Two clients that download a disc each, again and again."""

    def __init__(self, service: Service, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._threads = [threading.Thread(target=_download, args=(service, name, end)) for name in _DISCS]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()


def _download(service: Service, accession_number: str, end: float) -> None:
    while time.monotonic() < end:
        service.download(accession_number)
        time.sleep(_SWEEP_SECONDS)  # the disc is to be gone, lest the next request be for the same one

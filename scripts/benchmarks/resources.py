"""P5 and P6: the memory of the service for a 4 GB study and for 40,000 instances; the disk that a disc takes."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scripts.benchmarks import archive
from scripts.benchmarks.data import Shape
from scripts.benchmarks.measure import Line, Reading, Target, tell
from scripts.benchmarks.processes import DiskWatch, megabytes, reset_peak
from scripts.benchmarks.service import Service
from tests.peers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.benchmarks.bench import Bench
    from scripts.benchmarks.data import Study

_MEMORY = Target(300)
_DISK = Target(1.05)
#: 400 instances of 10 MB, and 40,000 of 10 KB.
_LARGE = Shape(series=4, instances=400, pixels=2240)
_MANY = Shape(series=40, instances=40_000, pixels=64)
_FEW = Shape(series=4, instances=400, pixels=64)


def measure(bench: Bench) -> Iterator[Line]:
    """Make a disc of each shape, one after the other, each in a service of its own."""
    for name, shape in (("FEW", _FEW), ("LARGE", _LARGE), ("MANY", _MANY)):
        study = bench.make(name, shape)
        described = f"{len(study.instances):,} instances, {study.bytes / 1e6:,.0f} MB"
        tell(described)
        with _archived(bench, study) as service:
            reset_peak(service.pid)
            before = service.cpu_seconds()
            with DiskWatch(service.spool) as disk:
                download = service.download(study.AccessionNumber)
            cpu = service.cpu_seconds() - before
            peak = megabytes(service.pid)
        yield Line("P5", f"peak memory, {described}", "MB", (Reading(peak),), _MEMORY)
        if name == "MANY":
            work = f"{len(study.instances):,} instances: last received → first byte"
            yield Line("P4", work, "s", (Reading(download.first_byte_seconds),), note="through the service")
        if name == "LARGE":
            work = f"most disk in the spool per byte of instances, {described}"
            yield Line("P6", work, "×", (Reading(disk.peak / study.bytes),), _DISK)
            work = f"retrieval and image, {described}"
            yield Line("P6", work, "MB/s", (Reading(study.bytes / 1e6 / download.seconds, cpu),))
        shutil.rmtree(study.folder)


@contextmanager
def _archived(bench: Bench, study: Study) -> Iterator[Service]:
    """Run the service before an archive that holds the study."""
    folder = bench.folder("resources")
    port = free_port()
    pacs = {"ae_title": archive.AE_TITLE, "port": port}
    with Service(folder, {"pacs": pacs}) as service:
        process = archive.start(folder, study, service.destinations, port)
        try:
            yield service
        finally:
            process.kill()

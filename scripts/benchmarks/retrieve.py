"""P1: accession number to the last byte of the image at the client, from Orthanc; and P4 as it falls out of it."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from scripts.benchmarks import dcmtk
from scripts.benchmarks.measure import OURS, Contender, Line, Reading, Target, in_turn, tell
from scripts.benchmarks.processes import cpu_seconds_of_children
from scripts.benchmarks.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scripts.benchmarks.bench import Bench
    from scripts.benchmarks.data import Study
    from tests.orthanc import Orthanc

_TUNED = Target(0.5)
_DEFAULT = Target(0.1)
_FIRST_BYTE = Target(0.1)
_PEERS = ("movescu", "storescp", "dcmmkdir", "genisoimage")
_READ_BYTES = 1 << 20


def measure(bench: Bench) -> Iterator[Line]:
    """Measure CT and MR."""
    absent = dcmtk.missing("Orthanc")
    if absent:
        yield Line("P1", "a disc from the PACS", "s", (), _TUNED, note=f"{absent} is absent")
        return
    orthanc = bench.orthanc()
    sections = {"pacs": {"ae_title": orthanc.ae_title, "port": orthanc.dicom_port}}
    with Service(bench.folder("retrieve"), sections) as service:
        for title, port in service.destinations.items():
            orthanc.set_destination(title, port)
        yield from _measure_study(bench, orthanc, service, "CT", default_rounds=1)
        yield from _measure_study(bench, orthanc, service, "MR", default_rounds=1)


def _measure_study(
    bench: Bench, orthanc: Orthanc, service: Service, name: str, default_rounds: int
) -> Iterator[Line]:
    study = bench.stored(name)
    first_bytes: list[Reading] = []
    contenders = {OURS: Contender(lambda: _download(service, study, first_bytes))}
    absent = dcmtk.missing(*_PEERS)
    if not absent:
        for tuning, rounds in ((dcmtk.TUNED, bench.rounds), (dcmtk.DEFAULT, default_rounds)):
            pipeline = Pipeline(bench.folder(f"pipeline-{tuning.name}"), orthanc, tuning)
            contenders[tuning.name] = Contender(partial(pipeline.run, study), rounds)
    tell(f"{name}: {len(study.instances)} instances, {study.bytes / 1e6:.0f} MB")
    taken = in_turn(bench.rounds, contenders)
    work = f"{name} from Orthanc: accession number → last byte"
    for tuning, target in ((dcmtk.TUNED, _TUNED), (dcmtk.DEFAULT, _DEFAULT)):
        note = f"absent: {absent}" if absent else "the peer once only: it is slow" * (tuning is dcmtk.DEFAULT)
        peer = f"dcmtk + genisoimage, {tuning.name}"
        yield Line("P1", work, "s", taken[OURS], target, peer, taken.get(tuning.name), note)
    yield Line(
        "P4",
        f"{name} ({len(study.instances)}): last instance received → first byte",
        "s",
        tuple(first_bytes),
        _FIRST_BYTE if name == "CT" else None,
        note="through the service; the last C-MOVE response included",
    )


def _download(service: Service, study: Study, first_bytes: list[Reading]) -> Reading:
    before = service.cpu_seconds()
    download = service.download(study.AccessionNumber)
    first_bytes.append(Reading(download.first_byte_seconds))
    reading = Reading(download.seconds, service.cpu_seconds() - before)
    service.wait_until_empty()
    return reading


class Pipeline:
    """What the peer does: movescu and storescp, dcmmkdir, genisoimage, and the image read to its end."""

    def __init__(self, folder: Path, orthanc: Orthanc, tuning: dcmtk.Tuning) -> None:
        self._folder = folder
        self._orthanc = orthanc
        self._tuning = tuning

    def run(self, study: Study) -> Reading:
        """Make the disc once."""
        title = "PIPELINE"
        with dcmtk.StoreScp(self._folder, self._tuning) as scp:
            self._orthanc.set_destination(title, scp.port)
            before, began = cpu_seconds_of_children(), time.perf_counter()
            pacs = (self._orthanc.ae_title, self._orthanc.dicom_port)
            dcmtk.move(pacs, title, study.StudyInstanceUID, self._tuning)
            if scp.count() != len(study.instances):
                raise RuntimeError("storescp did not get every instance")
            image = dcmtk.write_image(scp.received, self._folder)
            with image.open("rb", buffering=0) as file:
                while file.read(_READ_BYTES):
                    pass
            seconds = time.perf_counter() - began
            cpu = cpu_seconds_of_children() - before + scp.cpu_seconds()
        return Reading(seconds, cpu)

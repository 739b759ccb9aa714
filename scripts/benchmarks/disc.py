"""P4: received instances to the first byte of the image, linear to 20,000; the parts of it beside their peers."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from scripts.benchmarks import dcmtk, workers
from scripts.benchmarks.data import Shape
from scripts.benchmarks.measure import OURS, Contender, Line, Reading, Target, in_turn, median
from scripts.benchmarks.processes import cpu_seconds_of_children

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scripts.benchmarks.bench import Bench
    from scripts.benchmarks.data import Study

#: Instances, and how long they may take in seconds.
_SIZES = {600: 0.1, 5_000: None, 20_000: 1.0}
#: dcmmkdir's time grows with the square: it took more than five minutes for 20,000.
_PEER_SIZES = (600, 5_000)
_PIXELS = 64
#: The time per instance may grow by so much from 5,000 to 20,000 instances.
_LINEAR = Target(1.25)


def measure(bench: Bench) -> Iterator[Line]:
    """Make discs of 600, 5,000 and 20,000 instances; the first ones with dcmmkdir and genisoimage too."""
    readings: dict[int, tuple[Reading, ...]] = {}
    for size, limit in _SIZES.items():
        study = bench.make(f"DISC{size}", Shape(series=max(3, size // 500), instances=size, pixels=_PIXELS))
        contenders: dict[str, Contender] = {OURS: Contender(_making(bench, study))}
        absent = dcmtk.missing("dcmmkdir", "genisoimage")
        if not absent and size in _PEER_SIZES:
            contenders["peer"] = Contender(_peer(bench, study), rounds=1)
        taken = in_turn(bench.rounds, contenders)
        readings[size] = taken[OURS]
        count = len(study.instances)
        work = f"make_disc of {count:,} instances → first byte of the image"
        yield Line("P4", work, "s", taken[OURS], None if limit is None else Target(limit))
        if size in _PEER_SIZES:
            peer = "dcmmkdir + genisoimage"
            yield Line("P4", work, "s", taken[OURS], None, peer, taken.get("peer"))
        shutil.rmtree(study.folder)
    growth = median(readings[20_000]) / median(readings[5_000]) / (20_000 / 5_000)
    yield Line("P4", "time per instance, 20,000 to 5,000", "×", (Reading(growth),), _LINEAR)


def _making(bench: Bench, study: Study) -> Callable[[], Reading]:
    def run() -> Reading:
        work = bench.folder("make-disc")
        # The first disc of a process pays for what is imported and compiled once: the second is measured.
        done = subprocess.run(
            workers.command("disc", study.folder, work, 2), stdout=subprocess.PIPE, check=True
        )
        shutil.rmtree(work)
        told = json.loads(done.stdout.splitlines()[-1])
        return Reading(told["seconds"], told["cpu_seconds"])

    return run


def _peer(bench: Bench, study: Study) -> Callable[[], Reading]:
    def run() -> Reading:
        files = bench.folder("peer-files")
        for number, path in enumerate(study.paths):
            (files / f"{number:06}").hardlink_to(path)
        before, began = cpu_seconds_of_children(), time.perf_counter()
        dcmtk.write_image(files, bench.folder("peer-disc"))
        return Reading(time.perf_counter() - began, cpu_seconds_of_children() - before)

    return run

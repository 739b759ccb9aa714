"""P2 and P3: C-STORE, received from storescu beside storescp, and sent to storescp beside storescu."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Self

from scripts.benchmarks import dcmtk, workers
from scripts.benchmarks.dcmtk import new_folder
from scripts.benchmarks.measure import OURS, Contender, Line, Reading, Target, in_turn, median
from scripts.benchmarks.processes import cpu_seconds, cpu_seconds_of_children
from tests.peers import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from scripts.benchmarks.bench import Bench
    from scripts.benchmarks.data import Study

_RECEIVE = Target(1.0)
_SEND = Target(1.2)
_SCALING = Target(1.0, at_least=True)
#: So many senders at once.
_SENDERS = 4
_SETTLE_SECONDS = 0.2


def receive(bench: Bench) -> Iterator[Line]:
    """Receive the CT over one association, and over four at once."""
    absent = dcmtk.missing("storescu", "storescp")
    if absent:
        yield Line("P2", "C-STORE receive", "s", (), _RECEIVE, note=f"absent: {absent}")
        return
    study = bench.study("CT")
    contenders: dict[str, Contender] = {}
    for name, shares in (("one", [study.folder]), ("four", _quarters(bench, study))):
        contenders[f"{OURS}, {name}"] = Contender(_receiving(bench, study, shares))
        contenders[f"tuned, {name}"] = Contender(_storescp(bench, study, shares))
    taken = in_turn(bench.rounds, contenders)
    work = "C-STORE receive, CT from storescu (tuned), {}"
    for name in ("one", "four"):
        target = _RECEIVE if name == "one" else None
        told = work.format("one association" if name == "one" else "four at once")
        theirs = taken[f"tuned, {name}"]
        yield Line("P2", told, "s", taken[f"{OURS}, {name}"], target, "storescp, tuned", theirs)
    scaling = [_scaling(taken, OURS), _scaling(taken, "tuned")]
    told = work.format("four at once: times as fast as one")
    yield Line("P2", told, "×", scaling[0], _SCALING, "storescp --fork, tuned", scaling[1])


def _scaling(taken: dict[str, tuple[Reading, ...]], name: str) -> tuple[Reading, ...]:
    return (Reading(median(taken[f"{name}, one"]) / median(taken[f"{name}, four"])),)


def _quarters(bench: Bench, study: Study) -> list[Path]:
    """Lay the study out in as many folders as there are senders, with links."""
    parts = [bench.folder(f"quarter-{number}") for number in range(_SENDERS)]
    for index, path in enumerate(study.paths):
        link = parts[index % _SENDERS] / f"{index:06}.dcm"
        link.unlink(missing_ok=True)
        link.hardlink_to(path)
    return parts


def _receiving(bench: Bench, study: Study, shares: Sequence[Path]) -> Callable[[], Reading]:
    def run() -> Reading:
        with Receiver(bench.folder("receive"), study.StudyInstanceUID) as receiver:
            before = cpu_seconds(receiver.process.pid)
            seconds = dcmtk.send(shares, receiver.port, dcmtk.TUNED)
            time.sleep(_SETTLE_SECONDS)
            cpu = cpu_seconds(receiver.process.pid) - before
            if receiver.count() != len(study.instances):
                raise RuntimeError("not every instance was received")
        return Reading(seconds, cpu)

    return run


def _storescp(bench: Bench, study: Study, shares: Sequence[Path]) -> Callable[[], Reading]:
    def run() -> Reading:
        options = ("--fork",) if len(shares) > 1 else ()
        with dcmtk.StoreScp(bench.folder("storescp"), dcmtk.TUNED, *options) as scp:
            seconds = dcmtk.send(shares, scp.port, dcmtk.TUNED)
            time.sleep(_SETTLE_SECONDS)
            if scp.count() != len(study.instances):
                raise RuntimeError("storescp did not get every instance")
            return Reading(seconds, scp.cpu_seconds())

    return run


class Receiver:
    """Our Storage SCP with one inbox, as a process."""

    def __init__(self, folder: Path, StudyInstanceUID: str) -> None:
        self.port = free_port()
        self._received = new_folder(folder)
        command = workers.command("receive", self._received, StudyInstanceUID, self.port)
        self.process = Process(command, folder / "receiver.log")

    def __enter__(self) -> Self:
        self.process.start()
        self.process.wait_until_listening(self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def count(self) -> int:
        """How many instances it stored."""
        return sum(1 for _ in self._received.glob("*.dcm"))


def send(bench: Bench) -> Iterator[Line]:
    """Send the CT over one association."""
    absent = dcmtk.missing("storescu", "storescp")
    if absent:
        yield Line("P3", "C-STORE send", "s", (), _SEND, note=f"absent: {absent}")
        return
    study = bench.study("CT")

    def to_storescp(sending: Callable[[int], Reading]) -> Callable[[], Reading]:
        def run() -> Reading:
            with dcmtk.StoreScp(bench.folder("storescp"), dcmtk.TUNED) as scp:
                reading = sending(scp.port)
                if scp.count() != len(study.instances):
                    raise RuntimeError("storescp did not get every instance")
                return reading

        return run

    taken = in_turn(
        bench.rounds,
        {
            OURS: Contender(to_storescp(lambda port: _send(study, port))),
            "storescu": Contender(to_storescp(lambda port: _storescu(study, port))),
        },
    )
    work = "C-STORE send, CT to storescp (tuned)"
    yield Line("P3", work, "s", taken[OURS], _SEND, "storescu, tuned", taken["storescu"])


def _send(study: Study, port: int) -> Reading:
    done = subprocess.run(workers.command("send", study.folder, port), stdout=subprocess.PIPE, check=True)
    told = json.loads(done.stdout)
    return Reading(told["seconds"], told["cpu_seconds"])


def _storescu(study: Study, port: int) -> Reading:
    before = cpu_seconds_of_children()
    seconds = dcmtk.send([study.folder], port, dcmtk.TUNED)
    return Reading(seconds, cpu_seconds_of_children() - before)

"""A PACS of one study whose C-MOVE is as fast as files can be sent: ``python -m scripts.benchmarks.archive``.

It is for what would take too long with a real one: 40,000 instances, 4 GB. The study is named by a JSON file.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # named when imported
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from pacsbridge.dimse.send import send_instances
from pacsbridge.instance import Instance
from scripts.benchmarks.data import Study
from tests.peers import HOST, Process

if TYPE_CHECKING:
    from collections.abc import Iterator

AE_TITLE = "ARCHIVE"
_PENDING = 0xFF00


class Archive:
    """Answers for one study, whatever is asked for it.

    Parameters
    ----------
    study
        What it holds.
    destinations
        Move destinations: AE title → port.
    """

    def __init__(self, study: Study, destinations: dict[str, int]) -> None:
        self._study = study
        self._destinations = destinations

    def serve(self, port: int) -> None:
        """Answer on a port until the process ends."""
        ae = AE(AE_TITLE)
        ae.network_timeout = None
        for model in (
            Verification,
            StudyRootQueryRetrieveInformationModelFind,
            StudyRootQueryRetrieveInformationModelMove,
        ):
            ae.add_supported_context(model)
        handlers: list[Any] = [(evt.EVT_C_FIND, self._find), (evt.EVT_C_MOVE, self._move)]
        ae.start_server((HOST, port), block=False, evt_handlers=handlers)
        threading.Event().wait()

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        level = event.identifier.QueryRetrieveLevel
        series = self._study.series.items() if level == "SERIES" else [("", 0)]
        for uid, count in series:
            answer = Dataset()
            answer.QueryRetrieveLevel = level
            answer.AccessionNumber = self._study.AccessionNumber
            answer.StudyInstanceUID = self._study.StudyInstanceUID
            answer.PatientID = "TEST-1"
            if uid:
                answer.SeriesInstanceUID = uid
                answer.NumberOfSeriesRelatedInstances = str(count)
            yield _PENDING, answer

    def _move(self, event: evt.Event) -> Iterator[Any]:
        """Send everything at once, beside pynetdicom, which is then told that there is nothing to send."""
        title = event.move_destination or ""
        port = self._destinations[title]
        series = event.identifier.get("SeriesInstanceUID")
        instances = [
            instance for instance in self._study.instances if series in (None, instance.SeriesInstanceUID)
        ]
        send_instances(instances, HOST, port, title, AE_TITLE)
        yield HOST, port, {"contexts": [build_context(Verification)]}
        yield 0


def start(folder: Path, study: Study, destinations: dict[str, int], port: int) -> Process:
    """Start one as a process, on a free port."""
    description = folder / "archive.json"
    text = json.dumps(
        {
            "port": port,
            "destinations": destinations,
            "study": [study.AccessionNumber, study.StudyInstanceUID, str(study.folder)],
            "instances": [
                (
                    one.path,
                    one.size,
                    one.SOPClassUID,
                    one.SOPInstanceUID,
                    one.TransferSyntaxUID,
                    one.StudyInstanceUID,
                    one.SeriesInstanceUID,
                    "",  # nobody asks for the attributes
                )
                for one in study.instances
            ],
        }
    )
    description.write_text(text)
    command = [sys.executable, "-m", "scripts.benchmarks.archive", str(description)]
    process = Process(command, folder / "archive.log").start()
    process.wait_until_listening(port, 60)
    return process


def _main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    number, uid, folder = told["study"]
    instances = tuple(Instance(*values) for values in told["instances"])
    study = Study(number, uid, Path(folder), instances)
    Archive(study, told["destinations"]).serve(told["port"])


if __name__ == "__main__":
    _main()

"""What is logged: lines for machines, with the request's id, and nothing of a patient at info."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING

import aiohttp

from pacsbridge.demo.patients import SamplePatient, write_sample_patients
from tests.e2e.program import Program, write_config
from tests.e2e.service import make_config
from tests.e2e.test_downloads import His, says
from tests.misbehaving import Misbehaviour, Originator, Reject
from tests.peers import HOST

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakePacs
    from tests.misbehaving import MisbehavingPacs

TROUBLE = (
    Misbehaviour(reject=Reject.CALLED_AE_TITLE_NOT_RECOGNISED),
    Misbehaviour(find_answers_accession_number="OTHER-9"),
    Misbehaviour(find_ignores_key=True),
    Misbehaviour(find_status=0xC001),
    Misbehaviour(move_status=0xA801),
    Misbehaviour(fewer=1, fewer_status=0xB000),
    Misbehaviour(abort_after=1),
    Misbehaviour(cut_after=0),
    Misbehaviour(duplicate=True, originator=Originator.NONE),
    Misbehaviour(stall_after=1),
)


async def test_no_line_names_a_patient(make_pacs: MakePacs, tmp_path: Path) -> None:
    """All sample patients' discs, and every kind of failure, at log_level info."""
    patients = write_sample_patients(tmp_path / "pacs")
    pacs = make_pacs(folder=tmp_path / "pacs")
    async with His(says(500), says(200, {"name": "Lindqvist^Astrid", "patient_id": "DEMO-1001"})) as his:
        config = make_config(
            tmp_path, pacs,
            pacs={"response_timeout_seconds": 2},
            media={"keep_minutes": 0, "spool_dir": str(tmp_path / "spool")},
            patient_api={"base_url": f"http://{HOST}:{his.port}"},
        )  # fmt: skip
        program = Program(write_config(tmp_path, config))
        with program:
            await _use(program, pacs, patients)
            program.send(signal.SIGTERM)
            assert await asyncio.to_thread(program.wait, 30) == 0
    said = program.output()
    for secret in _secrets(patients, pacs):
        assert secret not in said, secret
    lines = [json.loads(line) for line in said.splitlines()]
    assert all({"event", "level", "timestamp", "logger"} <= set(line) for line in lines)
    assert {"info", "warning"} <= {line["level"] for line in lines}
    requests = [line for line in lines if line["event"] == "request"]
    assert all(line["request_id"] for line in requests)
    assert "mine-42" in {line["request_id"] for line in requests}
    made = [line for line in lines if line["event"] in {"disc made", "job failed"}]
    assert len(made) > len(TROUBLE)
    assert {line["request_id"] for line in made} <= {line["request_id"] for line in requests}


async def _use(program: Program, pacs: MisbehavingPacs, patients: list[SamplePatient]) -> None:
    timeout = aiohttp.ClientTimeout(60)
    async with aiohttp.ClientSession(program.url, timeout=timeout) as session:

        async def get(path: str, **headers: str) -> int:
            async with session.get(path, headers=headers) as response:
                await response.read()
                return response.status

        for patient in patients:
            numbers = ",".join(patient.accession_numbers)
            assert await get(f"/api/iso/download-multiple?accession_numbers={numbers}") == 200
        everybody = ",".join(number for patient in patients for number in patient.accession_numbers)
        assert await get(f"/api/iso/download-multiple?accession_numbers={everybody}") == 409
        assert await get("/api/iso/print?accession_number=CR1007", **{"X-Request-ID": "mine-42"}) >= 400
        assert await get(f"/api/iso/download?accession_number=CT1001{'9' * 9000}") == 400
        for trouble in TROUBLE:
            pacs.misbehaviour = trouble
            await get("/api/iso/download?accession_number=MR1002")
        pacs.misbehaviour = Misbehaviour()
        async with session.post("/api/jobs", json={"kind": "iso", "accession_numbers": ["CR1007"]}) as made:
            job = (await made.json())["id"]
        async with session.get(f"/api/jobs/{job}/events") as events:
            await events.read()


def _secrets(patients: list[SamplePatient], pacs: MisbehavingPacs) -> set[str]:
    found = {"OTHER-9", "Demo^", "DEMO-"}
    for patient in patients:
        found |= {patient.PatientID, *patient.accession_numbers, *patient.StudyInstanceUIDs}
        found |= {part for part in patient.PatientName.replace("=", "^").split("^") if len(part) > 1}
    for instance in pacs.index.instances():
        found |= {str(instance.header.SOPInstanceUID), str(instance.header.SeriesInstanceUID)}
    return found

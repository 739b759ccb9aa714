"""Jobs over HTTP: started, watched, left alone, cancelled, run again, remembered over a restart."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, update

from pacsbridge.db import Database
from pacsbridge.db.schema import jobs
from tests.e2e.service import Service, make_config, running
from tests.misbehaving import Misbehaviour
from tests.studies import make_study

if TYPE_CHECKING:
    from pathlib import Path

    from pacsbridge.config import Config
    from tests.conftest import MakePacs
    from tests.misbehaving import MisbehavingPacs

FIELDS = {
    "id", "kind", "accession_numbers", "state", "stage", "place", "progress", "instances", "bytes", "error",
    "notes", "created_at", "finished_at", "links",
}  # fmt: skip


@pytest.fixture
def pacs(make_pacs: MakePacs, tmp_path: Path) -> MisbehavingPacs:
    for number in range(1, 6):
        make_study(tmp_path / "pacs", f"A{number}", instances=10)
    return make_pacs(Misbehaviour(delay=0.05), folder=tmp_path / "pacs")


@pytest.fixture
def config(pacs: MisbehavingPacs, tmp_path: Path, url: str) -> Config:
    return make_config(tmp_path, pacs, database={"url": url})


async def call(service: Service, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    async with service.session.request(method, service.url + path, json=body) as response:
        return response.status, await response.json()


async def start(service: Service, *numbers: str, kind: str = "iso", **more: Any) -> dict[str, Any]:
    body = {"kind": kind, "accession_numbers": numbers, **more}
    async with service.session.post(f"{service.url}/api/jobs", json=body) as response:
        job: dict[str, Any] = await response.json()
        assert response.status == 202, job
        assert response.headers["Location"].endswith(f"/api/jobs/{job['id']}")
        return job


async def watch(service: Service, job_id: str, last_event_id: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Read a job's events to the end of the stream: (id, job) of each."""
    events, event_id, headers = [], "", {"Last-Event-ID": last_event_id} if last_event_id else {}
    async with service.session.get(f"{service.url}/api/jobs/{job_id}/events", headers=headers) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        async for line in stream.content:
            name, _, value = line.decode().strip().partition(": ")
            if name == "id":
                event_id = value
            elif name == "event":
                assert value == "job"
            elif name == "data":
                events.append((event_id, json.loads(value)))
    return events


async def finished(service: Service, job_id: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            _, job = await call(service, "GET", f"/api/jobs/{job_id}")
            if job["finished_at"]:
                return dict(job)
            await asyncio.sleep(0.05)


async def test_a_job_is_watched_to_its_end(config: Config) -> None:
    async with running(config) as service:
        job = await start(service, "A1")
        assert set(job) == FIELDS
        events = [event for _, event in await watch(service, job["id"])]
        progress = [event["progress"] for event in events]
        assert progress == sorted(progress)
        assert events[-1]["state"] == "done"
        assert events[-1]["progress"] == 1
        assert events[-1]["instances"] == {"expected": 10, "received": 10, "sent": 0, "failed": 0}
        assert len({event["instances"]["received"] for event in events}) > 2
        status, headers, image = await service.get(f"/api/jobs/{job['id']}/iso")
        assert status == 200
        assert headers["Content-Disposition"] == 'attachment; filename="A1.iso"'
        assert image == (await service.get("/api/iso/download", accession_number="A1"))[2]


async def test_a_watcher_who_returns_hears_the_end_once(config: Config) -> None:
    async with running(config) as service:
        job = await start(service, "A1")
        await finished(service, job["id"])
        events = await watch(service, job["id"])
        assert [event["state"] for _, event in events] == ["done"]
        again = await watch(service, job["id"], events[-1][0])
        assert [event["state"] for _, event in again] == ["done"]


async def test_the_same_work_is_joined(config: Config, pacs: MisbehavingPacs) -> None:
    async with running(config) as service:
        first = await start(service, "A1", "A2")
        assert (await start(service, "A2", "A1"))["id"] == first["id"]
        await finished(service, first["id"])
        assert (await start(service, "A1", "A2"))["id"] == first["id"]
        assert len(pacs.moves) == 2


async def test_more_jobs_than_ports_wait_with_their_place(config: Config, pacs: MisbehavingPacs) -> None:
    pacs.misbehaviour = Misbehaviour(delay=0.2)
    async with running(config) as service:
        started = [await start(service, f"A{number}") for number in range(1, 6)]
        async with asyncio.timeout(20):
            places: list[int] = []
            while len(places) < 3:
                _, listed = await call(service, "GET", "/api/jobs")
                places = [job["place"] for job in listed["jobs"] if job["place"]]
        assert [job["id"] for job in listed["jobs"]] == [job["id"] for job in reversed(started)]
        assert sorted(places) == [1, 2, 3]
        assert {(await finished(service, job["id"]))["state"] for job in started} == {"done"}


async def test_cancel_reaches_the_pacs(config: Config, pacs: MisbehavingPacs) -> None:
    pacs.misbehaviour = Misbehaviour(delay=0.3)
    async with running(config) as service:
        job = await start(service, "A1")
        async with asyncio.timeout(10):
            while (await call(service, "GET", f"/api/jobs/{job['id']}"))[1]["instances"]["received"] < 2:
                await asyncio.sleep(0.05)
        status, ended = await call(service, "DELETE", f"/api/jobs/{job['id']}")
        assert status == 200
        assert ended["state"] == "cancelled"
        assert ended["instances"]["received"] < 10
        assert service.spooled() == []
        assert (await call(service, "DELETE", f"/api/jobs/{job['id']}"))[1]["state"] == "cancelled"
        pacs.misbehaviour = Misbehaviour()
        status, again = await call(service, "POST", f"/api/jobs/{job['id']}/again")
        assert status == 202
        assert again["id"] != job["id"]
        assert (await finished(service, again["id"]))["state"] == "done"


async def test_a_failed_job_says_why(config: Config) -> None:
    async with running(config) as service:
        job = await finished(service, (await start(service, "NOSUCH"))["id"])
        assert job["state"] == "failed"
        assert job["error"]["code"] == "no_dicom_data"
        assert "NOSUCH" in job["error"]["message"]
        status, body = await call(service, "GET", f"/api/jobs/{job['id']}/iso")
        assert (status, body["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        {}, [], "x", {"kind": "iso"}, {"kind": "dvd", "accession_numbers": ["A1"]},
        {"kind": "iso", "accession_numbers": "A1"}, {"kind": "iso", "accession_numbers": []},
        {"kind": "iso", "accession_numbers": [1]}, {"kind": "iso", "accession_numbers": ["*"]},
        {"kind": "iso", "accession_numbers": ["A1"], "more": 1},
    ],
)  # fmt: skip
async def test_a_bad_body_is_told(body: Any, pacs: MisbehavingPacs, tmp_path: Path) -> None:
    async with running(make_config(tmp_path, pacs)) as service:
        status, answer = await call(service, "POST", "/api/jobs", body)
        assert status == 400
        assert answer["error"]["code"] in {"invalid_parameter", "missing_parameter"}


async def test_a_restart_shows_what_was_and_what_was_interrupted(config: Config, url: str) -> None:
    async with running(config) as service:
        done = await finished(service, (await start(service, "A1"))["id"])
        cut = await finished(service, (await start(service, "A2"))["id"])
    database = Database(url)
    async with database.transaction() as connection:
        stored = (await connection.execute(select(jobs.c.id, jobs.c.state))).all()
        assert sorted(stored) == sorted([(done["id"], "done"), (cut["id"], "done")])
        # What the row of a job looks like when its process was killed.
        await connection.execute(
            update(jobs).where(jobs.c.id == cut["id"]).values(state="running", finished_at=None)
        )
    await database.close()
    async with running(config) as service:
        _, listed = await call(service, "GET", "/api/jobs")
        assert [(job["id"], job["state"]) for job in listed["jobs"]] == [
            (cut["id"], "interrupted"),
            (done["id"], "done"),
        ]
        interrupted, old = listed["jobs"]
        assert interrupted["error"]["code"] == "interrupted"
        assert "iso" not in old["links"]
        assert old["created_at"] == done["created_at"]
        _, again = await call(service, "POST", f"/api/jobs/{cut['id']}/again")
        assert (await finished(service, again["id"]))["state"] == "done"


async def test_a_database_that_is_away_costs_no_disc(pacs: MisbehavingPacs, tmp_path: Path) -> None:
    """Away at the start, back later: discs are made, health tells, and the rows are written in the end."""
    file = tmp_path / "away" / "pacsbridge.db"
    config = make_config(tmp_path, pacs, database={"url": f"sqlite:///{file}"})
    async with running(config) as service:
        status, _, _ = await service.get("/api/iso/download", accession_number="A1")
        assert status == 200
        _, health = await call(service, "GET", "/api/health")
        assert health["status"] == "degraded"
        assert health["checks"]["database"]["status"] == "failed"
        assert (await service.get("/api/ready"))[0] == 200
        file.parent.mkdir()
        async with asyncio.timeout(20):
            while (await call(service, "GET", "/api/health"))[1]["status"] != "ok":
                await asyncio.sleep(0.5)
    database = Database(f"sqlite:///{file}")
    async with database.session() as connection:
        assert (await connection.execute(select(jobs.c.state))).scalars().all() == ["done"]
    await database.close()


async def test_metrics_tell_of_jobs_ports_spool_and_requests(config: Config) -> None:
    async with running(config) as service:
        await finished(service, (await start(service, "A1"))["id"])
        _, _, body = await service.get("/metrics")
        text = body.decode()
        for line in (
            'pacsbridge_jobs{kind="iso",state="done"} 1.0',
            "pacsbridge_port_leases 0.0",
            "pacsbridge_port_waiting 0.0",
        ):
            assert line in text
        for name in (
            "pacsbridge_job_stage_seconds_bucket", "pacsbridge_instances_received_total", "pacsbridge_spool_bytes",
            "pacsbridge_received_bytes_total", 'route="/api/jobs/{id}"',
        ):  # fmt: skip
            assert name in text
        assert "A1" not in text

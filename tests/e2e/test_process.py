"""The service as a process: killed, ended politely, started into trouble; and the commands of the shell."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.e2e.judges import open_image
from tests.e2e.program import COMMAND, ENVIRONMENT, Program, run_program, write_config
from tests.e2e.service import make_config, tell_destinations
from tests.misbehaving import Misbehaviour, Reject
from tests.peers import HOST, free_port, listens, wait_until
from tests.studies import Patient, make_study

if TYPE_CHECKING:
    from pathlib import Path

    from pacsbridge.config import Config
    from tests.conftest import MakePacs
    from tests.misbehaving import MisbehavingPacs
    from tests.orthanc import Orthanc

DOWNLOAD = "/api/iso/download?accession_number=A1"
PEER = {"connect_timeout_seconds": 10, "response_timeout_seconds": 30}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def a_config(tmp_path: Path, pacs: Any, **sections: Any) -> Config:
    return make_config(tmp_path, pacs, **({"pacs": PEER} | sections))


async def get(url: str) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session,
        session.get(url) as response,
    ):
        return response.status, await response.read()


async def until(done: Any, what: str) -> None:
    await asyncio.to_thread(wait_until, done, what)


@pytest.fixture
def slow(make_pacs: MakePacs, tmp_path: Path) -> MisbehavingPacs:
    """Make a PACS that takes its time for each instance."""
    make_study(tmp_path / "pacs", "A1", instances=60)
    return make_pacs(Misbehaviour(delay=0.1), folder=tmp_path / "pacs")


async def test_kill_9_amid_a_retrieval_leaves_nothing_for_the_next_start(
    slow: MisbehavingPacs, tmp_path: Path
) -> None:
    config = a_config(tmp_path, slow)
    spool, path = config.media.spool_dir, write_config(tmp_path, config)
    with Program(path) as killed:
        asking = asyncio.create_task(get(killed.url + DOWNLOAD))
        await until(lambda: len(files(spool)) > 3, "some instances in the spool")
        killed.send(signal.SIGKILL)
        killed.wait()
        with pytest.raises(aiohttp.ClientError):
            await asking
    assert files(spool)
    assert not any(listens(port.port) for port in config.storage_scp.ports)
    slow.misbehaviour = Misbehaviour()
    with Program(path) as again:
        assert files(spool) == []
        status, body = await get(again.url + DOWNLOAD)
        assert status == 200
        assert len(open_image(body, tmp_path / "opened").dicom_files) == 60
        again.send(signal.SIGTERM)
        assert again.wait() == 0
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_running_download_ends_and_new_requests_are_refused(
    number: signal.Signals, slow: MisbehavingPacs, tmp_path: Path
) -> None:
    config = a_config(tmp_path, slow)
    path = write_config(tmp_path, config, server={"shutdown_timeout_seconds": 30})
    with Program(path) as program:
        timeout = aiohttp.ClientTimeout(60)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            async with session.get(f"{program.url}/api/jobs") as response:
                assert response.status == 200  # its connection stays open
            asking = asyncio.create_task(get(program.url + DOWNLOAD))
            await until(lambda: len(files(config.media.spool_dir)) > 3, "some instances in the spool")
            program.send(number)
            await until(lambda: not listens(program.port), "the port to be closed")
            async with session.get(f"{program.url}/api/jobs") as response:
                refused = await response.json()
                assert (response.status, refused["error"]["code"]) == (503, "busy")
                assert int(response.headers["Retry-After"]) > 0
        status, body = await asking
        assert status == 200
        assert len(open_image(body, tmp_path / "opened").dicom_files) == 60
        assert program.wait() == 0
    assert list(config.media.spool_dir.iterdir()) == []
    assert not any(listens(port.port) for port in config.storage_scp.ports)


async def test_what_lasts_longer_than_the_shutdown_is_cancelled(
    slow: MisbehavingPacs, tmp_path: Path
) -> None:
    slow.misbehaviour = Misbehaviour(delay=0.5)
    config = a_config(tmp_path, slow)
    path = write_config(tmp_path, config, server={"shutdown_timeout_seconds": 1})
    with Program(path) as program:
        asking = asyncio.create_task(get(program.url + DOWNLOAD))
        await until(lambda: len(files(config.media.spool_dir)) > 1, "some instances in the spool")
        program.send(signal.SIGTERM)
        assert await asyncio.to_thread(program.wait, 20) == 0  # all 60 would take 30 s
        with pytest.raises(aiohttp.ClientError):
            await asking
        assert '"stopped"' in program.output()
        assert "Traceback" not in program.output()
    await until(lambda: slow.cancels >= 1, "the C-CANCEL")
    assert list(config.media.spool_dir.iterdir()) == []


def test_a_taken_port_is_one_line(make_pacs: MakePacs, tmp_path: Path) -> None:
    config = a_config(tmp_path, make_pacs())
    path = write_config(tmp_path, config)
    with Program(path) as first:
        taken = str(first.port)
        code, said = run_program("serve", "--config", path)
        assert code == 1
        line = _only_line(said)
        assert str(config.storage_scp.ports[0].port) in line
        assert "storage_scp.ports" in line
        other = a_config(tmp_path, make_pacs())
        (tmp_path / "other").mkdir()
        code, said = run_program(
            "serve", "--config", write_config(tmp_path / "other", other, server={"port": first.port})
        )
        assert code == 1
        line = _only_line(said)
        assert taken in line
        assert "server.port" in line


def test_a_spool_that_cannot_be_written_is_one_line(make_pacs: MakePacs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = write_config(
        tmp_path, a_config(tmp_path, make_pacs()), media={"spool_dir": str(tmp_path / "file" / "spool")}
    )
    code, said = run_program("serve", "--config", path)
    assert code == 1
    line = _only_line(said)
    assert str(tmp_path / "file" / "spool") in line
    assert "media.spool_dir" in line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("server: {prot: 1}", "server.prot: unknown key"),
        ("server: {port: eighty}", "server.port: "),
        ("pacs: {ae_title: '12345678901234567'}", "pacs.ae_title: "),
        ("storage_scp: {ports: []}", "storage_scp.ports: "),
        ("- a list", "config.yaml"),
        ("server: [", "not valid YAML"),
        ("media: {viewer_dir: /nowhere/viewer}", "media.viewer_dir"),
    ],
)
def test_a_bad_configuration_is_one_line_with_the_path_of_its_key(
    text: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    code, said = run_program("serve", "--config", path)
    assert code == 2
    assert told in _only_line(said)


def test_no_such_configuration_and_no_such_command(tmp_path: Path) -> None:
    code, said = run_program("serve", "--config", tmp_path / "absent.yaml")
    assert (code, "absent.yaml" in _only_line(said)) == (2, True)
    assert run_program("brew")[0] == 2
    assert run_program("iso")[0] == 2


def test_iso_writes_an_image_and_says_what_is_in_it(make_pacs: MakePacs, tmp_path: Path) -> None:
    patient = Patient("PID-4711", "Doe^Jane", "19700101")
    make_study(tmp_path / "pacs", "A1", patient=patient, series=2, instances=5)
    make_study(tmp_path / "pacs", "A2", patient=patient)
    config = write_config(tmp_path, a_config(tmp_path, make_pacs(folder=tmp_path / "pacs")))
    made = tmp_path / "made"
    made.mkdir()
    done = _iso(config, made, "A1")
    assert done.returncode == 0
    assert done.stdout == "A1.iso\n"
    assert "1 studies, 2 series, 10 instances" in done.stderr
    assert len(open_image((made / "A1.iso").read_bytes(), tmp_path / "opened").dicom_files) == 10
    done = _iso(config, made, "A1", "A2", "--output", "both.iso")
    assert done.returncode == 0
    assert "2 studies, 3 series, 13 instances" in done.stderr
    done = _iso(config, made, "A1", "A2")
    assert done.stdout == "Doe_Jane.iso\n"
    assert not any(text in done.stderr for text in ("Doe", "4711", "A1"))
    assert sorted(path.name for path in made.iterdir()) == ["A1.iso", "Doe_Jane.iso", "both.iso"]
    assert not any((tmp_path / "spool").iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("NOSUCH",), 1, "no study with the accession number"),
        (("A*",), 2, "wildcards"),
        (("A1", "--output", "absent/a.iso"), 2, "there is no folder absent"),
        (("A1", "--output", "."), 2, "is a folder"),
    ],
)
def test_iso_tells_what_is_wrong(
    arguments: tuple[str, ...], code: int, told: str, make_pacs: MakePacs, tmp_path: Path
) -> None:
    make_study(tmp_path / "pacs", "A1")
    config = write_config(tmp_path, a_config(tmp_path, make_pacs(folder=tmp_path / "pacs")))
    made = tmp_path / "made"
    made.mkdir()
    done = _iso(config, made, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert told in _only_line(done.stderr)
    assert list(made.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_iso_that_is_stopped_leaves_nothing(
    number: signal.Signals, slow: MisbehavingPacs, tmp_path: Path
) -> None:
    config = a_config(tmp_path, slow)
    path = write_config(tmp_path, config)
    made = tmp_path / "made"
    made.mkdir()
    with subprocess.Popen(
        [*COMMAND, "iso", "A1", "--config", str(path)],
        cwd=made, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT,
    ) as iso:  # fmt: skip
        try:
            wait_until(lambda: len(files(config.media.spool_dir)) > 3, "some instances in the spool")
            iso.send_signal(number)
            out, err = iso.communicate(timeout=20)
        finally:
            iso.kill()
    assert iso.returncode == 1
    assert out == ""
    assert "stopped" in err
    assert "Traceback" not in err
    assert list(made.iterdir()) == []
    assert list(config.media.spool_dir.iterdir()) == []


def test_check_says_what_is_well(orthanc: Orthanc, tmp_path: Path) -> None:
    config = write_config(tmp_path, a_config(tmp_path, orthanc))
    code, said = run_program("check", "--config", config)
    assert code == 0, said
    lines = {line.split()[1]: line.split()[0] for line in said.splitlines()}
    assert lines["pacs"] == lines["storage_scp"] == lines["destination"] == lines["spool"] == "ok"
    assert lines["publisher"] == lines["patient_api"] == lines["viewer"] == "off"
    with Program(config):
        code, said = run_program("check", "--config", config)  # beside the running service
        assert code == 0, said


def test_check_tells_what_to_do(make_pacs: MakePacs, tmp_path: Path) -> None:
    pacs = make_pacs()
    config = a_config(tmp_path, pacs)
    pacs.destinations.clear()
    code, said = run_program("check", "--config", write_config(tmp_path, config))
    assert code == 1
    (line,) = (line for line in said.splitlines() if "destination CDRECORD1" in line)
    assert line.startswith("failed")
    assert f"port {config.storage_scp.ports[0].port}" in line

    tell_destinations(pacs, [port.model_dump() for port in config.storage_scp.ports])
    code, said = run_program(
        "check", "--config",
        write_config(
            tmp_path, config,
            patient_api={"base_url": f"http://{HOST}:{free_port()}"},
            publisher={"host": HOST, "port": free_port()},
        ),
    )  # fmt: skip
    assert code == 0, "discs can be made without these"
    for name, key in (("publisher", "publisher.host"), ("patient_api", "patient_api.base_url")):
        (line,) = (line for line in said.splitlines() if line.split()[1] == name)
        assert line.startswith("failed")
        assert key in line

    pacs.misbehaviour = Misbehaviour(reject=Reject.CALLING_AE_TITLE_NOT_RECOGNISED)
    code, said = run_program("check", "--config", write_config(tmp_path, config))
    assert code == 1
    assert "pacs.calling_ae_title" in said
    pacs.stop()
    code, said = run_program("check", "--config", write_config(tmp_path, config))
    assert code == 1
    assert "pacs.host" in said
    assert "Traceback" not in said


def _iso(config: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "iso", *arguments, "--config", str(config)],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False, env=os.environ | ENVIRONMENT,
    )  # fmt: skip


def _only_line(said: str) -> str:
    """Give the one line that a person needs to read; log lines of the start may stand before it."""
    lines = [line for line in said.splitlines() if line and not line.startswith("{")]
    assert len(lines) == 1, said
    assert lines[0].startswith("pacsbridge: ")
    return lines[0]

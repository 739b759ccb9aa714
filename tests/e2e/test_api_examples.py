"""The examples on the API page: each is run as it stands there, and works."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pacsbridge.http.api_words import curl
from pacsbridge.http.openapi import resolve
from tests.accounts.examples import PASSWORD
from tests.e2e.hospital import API_KEY, NUMBERS, email_of, make_hospital, running_hospital
from tests.http.description import Endpoint, endpoints, whole
from tests.http.desk import cheap_hashes
from tests.http.html_page import parse
from tests.peers import require

if TYPE_CHECKING:
    from pathlib import Path

    from pacsbridge.config import Config
    from tests.conftest import MakePacs
    from tests.e2e.service import Service

KEY = {"X-API-Key": API_KEY}
#: So that what bash runs says the status behind the body.
CURL = "curl() { command curl --silent --show-error --max-time 30 --write-out '\\n%{http_code}' \"$@\"; }\n"


@pytest.fixture
def hospital(
    tmp_path: Path, make_pacs: MakePacs, monkeypatch: pytest.MonkeyPatch
) -> tuple[Config, dict[str, str]]:
    cheap_hashes(monkeypatch)
    return make_hospital(tmp_path, make_pacs)


async def call(service: Service, method: str, path: str, body: Any = None, **headers: str) -> Any:
    """Ask and give the JSON of the answer."""
    async with service.session.request(
        method, service.url + path, json=body, headers=headers or KEY
    ) as response:
        assert response.status < 300, await response.text()
        return await response.json() if response.content_type == "application/json" else None


async def sign_in(service: Service, email: str) -> dict[str, Any]:
    signed: dict[str, Any] = await call(
        service, "POST", "/auth/login", {"email": email, "password": PASSWORD}
    )
    return signed


async def variables(service: Service, number: int) -> dict[str, str]:
    """Make what an example needs: a job that is done, a link, a user with a session, an admin's token."""
    job = await call(service, "POST", "/api/jobs", {"kind": "iso", "accession_numbers": [NUMBERS[0]]})
    async with asyncio.timeout(30):
        while (await call(service, "GET", f"/api/jobs/{job['id']}"))["state"] != "done":
            await asyncio.sleep(0.05)
    link = await call(service, "POST", "/api/shortlinks", {"reference": str(number), "study_iuids": ["1.2"]})
    admin = await sign_in(service, email_of("admin"))
    bearer = {"Authorization": f"Bearer {admin['access_token']}"}
    new = {"email": f"user{number}@hospital.example", "password": PASSWORD, "role": "patient"}
    user = await call(service, "POST", "/api/admin/users", new, **bearer)
    signed = await sign_in(service, new["email"])
    shown = await call(service, "GET", f"/api/admin/users/{user['id']}", **bearer)
    return {
        "API_KEY": API_KEY, "TOKEN": admin["access_token"], "JOB": job["id"], "CODE": link["code"],
        "USER_ID": user["id"], "SESSION": shown["sessions"][0]["id"], "REFRESH_TOKEN": signed["refresh_token"],
    }  # fmt: skip


async def bash(script: str, folder: Path, variables: dict[str, str]) -> str:
    """Run a script as the page has it, and give what it writes."""
    folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        require("bash"), "-ec", script,
        cwd=folder, env={"PATH": "/usr/bin:/bin", **variables}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    written, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, script
    return written.decode(errors="replace")


async def example(service: Service, document: Any, endpoint: Endpoint, number: int, folder: Path) -> None:
    """Run an endpoint's example; its answer must be one of the good ones that are described."""
    line = curl(document, endpoint.path, endpoint.method.lower())
    if not line:
        return
    if endpoint.path == "/auth/login":
        await call(service, "POST", "/auth/register", endpoint.body["example"])
    written = await bash(CURL + line, folder, await variables(service, number))
    body, _, status = written.rpartition("\n")
    good = {
        each for each in endpoint.operation["responses"] if each.isdigit() and int(each) < 400
    }  # a redirection is shown, not followed
    assert status in good, f"{line}\n{body}"
    response = resolve(document, endpoint.operation["responses"][status])
    if "-O" in line or " -o " in line:
        assert [each.stat().st_size > 0 for each in folder.iterdir()] == [True]
    elif response.get("content"):
        assert body


async def test_every_example_works(hospital: tuple[Config, dict[str, str]], tmp_path: Path) -> None:
    require("curl")
    async with running_hospital(*hospital) as service:
        document = whole(service.url)
        for number, endpoint in enumerate(endpoints(document)):
            if endpoint.operation["tags"] != ["Pages"]:
                await example(service, document, endpoint, number, tmp_path / str(number))


async def test_the_signed_links_of_the_page_open(
    hospital: tuple[Config, dict[str, str]], tmp_path: Path
) -> None:
    require("curl"), require("openssl")
    async with running_hospital(*hospital) as service:
        status, _, html = await service.get("/api/docs")
        assert status == 200
        page = parse(html.decode())
        (python,), (shell,) = page.code["sign-python"], page.code["sign-shell"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", python.replace("the link secret", API_KEY), stdout=asyncio.subprocess.PIPE
        )
        link, _ = await process.communicate()
        async with service.session.get(link.decode().strip()) as response:
            assert response.status == 200
        written = await bash(CURL + shell.replace("the link secret", API_KEY), tmp_path / "shell", {})
        assert written.endswith("\n200")
        assert [each.name for each in (tmp_path / "shell").iterdir()] == ["CT1001.iso"]

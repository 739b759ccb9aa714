"""Whatever is sent, the service answers as its description says: never 500, every error in JSON."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pacsbridge.http.openapi import resolve
from pacsbridge.http.pages import PAGES
from tests.accounts.examples import PASSWORD
from tests.e2e.generated import Answer, Made, requests, send
from tests.e2e.hospital import API_KEY, NUMBERS, email_of, make_hospital, running_hospital
from tests.http.description import Endpoint, endpoints, problems, whole
from tests.http.desk import cheap_hashes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pacsbridge.config import Config
    from tests.conftest import MakePacs

EXAMPLES = 1500
KEY = {"x-api-key": API_KEY.encode()}
#: What any request may be answered with, whatever it asks for: it can't be understood as HTTP.
UNREADABLE = {"invalid_request", "too_large", "unsupported_media_type"}


class Hospital:
    """The whole service, in a thread of its own; and what a generated request needs to know of it."""

    def __init__(self, config: Config, studies: dict[str, str]) -> None:
        self.port = config.server.port
        self.document = whole(config.server.public_url, viewer=False)
        self.endpoints = list(endpoints(self.document))
        self.known: dict[str, tuple[str, ...]] = {}
        self.sessions: dict[str, dict[str, bytes]] = {}
        self._running: Future[None] = Future()
        self._stop: Any = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(config, studies)))

    async def _run(self, config: Config, studies: dict[str, str]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with running_hospital(config, studies):
                self._running.set_result(None)
                await self._stop.wait()
        except Exception as error:
            if self._running.done():
                raise
            self._running.set_exception(error)

    def __enter__(self) -> Self:
        self._thread.start()
        self._running.result(30)
        self.know()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def ask(self, method: str, path: str, body: Any = None, **headers: bytes) -> Answer:
        """Send a plain request."""
        endpoint = Endpoint(method, path, {}, ())
        content = b"" if body is None else json.dumps(body).encode()
        made = Made(endpoint, method, path, "", (), content, straight=True)
        return send(self.port, made, headers or KEY)

    def know(self) -> None:
        """Make a job, a link and a user, whose names go into paths."""
        job = json.loads(
            self.ask("POST", "/api/jobs", {"kind": "iso", "accession_numbers": [NUMBERS[0]]}).content
        )
        link = json.loads(
            self.ask("POST", "/api/shortlinks", {"reference": "r", "accession_numbers": [NUMBERS[0]]}).content
        )
        new = {"email": "jane@hospital.example", "password": PASSWORD, "role": "patient"}
        self.ask("POST", "/api/admin/users", new, **self.session("admin"))
        self.ask("GET", f"/api/jobs/{job['id']}/events")  # until it has ended
        shown = json.loads(
            self.ask("GET", "/api/admin/users/jane@hospital.example", **self.session("admin")).content
        )
        self.known = {
            "id": (job["id"], shown["id"], "jane@hospital.example", "unknown"),
            "code": (link["code"], "unknown"),
            "session": ("unknown",),
            "action": ("disable", "enable", "password", "assign", "unassign", "end", "unknown"),
            "name": ("desk.js", "pacsbridge.css", "unknown"),
            "tail": (
                "/studies",
                "/studies?limit=x",
                "/series",
                "/studies/1.2.3",
                "/studies/1.2/metadata",
                "/x",
                "",
            ),
        }

    def session(self, role: str) -> dict[str, bytes]:
        """Give the headers of somebody who has signed in; they sign in again when they have to."""
        if role not in self.sessions:
            from_home = {"x-forwarded-for": b"192.0.2.1"}
            body = {"email": email_of(role), "password": PASSWORD}
            answer = self.ask("POST", "/auth/login", body, **from_home)
            assert answer.status == 200, answer
            token = json.loads(answer.content)["access_token"].encode()
            self.sessions[role] = {"authorization": b"Bearer " + token}
            cookie = answer.headers["set-cookie"].partition(";")[0].encode()
            self.sessions[f"{role} cookie"] = {"cookie": cookie}
        return self.sessions[role]

    def credentials(self, kind: str) -> dict[str, bytes]:
        match kind:
            case "nobody" | "link":
                return {}
            case "key":
                return dict(KEY)
            case "wrong key":
                return {"x-api-key": b"\xff wrong"}
            case "nonsense":
                return {"authorization": b"Bearer a.b.c"}
            case "cookie" | "cookie elsewhere":
                self.session("admin")
                origin = (
                    b"https://evil.example"
                    if "elsewhere" in kind
                    else f"http://127.0.0.1:{self.port}".encode()
                )
                return self.sessions["admin cookie"] | {"origin": origin}
            case role:
                return dict(self.session(role))

    def send(self, made: Made, number: int) -> Answer:
        """Send a generated request, each from an address of its own: attempts are counted by address."""
        address = f"198.18.{number >> 8 & 255}.{number & 255}".encode()
        answer = send(self.port, made, {"x-forwarded-for": address} | self.credentials(made.credentials))
        if "logout" in made.target:
            self.sessions.clear()
        return answer


@pytest.fixture
def hospital(tmp_path: Path, make_pacs: MakePacs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hospital]:
    cheap_hashes(monkeypatch)
    with Hospital(*make_hospital(tmp_path, make_pacs)) as running:
        yield running


def check_error(document: Any, answer: Answer) -> str:
    """Hold an error against the contract, and give its code."""
    body = json.loads(answer.content)
    assert problems(document, {"$ref": "#/components/schemas/Error"}, body) == []
    assert body["error"]["request_id"] == answer.headers["x-request-id"]
    code: str = body["error"]["code"]
    status = document["x-error-codes"][code]["status"]
    assert answer.status == status or code in {"invalid_request", "upstream_refused"}
    assert answer.status != 429 or int(answer.headers["retry-after"]) >= 0
    return code


def check(document: Any, made: Made, answer: Answer) -> None:
    """Hold an answer against the description of what was asked for."""
    assert answer.status < 600
    assert answer.status != 500, answer.content
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers["x-request-id"])
    if made.endpoint.path.startswith("/dicomWeb") and answer.content_type != "application/json":
        return  # the archive's own answer
    is_page = answer.content_type == "text/html" and made.target.startswith((*PAGES, "/discs"))
    not_ready = made.endpoint.path == "/api/ready" and answer.status == 503
    code = ""
    if answer.status >= 400 and made.method != "HEAD" and not (is_page or not_ready):
        code = check_error(document, answer)
    if not made.straight or made.method != made.endpoint.method or code in UNREADABLE:
        return
    responses = made.endpoint.operation["responses"]
    assert str(answer.status) in responses, (answer.status, answer.content[:300])
    if code:
        assert code in made.endpoint.operation["x-errors"]
        return
    response = resolve(document, responses[str(answer.status)])
    content = response.get("content", {})
    assert answer.content_type in content or "*/*" in content or not answer.content
    schema = content.get(answer.content_type, {}).get("schema")
    if answer.content_type == "application/json" and schema is not None:
        assert problems(document, schema, json.loads(answer.content)) == []


@pytest.mark.timeout(300)  # many requests, and a busy machine is no failure
def test_nothing_that_is_sent_is_too_odd_to_be_answered(hospital: Hospital) -> None:
    sent: list[tuple[str, int]] = []

    @settings(
        max_examples=EXAMPLES,
        phases=(Phase.generate, Phase.shrink),
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.deferred(lambda: requests(hospital.document, hospital.endpoints, hospital.known)))
    def answered(made: Made) -> None:
        answer = hospital.send(made, len(sent))
        sent.append((made.endpoint.operation["operationId"], answer.status))
        check(hospital.document, made, answer)

    answered()
    assert {name for name, _ in sent} == {each.operation["operationId"] for each in hospital.endpoints}
    assert hospital.ask("GET", "/api/ready").status == 200

"""A front that behaves as Google's Cloud Healthcare API does, before any DICOMweb server of the tests.

It has a token endpoint that the real google-auth talks to, the addresses of a DICOM store, Google's limits and
oddities, and switches for its failures.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydicom.datadict import tag_for_keyword

from tests.peers import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PROJECT = "a-hospital"
STORE = f"projects/{PROJECT}/locations/europe-west1/datasets/images/dicomStores/pacs"
SCOPE = "https://www.googleapis.com/auth/cloud-healthcare"
_AUDIENCE = "https://oauth2.googleapis.com/token"
_STUDY_INSTANCE_UID = "0020000D"
#: What Google filters studies by; other attributes are ignored here, as PS3.18, 8.3.4 allows.
_STUDY_KEYS = frozenset(
    {"StudyInstanceUID", "PatientName", "PatientID", "AccessionNumber", "ReferringPhysicianName", "StudyDate"}
)
#: It takes hex digits too.
_KEYWORDS = {f"{tag_for_keyword(keyword):08X}": keyword for keyword in _STUDY_KEYS}
_LIMITS = {"studies": 5000, "series": 5000, "instances": 50_000}
_MOST_OFFSET = 1_000_000
_SEARCH_TYPES = ("application/dicom+json", "application/json", "*/*")


@dataclass
class Faults:
    """What it does wrong on command.

    Attributes
    ----------
    statuses
        Answered to the next requests, one after the other, instead of an answer.
    ignores_keys
        Whether searches return everything, whatever is asked for.
    break_after
        The connection is cut off after so many bytes of a body.
    seconds
        How long it thinks before it answers.
    """

    statuses: list[int] = field(default_factory=list)
    ignores_keys: bool = False
    break_after: int | None = None
    seconds: float = 0
    token_status: int = 200
    token_seconds: float = 0
    token_life: int = 3600


@dataclass
class GoogleFront:
    """A running front.

    Attributes
    ----------
    requests
        Method and target of each request to the store, as they came.
    tokens
        The good ones; `tokens_given` counts all.
    """

    upstream: str
    key: rsa.RSAPrivateKey
    base_url: str = ""
    faults: Faults = field(default_factory=Faults)
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    tokens: dict[str, datetime] = field(default_factory=dict)
    tokens_given: int = 0
    session: aiohttp.ClientSession | None = None

    @property
    def root(self) -> str:
        return f"{self.base_url}/v1/{STORE}/dicomWeb"

    def config(self, credentials: Path) -> dict[str, Any]:
        """Give the section ``google`` for this front."""
        return {
            "project_id": PROJECT,
            "location": "europe-west1",
            "dataset": "images",
            "dicom_store": "pacs",
            "credentials_path": str(credentials),
            "base_url": f"{self.base_url}/v1",
        }

    def write_credentials(self, path: Path) -> Path:
        """Write the key of a service account, as the console gives it."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        account = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "k1",
            "private_key": pem.decode(),
            "client_email": f"viewer@{PROJECT}.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": f"{self.base_url}/token",
        }
        path.write_text(json.dumps(account))
        return path

    async def token(self, request: web.Request) -> web.Response:
        """Give a token for a signed assertion (RFC 7523)."""
        await asyncio.sleep(self.faults.token_seconds)
        if self.faults.token_status != 200:
            problem = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            return web.json_response(problem, status=self.faults.token_status)
        form = await request.post()
        public = self.key.public_key()
        claims = jwt.decode(str(form["assertion"]), public, algorithms=["RS256"], audience=_AUDIENCE)
        assert claims["scope"] == SCOPE
        self.tokens_given += 1
        token = f"ya29.{secrets.token_urlsafe(60)}"
        self.tokens[token] = datetime.now(UTC) + timedelta(seconds=self.faults.token_life)
        answer = {"access_token": token, "expires_in": self.faults.token_life, "token_type": "Bearer"}
        return web.json_response(answer)

    async def store(self, request: web.Request) -> web.StreamResponse:
        """Answer for the DICOM store."""
        self.requests.append((request.method, request.raw_path))
        self.headers.append(dict(request.headers))
        _, _, token = request.headers.get("Authorization", "").partition(" ")
        if self.tokens.get(token, datetime.min.replace(tzinfo=UTC)) < datetime.now(UTC):
            return _problem(401, "Request had invalid authentication credentials.", "UNAUTHENTICATED")
        if self.faults.statuses:
            status = self.faults.statuses.pop(0)
            answer = _problem(status, f"Permission on {STORE} denied or quota exceeded.", "FAILED")
            if status in {429, 503}:
                answer.headers["Retry-After"] = "7"
            return answer
        await asyncio.sleep(self.faults.seconds)
        path = request.raw_path.partition("?")[0].partition("/dicomWeb")[2]
        if request.method == "GET":
            refused = self._refused(path, request)
            if refused is not None:
                return refused
        return await self._forward(request, path)

    def _refused(self, path: str, request: web.Request) -> web.Response | None:
        words = path.strip("/").split("/")
        if words[-1] == "thumbnail" or (words[-1] == "rendered" and "instances" not in words):
            return _problem(404, f"The resource {STORE}{path} does not exist.", "NOT_FOUND")
        if words[-1] not in _LIMITS:
            return None
        if not any(name in request.headers.get("Accept", "*/*") for name in _SEARCH_TYPES):
            return _problem(406, "Not acceptable.", "INVALID_ARGUMENT")
        limit, offset = request.query.get("limit", "0"), request.query.get("offset", "0")
        if not limit.isdigit() or int(limit) > _LIMITS[words[-1]] or int(offset) > _MOST_OFFSET:
            return _problem(400, f"limit or offset out of range in {STORE}.", "INVALID_ARGUMENT")
        return None

    def _query(self, request: web.Request, path: str) -> list[tuple[str, str]]:
        """Ignore what Google doesn't know; a list of UIDs is one UID that nobody has."""
        pairs = [(name, value) for name, value in request.query.items() if name in {"limit", "offset"}]
        if self.faults.ignores_keys:
            return pairs
        for given, value in request.query.items():
            name = _KEYWORDS.get(given.upper(), given)
            if path.endswith("/studies") and name in _STUDY_KEYS:
                pairs.append((name, "0.0" if name.endswith("UID") and "," in value else value))
            elif (
                not path.endswith("/studies") and name not in {"limit", "offset"}
            ) or name == "includefield":
                pairs.append((name, value))
        return pairs

    async def _forward(self, request: web.Request, path: str) -> web.StreamResponse:
        assert self.session is not None
        is_search = request.method == "GET" and path.rsplit("/", 1)[-1] in _LIMITS
        names = ("Accept", "Content-Type")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        if is_search:
            headers["Accept"] = "application/dicom+json"
        params = self._query(request, path) if is_search else list(request.query.items())
        body = await request.read() if request.can_read_body else None
        async with self.session.request(
            request.method, self.upstream + path, params=params, headers=headers, data=body
        ) as answer:
            if answer.content_type in {"application/dicom+json", "application/json"}:
                return self._json(path, answer.status, await answer.read())
            return await self._pass(request, answer)

    def _json(self, path: str, status: int, body: bytes) -> web.Response:
        text = re.sub(rb"https?://[^\"]+?/dicom-web/", f"{self.root}/".encode(), body)
        # Google names bulk data after what Orthanc calls "bulk".
        if status == 200 and path.endswith(("/series", "/instances")):
            rows = json.loads(text)
            for row in rows:
                row.pop(_STUDY_INSTANCE_UID, None)
            text = json.dumps(rows).encode()
        elif path.endswith("/studies") and json.loads(text or b"[]") == []:
            return web.Response(status=204)
        return web.Response(body=text, status=status, content_type="application/dicom+json")

    async def _pass(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status)
        for name in ("Content-Type", "Content-Length"):
            if name in answer.headers:
                response.headers[name] = answer.headers[name]
        response.headers["Set-Cookie"] = "google=1"
        response.headers["X-Goog-Project"] = PROJECT
        await response.prepare(request)
        sent = 0
        async for piece in answer.content.iter_any():
            left = len(piece) if self.faults.break_after is None else self.faults.break_after - sent
            await response.write(piece[:left])
            sent += len(piece)
            if self.faults.break_after is not None and sent >= self.faults.break_after:
                assert request.transport is not None
                request.transport.close()
                return response
        await response.write_eof()
        return response


def _problem(status: int, message: str, name: str) -> web.Response:
    return web.json_response({"error": {"code": status, "message": message, "status": name}}, status=status)


@asynccontextmanager
async def running_google(upstream: str, key: rsa.RSAPrivateKey) -> AsyncIterator[GoogleFront]:
    """Run a front before the DICOMweb server whose root is `upstream`."""
    front = GoogleFront(upstream.rstrip("/"), key)
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/token", front.token)
    app.router.add_route("*", f"/v1/{STORE}/dicomWeb/{{tail:.*}}", front.store)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        front.base_url = f"http://{HOST}:{runner.addresses[0][1]}"
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(timeout=timeout, headers={"Accept-Encoding": "identity"}) as session:
            front.session = session
            yield front
    finally:
        await runner.cleanup()


def new_key() -> rsa.RSAPrivateKey:
    """Make a key as a service account has one."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)

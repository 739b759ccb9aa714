"""TLS, straight and through a proxy: to a server with a certificate of the test's own."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from pacsbridge.dicomweb.credentials import FixedCredentials
from pacsbridge.dicomweb.pool import Pool, Root
from pacsbridge.dicomweb.tunnel import Proxy, configured_proxy
from pacsbridge.dicomweb.upstream import Question, Upstream
from pacsbridge.errors import UpstreamUnreachable
from tests.peers import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import rsa

BODY = bytes(range(256)) * 8192


@pytest.fixture
def contexts(key: rsa.RSAPrivateKey, tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Give the server's side and ours, which believes it."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(private + certificate.public_bytes(encoding))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cadata=certificate.public_bytes(encoding).decode())


@asynccontextmanager
async def secured(context: ssl.SSLContext) -> AsyncIterator[int]:
    """Run a server that answers every request with the body."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, HOST, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def proxying(
    answer: bytes = b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n",
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Run a proxy; it lets through what it answers with 200."""
    heads: list[bytes] = []
    pipes: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65_536):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if b" 200 " not in answer:
            writer.close()
            return
        port = int(heads[-1].split(b" ")[1].rpartition(b":")[2])
        further = await asyncio.open_connection(HOST, port)
        pipes.update(
            asyncio.create_task(pipe(*ends)) for ends in ((reader, further[1]), (further[0], writer))
        )

    server = await asyncio.start_server(connected, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()
        for task in pipes:
            task.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)


async def fetch(port: int, ours: ssl.SSLContext | None) -> list[bytes]:
    """Ask twice."""
    async with Pool(Root.parse(f"https://{HOST}:{port}/rs", "url"), 10) as pool:
        if ours is not None:
            pool._ssl = ours
        got = []
        for _ in range(2):
            async with await Upstream(pool, FixedCredentials()).ask(Question("GET", "/studies")) as answer:
                got.append(await answer.read(len(BODY)))
        return got


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


async def test_a_server_is_asked_over_tls(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, ours = contexts
    async with secured(server) as port:
        assert await fetch(port, ours) == [BODY, BODY]


async def test_a_server_that_nobody_vouches_for_is_not_asked(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with secured(contexts[0]) as port:
        with pytest.raises(UpstreamUnreachable):
            await fetch(port, None)


async def test_the_way_leads_through_the_proxy_that_the_environment_names(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, ours = contexts
    async with secured(server) as port, proxying() as (proxy, heads):
        monkeypatch.setenv("HTTPS_PROXY", f"http://us%65r:secret@{HOST}:{proxy}")
        assert await fetch(port, ours) == [BODY, BODY]
        assert len(heads) == 1
        assert heads[0].startswith(f"CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n".encode())
        assert b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=" in heads[0]
        monkeypatch.setenv("NO_PROXY", HOST)
        assert await fetch(port, ours) == [BODY, BODY]
        assert len(heads) == 1


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 407 Sign In\r\n\r\n", b"HTTP/1.1 502 No\r\n\r\n", b"garbage\r\n\r\n", b""]
)
async def test_a_proxy_that_does_not_let_through_is_told(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    async with secured(contexts[0]) as port, proxying(answer) as (proxy, _):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{HOST}:{proxy}")
        with pytest.raises(UpstreamUnreachable):
            await fetch(port, contexts[1])


def test_a_proxy_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert configured_proxy("healthcare.example") is None
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    assert configured_proxy("healthcare.example") == Proxy("proxy.example", 3128)
    monkeypatch.setenv("NO_PROXY", ".example")
    assert configured_proxy("healthcare.example") is None

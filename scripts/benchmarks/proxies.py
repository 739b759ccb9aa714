"""P7 and P8: the DICOMweb proxy beside Go's ReverseProxy and nginx, in work per CPU second of the proxy."""

from __future__ import annotations

import secrets
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from argon2 import PasswordHasher

from scripts.benchmarks import stand_in
from scripts.benchmarks.load import Running
from scripts.benchmarks.measure import OURS, Contender, Line, Reading, Target, in_turn
from scripts.benchmarks.processes import cpu_seconds
from scripts.benchmarks.service import Service
from tests.peers import HOST, Process, find_program, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.benchmarks.bench import Bench

_PEERS = Path(__file__).parent / "peers"
_PREFIX = "/dicomWeb"
_EMAIL, _PASSWORD = "patient@example.org", "a long password for the bench"
#: As it comes, which is what the targets are told against; with connections kept; and what C can do.
_GO, _TUNED_GO, _NGINX = "Go ReverseProxy", "Go ReverseProxy, 256 idle connections", "nginx, unbuffered"
_IDLE_CONNECTIONS = "256"
_CONNECTIONS = 16
_SECONDS = 5.0
_QUICK_SECONDS = 0.5


@dataclass(frozen=True)
class _Work:
    """What is asked for, the unit that is counted, and the target against Go.

    A search has none: its rows are read and checked one by one, and it leaves an audit record.
    """

    row: str
    name: str
    path: str
    unit: str
    target: Target | None


_WORKS = (
    _Work("P7", "proxy, 512 KiB bodies", stand_in.IMAGE_PATH, "MB/CPU s", Target(1.0, at_least=True)),
    _Work("P8", "proxy, metadata of 2.7 KB", stand_in.SMALL_PATH, "requests/CPU s", Target(0.6, at_least=True)),
    _Work("P8", "proxy, search for a study", stand_in.SEARCH_PATH, "requests/CPU s", None),
)  # fmt: skip


@dataclass(frozen=True)
class Proxy:
    """A running proxy."""

    pid: int
    port: int
    prefix: str = ""
    token: str = ""


def measure(bench: Bench) -> Iterator[Line]:
    """Measure each kind of request."""
    with ExitStack() as stack:
        upstream = stack.enter_context(running_stand_in(bench))
        service, token = stack.enter_context(proxying_service(bench, upstream))
        proxies = {OURS: Proxy(service.pid, service.port, _PREFIX, token)}
        if find_program("go"):
            proxies[_GO] = stack.enter_context(_go(bench, upstream))
            proxies[_TUNED_GO] = stack.enter_context(_go(bench, upstream, _IDLE_CONNECTIONS))
        if find_program("nginx"):
            proxies[_NGINX] = stack.enter_context(running_nginx(bench, upstream))
        for work in _WORKS:
            yield from _measure(bench, work, proxies)


def _measure(bench: Bench, work: _Work, proxies: dict[str, Proxy]) -> Iterator[Line]:
    seconds = _QUICK_SECONDS if bench.quick else _SECONDS
    throughput: dict[str, list[Reading]] = {name: [] for name in proxies}

    def run(name: str) -> Reading:
        proxy = proxies[name]
        before = cpu_seconds(proxy.pid)
        load = Running(
            proxy.port, proxy.prefix + work.path, proxy.token, connections=_CONNECTIONS, seconds=seconds
        ).wait()
        used = cpu_seconds(proxy.pid) - before
        done = load.bytes / 1e6 if work.row == "P7" else load.requests
        throughput[name].append(Reading(done / load.seconds))
        return Reading(done / max(used, 1e-3), used)

    taken = in_turn(bench.rounds, {name: Contender(partial(run, name)) for name in proxies})
    yield Line(work.row, work.name, work.unit, taken[OURS], work.target, _GO, taken.get(_GO))
    for peer in (_TUNED_GO, _NGINX):
        yield Line(work.row, work.name, work.unit, taken[OURS], None, peer, taken.get(peer))
    unit = work.unit.replace("/CPU s", "/s")
    theirs = tuple(throughput[_GO]) if _GO in throughput else None
    yield Line(work.row, f"{work.name}: throughput", unit, tuple(throughput[OURS]), None, _GO, theirs)


@contextmanager
def running_stand_in(bench: Bench) -> Iterator[int]:
    """Run the upstream server; give its port."""
    port = free_port()
    command = [sys.executable, "-m", "scripts.benchmarks.stand_in", str(port)]
    process = Process(command, bench.folder("stand-in") / "log").start()
    try:
        process.wait_until_listening(port)
        yield port
    finally:
        process.kill()


@contextmanager
def proxying_service(bench: Bench, upstream: int, **sections: Any) -> Iterator[tuple[Service, str]]:
    """Run pacsbridge before the upstream server; give it, and the access token of a patient with one study."""
    user = {
        "email": _EMAIL,
        "password_hash": PasswordHasher().hash(_PASSWORD),
        "role": "patient",
        "study_iuids": [stand_in.STUDY],
    }
    sections["accounts"] = {
        "jwt_secret": secrets.token_urlsafe(48),
        "static_users": [user],
        "access_token_minutes": 60,
    }
    sections["dicomweb"] = {"upstream": "dicomweb", "url": f"http://{HOST}:{upstream}"}
    with Service(bench.folder("proxy"), sections) as service:
        session = service.ask("/auth/login", {"email": _EMAIL, "password": _PASSWORD})
        yield service, session["access_token"]


@contextmanager
def _go(bench: Bench, upstream: int, *connections: str) -> Iterator[Proxy]:
    folder, port = bench.folder("go"), free_port()
    binary = folder / "proxy"
    if not binary.exists():
        subprocess.run([find_program("go") or "go", "build", "-o", binary, _PEERS / "proxy.go"], check=True)
    command: list[str | Path] = [binary, str(port), f"http://{HOST}:{upstream}", *connections]
    yield from _running(command, folder, port, {"GOMAXPROCS": "1"})


@contextmanager
def running_nginx(bench: Bench, upstream: int) -> Iterator[Proxy]:
    """Run nginx before the upstream server."""
    folder, port = bench.folder("nginx"), free_port()
    config = folder / "nginx.conf"
    text = (_PEERS / "nginx.conf").read_text()
    for name, value in (("PORT", port), ("UPSTREAM", f"{HOST}:{upstream}"), ("FOLDER", folder)):
        text = text.replace(name, str(value))
    config.write_text(text)
    command: list[str | Path] = [find_program("nginx") or "nginx", "-p", folder, "-c", config]
    yield from _running([*command, "-e", folder / "error.log"], folder, port, {})


def _running(
    command: list[str | Path], folder: Path, port: int, environment: dict[str, str]
) -> Iterator[Proxy]:
    process = Process(command, folder / "log", environment).start()
    try:
        process.wait_until_listening(port)
        yield Proxy(process.pid, port)
    finally:
        process.kill()

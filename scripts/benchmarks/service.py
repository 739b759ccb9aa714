"""pacsbridge itself, as a process of its own: started, asked, measured, ended."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import yaml

from scripts.benchmarks.processes import cpu_seconds
from tests.peers import HOST, Process, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BUFFER_BYTES = 1 << 20
#: What a request for a disc may take in all, in seconds.
_PATIENCE_SECONDS = 600


@dataclass(frozen=True)
class Download:
    """A disc that was downloaded.

    Parameters
    ----------
    seconds
        From the request to the last byte.
    first_byte_seconds
        From the moment when the last instance was in the spool to the first byte.
    bytes
        The length of the image.
    """

    seconds: float
    first_byte_seconds: float
    bytes: int


class Service:
    """``pacsbridge serve`` over a configuration; a pool of `ports` ports.

    Parameters
    ----------
    folder
        Its spool, database, configuration and log.
    sections
        The configuration beside ``server``, ``storage_scp``, ``media.spool_dir`` and ``database``.
    """

    def __init__(self, folder: Path, sections: Mapping[str, Mapping[str, Any]], *, ports: int = 2) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.spool = folder / "spool"
        self.destinations = {f"BENCH{number}": free_port() for number in range(1, ports + 1)}
        pool = [{"port": port, "ae_title": title} for title, port in self.destinations.items()]
        values: dict[str, Any] = {
            "server": {"host": HOST, "port": self.port, "log_level": "warn"},
            "storage_scp": {"host": HOST, "ports": pool},
            "media": {"spool_dir": str(self.spool), "keep_minutes": 0, "capacity_bytes": 0},
            "database": {"url": f"sqlite:///{folder / 'pacsbridge.db'}"},
        }
        for section, keys in sections.items():
            values[section] = values.get(section, {}) | dict(keys)
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(values))
        command = [sys.executable, "-m", "pacsbridge", "serve", "--config", str(config)]
        self._process = Process(command, folder / "service.log")

    def __enter__(self) -> Self:
        self._process.start()
        self._process.wait_until_listening(self.port, 60)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    def cpu_seconds(self) -> float:
        """Give the CPU seconds that it has used."""
        return cpu_seconds(self.pid)

    def ask(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send a JSON request (POST where there is a body) and give the answer."""
        data = None if body is None else json.dumps(body).encode()
        every = {"Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.url + path, data, every)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    def wait_until_empty(self) -> None:
        """Wait until the spool holds nothing: the disc that was read is gone."""
        while any(self.spool.iterdir()):
            time.sleep(0.02)

    def download(self, accession_number: str) -> Download:
        """Take a disc and drop its bytes, as cheaply as a client can."""
        began = time.time()
        with socket.create_connection((HOST, self.port), timeout=_PATIENCE_SECONDS) as client:
            path = f"/api/iso/download?accession_number={accession_number}"
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            buffer = memoryview(bytearray(_BUFFER_BYTES))
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(4096)
                if not piece:
                    raise RuntimeError(f"no answer to a download: {head[:200]!r}")
                head += piece
            first_byte_at = time.time()
            status, length = _parse(head)
            if status != 200:
                raise RuntimeError(f"a download failed: {head!r}")
            waited = first_byte_at - self._last_received_at()
            left = length - len(head.partition(b"\r\n\r\n")[2])
            while left:
                count = client.recv_into(buffer)
                if not count:
                    raise RuntimeError(f"a download broke off {left} bytes before its end")
                left -= count
        return Download(time.time() - began, waited, length)

    def _last_received_at(self) -> float:
        """When the last instance in the spool was written; of use while one disc is made only."""
        return max(
            entry.stat().st_mtime
            for folder in self.spool.glob("job-*")
            for entry in os.scandir(folder)
            if entry.name.endswith(".dcm")
        )


def _parse(head: bytes) -> tuple[int, int]:
    first, *lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in lines)
    return int(first.split()[1]), int(headers.get(b"content-length", b"0"))

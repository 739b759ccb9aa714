"""Asks one thing over and over: ``python -m scripts.benchmarks.load PORT PATH TOKEN CONNECTIONS SECONDS PAUSE``.

Says in JSON how many answers came, how many bytes, and how long they took.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from tests.peers import HOST

_BUFFER_BYTES = 1 << 20
_PERCENT = 100


@dataclass(frozen=True)
class Load:
    """What came of it: `median` and `p99` in seconds."""

    requests: int
    bytes: int
    seconds: float
    median: float
    p99: float


class Running:
    """A load that runs in a process of its own until `wait`."""

    def __init__(
        self, port: int, path: str, token: str = "", *, connections: int, seconds: float, pause: float = 0
    ) -> None:
        arguments = [str(port), path, token or "-", str(connections), str(seconds), str(pause)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.load", *arguments], stdout=subprocess.PIPE
        )

    def wait(self) -> Load:
        """Wait for its end, and give what it says."""
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError("the load generator failed")
        return Load(**json.loads(output))


class _Client(threading.Thread):
    """One connection that asks until `end`."""

    def __init__(self, port: int, request: bytes, end: float, pause: float) -> None:
        super().__init__()
        self._port = port
        self._request = request
        self._end = end
        self._pause = pause
        self.times: list[float] = []
        self.bytes = 0

    def run(self) -> None:
        """Ask, until it is time to stop."""
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        with socket.create_connection((HOST, self._port), timeout=60) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while time.monotonic() < self._end:
                began = time.perf_counter()
                connection.sendall(self._request)
                self.bytes += _read_answer(connection, buffer)
                self.times.append(time.perf_counter() - began)
                if self._pause:
                    time.sleep(self._pause)


def _read_answer(connection: socket.socket, buffer: memoryview) -> int:
    """Read one answer; its body is dropped."""
    have = 0
    while (end := bytes(buffer[:have]).find(b"\r\n\r\n")) < 0:
        count = connection.recv_into(buffer[have:4096])
        if not count:
            raise ConnectionError("closed in the middle of an answer")
        have += count
    head = bytes(buffer[:end]).lower()
    if not head.startswith(b"http/1.1 200"):
        raise ConnectionError(f"not answered with 200: {head!r}")
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    left = length - (have - end - 4)
    while left:
        count = connection.recv_into(buffer, min(left, _BUFFER_BYTES))
        if not count:
            raise ConnectionError("closed in the middle of a body")
        left -= count
    return length


def _main() -> None:
    port, path, token, connections, seconds, pause = sys.argv[1:]
    authorization = "" if token == "-" else f"Authorization: Bearer {token}\r\n"
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nAccept: */*\r\n{authorization}\r\n".encode()
    began = time.monotonic()
    clients = [
        _Client(int(port), request, began + float(seconds), float(pause)) for _ in range(int(connections))
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    times = sorted(taken for client in clients for taken in client.times)
    load = Load(
        requests=len(times),
        bytes=sum(client.bytes for client in clients),
        seconds=time.monotonic() - began,
        median=statistics.median(times),
        p99=times[len(times) * (_PERCENT - 1) // _PERCENT],
    )
    print(json.dumps(load.__dict__))


if __name__ == "__main__":
    _main()

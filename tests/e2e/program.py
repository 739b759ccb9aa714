"""pacsbridge as a process of its own: what a signal does to it, what it says and with which code it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from tests.peers import HOST, Process, free_port, run

if TYPE_CHECKING:
    from pacsbridge.config import Config

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "pacsbridge")
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def write_config(folder: Path, config: Config, **sections: dict[str, Any]) -> Path:
    """Write a configuration as YAML, with other values of some sections and a free HTTP port."""
    values = json.loads(config.model_dump_json())
    values["server"] |= {"port": free_port(), "log_format": "json"}
    values["database"] = {"url": config.database.url.get_secret_value()}
    for section, keys in sections.items():
        values[section] |= keys
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


class Program:
    """A running ``pacsbridge serve``."""

    def __init__(self, config: Path, *, name: str = "serve") -> None:
        self.config = config
        self.port = int(yaml.safe_load(config.read_text())["server"]["port"])
        self.url = f"http://{HOST}:{self.port}"
        self._log = config.parent / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*COMMAND, "serve", "--config", str(self.config)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | ENVIRONMENT,
            )  # fmt: skip
        watched = Process([*COMMAND], self._log)
        watched._process = self._process
        watched.wait_until_listening(self.port, seconds=60)
        return self

    def __exit__(self, *_: object) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        """Wait for its end, and give its exit code."""
        assert self._process is not None
        return self._process.wait(seconds)

    def output(self) -> str:
        return self._log.read_text(errors="replace")


def run_program(*arguments: str | Path, timeout: float = 60) -> tuple[int, str]:
    """Run a command of pacsbridge to its end: exit code and all that it said."""
    environment = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    done = run("env", *environment, *COMMAND, *arguments, timeout=timeout)
    return done.returncode, done.stdout

import os
from pathlib import Path

import pytest

from tests.peers import find_program, require, run

ROOT = Path(__file__).parents[1]
COMMANDS = [
    path
    for folder in (ROOT / "scripts", ROOT / ".ci")
    for path in sorted(folder.iterdir())
    if path.is_file() and path.read_bytes().startswith(b"#!")
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.name)
def test_a_command_can_be_run(command: Path) -> None:
    assert os.access(command, os.X_OK)


@pytest.mark.parametrize("script", [ROOT / "scripts/test", ROOT / "scripts/demo", *ROOT.glob("scripts/*.sh")])
def test_a_script_is_valid_bash(script: Path) -> None:
    assert run(require("bash"), "-n", script).stdout == ""


def test_the_checks_are_the_command_that_developers_run() -> None:
    assert "scripts/test" in (ROOT / ".ci/run").read_text()


def in_bash(commands: str) -> str:
    return run(require("bash"), "-c", f"set -euo pipefail; cd {ROOT}; {commands}").stdout


def test_missing_peers_are_told_by_their_packages() -> None:
    missing = in_bash(". scripts/peers.sh; missing_packages").split()
    assert ("dcmtk" in missing) == (find_program("echoscu") is None)
    assert ("orthanc" in missing) == (find_program("Orthanc") is None)


def test_a_program_that_nobody_has_is_missing() -> None:
    missing = in_bash(". scripts/peers.sh; PEERS='sh:dash no-such-program:no-package'; missing_packages")
    assert "no-package" in missing.split()
    assert "dash" not in missing.split()


def test_missing_peers_are_installed_one_by_one_and_no_daemon_starts(tmp_path: Path) -> None:
    apt_get = tmp_path / "apt-get"
    apt_get.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{tmp_path}/policy; echo "policy $?" >> {tmp_path}/calls\n'
        'case "$*" in *no-such*) exit 100;; esac\n'
    )
    apt_get.chmod(0o755)
    said = in_bash(
        f". scripts/peers.sh; PATH={tmp_path}:$PATH; POLICY={tmp_path}/policy; DICOMWEB_PLUGIN=/; "
        "root_command() { :; }; PEERS='no-program-1:no-such no-program-2:other'; install_peers"
    )
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0].startswith("update")
    assert [call.split()[-1] for call in calls if call.startswith("install")] == ["no-such", "other"]
    assert "policy 101" in calls  # it forbids to start anything
    assert not (tmp_path / "policy").exists()
    assert "apt-get can't install no-such." in said
    assert "can't install other" not in said


def test_an_old_python_is_refused_in_words(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    said = in_bash(f". scripts/venv.sh; PATH={tmp_path}; find_python || true")
    assert "3.11" in said
    assert "PYTHON=" in said

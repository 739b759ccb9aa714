"""``pacsbridge user`` and ``pacsbridge db`` as the engineer runs them."""

from __future__ import annotations

import io
import logging
import sqlite3
from typing import TYPE_CHECKING

import pytest
import structlog

from pacsbridge.accounts import passwords
from pacsbridge.accounts.passwords import is_password_hash
from pacsbridge.cli import main
from tests.accounts.examples import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]

EMAIL = "jane@example.org"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command with a line typed in; give the exit code and what it wrote."""
    monkeypatch.setattr(passwords, "MEMORY_KIB", 8)
    config = tmp_path / "config.yaml"
    config.write_text(f"database:\n  url: sqlite:///{tmp_path / 'pacsbridge.db'}\n")
    monkeypatch.setenv("PACSBRIDGE_CONFIG", str(config))

    def run(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        code = main(arguments)
        written = capsys.readouterr()
        return code, written.out, written.err

    handlers, level = logging.root.handlers, logging.root.level
    yield run
    logging.root.handlers, logging.root.level = handlers, level
    structlog.reset_defaults()


def test_the_first_admin_and_a_users_life(run: Run) -> None:
    code, out, _ = run(
        "user", "add", "Jane@Example.org", "--role", "admin", "--name", "Jane", typed=f"{PASSWORD}\n"
    )
    assert (code, out) == (0, "Added jane@example.org as admin.\n")
    assert run("user", "assign", EMAIL, "--study", "1.2.3", "--accession", "A1") == (
        0,
        "May see:\nstudy 1.2.3\naccession number A1\n",
        "",
    )
    assert (
        run("user", "unassign", EMAIL, "--study", "1.2.3", "--accession", "A1")[1] == "May see nothing now.\n"
    )
    assert run("user", "password", EMAIL, typed="An0ther-Lantern\n")[0] == 0
    assert run("user", "disable", EMAIL)[0] == 0
    code, out, _ = run("user", "list", "JANE")
    assert code == 0
    assert EMAIL in out
    assert "disabled" in out
    assert run("user", "enable", EMAIL)[0] == 0
    assert "disabled" not in run("user", "list")[1]
    assert EMAIL not in run("user", "list", "nobody")[1]


def test_the_list_shows_all_users(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacsbridge.accounts.users.FOUND_AT_ONCE", 2)
    for letter in "abcde":
        run("user", "add", f"{letter}@example.org", typed=f"{PASSWORD}\n")
    assert run("user", "list")[1].count("@example.org") == 5


@pytest.mark.parametrize(
    ("arguments", "typed", "said"),
    [
        (("user", "add", "nobody"), PASSWORD, "That is not an email."),
        (("user", "add", "a@b.c"), "short", "at least 8 characters"),
        (("user", "add", "a@b.c"), "", "at least 8 characters"),
        (("user", "disable", "nobody@example.org"), "", "There is no such user."),
        (("user", "assign", "nobody@example.org", "--study", "1.2"), "", "There is no such user."),
        (("user", "assign", "nobody@example.org"), "", "--study UID or --accession NUMBER"),
        (("user", "assign", "a@b.c", "--accession", "A*"), "", "An accession number"),
        (("user", "hash"), "password1", "Choose another"),
    ],
)
def test_what_does_not_work_is_said_in_a_line(
    run: Run, arguments: tuple[str, ...], typed: str, said: str
) -> None:
    code, out, err = run(*arguments, typed=typed)
    assert (code, out) == (1, "")
    assert err.startswith("pacsbridge: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_password_never_comes_from_the_command_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("user", "add", "a@b.c", "--password", PASSWORD)
    assert caught.value.code == 2


def test_at_a_terminal_it_is_asked_for_twice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([PASSWORD, "something else"])
    monkeypatch.setattr("getpass.getpass", lambda _: next(answers))
    monkeypatch.setattr("pacsbridge.usercli._at_a_terminal", lambda: True)
    code, _, err = run("user", "add", "a@b.c")
    assert (code, "differ" in err) == (1, True)


def test_hash(run: Run) -> None:
    code, out, _ = run("user", "hash", typed=f"{PASSWORD}\n")
    assert code == 0
    assert is_password_hash(out.strip())


def test_db_upgrade(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        assert run("db", "upgrade") == (0, "The schema is up to date.\n", "")
    file = sqlite3.connect(tmp_path / "pacsbridge.db")
    assert file.execute("SELECT count(*) FROM users").fetchone() == (0,)
    file.close()


def test_a_database_that_can_not_be_used_is_a_configuration_error(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACSBRIDGE__DATABASE__URL", "oracle://x")
    code, _, err = run("db", "upgrade")
    assert (code, err.startswith("pacsbridge: database.url: ")) == (2, True)

"""The commands ``pacsbridge user`` and ``pacsbridge db``: what an engineer does with accounts from the shell."""

from __future__ import annotations

import asyncio
import getpass
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pacsbridge.accounts.audit import Actor
from pacsbridge.accounts.passwords import Passwords, check_password
from pacsbridge.accounts.shell import open_users
from pacsbridge.accounts.users import NewUser
from pacsbridge.accounts.values import SHELL, Role, valid_grants
from pacsbridge.config import load_config
from pacsbridge.db import upgrade
from pacsbridge.errors import InvalidParameter, MissingParameter
from pacsbridge.logs import set_up_logging

if TYPE_CHECKING:
    import argparse

    from pacsbridge.accounts.users import Users
    from pacsbridge.accounts.values import Grants
    from pacsbridge.config import Config

DONE = 0
ENGINEER = Actor("shell", "", SHELL)


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], config: argparse.ArgumentParser
) -> None:
    """Add ``user`` and ``db`` to the parser; ``config`` holds the option ``--config``."""
    user = commands.add_parser("user", help="add, list and change accounts")
    actions = user.add_subparsers(title="actions", required=True, metavar="ACTION")

    command = actions.add_parser("add", parents=[config], help="add a user; the password is asked for")
    command.add_argument("email")
    command.add_argument("--role", choices=[role.value for role in Role], default=Role.PATIENT.value)
    command.add_argument("--name", default="")
    command.add_argument(
        "--ref-doctor",
        default="",
        metavar="NAME",
        help="the referring physician's name, as in DICOM: Doe^Jane",
    )
    command.set_defaults(run=_run, action=_add)

    command = actions.add_parser("list", parents=[config], help="list users")
    command.add_argument("text", nargs="?", default="", help="part of an email or a name")
    command.set_defaults(run=_run, action=_list)

    for name, action, what in (
        ("disable", _disable, "refuse a user and end their sessions"),
        ("enable", _enable, "let a disabled user sign in again"),
        ("password", _password, "give a user a new password, which is asked for, and end their sessions"),
    ):
        command = actions.add_parser(name, parents=[config], help=what)
        command.add_argument("email")
        command.set_defaults(run=_run, action=action)

    for name, action, what in (
        ("assign", _assign, "let a user see studies"),
        ("unassign", _unassign, "take studies from a user"),
    ):
        command = actions.add_parser(name, parents=[config], help=what)
        command.add_argument("email")
        command.add_argument("--study", action="append", default=[], metavar="UID")
        command.add_argument("--accession", action="append", default=[], metavar="NUMBER")
        command.set_defaults(run=_run, action=action)

    command = actions.add_parser("hash", help="print a password's hash, for accounts.static_users")
    command.set_defaults(run=_hash)

    database = commands.add_parser("db", help="look after the database")
    actions = database.add_subparsers(title="actions", required=True, metavar="ACTION")
    command = actions.add_parser("upgrade", parents=[config], help="bring the schema up to date")
    command.set_defaults(run=_upgrade)


def _upgrade(options: argparse.Namespace) -> int:
    config = _config(options)
    upgrade(config.database.url.get_secret_value())
    _say("The schema is up to date.")
    return DONE


def _config(options: argparse.Namespace) -> Config:
    config = load_config(options.config)
    set_up_logging(config.server.model_copy(update={"log_level": "error"}))
    return config


def _hash(_options: argparse.Namespace) -> int:
    password = _asked_password()
    check_password(password)

    async def make() -> str:
        passwords = Passwords()
        try:
            return await passwords.hash(password)
        finally:
            passwords.close()

    _say(asyncio.run(make()))
    return DONE


def _run(options: argparse.Namespace) -> int:
    config = _config(options)

    async def act() -> None:
        async with open_users(config) as users:
            await options.action(users, options)

    asyncio.run(act())
    return DONE


async def _add(users: Users, options: argparse.Namespace) -> None:
    password = await asyncio.to_thread(_asked_password)
    new = NewUser(options.email, password, options.name, Role(options.role), options.ref_doctor)
    user = await users.add(new, ENGINEER)
    _say(f"Added {user.email} as {user.role}.")


async def _list(users: Users, options: argparse.Namespace) -> None:
    table = Table("email", "name", "role", "last sign-in", "", box=None, pad_edge=False)
    offset = 0
    while found := await users.find(options.text, offset=offset):
        for user in found:
            signed_in = f"{user.signed_in_at:%Y-%m-%d %H:%M} UTC" if user.signed_in_at else "never"
            table.add_row(
                user.email, user.name, user.role.value, signed_in, "disabled" if user.disabled_at else ""
            )
        offset += len(found)
    Console(highlight=False, markup=False).print(table)


async def _disable(users: Users, options: argparse.Namespace) -> None:
    user = await users.disable(options.email, ENGINEER)
    _say(f"{user.email} can't sign in any more.")


async def _enable(users: Users, options: argparse.Namespace) -> None:
    user = await users.enable(options.email, ENGINEER)
    _say(f"{user.email} can sign in again.")


async def _password(users: Users, options: argparse.Namespace) -> None:
    user = await users.get(options.email)
    await users.set_password(user.id, await asyncio.to_thread(_asked_password), ENGINEER)
    _say(f"{user.email} has a new password.")


async def _assign(users: Users, options: argparse.Namespace) -> None:
    _say(_told(await users.assign(options.email, _named(options), ENGINEER)))


async def _unassign(users: Users, options: argparse.Namespace) -> None:
    _say(_told(await users.unassign(options.email, _named(options), ENGINEER)))


def _named(options: argparse.Namespace) -> Grants:
    granted = valid_grants(tuple(options.study), tuple(options.accession))
    if not granted:
        raise MissingParameter("Name studies with --study UID or --accession NUMBER.")
    return granted


def _told(granted: Grants) -> str:
    lines = [f"study {uid}" for uid in granted.study_iuids]
    lines += [f"accession number {number}" for number in granted.accession_numbers]
    return "\n".join(["May see:", *lines] if lines else ["May see nothing now."])


def _asked_password() -> str:
    """Ask for a password twice at a terminal, or read one line: never from the command line, where all see it."""
    if not _at_a_terminal():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        raise InvalidParameter("The two passwords differ.")
    return password


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")

"""The commands; the only place that prints."""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import signal
import sys
import tempfile
import threading
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pacsbridge import __version__, democli, usercli
from pacsbridge.app import check_all, running_works, serve
from pacsbridge.config import Config, ConfigError, load_config
from pacsbridge.errors import PacsbridgeError
from pacsbridge.http.links import Purpose, make_link
from pacsbridge.http.names import patient_stem, safe_stem
from pacsbridge.http.parameters import distinct_accession_numbers
from pacsbridge.jobs.job import Kind, Stage
from pacsbridge.jobs.store import NoStore
from pacsbridge.jobs.threads import until_done
from pacsbridge.logs import set_up_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from pacsbridge.jobs.job import Job
    from pacsbridge.jobs.shelf import KeptDisc

DONE, FAILED, USAGE = 0, 1, 2

_LOOK_SECONDS = 0.1
_MEGABYTE = 1_000_000


class UsageError(Exception):
    """The command line can't be used."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code: 0 done, 1 failed, 2 usage or configuration."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ConfigError, UsageError) as error:
        _complain(str(error))
        return USAGE
    except PacsbridgeError as error:
        _complain(error.message)
        return FAILED
    except OSError as error:
        _complain(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        return FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        _complain("stopped")
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pacsbridge", description="Patient discs and images from a PACS.")
    parser.add_argument("--version", action="version", version=f"pacsbridge {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    config = argparse.ArgumentParser(add_help=False)
    config.add_argument(
        "--config", metavar="FILE", help="the YAML file (else PACSBRIDGE_CONFIG, else ./config.yaml)"
    )

    command = commands.add_parser("serve", parents=[config], help="run the service")
    command.add_argument("--no-db-upgrade", action="store_true", help="leave the database's schema as it is")
    command.set_defaults(run=_serve)
    command = commands.add_parser("check", parents=[config], help="try every dependency for real")
    command.set_defaults(run=_check)
    command = commands.add_parser("demo", help="run an embedded PACS with sample patients, and the service")
    command.add_argument("--port", type=int, default=8080, metavar="N", help="the HTTP port (8080)")
    command.add_argument(
        "--ohif", default="", metavar="DIR", help="a built OHIF (else ./ohif, if it is there)"
    )
    command.set_defaults(run=lambda options: democli.run_demo(options.port, options.ohif))
    command = commands.add_parser("iso", parents=[config], help="make a disc image")
    command.add_argument("accession_numbers", nargs="+", metavar="ACCESSION")
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write it (else named like a download)"
    )
    command.set_defaults(run=_iso)
    command = commands.add_parser("print", parents=[config], help="send studies to the CD publisher")
    command.add_argument("accession_numbers", nargs="+", metavar="ACCESSION")
    command.set_defaults(run=_print)
    command = commands.add_parser("link", parents=[config], help="print a signed link, as the HIS makes them")
    what = command.add_mutually_exclusive_group(required=True)
    for purpose in Purpose:
        what.add_argument(f"--{purpose}", dest="purpose", action="store_const", const=purpose)
    command.add_argument("--hours", type=float, default=24, metavar="N", help="how long it is good (24)")
    command.add_argument("accession_numbers", nargs="+", metavar="ACCESSION")
    command.set_defaults(run=_link)
    usercli.add_commands(commands, config)
    return parser


def _complain(message: str) -> None:
    print(f"pacsbridge: {message}", file=sys.stderr)


def _serve(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    set_up_logging(config.server)
    asyncio.run(serve(config, upgrade=not options.no_db_upgrade))
    return DONE


def _check(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    set_up_logging(config.server.model_copy(update={"log_level": "error"}))
    console = Console(highlight=False, soft_wrap=True)
    colors = {"ok": "green", "failed": "red", "off": "dim"}
    fine = True
    for check in asyncio.run(check_all(config)):
        console.print(f"[{colors[check.status]}]{check.status:<7}[/] {check.name:<22} ", end="")
        console.print(check.detail, markup=False)
        fine = fine and not (check.status == "failed" and check.required)
    return DONE if fine else FAILED


def _iso(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    set_up_logging(config.server.model_copy(update={"log_level": "error"}))
    numbers = _numbers(options)
    if options.output is not None:
        _check_output(options.output)
    return asyncio.run(_make_iso(config, numbers, options.output))


def _print(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    set_up_logging(config.server.model_copy(update={"log_level": "error"}))
    return asyncio.run(_send_print(config, _numbers(options)))


async def _send_print(config: Config, numbers: Sequence[str]) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    stop_on_signals()
    began = time.monotonic()
    async with running_works(config, NoStore()) as works:
        job = works.engine.submit(Kind.PRINT, numbers)
        async with _progress_shown(console, job):
            await works.engine.run(job)
    for note in job.notes:
        console.print(note, markup=False)
    console.print(
        f"sent to {config.publisher.ae_title}: {job.counts.sent} of {job.counts.received} instances, "
        f"{time.monotonic() - began:.1f} s"
    )
    return DONE


def _link(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    if not (config.auth.link_secret.get_secret_value() or config.auth.api_key.get_secret_value()):
        raise ConfigError("auth.link_secret: is empty, and so is auth.api_key: there is nothing to sign with")
    expires = int(time.time() + options.hours * 3600)
    print(
        make_link(config.auth, config.server.public_url, options.purpose, _numbers(options), expires=expires)
    )
    return DONE


def _numbers(options: argparse.Namespace) -> tuple[str, ...]:
    try:
        return distinct_accession_numbers(options.accession_numbers, "ACCESSION")
    except PacsbridgeError as error:
        raise UsageError(error.message) from None


async def _make_iso(config: Config, numbers: Sequence[str], output: Path | None) -> int:
    """Make the disc; the file's name goes to standard output, what is said of it to standard error."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    stop_on_signals()
    began = time.monotonic()
    async with running_works(config, NoStore()) as works:
        job = works.engine.submit(Kind.ISO, numbers)
        async with _progress_shown(console, job), works.engine.disc(job) as kept:
            path = output or Path(f"{_stem(numbers, kept)}.iso")
            cancelled = threading.Event()
            await until_done(partial(_write_whole, kept, path, cancelled), cancelled.set)
            disc = kept.disc
    console.print(
        f"{disc.studies} studies, {disc.series} series, {disc.instances} instances, "
        f"{disc.size / _MEGABYTE:,.1f} MB, {time.monotonic() - began:.1f} s"
    )
    for note in job.notes:
        console.print(note, markup=False)
    print(path)
    return DONE


def stop_on_signals() -> None:
    """Let SIGTERM end the running task as Ctrl-C does: by cancelling it, so that nothing is left behind."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel, "SIGTERM")


@asynccontextmanager
async def _progress_shown(console: Console, job: Job) -> AsyncIterator[None]:
    """Show a bar meanwhile; it is gone before anything else is said."""
    showing = asyncio.create_task(_show_progress(console, job))
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.wait({showing})


async def _show_progress(console: Console, job: Job) -> None:
    """Draw a bar until the job ends."""
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=1.0, counts="")
        while not job.state.final:
            counts = job.look()
            done = counts.sent if job.stage is Stage.SENDING else counts.received
            told = f"{done} of {counts.expected}" if counts.expected else f"{done}"
            progress.update(bar, completed=job.progress, description=str(job.stage), counts=told)
            await asyncio.sleep(_LOOK_SECONDS)


def _stem(numbers: Sequence[str], kept: KeptDisc) -> str:
    by_name = patient_stem(kept.disc.patient_name) if len(numbers) > 1 else ""
    return by_name or safe_stem(numbers[0]) or "disc"


def _write_whole(kept: KeptDisc, path: Path, cancelled: threading.Event) -> None:
    """Write the image beside its name and rename it: nobody finds half an image."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".pacsbridge-", delete=False) as file:
        try:
            file.writelines(_until(cancelled, kept.disc.read_chunks()))
            file.flush()
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise


def _until(cancelled: threading.Event, chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if cancelled.is_set():
            raise InterruptedError(errno.EINTR, "stopped")
        yield chunk


def _check_output(output: Path) -> None:
    """Find out before the images are retrieved whether the file can be written."""
    if output.is_dir():
        raise UsageError(f"--output: {output} is a folder; name a file")
    if not output.parent.is_dir():
        raise UsageError(f"--output: there is no folder {output.parent}")
    if not os.access(output.parent, os.W_OK):
        raise UsageError(f"--output: the folder {output.parent} can't be written")

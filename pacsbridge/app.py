"""Puts the application together: what exists, in what order it starts and stops."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from pacsbridge import __version__, checks
from pacsbridge.accounts.policy import AccessPolicy
from pacsbridge.accounts.service import Accounts
from pacsbridge.accounts.values import Role
from pacsbridge.db import Database, upgrade_in_thread
from pacsbridge.dicomweb.catalog import DicomwebCatalog
from pacsbridge.dicomweb.service import running_dicomweb
from pacsbridge.dicomweb.trail import StudyTrail
from pacsbridge.dimse.pool import PortPool
from pacsbridge.dimse.scp import StorageScp
from pacsbridge.dimse.tls import check_files
from pacsbridge.errors import DatabaseUnavailable
from pacsbridge.his.patients import PatientApi
from pacsbridge.http import (
    admin,
    admin_pages,
    api_page,
    auth,
    desk,
    dicomweb,
    discs,
    health,
    identity,
    jobs,
    login,
    metrics,
    middleware,
    openapi,
    pages,
    shortlinks,
    viewer,
)
from pacsbridge.http.catalog import PacsCatalog
from pacsbridge.http.protocol import JsonRunner
from pacsbridge.http.services import SERVICES, Services, Works
from pacsbridge.jobs.discs import DiscMaker
from pacsbridge.jobs.engine import Engine
from pacsbridge.jobs.prints import Printer
from pacsbridge.jobs.receive import Receiving
from pacsbridge.jobs.shelf import Shelf
from pacsbridge.jobs.spool import Spool
from pacsbridge.jobs.store import JobStore
from pacsbridge.media.decoders import Decoders
from pacsbridge.media.disc import DiscOptions, Viewer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from pacsbridge.config import Config
    from pacsbridge.dicomweb.service import Dicomweb
    from pacsbridge.jobs.store import Store

log = structlog.get_logger(__name__)

#: What was cancelled at the end may take so long to see it, in seconds.
_CANCEL_SECONDS = 5.0
#: How long a thread that makes a disc keeps the interpreter when others want it; Python's own is 5 ms, and an
#: answer needs it several times.
_SWITCH_SECONDS = 0.001
#: Threads for blocking work: queries, moves, reading images. They mostly wait.
_THREADS = 64


@asynccontextmanager
async def running_works(config: Config, store: Store) -> AsyncIterator[Works]:
    """Start everything that makes discs, and stop it in the opposite order.

    Raises
    ------
    ConfigError
        The viewer folder can't go on a disc, a certificate can't be used.
    OSError
        The spool can't be written, a port of the pool can't be bound.
    """
    check_files(config)
    media = config.media
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "worker"))
    options = DiscOptions(
        profile=media.profile,
        capacity_bytes=media.capacity_bytes,
        viewer=_viewer(config),
        institution=media.institution,
        allow_mixed_patients=media.allow_mixed_patients,
        software=f"pacsbridge {__version__}",
    )
    spool = Spool(media.spool_dir, media.spool_max_bytes)
    spool.open()
    shelf = Shelf(spool, media.keep_minutes * 60)
    scp = StorageScp(config.storage_scp, fast=config.dimse.fast)
    ports = config.storage_scp.ports
    capacity = len(ports) + config.storage_scp.queue_length
    pool = PortPool(scp, ports, capacity)
    receiving = Receiving(config, pool)
    decoders = Decoders()
    engine = Engine(
        DiscMaker(receiving, options, spool, shelf, decoders),
        Printer(config, receiving, spool, decoders),
        shelf,
        store,
        capacity,
    )
    scp.start()
    try:
        await engine.start()
        yield Works(engine=engine, pool=pool, scp=scp, spool=spool)
    finally:
        await engine.close()
        await asyncio.to_thread(scp.stop)


@asynccontextmanager
async def running_services(config: Config, *, upgrade: bool = True) -> AsyncIterator[Services]:
    """Start all that the HTTP server calls.

    Parameters
    ----------
    upgrade
        Whether the database's schema is brought up to date.
    """
    url = config.database.url.get_secret_value()
    async with AsyncExitStack() as stack:
        database = Database(url)
        stack.push_async_callback(database.close)
        store = JobStore(database, url, keep_days=config.database.keep_jobs_days, upgrade=upgrade)
        await stack.enter_async_context(store)
        patients = await stack.enter_async_context(PatientApi(config.patient_api))
        accounts = await stack.enter_async_context(running_accounts(config, database, upgrade=upgrade))
        policy = access_policy(config)
        dicomweb = await stack.enter_async_context(running_dicomweb(config, policy))
        works = await stack.enter_async_context(running_works(config, store))
        health = _checks(config, works, patients, store, dicomweb)
        stack.push_async_callback(health.close)
        yield Services(
            config=config,
            works=works,
            patients=patients,
            checks=health,
            accounts=accounts,
            catalog=PacsCatalog(config.pacs) if dicomweb is None else DicomwebCatalog(dicomweb.upstream),
            dicomweb=dicomweb,
            study_trail=StudyTrail(accounts.trail) if accounts else None,
            policy=policy,
        )


def access_policy(config: Config) -> AccessPolicy:
    """Make the policy of the configuration."""
    section = config.dicomweb
    return AccessPolicy(
        doctor_scope=section.doctor_scope,
        store_roles=map(Role, section.store_roles),
        delete_roles=map(Role, section.delete_roles),
    )


@asynccontextmanager
async def running_accounts(
    config: Config, database: Database, *, upgrade: bool = True
) -> AsyncIterator[Accounts | None]:
    """Start the accounts where the configuration has a secret for them, or a proxy that needs them.

    A database that is away stops nothing else: whoever signs in then is told so.

    Raises
    ------
    ConfigError
        ``jwt_secret`` is missing though the proxy is on, or can't protect anything; a static user can't be
        used.
    """
    if not config.accounts.jwt_secret.get_secret_value() and config.dicomweb.upstream == "off":
        yield None
        return
    accounts = Accounts(config.accounts, database)
    if upgrade:
        try:
            await upgrade_in_thread(config.database.url.get_secret_value())
        except DatabaseUnavailable as error:
            log.warning("accounts wait for the database", reason=error.message)
    if not config.auth.enabled:
        log.warning("anybody who reaches the port can make short links: switch auth.enabled on")
    accounts.start()
    try:
        yield accounts
    finally:
        await accounts.close()


def make_app(services: Services) -> web.Application:
    """Make the HTTP application over running services."""
    app = web.Application(
        middlewares=[
            middleware.identify,
            middleware.errors_as_json,
            middleware.cors,
            pages.errors_as_pages,
        ],
        client_max_size=1 << 20,
    )
    app[SERVICES] = services
    app.on_response_prepare.append(middleware.add_headers)
    app.on_response_prepare.append(identity.add_cookie)
    health.add_routes(app)
    metrics.add_routes(app)
    discs.add_routes(app, legacy_php_routes=services.config.server.legacy_php_routes)
    jobs.add_routes(app)
    for resource in (
        desk,
        pages,
        auth,
        login,
        shortlinks,
        admin,
        admin_pages,
        dicomweb,
        openapi,
        api_page,
        viewer,
    ):
        resource.add_routes(app)
    return app


async def check_all(config: Config) -> list[checks.Check]:
    """Try every dependency for real, as ``pacsbridge check`` does."""
    ports = config.storage_scp.ports
    async with PatientApi(config.patient_api) as patients:
        probes: dict[str, Callable[[], Awaitable[str | None]]] = {
            "pacs": lambda: checks.probe_pacs(config),
            "pacs queries": lambda: checks.probe_query(config),
            **{f"storage_scp {port.ae_title}": partial(checks.probe_port, config, port) for port in ports},
            **{
                f"destination {port.ae_title}": partial(checks.probe_destination, config, port)
                for port in ports
            },
            "spool": lambda: checks.probe_spool(config),
            "viewer": lambda: _load_viewer(config),
            "publisher": lambda: checks.probe_publisher(config),
            "patient_api": lambda: checks.probe_patient_api(patients),
            "database": lambda: checks.probe_database(config.database.url.get_secret_value()),
            "dicomweb": lambda: _check_dicomweb(config),
        }
        return [await checks.probe(name, ask) for name, ask in probes.items()]


@asynccontextmanager
async def running_server(services: Services) -> AsyncIterator[int]:
    """Listen, and yield the port.

    At the end new requests are refused, running ones may go on for ``shutdown_timeout_seconds``, what is left
    then is cancelled.

    Raises
    ------
    OSError
        The HTTP port can't be bound.
    """
    server = services.config.server
    runner = JsonRunner(
        make_app(services),
        handle_signals=False,
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=server.idle_timeout_seconds,
        shutdown_timeout=_CANCEL_SECONDS,
    )
    await runner.setup()
    try:
        await _listen(runner, server.host, server.port)
        port = int(runner.addresses[0][1])
        log.info("listening", host=server.host, port=port, version=__version__)
        yield port
        log.info("stopping")
    finally:
        services.draining = True
        await runner.stop_listening()
        seconds = server.shutdown_timeout_seconds
        await asyncio.gather(_finish(services.handling, seconds), services.engine.finish_orders(seconds))
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(
            error.errno, f"can't listen on {host}:{port}: {reason}. Stop what uses it, or change server.port."
        ) from None


async def _finish(handling: set[asyncio.Future[Any]], seconds: float) -> None:
    """Let what is being answered end by itself for some seconds, and cancel the rest."""
    # Not aiohttp's own waiting: it waits once more, as long, before it cancels.
    end = time.monotonic() + seconds
    while handling and (left := end - time.monotonic()) > 0:
        await asyncio.wait(set(handling), timeout=left)
    if handling:
        log.warning("what was still being answered is cut off", requests=len(handling))
    cut_off = set(handling)
    for task in cut_off:
        task.cancel()
    if cut_off:
        await asyncio.wait(cut_off, timeout=_CANCEL_SECONDS)


async def serve(
    config: Config, *, upgrade: bool = True, on_start: Callable[[Services], Awaitable[None]] | None = None
) -> None:
    """Run the service until SIGTERM or SIGINT; `on_start` is called once it listens."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running_services(config, upgrade=upgrade) as services, running_server(services):
        _answer_quickly_while_threads_work()
        if on_start is not None:
            await on_start(services)
        await stop.wait()
    log.info("stopped")


def _answer_quickly_while_threads_work() -> None:
    """Let no thread keep the interpreter from the event loop for long; see docs/performance.md, P9."""
    gc.collect()
    gc.freeze()  # what the start made stays: a full collection would walk it, 65 ms in which nobody is answered
    sys.setswitchinterval(_SWITCH_SECONDS)


def _checks(
    config: Config, works: Works, patients: PatientApi, store: JobStore, proxy: Dicomweb | None
) -> checks.Checks:
    async def storage_scp() -> str:
        if not works.scp.running:
            raise checks.ProbeFailed("a port is no longer listened on; restart the service")
        return f"{len(config.storage_scp.ports)} ports, {works.pool.in_use} in use, {works.pool.waiting} wait"

    async def database() -> str:
        if store.problem is not None:
            raise checks.ProbeFailed(store.problem)
        return "answers"

    async def dicomweb() -> str | None:
        return None if proxy is None else await proxy.check()

    return checks.Checks(
        {
            "pacs": lambda: checks.probe_pacs(config),
            "storage_scp": storage_scp,
            "spool": lambda: checks.probe_spool(config),
            "publisher": lambda: checks.probe_publisher(config),
            "patient_api": lambda: checks.probe_patient_api(patients),
            "database": database,
            "dicomweb": dicomweb,
        }
    )


async def _check_dicomweb(config: Config) -> str | None:
    async with running_dicomweb(config, access_policy(config)) as proxy:
        return None if proxy is None else await proxy.check(new_token=True)


def _viewer(config: Config) -> Viewer | None:
    return Viewer.load(Path(config.media.viewer_dir)) if config.media.viewer_dir else None


async def _load_viewer(config: Config) -> str | None:
    viewer = await asyncio.to_thread(_viewer, config)
    return None if viewer is None else f"{config.media.viewer_dir} fits on a disc"

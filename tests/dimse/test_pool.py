"""Leasing ports: first come, first served, with the place told, and nothing lost on a cancellation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pacsbridge.config import ScpPort
from pacsbridge.dimse.inbox import Inbox
from pacsbridge.dimse.pool import PortPool
from pacsbridge.dimse.scp import StorageScp
from pacsbridge.errors import Busy
from tests.dimse.support import scp_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Ports:
    """A Storage SCP that only notes what is attached."""

    def __init__(self) -> None:
        self.attached: dict[int, Inbox] = {}

    def attach(self, port: ScpPort, inbox: Inbox) -> None:
        assert port.port not in self.attached
        self.attached[port.port] = inbox

    def detach(self, port: ScpPort) -> None:
        self.attached.pop(port.port, None)


@pytest.fixture
def ports() -> Ports:
    return Ports()


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path, ["1.2.3"])


def make_pool(ports: Ports, count: int, queue_length: int = 10) -> PortPool:
    entries = [ScpPort(port=1000 + number, ae_title=f"P{number}") for number in range(count)]
    return PortPool(ports, entries, queue_length)  # type: ignore[arg-type]  # a stand-in for StorageScp


class Job:
    """Leases a port until it is told to end."""

    def __init__(self, pool: PortPool, inbox: Inbox, on_place: Callable[[int], None] | None = None) -> None:
        self.places: list[int] = []
        self.port: ScpPort | None = None
        self._end = asyncio.Event()
        self.task = asyncio.create_task(self._run(pool, inbox, on_place or self.places.append))

    async def _run(self, pool: PortPool, inbox: Inbox, on_place: Callable[[int], None]) -> None:
        async with pool.lease(inbox, on_place=on_place) as port:
            self.port = port
            await self._end.wait()

    async def end(self) -> None:
        self._end.set()
        await self.task
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_leases_and_gives_back(ports: Ports, inbox: Inbox) -> None:
    pool = make_pool(ports, 2)
    async with pool.lease(inbox) as first, pool.lease(inbox) as second:
        assert first != second
        assert set(ports.attached) == {first.port, second.port}
        assert ports.attached[first.port] is inbox
        assert (pool.in_use, pool.waiting) == (2, 0)
    assert ports.attached == {}
    assert pool.in_use == 0


async def test_a_job_that_fails_gives_its_port_back(ports: Ports, inbox: Inbox) -> None:
    pool = make_pool(ports, 1)
    with pytest.raises(RuntimeError):
        async with pool.lease(inbox):
            raise RuntimeError
    assert ports.attached == {}
    assert pool.in_use == 0


async def test_waits_in_line_and_is_told_its_place(ports: Ports, inbox: Inbox) -> None:
    pool = make_pool(ports, 1)
    jobs = [Job(pool, inbox) for _ in range(4)]
    await settle()
    assert [job.port is not None for job in jobs] == [True, False, False, False]
    assert (pool.in_use, pool.waiting) == (1, 3)
    for number, job in enumerate(jobs):
        assert job.port is not None, f"job {number} is next"
        await job.end()
    assert [job.places for job in jobs] == [[], [1], [2, 1], [3, 2, 1]]
    assert (pool.in_use, pool.waiting) == (0, 0)


async def test_nobody_overtakes(ports: Ports, inbox: Inbox) -> None:
    """A port that is handed over belongs to who waited, even before he has woken up."""
    pool = make_pool(ports, 1)
    async with pool.lease(inbox):
        second = Job(pool, inbox)
        await settle()
    third = Job(pool, inbox)
    await settle()
    assert second.port is not None
    assert third.port is None
    await second.end()
    await third.end()


async def test_is_busy_when_the_queue_is_full(ports: Ports, inbox: Inbox) -> None:
    pool = make_pool(ports, 1, queue_length=1)
    jobs = [Job(pool, inbox) for _ in range(2)]
    await settle()
    with pytest.raises(Busy) as caught:
        async with pool.lease(inbox):
            pytest.fail("there was no port")
    assert caught.value.retry_after
    for job in jobs:
        await job.end()
    async with pool.lease(inbox):
        assert pool.in_use == 1


async def test_no_queue_at_all(ports: Ports, inbox: Inbox) -> None:
    pool = make_pool(ports, 1, queue_length=0)
    async with pool.lease(inbox):
        with pytest.raises(Busy):
            async with pool.lease(inbox):
                pytest.fail("there was no port")


async def test_who_gives_up_leaves_the_queue(ports: Ports, inbox: Inbox) -> None:
    pool = make_pool(ports, 1)
    jobs = [Job(pool, inbox) for _ in range(4)]
    await settle()
    jobs[2].task.cancel()
    await asyncio.wait({jobs[2].task})
    assert jobs[3].places == [3, 2]
    assert pool.waiting == 2
    for job in (jobs[0], jobs[1], jobs[3]):
        await job.end()
    assert pool.in_use == 0


async def test_a_port_that_comes_with_the_cancellation_goes_on(ports: Ports, inbox: Inbox) -> None:
    pool = make_pool(ports, 1)
    async with pool.lease(inbox):
        jobs = [Job(pool, inbox) for _ in range(2)]
        await settle()
    jobs[0].task.cancel()  # the port is handed to this job, which has not woken up yet
    await asyncio.wait({jobs[0].task})
    await settle()
    assert jobs[0].port is None
    assert jobs[1].port is not None
    await jobs[1].end()
    assert (pool.in_use, pool.waiting) == (0, 0)
    assert ports.attached == {}


async def test_a_listener_that_fails_holds_nobody_up(ports: Ports, inbox: Inbox) -> None:
    def fail(_place: int) -> None:
        raise RuntimeError

    pool = make_pool(ports, 1)
    jobs = [Job(pool, inbox), Job(pool, inbox, fail), Job(pool, inbox)]
    await settle()
    for job in jobs:
        assert job.port is not None
        await job.end()


async def test_works_with_the_storage_scp(inbox: Inbox) -> None:
    config = scp_config()
    pool = PortPool(StorageScp(config), config.ports, config.queue_length)
    async with pool.lease(inbox) as port:
        assert port == config.ports[0]
    async with pool.lease(inbox):
        pass

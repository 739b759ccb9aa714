"""The engine: joined, kept, cancelled, bounded. The work itself is a fake here; tests/e2e has the real one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from pacsbridge.errors import Busy, NoDicomData, PacsbridgeError
from pacsbridge.jobs.engine import Engine
from pacsbridge.jobs.job import Job, Kind, State
from pacsbridge.jobs.shelf import KeptDisc, Shelf
from pacsbridge.jobs.spool import Spool
from pacsbridge.jobs.store import NoStore

if TYPE_CHECKING:
    from pathlib import Path

    from pacsbridge.jobs.discs import DiscMaker
    from pacsbridge.jobs.prints import Printer


class Maker:
    """Makes discs of nothing: `gate` holds them back, `failure` spoils them."""

    def __init__(self, spool: Spool, shelf: Shelf) -> None:
        self.spool, self.shelf = spool, shelf
        self.gate = asyncio.Event()
        self.failure: Exception | None = None
        self.made: list[tuple[str, ...]] = []
        self.cancelled = self.settled = 0

    async def make(self, job: Job) -> KeptDisc:
        self.made.append(job.accession_numbers)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            await asyncio.sleep(0.02)  # as a C-MOVE that is cancelled takes its time
            self.settled += 1
            raise
        if self.failure:
            raise self.failure
        return self.shelf.put(cast("Any", object()), self.spool.folder())


@pytest.fixture
async def maker(tmp_path: Path) -> Maker:
    spool = Spool(tmp_path, 1000)
    spool.open()
    return Maker(spool, Shelf(spool, 60))


@pytest.fixture
def engine(maker: Maker) -> Engine:
    return Engine(cast("DiscMaker", maker), cast("Printer", maker), maker.shelf, NoStore(), capacity=2)


async def read(engine: Engine, *numbers: str) -> KeptDisc:
    async with engine.disc(engine.submit(Kind.ISO, numbers)) as kept:
        return kept


async def test_the_same_disc_is_made_once(engine: Engine, maker: Maker) -> None:
    readers = [
        asyncio.create_task(read(engine, *numbers)) for numbers in (["A", "B"], ["B", "A"], ["A", "B"])
    ]
    await asyncio.sleep(0.01)
    maker.gate.set()
    discs = await asyncio.gather(*readers)
    assert discs[0] is discs[1] is discs[2] is await read(engine, "A", "B")
    assert maker.made == [("A", "B")]


async def test_a_disc_that_is_gone_is_made_again(engine: Engine, maker: Maker) -> None:
    maker.gate.set()
    first = await read(engine, "A")
    maker.shelf.clear()
    assert await read(engine, "A") is not first
    assert len(maker.made) == 2


async def test_a_job_ends_when_the_last_who_waits_leaves(engine: Engine, maker: Maker) -> None:
    readers = [asyncio.create_task(read(engine, "A")) for _ in range(2)]
    await asyncio.sleep(0.01)
    readers[0].cancel()
    await asyncio.sleep(0.01)
    assert maker.cancelled == 0
    readers[1].cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await asyncio.sleep(0.01)
    assert maker.cancelled == 1
    await asyncio.gather(*(job.finished.wait() for job in engine.jobs))
    assert [job.state for job in engine.jobs] == [State.CANCELLED]


async def test_a_job_that_is_cancelled_twice_still_ends_in_order(engine: Engine, maker: Maker) -> None:
    """A second click, or the end of the service, does not break off the waiting for the PACS to obey."""
    job = engine.submit(Kind.ISO, ["A"])
    await asyncio.sleep(0.01)
    engine.cancel(job)
    await asyncio.sleep(0)
    engine.cancel(job)
    await engine.close()
    assert (maker.cancelled, maker.settled) == (1, 1)


async def test_a_job_that_is_being_cancelled_is_not_joined(engine: Engine, maker: Maker) -> None:
    job = engine.submit(Kind.ISO, ["A"])
    await asyncio.sleep(0)
    engine.cancel(job)
    assert engine.submit(Kind.ISO, ["A"]) is not job


async def test_a_kept_job_goes_on_alone(engine: Engine, maker: Maker) -> None:
    job = engine.submit(Kind.ISO, ["A"], keep=True)
    reader = asyncio.create_task(read(engine, "A"))
    await asyncio.sleep(0.01)
    reader.cancel()
    maker.gate.set()
    await job.finished.wait()
    assert job.state is State.DONE
    assert job.progress == 1.0


async def test_everyone_who_waits_gets_the_failure(engine: Engine, maker: Maker) -> None:
    maker.failure = NoDicomData("nothing there")
    readers = [asyncio.create_task(read(engine, "A")) for _ in range(2)]
    await asyncio.sleep(0.01)
    maker.gate.set()
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(result) for result in results] == [NoDicomData, NoDicomData]
    maker.failure = None
    assert await read(engine, "A")


async def test_a_fault_of_ours_is_an_error_without_details(engine: Engine, maker: Maker) -> None:
    maker.failure = KeyError("DOE^JANE")
    maker.gate.set()
    with pytest.raises(PacsbridgeError) as caught:
        await read(engine, "A")
    assert caught.value.status == 500
    assert "DOE" not in str(caught.value)


async def test_too_many_unfinished_jobs_are_refused(engine: Engine, maker: Maker) -> None:
    engine.submit(Kind.ISO, ["A"])
    engine.submit(Kind.ISO, ["B"])
    with pytest.raises(Busy) as caught:
        engine.submit(Kind.ISO, ["C"])
    assert caught.value.retry_after
    engine.submit(Kind.ISO, ["A"])
    await engine.close()


async def test_close_cancels_and_clears(engine: Engine, maker: Maker) -> None:
    await engine.start()
    maker.gate.set()
    await read(engine, "A")
    maker.gate.clear()
    engine.submit(Kind.ISO, ["B"])
    await asyncio.sleep(0.01)
    await engine.close()
    assert maker.cancelled == 1
    assert list(maker.spool.root.iterdir()) == []
    with pytest.raises(Busy):
        engine.submit(Kind.ISO, ["C"])


async def test_a_disc_kept_for_no_time_is_there_for_all_who_waited(tmp_path: Path) -> None:
    """However often the shelf is swept meanwhile."""
    spool = Spool(tmp_path, 1000)
    spool.open()
    shelf = Shelf(spool, 0)
    maker = Maker(spool, shelf)
    engine = Engine(cast("DiscMaker", maker), cast("Printer", maker), shelf, NoStore(), capacity=2)
    finish = Job.end

    def end_and_sweep(job: Job, *arguments: Any) -> None:
        finish(job, *arguments)
        shelf.sweep()

    readers = [asyncio.create_task(read(engine, "A")) for _ in range(3)]
    await asyncio.sleep(0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "end", end_and_sweep)
        maker.gate.set()
        discs = await asyncio.gather(*readers)
    assert discs[0] is discs[1] is discs[2]
    assert maker.made == [("A",)]
    await asyncio.gather(*(job.task for job in engine.jobs if job.task))
    assert list(tmp_path.iterdir()) == []

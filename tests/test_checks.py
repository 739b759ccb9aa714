"""Health: probes are asked seldom, and nobody who looks often waits for them."""

from __future__ import annotations

import asyncio

import pytest

from pacsbridge import checks
from pacsbridge.checks import Checks, ProbeFailed


class Probe:
    """A dependency that can be slow, and can be broken."""

    def __init__(self) -> None:
        self.asked = 0
        self.broken = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self) -> str:
        self.asked += 1
        await self.may_answer.wait()
        if self.broken:
            raise ProbeFailed("it is broken")
        return "answers"


@pytest.fixture
async def probe() -> Probe:
    return Probe()


async def test_those_who_ask_at_once_share_one_report(probe: Probe) -> None:
    made = Checks({"pacs": probe})
    reports = await asyncio.gather(*(made.report() for _ in range(5)))
    assert probe.asked == 1
    assert all(report.ok for report in reports)
    await made.report()
    assert probe.asked == 1


async def test_nobody_waits_for_a_probe_while_there_is_a_report(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Checks({"pacs": probe})
    await made.report()
    monkeypatch.setattr(checks, "_FRESH_SECONDS", 0.0)
    probe.broken = True
    probe.may_answer.clear()
    async with asyncio.timeout(1):
        assert (await made.report()).ok
        assert (await made.report()).ok
    probe.may_answer.set()
    await asyncio.sleep(0.05)
    assert probe.asked == 2
    assert not (await made.report()).ok
    await made.close()


async def test_an_old_report_is_given_to_nobody(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Checks({"pacs": probe})
    await made.report()
    monkeypatch.setattr(checks, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(checks, "_OLD_SECONDS", 0.0)
    probe.broken = True
    report = await made.report()
    assert [(check.status, check.detail) for check in report.checks] == [("failed", "it is broken")]
    assert not report.ready


async def test_one_who_leaves_takes_the_report_from_nobody(probe: Probe) -> None:
    made = Checks({"pacs": probe})
    probe.may_answer.clear()
    leaver, stayer = asyncio.create_task(made.report()), asyncio.create_task(made.report())
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    probe.may_answer.set()
    assert (await stayer).ok


async def test_closing_ends_a_probe_that_runs(probe: Probe) -> None:
    made = Checks({"pacs": probe})
    probe.may_answer.clear()
    waiting = asyncio.create_task(made.report())
    await asyncio.sleep(0)
    await made.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting

"""Blocking work in a thread, for a task that may be cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def until_done(work: Callable[[], T], stop: Callable[[], None]) -> T:
    """Run `work` in a thread. When the task is cancelled, call `stop` and wait for the thread all the same.

    So nothing that the task cleans up is still in use by the thread.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop()
        while not running.done():
            await asyncio.wait({running})
        if not running.cancelled():
            running.exception()  # no longer of interest, but asyncio wants it looked at
        raise

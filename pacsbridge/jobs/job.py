"""A job: what is asked for, how far it is, how it ended."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from pacsbridge import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacsbridge.errors import PacsbridgeError
    from pacsbridge.jobs.shelf import KeptDisc


class Kind(StrEnum):
    """What a job makes."""

    ISO = "iso"
    PRINT = "print"


class State(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def final(self) -> bool:
        """Whether nothing more happens."""
        return self not in {State.QUEUED, State.RUNNING}


class Stage(StrEnum):
    """What a running job is doing, in the order in which it does it."""

    FINDING = "finding"
    WAITING = "waiting"
    RECEIVING = "receiving"
    WRITING = "writing"
    SENDING = "sending"
    FINISHED = "finished"


#: The part of the whole at which each stage begins.
_BEGINS = {
    Stage.FINDING: 0.0,
    Stage.WAITING: 0.02,
    Stage.RECEIVING: 0.02,
    Stage.WRITING: 0.85,
    Stage.SENDING: 0.6,
    Stage.FINISHED: 1.0,
}
#: The stage that follows receiving.
_AFTER_RECEIVING = {Kind.ISO: Stage.WRITING, Kind.PRINT: Stage.SENDING}


@dataclass(frozen=True, slots=True)
class Counts:
    """Instances, and the bytes received; `expected` is None where the archive gives no totals."""

    expected: int | None = None
    received: int = 0
    sent: int = 0
    failed: int = 0
    bytes: int = 0


def _nobody(_job: Job) -> None:
    """Tell nobody."""


@dataclass(eq=False)
class Job:
    """One piece of long work. It belongs to the event loop's thread.

    Parameters
    ----------
    kind, accession_numbers
        What is asked for.
    keep
        Whether it goes on when nobody waits for it.
    """

    kind: Kind
    accession_numbers: tuple[str, ...]
    keep: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: State = State.QUEUED
    stage: Stage = Stage.FINDING
    place: int | None = None
    counts: Counts = Counts()
    error: PacsbridgeError | None = None
    disc: KeptDisc | None = None
    notes: tuple[str, ...] = ()
    requested_by: str = ""
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_at: datetime | None = None
    finished_at: datetime | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    task: asyncio.Task[None] | None = None
    on_change: Callable[[Job], None] = _nobody
    _meter: Callable[[], Counts] | None = None
    _written: float = 0.0
    _progress: float = 0.0
    _stage_began: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> tuple[Kind, frozenset[str]]:
        """What makes two jobs the same work."""
        return self.kind, frozenset(self.accession_numbers)

    def enter(self, stage: Stage) -> None:
        """Go on to a stage."""
        self.look()
        self._leave_stage()
        self.stage = stage
        self.place = None
        self.state = State.QUEUED if stage is Stage.WAITING else State.RUNNING
        if self.started_at is None and self.state is State.RUNNING:
            self.started_at = datetime.now(UTC)
        self.on_change(self)

    def waits(self, place: int) -> None:
        """Tell the place in the queue: 1 is next."""
        self.place = place

    def measure(self, meter: Callable[[], Counts]) -> None:
        """Give the callable that tells the counts; it is asked whenever somebody looks."""
        self._meter = meter

    def counted(self, counts: Counts) -> None:
        """Set the counts; nothing is measured any more. Safe from any thread."""
        self._meter = None
        self.counts = counts

    def wrote(self, part: float) -> None:
        """Tell how much of the disc is written, or of the order sent: 0 to 1. Safe from any thread."""
        self._written = part

    def look(self) -> Counts:
        """Bring the counts up to date and return them."""
        if self._meter is not None and not self.state.final:
            self.counts = self._meter()
        return self.counts

    @property
    def progress(self) -> float:
        """How far the job is: 0 to 1, never going back."""
        counts = self.look()
        if self.state is State.DONE:
            return 1.0
        now = _BEGINS[self.stage]
        if self.stage is Stage.RECEIVING and counts.expected:
            part = min(counts.received / counts.expected, 1.0)
            now += (_BEGINS[_AFTER_RECEIVING[self.kind]] - now) * part
        elif self.stage in {Stage.WRITING, Stage.SENDING}:
            now += (1 - now) * self._written
        self._progress = max(self._progress, now)
        return self._progress

    def end(self, state: State, error: PacsbridgeError | None = None) -> None:
        """Come to a final state; whoever waits is woken."""
        self.look()
        self._leave_stage()
        self._meter = None
        self.state = state
        if state is State.DONE:
            self.stage = Stage.FINISHED
        self.error = error
        self.place = None
        self.finished_at = datetime.now(UTC)
        self.finished.set()
        metrics.JOBS_ENDED.labels(self.kind, state).inc()
        self.on_change(self)

    def _leave_stage(self) -> None:
        now = time.monotonic()
        metrics.STAGE_SECONDS.labels(self.kind, self.stage).observe(now - self._stage_began)
        self._stage_began = now

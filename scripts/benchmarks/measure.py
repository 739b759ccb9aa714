"""What a measurement is: readings taken in turn, their medians, the ratio to a peer, whether a target is met."""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OURS = "pacsbridge"


@dataclass(frozen=True)
class Reading:
    """One round's result: `value` in the unit of its line, and the CPU seconds of the process that did it."""

    value: float
    cpu_seconds: float | None = None


@dataclass(frozen=True)
class Target:
    """What is to be reached: `limit` is a bound of the ratio to the peer, or of the value where there is no peer."""

    limit: float
    at_least: bool = False

    def met(self, figure: float) -> bool:
        """Tell whether a figure reaches it."""
        return figure >= self.limit if self.at_least else figure <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Parameters
    ----------
    row
        P1 to P9.
    work, unit
        What was done, and what a reading's value counts.
    ours
        Our readings; empty when it could not be measured, and then `note` says why.
    target
        None for what is told beside the targets.
    peer
        What it is compared with; empty when the target is a plain bound.
    theirs
        The peer's readings; None when it isn't installed.
    note
        What a reader has to know.
    """

    row: str
    work: str
    unit: str
    ours: tuple[Reading, ...]
    target: Target | None = None
    peer: str = ""
    theirs: tuple[Reading, ...] | None = ()
    note: str = ""

    @property
    def figure(self) -> float | None:
        """The ratio to the peer, or our value where there is none; None where one of them is missing."""
        if not self.ours or (self.peer and not self.theirs):
            return None
        own = median(self.ours)
        return own / median(self.theirs) if self.peer and self.theirs else own

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where nothing can be said."""
        return None if self.figure is None or self.target is None else self.target.met(self.figure)


def median(readings: tuple[Reading, ...]) -> float:
    """Give the median of the values."""
    return statistics.median(reading.value for reading in readings)


def median_cpu(readings: tuple[Reading, ...]) -> float | None:
    """Give the median of the CPU seconds, where they were taken."""
    known = [reading.cpu_seconds for reading in readings if reading.cpu_seconds is not None]
    return statistics.median(known) if known else None


@dataclass(frozen=True)
class Contender:
    """Something that is measured; at most `rounds` times where it is slow."""

    run: Callable[[], Reading]
    rounds: int = sys.maxsize


def in_turn(rounds: int, contenders: Mapping[str, Contender]) -> dict[str, tuple[Reading, ...]]:
    """Measure all of them in each round, one after the other, so that noise hits them alike."""
    readings: dict[str, list[Reading]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, contender in contenders.items():
            if number < contender.rounds:
                readings[name].append(contender.run())
                tell(f"{name}: {readings[name][-1].value:.3f}")
    return {name: tuple(taken) for name, taken in readings.items()}


def tell(text: str) -> None:
    """Say how far it is, on standard error."""
    print(f"    {text}", file=sys.stderr, flush=True)

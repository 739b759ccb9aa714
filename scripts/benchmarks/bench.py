"""What the rows share: a folder to work in, generated studies, one Orthanc that holds them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from scripts.benchmarks.data import CT, MR, Shape, Study, make
from scripts.benchmarks.measure import tell
from tests.orthanc import Orthanc

if TYPE_CHECKING:
    from pathlib import Path

#: The studies by their accession numbers.
STUDIES = {"CT": CT, "CT2": CT, "MR": MR}
_QUICK_FACTOR = 20


@dataclass
class Bench:
    """One run.

    Parameters
    ----------
    work
        A folder that is removed at the end.
    rounds
        How often each contender is measured.
    quick
        Whether everything is a fraction of its size: to see that it runs, not how fast.
    """

    work: Path
    rounds: int
    quick: bool = False
    _stack: ExitStack = field(default_factory=ExitStack)
    _studies: dict[str, Study] = field(default_factory=dict)
    _stored: set[str] = field(default_factory=set)
    _orthanc: Orthanc | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def folder(self, name: str) -> Path:
        """Give a folder to work in."""
        folder = self.work / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def scaled(self, count: int) -> int:
        """Give a count as it is, or a fraction of it in a quick run."""
        return max(2, count // _QUICK_FACTOR) if self.quick else count

    def study(self, name: str) -> Study:
        """Give one of `STUDIES`, made at the first call."""
        if name not in self._studies:
            self._studies[name] = self.make(name, STUDIES[name])
        return self._studies[name]

    def make(self, name: str, shape: Shape) -> Study:
        """Write a study."""
        scaled = Shape(shape.series, max(shape.series, self.scaled(shape.instances)), shape.pixels)
        return make(self.folder(f"study-{name}"), name, scaled)

    def orthanc(self) -> Orthanc:
        """Give the PACS, started at the first call."""
        if self._orthanc is None:
            self._orthanc = self._stack.enter_context(Orthanc(self.folder("orthanc")))
        return self._orthanc

    def stored(self, name: str) -> Study:
        """Give one of `STUDIES`, which the PACS holds then."""
        study = self.study(name)
        if name not in self._stored:
            tell(f"storing {name} in Orthanc")
            self.orthanc().upload(study.paths)
            self._stored.add(name)
        return study

"""README.TXT: what the disc is, for someone who has nothing but a text editor (PS3.10, IHE PDI)."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pacsbridge.media.readable import ascii_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pacsbridge.media.contents import Contents

_WIDTH = 76


class MissingSeries(Protocol):
    """A series of which not everything arrived, as the retrieval tells it.

    `expected` is None where the archive gives no total, `SeriesInstanceUID` where it names no series.
    """

    @property
    def StudyInstanceUID(self) -> str:
        """The study."""

    @property
    def SeriesInstanceUID(self) -> str | None:
        """The series."""

    @property
    def expected(self) -> int | None:
        """How many instances the archive has."""

    @property
    def received(self) -> int:
        """How many of them arrived."""


@dataclass(frozen=True, slots=True)
class Undecoded:
    """An instance that is on the disc as it came, although the profile wants it decoded.

    Parameters
    ----------
    path
        Where it is on the disc, such as ``DICOM/S0000001/I0000001``.
    reason
        Why, for a person; nothing of the patient.
    """

    path: str
    SOPInstanceUID: str
    TransferSyntaxUID: str
    reason: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the README and the pages say beside the contents."""

    institution: str
    created: datetime
    software: str
    profile: str
    file_set_id: str
    missing: Sequence[MissingSeries] = ()
    undecoded: Sequence[Undecoded] = ()
    has_viewer: bool = False


def readme(contents: Contents, facts: Facts) -> bytes:
    """Write README.TXT: ASCII, lines that end with CR LF, nothing that identifies the patient."""
    blocks = [
        _title(facts),
        _counts(contents),
        _opening(facts),
        _missing(contents, facts.missing),
        _undecoded(facts.undecoded),
        _technical(facts),
    ]
    lines = [line for block in blocks if block for line in [*block, ""]]
    return "".join(ascii_text(line) + "\r\n" for line in lines).encode("ascii")


def counted(count: int, singular: str, plural: str) -> str:
    """Write a number with its noun."""
    return f"{count} {singular if count == 1 else plural}"


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH)


def _title(facts: Facts) -> list[str]:
    who = [facts.institution, ""] if facts.institution else []
    return [
        *who,
        "DICOM disc with medical images",
        f"Made on {facts.created:%Y-%m-%d at %H:%M} by {facts.software}",
        f"Disc {facts.file_set_id}",
    ]


def _counts(contents: Contents) -> list[str]:
    return [
        "This disc holds "
        + ", ".join(
            (
                counted(len(contents.studies), "study", "studies"),
                counted(len(contents.series), "series", "series"),
                counted(len(contents.instances), "instance", "instances") + ".",
            )
        )
    ]


def _opening(facts: Facts) -> list[str]:
    lines = [
        "HOW TO OPEN IT",
        *_paragraph(
            "On any computer: open INDEX.HTM, in the top folder of the disc, with a web browser. It shows an "
            "overview with pictures. The pictures are previews and not meant for diagnosis."
        ),
    ]
    if facts.has_viewer:
        lines += _paragraph("The disc also holds a viewer program, in the top folder.")
    return lines + _paragraph(
        "Doctors: import the disc into a DICOM viewer or a PACS. The file DICOMDIR lists everything on it."
    )


def _missing(contents: Contents, missing: Sequence[MissingSeries]) -> list[str]:
    if not missing:
        return []
    lines = ["NOT COMPLETE", *_paragraph("The archive did not deliver everything. On this disc are only:")]
    return lines + [f"  {what_is_missing(contents, entry)}" for entry in missing]


def what_is_missing(contents: Contents, entry: MissingSeries) -> str:
    """Write one entry of what is missing, such as ``Series 3 (CT): 100 of 120 instances``."""
    known = {series.SeriesInstanceUID: series for series in contents.series}
    series = known.get(entry.SeriesInstanceUID or "")
    name = " ".join(
        (
            f"Series {series.SeriesNumber}" if series and series.SeriesNumber else "A series",
            *([f"({series.Modality})"] if series and series.Modality else []),
        )
    )
    if entry.expected is None:
        return f"{name}: {counted(entry.received, 'instance', 'instances')}, others are missing"
    return f"{name}: {entry.received} of {counted(entry.expected, 'instance', 'instances')}"


def _undecoded(undecoded: Sequence[Undecoded]) -> list[str]:
    if not undecoded:
        return []
    lines = [
        "COMPRESSED FILES",
        *_paragraph("These files are as they came from the archive; some DICOM viewers can't open them:"),
    ]
    for entry in undecoded:
        lines += textwrap.wrap(
            f"{entry.path}: {entry.reason}", _WIDTH, initial_indent="  ", subsequent_indent="    "
        )
    return lines


def _technical(facts: Facts) -> list[str]:
    if facts.profile == "STD-GEN-CD":
        return [
            "FORMAT",
            *_paragraph(
                "ISO 9660 level 1 with Joliet. DICOM General Purpose CD-R Interchange profile (STD-GEN-CD), "
                "Explicit VR Little Endian" + (", but for the files named above." if facts.undecoded else ".")
            ),
        ]
    return [
        "FORMAT",
        *_paragraph(
            "ISO 9660 level 1 with Joliet. The DICOM files are as they came from the archive, some perhaps "
            "compressed: not every viewer can open them, and the disc does not claim the profile STD-GEN-CD."
        ),
    ]

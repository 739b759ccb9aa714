"""INDEX.HTM and IHE_PDI: the disc for a web browser (IHE RAD TF-3 4.47, Portable Data for Imaging).

Static XHTML Basic with one style sheet, no script; it opens from ``file://``. Names are 8.3 and upper case in
both trees of the image, so that the links hold on a mount that minds the case. Texts are escaped by the
templates; each direction of writing finds itself (`unicode-bidi: plaintext`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydicom.uid import UID

from pacsbridge.media.previews import Frame, Picture, choose_frames, draw
from pacsbridge.media.readable import person_names, readable_date, readable_sex
from pacsbridge.media.readme import counted, what_is_missing
from pacsbridge.media.reports import Report, read_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pacsbridge.media.contents import Contents, Patient, Series, Study
    from pacsbridge.media.image import Names
    from pacsbridge.media.readme import Facts

INDEX = "INDEX.HTM"
FOLDER = "IHE_PDI"
STYLE = "STYLE.CSS"

#: Series beyond this have neither page nor picture: the disc shall not wait for them.
MAX_SERIES = 60
#: So many pictures are shared by the series of a disc, once each has one.
MAX_PICTURES = 9
MAX_PICTURES_OF_SERIES = 3
#: Reports that are written out, of one series.
_MAX_REPORTS = 10

_KINDS = {
    "AU": "Audio",
    "DOC": "Document",
    "ECG": "Electrocardiogram",
    "KO": "Key images",
    "PR": "Presentation state",
    "RTDOSE": "Radiotherapy dose",
    "RTPLAN": "Radiotherapy plan",
    "RTSTRUCT": "Radiotherapy structures",
    "SR": "Structured report",
}


@dataclass(frozen=True, slots=True)
class Page:
    """A file of the web part: where it is on the disc, and what is in it."""

    names: Names
    content: bytes


@dataclass(frozen=True, slots=True)
class _PictureView:
    name: str
    width: int
    height: int
    caption: str


@dataclass(slots=True)
class _SeriesView:
    title: str
    summary: str
    kind: str
    page: str = ""
    pictures: list[_PictureView] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    @property
    def thumbnail(self) -> _PictureView | None:
        """The picture in the middle."""
        return self.pictures[len(self.pictures) // 2] if self.pictures else None


@dataclass(frozen=True, slots=True)
class _StudyView:
    title: str
    facts: tuple[tuple[str, str], ...]
    series: tuple[_SeriesView, ...]


@dataclass(frozen=True, slots=True)
class _PatientView:
    names: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    studies: tuple[_StudyView, ...]


#: What XML 1.0 can't hold (2.2), and UTF-8 can't encode; old texts have such bytes.
_NOT_TEXT = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _printable(value: object) -> object:
    return _NOT_TEXT.sub("\ufffd", value) if isinstance(value, str) and _NOT_TEXT.search(value) else value


@lru_cache(maxsize=1)
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("pacsbridge", "media/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class PageWriter:
    """Draws the pictures and writes the pages of one disc.

    Parameters
    ----------
    contents, facts
        What the disc holds, and what there is to say about it.
    checkpoint
        Called before each picture; may raise to stop.
    drawn
        Draws a frame; None when it can't be drawn.
    """

    def __init__(
        self,
        contents: Contents,
        facts: Facts,
        checkpoint: Callable[[], None],
        drawn: Callable[[Frame], Picture | None] = draw,
    ) -> None:
        self._drawn = drawn
        self._contents = contents
        self._facts = facts
        self._checkpoint = checkpoint
        self._pictures = 0
        self._pages = 0
        shared = MAX_PICTURES // max(1, len(contents.series))
        self._pictures_of_series = min(max(1, shared), MAX_PICTURES_OF_SERIES)

    def write(self) -> Iterator[Page]:
        """Yield all files of the web part, pictures first, ``INDEX.HTM`` last."""
        patients = []
        for patient in self._contents.patients:
            studies = []
            for study in patient.studies:
                series_views = []
                for series in study.series:
                    view = _series_view(series)
                    if self._pages < MAX_SERIES:
                        yield from self._series_files(view, series, study, patient)
                    series_views.append(view)
                studies.append(_StudyView(_study_title(study), _study_facts(study), tuple(series_views)))
            names = person_names(patient.PatientName)
            patients.append(_PatientView(names, _patient_facts(patient), tuple(studies)))
        style = files("pacsbridge.media") / "templates" / "style.css"
        yield Page((FOLDER, STYLE), style.read_bytes())
        yield Page((INDEX,), self._index(patients))

    def _series_files(
        self, view: _SeriesView, series: Series, study: Study, patient: Patient
    ) -> Iterator[Page]:
        self._pages += 1
        view.page = f"S{self._pages:07d}.HTM"
        for frame in choose_frames(series, self._pictures_of_series):
            self._checkpoint()
            picture = self._drawn(frame)
            if picture is not None:
                self._pictures += 1
                name = f"P{self._pictures:07d}.JPG"
                caption = _caption(series, frame)
                view.pictures.append(_PictureView(name, picture.width, picture.height, caption))
                yield Page((FOLDER, name), picture.jpeg)
        view.reports = _reports(series)
        html = _templates().get_template("series.html")
        rendered = html.render(
            style=STYLE,
            series=view,
            study=_study_title(study),
            patient="".join(person_names(patient.PatientName)[:1]),
        )
        yield Page((FOLDER, view.page), rendered.encode("utf-8"))

    def _index(self, patients: list[_PatientView]) -> bytes:
        facts = self._facts
        undecoded = len(facts.undecoded)
        rendered = (
            _templates()
            .get_template("index.html")
            .render(
                style=f"{FOLDER}/{STYLE}",
                facts=facts,
                created=f"{readable_date(f'{facts.created:%Y%m%d}')}, {facts.created:%H:%M}",
                missing=[what_is_missing(self._contents, entry) for entry in facts.missing],
                undecoded=f"{counted(undecoded, 'file is', 'files are')} compressed,",
                patients=patients,
            )
        )
        return rendered.encode("utf-8")


def _series_view(series: Series) -> _SeriesView:
    first = series.instances[0]
    kind = _KINDS.get(series.Modality) or UID(first.SOPClassUID).name.removesuffix(" Storage")
    number = f"Series {series.SeriesNumber}" if series.SeriesNumber else ""
    title = series.SeriesDescription or number or kind
    frames = sum(series.frames)
    amount = (
        counted(frames, "image", "images")
        if frames
        else counted(len(series.instances), "document", "documents")
    )
    if frames:
        kind = "No preview"
    parts = (series.Modality, number if series.SeriesDescription else "", amount)
    return _SeriesView(title, " · ".join(part for part in parts if part), kind)


def _caption(series: Series, frame: Frame) -> str:
    within = f"{frame.index + 1} of {frame.frames}"
    if len(series.instances) == 1:
        return f"Image {within}"
    text = f"Image {frame.position + 1} of {len(series.instances)}"
    return f"{text}, frame {within}" if frame.frames > 1 else text


def _reports(series: Series) -> list[Report]:
    if series.Modality not in ("SR", "KO"):
        return []
    reports = (read_report(instance) for instance in series.instances[:_MAX_REPORTS])
    return [report for report in reports if report is not None]


def _study_title(study: Study) -> str:
    return study.StudyDescription or "Study"


def _study_facts(study: Study) -> tuple[tuple[str, str], ...]:
    return _filled(
        ("Date", readable_date(study.StudyDate)),
        ("Accession number", study.AccessionNumber),
        ("At", study.InstitutionName),
    )


def _patient_facts(patient: Patient) -> tuple[tuple[str, str], ...]:
    return _filled(
        ("Born", readable_date(patient.PatientBirthDate)),
        ("Sex", readable_sex(patient.PatientSex)),
        ("Patient ID", patient.PatientID),
    )


def _filled(*facts: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(fact for fact in facts if fact[1])

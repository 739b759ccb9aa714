"""A radiology report as a Comprehensive SR document: a diagnostic imaging report (PS3.16 TID 2000)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.uid import ComprehensiveSRStorage

from pacsbridge.demo.datasets import new_instance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacsbridge.demo.datasets import Series


@dataclass(frozen=True)
class Code:
    """A coded concept (PS3.3 Table 8.8-1)."""

    CodeValue: str
    CodingSchemeDesignator: str
    CodeMeaning: str

    def items(self) -> list[Dataset]:
        """Give it as the one item of a code sequence."""
        item = Dataset()
        item.CodeValue = self.CodeValue
        item.CodingSchemeDesignator = self.CodingSchemeDesignator
        item.CodeMeaning = self.CodeMeaning
        return [item]


REPORT = Code("18748-4", "LN", "Diagnostic imaging report")
LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
ENGLISH = Code("en", "RFC5646", "English")
PERSON_OBSERVER = Code("121008", "DCM", "Person Observer Name")
FINDINGS = Code("121070", "DCM", "Findings")
FINDING = Code("121071", "DCM", "Finding")
IMPRESSIONS = Code("121072", "DCM", "Impressions")
IMPRESSION = Code("121073", "DCM", "Impression")
LENGTH = Code("410668003", "SCT", "Length")
MILLIMETRE = Code("mm", "UCUM", "mm")
SOURCE = Code("260753009", "SCT", "Source")


def report(
    series: Series,
    *,
    image: Dataset,
    findings: Sequence[str],
    length_mm: float,
    impression: str,
    author: str,
) -> Dataset:
    """Make a verified report on `image` (PS3.3 A.35.3), with a measurement."""
    ds = new_instance(series, ComprehensiveSRStorage, 1)
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.CompletionFlag = "COMPLETE"
    ds.VerificationFlag = "VERIFIED"
    ds.PerformedProcedureCodeSequence = []
    ds.VerifyingObserverSequence = [_verified_by(author, ds)]
    ds.CurrentRequestedProcedureEvidenceSequence = [_evidence(image)]
    ds.ValueType = "CONTAINER"
    ds.ConceptNameCodeSequence = REPORT.items()
    ds.ContinuityOfContent = "SEPARATE"
    ds.ContentTemplateSequence = [_template("2000")]
    ds.ContentSequence = [
        _coded("HAS CONCEPT MOD", LANGUAGE, ENGLISH),
        _person("HAS OBS CONTEXT", PERSON_OBSERVER, author),
        _container(
            FINDINGS,
            [
                *(_text("CONTAINS", FINDING, text) for text in findings),
                _number(LENGTH, length_mm, MILLIMETRE),
                _image(SOURCE, image),
            ],
        ),
        _container(IMPRESSIONS, [_text("CONTAINS", IMPRESSION, impression)]),
    ]
    return ds


def _item(relationship: str, value_type: str, name: Code) -> Dataset:
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    item.ConceptNameCodeSequence = name.items()
    return item


def _container(name: Code, content: list[Dataset]) -> Dataset:
    item = _item("CONTAINS", "CONTAINER", name)
    item.ContinuityOfContent = "SEPARATE"
    item.ContentSequence = content
    return item


def _text(relationship: str, name: Code, text: str) -> Dataset:
    item = _item(relationship, "TEXT", name)
    item.TextValue = text
    return item


def _coded(relationship: str, name: Code, value: Code) -> Dataset:
    item = _item(relationship, "CODE", name)
    item.ConceptCodeSequence = value.items()
    return item


def _person(relationship: str, name: Code, person: str) -> Dataset:
    item = _item(relationship, "PNAME", name)
    item.PersonName = person
    return item


def _number(name: Code, value: float, unit: Code) -> Dataset:
    item = _item("CONTAINS", "NUM", name)
    measured = Dataset()
    measured.NumericValue = value
    measured.MeasurementUnitsCodeSequence = unit.items()
    item.MeasuredValueSequence = [measured]
    return item


def _image(name: Code, image: Dataset) -> Dataset:
    item = _item("CONTAINS", "IMAGE", name)
    item.ReferencedSOPSequence = [_reference(image)]
    return item


def _reference(image: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return reference


def _evidence(image: Dataset) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = image.SeriesInstanceUID
    series.ReferencedSOPSequence = [_reference(image)]
    study = Dataset()
    study.StudyInstanceUID = image.StudyInstanceUID
    study.ReferencedSeriesSequence = [series]
    return study


def _template(identifier: str) -> Dataset:
    template = Dataset()
    template.MappingResource = "DCMR"
    template.TemplateIdentifier = identifier
    return template


def _verified_by(author: str, ds: Dataset) -> Dataset:
    observer = Dataset()
    observer.VerifyingOrganization = ds.InstitutionName
    observer.VerificationDateTime = ds.ContentDate + ds.ContentTime
    observer.VerifyingObserverName = author
    observer.VerifyingObserverIdentificationCodeSequence = []
    return observer

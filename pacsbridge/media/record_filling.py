r"""What a directory record says where the images are silent: the rule for its keys of type 1.

In a DICOMDIR some keys need a value that images may lack (PS3.3 F.5 against, for example, C.7.2.1). The
record alone gets one, the image never:

PatientID
    ``UNKNOWN-1``, ``UNKNOWN-2`` and so on: one for each patient without, told apart by name and birth date. A
    number that is a real ID on this disc is passed over.
StudyDate, StudyTime
    The earliest moment of its instances; with a StudyDate, the earliest time on that day.
StudyID
    The place of the study among those of its patient, from 1.
Modality
    ``OT`` (other).
SeriesNumber, InstanceNumber
    The next above the highest in its study, or series; in the order of the UIDs. A value that is no integer
    (VR IS) counts as none.
ContentDate, PresentationCreationDate, InstanceCreationDate, the times that belong to them,
VerificationDateTime
    The moment of the instance; VerificationDateTime only where VerificationFlag is ``VERIFIED``.
CompletionFlag, VerificationFlag
    ``PARTIAL``, ``UNVERIFIED``.
ConceptNameCodeSequence
    (121144, DCM, "Document Title").
ContentLabel, StructureSetLabel, RTPlanLabel
    ``UNLABELED``.
DoseSummationType
    ``UNKNOWN``.
MIMETypeOfEncapsulatedDocument
    What its SOP class says.
ImageType, NumberOfFrames, Rows, Columns, DataPointRows, DataPointColumns (keys of a spectroscopy only)
    ``ORIGINAL\PRIMARY``, and 1.

The moment of an instance is the first date that it has, with the time that belongs to it: content,
acquisition, creation of the instance, series, study, AcquisitionDateTime; else 1900-01-01, 00:00, which no
one takes for real.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydicom import uid

from pacsbridge.elements import encode, encode_item, value_of
from pacsbridge.records import tag_of

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_DATE: Final = b"19000101"
NO_TIME: Final = b"000000"
UNKNOWN_PATIENT: Final = b"UNKNOWN"

_DATES: Final = tuple(
    (tag_of(f"{what}Date"), tag_of(f"{what}Time"))
    for what in ("Content", "Acquisition", "InstanceCreation", "Series", "Study")
)
_ACQUISITION: Final = tag_of("AcquisitionDateTime")
_DATE_LENGTH: Final = len("YYYYMMDD")
_TIME_LENGTH: Final = len("HHMMSS")
#: PS3.5 6.2, VR IS.
_LONGEST_INTEGER: Final = 12


def _code(CodeValue: str, CodingSchemeDesignator: str, CodeMeaning: str) -> bytes:
    """Encode a sequence of one code (PS3.3 8.8)."""
    return encode_item(
        encode(tag_of("CodeValue"), b"SH", CodeValue.encode("ascii"))
        + encode(tag_of("CodingSchemeDesignator"), b"SH", CodingSchemeDesignator.encode("ascii"))
        + encode(tag_of("CodeMeaning"), b"LO", CodeMeaning.encode("ascii"))
    )


_ONE_SHORT: Final = (1).to_bytes(2, "little")
_ONE_LONG: Final = (1).to_bytes(4, "little")
_DEFAULTS: Final[Mapping[str, bytes]] = {
    "Modality": b"OT",
    "CompletionFlag": b"PARTIAL",
    "VerificationFlag": b"UNVERIFIED",
    "ConceptNameCodeSequence": _code("121144", "DCM", "Document Title"),
    "ContentLabel": b"UNLABELED",
    "StructureSetLabel": b"UNLABELED",
    "RTPlanLabel": b"UNLABELED",
    "DoseSummationType": b"UNKNOWN",
    "ImageType": b"ORIGINAL\\PRIMARY",
    "NumberOfFrames": b"1",
    "Rows": _ONE_SHORT,
    "Columns": _ONE_SHORT,
    "DataPointRows": _ONE_LONG,
    "DataPointColumns": _ONE_LONG,
}
_DOCUMENT_TYPES: Final[Mapping[str, bytes]] = {
    str(uid.EncapsulatedPDFStorage): b"application/pdf",
    str(uid.EncapsulatedCDAStorage): b"text/XML",
    str(uid.EncapsulatedSTLStorage): b"model/stl",
    str(uid.EncapsulatedOBJStorage): b"model/obj",
    str(uid.EncapsulatedMTLStorage): b"model/mtl",
}


class Attributes:
    """Attributes of an instance, or of its patient, study and series, as they are encoded.

    Parameters
    ----------
    elements
        Tag → the whole element in Explicit VR Little Endian.
    """

    __slots__ = ("elements",)

    def __init__(self, elements: Mapping[int, bytes]) -> None:
        self.elements = elements

    def value(self, tag: int) -> bytes:
        """Give the text of an attribute without its padding; empty if it is absent."""
        element = self.elements.get(tag)
        return value_of(element).strip(b" \0") if element else b""


def moment(instance: Attributes) -> tuple[bytes, bytes]:
    """Give the date (DA) and time (TM) of an instance, by the rule above."""
    for date_tag, time_tag in _DATES:
        date = instance.value(date_tag)
        if date:
            return date, instance.value(time_tag) or NO_TIME
    acquired = instance.value(_ACQUISITION)
    if len(acquired) < _DATE_LENGTH:
        return NO_DATE, NO_TIME
    time = acquired[_DATE_LENGTH : _DATE_LENGTH + _TIME_LENGTH]
    return acquired[:_DATE_LENGTH], time if len(time) == _TIME_LENGTH and time.isdigit() else NO_TIME


def fill(keyword: str, instance: Attributes, SOPClassUID: str) -> bytes:
    """Give the value for a key of type 1 of an instance's record that has none, by the rule above.

    InstanceNumber is not among them: it takes the whole series to tell.
    """
    if keyword.endswith("DateTime"):
        return b"".join(moment(instance))
    if keyword.endswith("Date"):
        return moment(instance)[0]
    if keyword.endswith("Time"):
        return moment(instance)[1]
    if keyword == "MIMETypeOfEncapsulatedDocument":
        return _DOCUMENT_TYPES[SOPClassUID]
    return _DEFAULTS[keyword]


def integer(value: bytes) -> int | None:
    """Read an Integer String (PS3.5 6.2, VR IS); None if it is none."""
    value = value.strip(b" \0")
    digits = value[1:] if value[:1] in (b"+", b"-") else value
    return int(value) if digits.isdigit() and len(value) <= _LONGEST_INTEGER else None

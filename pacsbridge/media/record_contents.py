"""What stands in a directory record, from its type on (PS3.3 F.3.2.2 and F.5)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Final

from pacsbridge.elements import EXPLICIT_LITTLE, NUMBER_SIZES, SQ, Element, encode, items, split, value_of
from pacsbridge.media.record_filling import Attributes, fill, integer
from pacsbridge.records import RECORD_KEYS, record_type, tag_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pacsbridge.instance import Instance
    from pacsbridge.records import Key

#: Says that a PRIVATE record (PS3.3 F.6.1) is one of pacsbridge's: a reference to an instance, with its
#: number.
PRIVATE_RECORD_UID: Final = "2.25.173137361370083195731783006231819190334"

_CHARACTER_SET: Final = tag_of("SpecificCharacterSet")
_INSTANCE_NUMBER: Final = tag_of("InstanceNumber")
_ROWS: Final = tag_of("Rows")
_VERIFIED: Final = tag_of("VerificationDateTime")
_FLAG: Final = tag_of("VerificationFlag")
_RECORD_TYPE: Final = tag_of("DirectoryRecordType")
_PRIVATE_RECORD: Final = tag_of("PrivateRecordUID")
_FILE_ID: Final = tag_of("ReferencedFileID")
_FILE_CLASS: Final = tag_of("ReferencedSOPClassUIDInFile")
_FILE_INSTANCE: Final = tag_of("ReferencedSOPInstanceUIDInFile")
_FILE_SYNTAX: Final = tag_of("ReferencedTransferSyntaxUIDInFile")

_FILE_ID_GRAMMAR: Final = re.compile(r"[A-Z0-9_]{1,8}(\\[A-Z0-9_]{1,8}){0,7}")
#: VRs whose text is in the SpecificCharacterSet (PS3.5 6.1.2.2).
_IN_CHARACTER_SET: Final = frozenset((b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT"))
#: Starts a code extension (PS3.5 6.1.2.5), after which 7-bit bytes aren't ASCII.
_ESCAPE: Final = b"\x1b"


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """A file of the disc.

    Parameters
    ----------
    ReferencedFileID
        Its path below the root of the disc, by component: at most 8 of 1 to 8 of ``A-Z0-9_`` (PS3.10 8.2).
    TransferSyntaxUID
        That of the file on the disc, which may have been transcoded.
    """

    instance: Instance
    ReferencedFileID: tuple[str, ...]
    TransferSyntaxUID: str


@dataclass(frozen=True, slots=True)
class Leaf:
    """An instance's record.

    Parameters
    ----------
    number
        Its InstanceNumber, if it has one.
    before, after
        Its content. Where there is an `after`, the InstanceNumber has to be filled in between.
    """

    number: int | None
    SOPInstanceUID: str
    before: bytes
    after: bytes | None

    def content(self, number: int) -> bytes:
        """Give the content, with this number where it has to be filled in."""
        if self.after is None:
            return self.before
        return self.before + encode(_INSTANCE_NUMBER, b"IS", b"%d" % number) + self.after


def upper_content(kind: str, sources: Sequence[Attributes], filled: Mapping[str, bytes]) -> bytes:
    """Give the content of the record of a patient, study or series.

    Parameters
    ----------
    sources
        What its series say.
    filled
        Values for the keys of type 1, for where none of them says any.
    """
    return _record_head(kind) + _encode(RECORD_KEYS[kind], sources, filled.__getitem__)


def leaf_content(entry: DirectoryEntry, common: Attributes) -> Leaf:
    """Give the record of an instance.

    Parameters
    ----------
    common
        What its patient, study and series say.

    Raises
    ------
    ValueError
        The ReferencedFileID is none.
    """
    instance = entry.instance
    attributes = all_attributes(common, instance)
    kind = record_type(instance.SOPClassUID, has_rows=_ROWS in attributes.elements)
    number = integer(attributes.value(_INSTANCE_NUMBER))
    keys, sources = RECORD_KEYS[kind], (attributes,)
    head = _leaf_head(kind, entry)
    filled = partial(fill, instance=attributes, SOPClassUID=instance.SOPClassUID)
    if number is not None or not _must_be_numbered(kind):
        return Leaf(number, instance.SOPInstanceUID, head + _encode(keys, sources, filled), None)
    before, extended = _encode_keys([key for key in keys if key.tag < _INSTANCE_NUMBER], sources, filled)
    after, extended_after = _encode_keys([key for key in keys if key.tag > _INSTANCE_NUMBER], sources, filled)
    if extended or extended_after:
        head += attributes.elements.get(_CHARACTER_SET, b"")
    return Leaf(None, instance.SOPInstanceUID, head + before, after)


def all_attributes(common: Attributes, instance: Instance) -> Attributes:
    """Give the attributes of an instance together with those of its patient, study and series."""
    return Attributes({**common.elements, **split(instance.attributes)})


def first_value(key: Key, sources: Sequence[Attributes]) -> bytes:
    """Give the first value of a key, as `upper_content` takes it; empty if there is none."""
    element = _find(key, sources)
    return value_of(element).strip(b" \0") if element else b""


@cache
def _must_be_numbered(kind: str) -> bool:
    return any(key.tag == _INSTANCE_NUMBER and key.type == "1" for key in RECORD_KEYS[kind])


def _leaf_head(kind: str, entry: DirectoryEntry) -> bytes:
    """Encode what tells of the file (PS3.3 table F.3-3)."""
    file_id = "\\".join(entry.ReferencedFileID)
    if not _FILE_ID_GRAMMAR.fullmatch(file_id) or len(entry.ReferencedFileID) != file_id.count("\\") + 1:
        raise ValueError(
            f"{file_id!r} is no ReferencedFileID: 1 to 8 components of 1 to 8 characters A-Z 0-9 _"
        )
    return b"".join(
        (
            _record_head(kind),
            encode(_FILE_ID, b"CS", file_id.encode("ascii")),
            _uid_element(_FILE_CLASS, entry.instance.SOPClassUID),
            encode(_FILE_INSTANCE, b"UI", entry.instance.SOPInstanceUID.encode("ascii")),
            _uid_element(_FILE_SYNTAX, entry.TransferSyntaxUID),
        )
    )


@lru_cache(maxsize=256)
def _uid_element(tag: int, uid: str) -> bytes:
    return encode(tag, b"UI", uid.encode("ascii"))


@cache
def _record_head(kind: str) -> bytes:
    head = encode(_RECORD_TYPE, b"CS", kind.encode("ascii"))
    return head + _uid_element(_PRIVATE_RECORD, PRIVATE_RECORD_UID) if kind == "PRIVATE" else head


def _encode(keys: Sequence[Key], sources: Sequence[Attributes], filled: Callable[[str], bytes]) -> bytes:
    """Encode keys, and before them the SpecificCharacterSet if they need it."""
    encoded, extended = _encode_keys(keys, sources, filled)
    return sources[0].elements.get(_CHARACTER_SET, b"") + encoded if extended else encoded


def _encode_keys(
    keys: Iterable[Key], sources: Sequence[Attributes], filled: Callable[[str], bytes]
) -> tuple[bytes, bool]:
    """Encode keys; tell whether there is something else than ASCII in them."""
    parts = []
    extended = False
    for key in keys:
        element = _find(key, sources)
        if element is not None:
            parts.append(element)
            extended = extended or not _is_ascii(element)
        elif key.type == "1" or (key.tag == _VERIFIED and sources[0].value(_FLAG) == b"VERIFIED"):
            parts.append(encode(key.tag, key.vr, filled(key.keyword)))
        elif key.type == "2":
            parts.append(encode(key.tag, key.vr, b""))
    return b"".join(parts), extended


def _find(key: Key, sources: Sequence[Attributes]) -> bytes | None:
    """Give the first element of a key that has a value and fits the first source's character set."""
    for source in sources:
        element = source.elements.get(key.tag)
        if element is not None and _has_value(key, element):
            character_set = source.elements.get(_CHARACTER_SET)
            if character_set == sources[0].elements.get(_CHARACTER_SET) or _is_ascii(element):
                return element
    return None


def _has_value(key: Key, element: bytes) -> bool:
    value = value_of(element)
    if key.vr == b"IS":
        return integer(value) is not None
    return bool(value if key.vr in NUMBER_SIZES else value.strip(b" \0"))


def _is_ascii(element: bytes) -> bool:
    """Tell whether all text in an element is the same in any character set."""
    vr, value = element[4:6], value_of(element)
    if vr == SQ:
        sequence = Element(0, SQ, 0, len(value), len(value))
        contents = (split(value[start:end]) for start, end in items(value, sequence, EXPLICIT_LITTLE))
        return all(_is_ascii(inner) for content in contents for inner in content.values())
    return vr not in _IN_CHARACTER_SET or (value.isascii() and _ESCAPE not in value)

"""WADO-URI (PS3.18, 9), said in the words of WADO-RS: one grammar and one policy for both.

Google has no WADO-URI, and other servers have it under an address of its own. What is asked for is one instance,
as it is or rendered, and RESTful services have that too.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from pacsbridge.dicomweb.paths import Resource, is_uid, parse_path
from pacsbridge.errors import InvalidParameter, MissingParameter

PATH = "/wado"
_DICOM = "application/dicom"
_RENDERED_TYPES = ("image/jpeg", "image/png", "image/gif", "image/jp2")
_UIDS = ("studyuid", "seriesuid", "objectuid")
_NUMBERS = ("windowcenter", "windowwidth", "rows", "columns", "imagequality", "framenumber")
_KNOWN = frozenset(
    {"requesttype", "contenttype", "charset", "transfersyntax", "annotation", "anonymize", *_UIDS, *_NUMBERS}
)
_MOST_FIELDS = 50


@dataclass(frozen=True, slots=True)
class Translated:
    """What is asked for, as WADO-RS says it."""

    resource: Resource
    query: str
    accept: str


def translate(query: str) -> Translated:
    """Translate a WADO-URI query.

    Raises
    ------
    MissingParameter, InvalidParameter
        A parameter is missing, there twice, or asks for what can't be done here.
    """
    asked = _parameters(query)
    if asked.get("requesttype") != "WADO":
        raise InvalidParameter("requestType must be WADO.")
    study, series, instance = (_uid(asked, name) for name in _UIDS)
    path = f"/studies/{study}/series/{series}/instances/{instance}"
    types = [part.partition(";")[0].strip().lower() for part in asked.get("contenttype", "").split(",")]
    if _DICOM in types:
        syntax = asked.get("transfersyntax", "")
        if syntax and not is_uid(syntax):
            raise InvalidParameter("transferSyntax must be a UID.")
        accept = f"{_DICOM};transfer-syntax={syntax}" if syntax else f"{_DICOM};transfer-syntax=*"
        return Translated(parse_path(path), "", accept)
    wanted = [name for name in types if name in _RENDERED_TYPES]
    if not wanted and asked.get("contenttype") and "*/*" not in types and "image/*" not in types:
        raise InvalidParameter("contentType must be application/dicom or a type of image.")
    frame = f"/frames/{_number(asked, 'framenumber')}" if "framenumber" in asked else ""
    return Translated(
        parse_path(f"{path}{frame}/rendered"), _rendering(asked), ", ".join(wanted) or _RENDERED_TYPES[0]
    )


def _parameters(query: str) -> dict[str, str]:
    """Read the query; a parameter that is there twice means one thing here and another thing upstream."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise InvalidParameter("The query string can't be decoded, or is far too long.") from None
    asked: dict[str, str] = {}
    for name, value in pairs:
        lowered = name.lower()
        if lowered not in _KNOWN:
            raise InvalidParameter(f"WADO-URI knows no such parameter here: {name[:40]!r}.")
        if lowered in asked:
            raise InvalidParameter(f"Give {lowered} once.")
        asked[lowered] = value
    if asked.get("anonymize"):
        raise InvalidParameter("Images can't be anonymized here.")
    return asked


def _uid(asked: dict[str, str], name: str) -> str:
    value = asked.get(name, "")
    if not value:
        raise MissingParameter(f"Give the parameter {name}.")
    if not is_uid(value):
        raise InvalidParameter(f"{name} must be a UID.")
    return value


def _rendering(asked: dict[str, str]) -> str:
    """Say how to render (PS3.18, 8.3.5) what WADO-URI says in parameters of its own."""
    said: list[tuple[str, str]] = []
    for target, names in (("window", ("windowcenter", "windowwidth")), ("viewport", ("columns", "rows"))):
        if any(name in asked for name in names):
            values = [_number(asked, name) for name in names]
            said.append((target, ",".join([*values, "linear"] if target == "window" else values)))
    if "imagequality" in asked:
        said.append(("quality", _number(asked, "imagequality")))
    if asked.get("annotation"):
        said.append(("annotation", asked["annotation"]))
    return urlencode(said, safe=",")


def _number(asked: dict[str, str], name: str) -> str:
    value = asked.get(name, "")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not -1e9 < number < 1e9 or not value.isascii():
        raise InvalidParameter(f"{name} must be a number.")
    return value.strip()

"""Names on the disc: ISO 9660 level 1, and what Joliet and Windows allow."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

#: A name in a Joliet tree, in characters; pycdlib counts UTF-8 bytes, so that is the limit here too.
MAX_JOLIET_LENGTH = 64
#: Names below the root, the file's own included (ECMA-119 6.8.2.1).
MAX_DEPTH = 7
_STEM_LENGTH = 8
_EXTENSION_LENGTH = 3
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_ISO_NAME = re.compile(r"[A-Z0-9_]{1,8}(\.[A-Z0-9_]{1,3})?")
_ISO_DIRECTORY = re.compile(r"[A-Z0-9_]{1,8}")
_JOLIET_FORBIDDEN = re.compile(r'[\x00-\x1f*/:;?\\<>"|]')


def new_file_set_id(now: datetime) -> str:
    """Make a File-set ID, which is the volume identifier too: 16 of A-Z, 0-9, underscore (PS3.10 8.1).

    The date and a random part, such as ``PB20251122_K7QZM``: two discs on one desk differ, and nothing of it
    comes from a patient, since operating systems show it to everyone.
    """
    return f"PB{now:%Y%m%d}_" + "".join(secrets.choice(_ALPHABET) for _ in range(5))


def joliet_problem(name: str) -> str | None:
    """Say what keeps a name out of a Joliet tree that Windows can read; None when nothing does."""
    if len(name.encode("utf-8", "surrogateescape")) > MAX_JOLIET_LENGTH:
        return f"its name is longer than {MAX_JOLIET_LENGTH} characters"
    if _JOLIET_FORBIDDEN.search(name) or name.endswith((".", " ")):
        return "its name has a character that a disc can't have"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    return None


def iso_names(names: Iterable[str], *, directories: frozenset[str] = frozenset()) -> dict[str, str]:
    """Give the names of one directory unique ISO 9660 level 1 names: 8.3, or 8 for a directory.

    A name that is valid in upper case keeps it; any other is shortened, and numbered where two would be one.

    Parameters
    ----------
    names
        The names of the directory's files and directories.
    directories
        Which of them are directories.
    """
    ordered = sorted(names)
    given: dict[str, str] = {}
    taken: set[str] = set()
    for name in ordered:
        upper = name.upper()
        pattern = _ISO_DIRECTORY if name in directories else _ISO_NAME
        if pattern.fullmatch(upper) and upper not in taken:
            given[name] = upper
            taken.add(upper)
    for name in ordered:
        if name not in given:
            given[name] = _shortened(name, taken, is_directory=name in directories)
            taken.add(given[name])
    return given


def _shortened(name: str, taken: set[str], *, is_directory: bool) -> str:
    stem, dot, extension = ("", "", "") if is_directory else name.upper().rpartition(".")
    if not dot or not stem:
        stem, extension = name.upper(), ""
    stem = re.sub(r"[^A-Z0-9_]", "_", stem)
    ending = "." + re.sub(r"[^A-Z0-9_]", "_", extension)[:_EXTENSION_LENGTH] if extension else ""
    candidate = stem[:_STEM_LENGTH] + ending
    number = 0
    while candidate in taken:
        number += 1
        candidate = f"{stem[: _STEM_LENGTH - 1 - len(str(number))]}_{number}{ending}"
    return candidate

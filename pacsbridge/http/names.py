"""File names for downloads: safe on every computer, and right in every script (RFC 6266, RFC 8187)."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote

_MAX_LENGTH = 80
_RESERVED = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"COM{n}" for n in range(1, 10)), *(f"LPT{n}" for n in range(1, 10))}
)
#: Characters that RFC 8187 lets stand unquoted in an extended value.
_ATTR_CHARS = "!#$&+-.^_`|~"


def safe_stem(text: str) -> str:
    """Make a file name's stem: letters and digits of any script, ``-`` and ``_``; empty when nothing is left."""
    text = unicodedata.normalize("NFC", text)
    kept = "".join(
        character if unicodedata.category(character)[0] in "LMN" or character == "-" else " "
        for character in text
    )
    stem = "_".join(kept.split())[:_MAX_LENGTH].strip("_-")
    return f"{stem}_" if stem.upper() in _RESERVED else stem


def ascii_stem(text: str) -> str:
    """Make the ASCII form of a stem, letters without their accents; empty when nothing is left."""
    replaced = text.translate(
        {0xDF: "ss", 0xE6: "ae", 0xF8: "o", 0x142: "l", 0xC6: "AE", 0xD8: "O", 0x141: "L"}
    )
    decomposed = unicodedata.normalize("NFKD", replaced)
    return safe_stem(decomposed.encode("ascii", "ignore").decode())


def patient_stem(name: str) -> str:
    """Make a stem of a person's name, in the PN form of DICOM (PS3.5, 6.2.1) or as the HIS writes it."""
    first_group = next((group for group in name.split("=") if group.strip("^ ")), "")
    return safe_stem(first_group.replace("^", " "))


def attachment(stem: str, fallback: str, extension: str) -> str:
    """Build a Content-Disposition value that names the file ``stem.extension``.

    Parameters
    ----------
    stem
        The name, in any script.
    fallback
        What an old client sees when nothing of `stem` can be said in ASCII.
    """
    plain = ascii_stem(stem) or ascii_stem(fallback) or "disc"
    value = f'attachment; filename="{plain}.{extension}"'
    if not stem or stem == plain:
        return value
    return f"{value}; filename*=UTF-8''{quote(f'{stem}.{extension}', safe=_ATTR_CHARS)}"

"""The language of a page: chosen by the reader's switch, a cookie or Accept-Language; its texts in one file each.

A file of ``texts/`` is YAML: names of texts in groups. All files have the same names and the same
``{placeholders}`` in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml
from aiohttp import hdrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aiohttp import web

#: The first one is for readers whose languages we don't have.
LANGUAGES = ("en", "id")
PARAMETER = "lang"
COOKIE = "pacsbridge_lang"

_YEAR_SECONDS = 365 * 86_400
#: What ISO 639 called Indonesian until 1989; old browsers and Java programs still say so.
_OLD_CODES = {"in": "id"}


@dataclass(frozen=True)
class Texts:
    """The texts of one language.

    Parameters
    ----------
    language
        ISO 639-1 code.
    tree
        What the file holds: groups of texts.
    """

    language: str
    tree: Mapping[str, Any]

    def __call__(self, path: str) -> str:
        """Return the text with this name, such as ``form.make``.

        Raises
        ------
        KeyError
            There is none.
        """
        value = self.group(path)
        if not isinstance(value, str):
            raise KeyError(path)
        return value

    def group(self, path: str) -> Any:
        """Return a group of texts, for a script."""
        value: Any = self.tree
        for name in path.split("."):
            value = value[name]
        return value

    def flat(self) -> dict[str, str]:
        """Return every text by its full name."""
        return dict(_flat(self.tree))


@lru_cache
def load_texts(language: str) -> Texts:
    """Read the texts of a language of `LANGUAGES`."""
    source = files("pacsbridge.http").joinpath("texts", f"{language}.yaml")
    return Texts(language, yaml.safe_load(source.read_text(encoding="utf-8")))


def texts_for(request: web.Request) -> Texts:
    """Choose the language of a request's reader: the switch, else the cookie, else Accept-Language."""
    for chosen in (request.query.get(PARAMETER), request.cookies.get(COOKIE)):
        if chosen in LANGUAGES:
            return load_texts(chosen)
    return load_texts(preferred_language(request.headers.get(hdrs.ACCEPT_LANGUAGE, "")))


def remember_language(request: web.Request, response: web.Response) -> None:
    """Keep what the reader chose by the switch."""
    chosen = request.query.get(PARAMETER)
    if chosen in LANGUAGES:
        response.set_cookie(COOKIE, chosen, max_age=_YEAR_SECONDS, httponly=True, samesite="Lax")


def preferred_language(header: str) -> str:
    """Choose from an Accept-Language header (RFC 9110, 12.5.4); `LANGUAGES` [0] where nothing fits.

    A range fits a language by its first subtag: ``id-ID`` is Indonesian. The highest quality wins, of equal
    ones the first.
    """
    best, best_quality = LANGUAGES[0], 0.0
    for part in header.split(","):
        tag, _, parameters = part.partition(";")
        subtag = tag.strip().lower().partition("-")[0]
        language = LANGUAGES[0] if subtag == "*" else _OLD_CODES.get(subtag, subtag)
        quality = _quality(parameters)
        if language in LANGUAGES and quality > best_quality:
            best, best_quality = language, quality
    return best


def _quality(parameters: str) -> float:
    name, _, value = parameters.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        quality = float(value)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

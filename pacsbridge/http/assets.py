"""What pages load beside their HTML: ``/static/...``, named after the content, so that browsers keep it for good."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from pacsbridge.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The files of ``static/`` that are served here.
_NAMES = ("desk.css", "desk.js", "disc.svg")
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Asset:
    """A file: its name with a hash in it, its bytes, their type."""

    name: str
    content: bytes
    content_type: str


def add_routes(app: web.Application) -> None:
    """Add the routes of this module."""
    app.router.add_get("/static/{name}", _send)


def asset_url(name: str) -> str:
    """Give the address of a file of ``static/``, relative to a page at the top."""
    return f"static/{_assets()[name].name}"


@lru_cache(maxsize=1)
def _assets() -> Mapping[str, Asset]:
    return {name: _read(name) for name in _NAMES}


def _read(name: str) -> Asset:
    content = files("pacsbridge.http").joinpath("static", name).read_bytes()
    path = PurePath(name)
    digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
    content_type = mimetypes.types_map[path.suffix]
    return Asset(f"{path.stem}.{digest}{path.suffix}", content, content_type)


async def _send(request: web.Request) -> web.Response:
    for asset in _assets().values():
        if asset.name == request.match_info["name"]:
            return web.Response(
                body=asset.content,
                content_type=asset.content_type,
                charset="utf-8",
                headers={
                    hdrs.CACHE_CONTROL: "public, max-age=31536000, immutable",
                    "X-Content-Type-Options": "nosniff",
                },
            )
    raise NotFound("There is no such file. Load the page again.")

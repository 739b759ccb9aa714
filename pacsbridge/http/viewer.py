"""OHIF at ``/``: the files of a built viewer, its configuration from ours, its pages under any path."""

from __future__ import annotations

import asyncio
import hashlib
import json
import mimetypes
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from aiohttp import hdrs, web

from pacsbridge.config import ConfigError
from pacsbridge.dicomweb.service import PUBLIC_PREFIX
from pacsbridge.errors import NotFound
from pacsbridge.http.ranges import choose_part
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pacsbridge.config import Config

log = structlog.get_logger(__name__)

_INDEX = "index.html"
_CONFIG = "app-config.js"
#: Files whose names change with their content: ``app.bundle.096daabbdde29bd851ab.js``.
_HASHED = re.compile(r"(?:^|\.)[0-9a-f]{16,}\.[a-z0-9]+$", re.ASCII)
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"
#: Below these nothing is a page of the viewer, whatever its name.
_NOT_PAGES = ("api", "auth", "dicomweb", "metrics", "s", "static")
_TYPES = {".wasm": "application/wasm", ".js": "text/javascript", ".json": "application/json"}
_COMPRESSED = ".gz"
_CONDITIONS = ("If-Match", "If-None-Match")


def add_routes(app: web.Application) -> None:
    """Add the routes of this module, after all others: it answers what nobody else does.

    Raises
    ------
    ConfigError
        ``dicomweb.ohif_dir`` holds no viewer.
    """
    config = app[SERVICES].config
    if config.dicomweb.ohif_dir:
        viewer = Viewer(Path(config.dicomweb.ohif_dir), config)
        app.router.add_get("/{path:.*}", viewer.serve)


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the viewer.

    Parameters
    ----------
    tag
        Changes with its content. Its time doesn't: npm gives every file of every version the same, and an
        ``index.html`` has as many bytes in the next version.
    compressed
        The same with gzip, where there is one.
    """

    path: Path
    tag: str
    compressed: Path | None

    @classmethod
    def look_at(cls, path: Path) -> _File:
        name = path.name
        tag = name if _HASHED.search(name) else hashlib.sha256(path.read_bytes()).hexdigest()
        compressed = path.with_name(name + _COMPRESSED)
        return cls(path, tag, compressed if compressed.is_file() else None)


class Viewer:
    """A built OHIF.

    Only what was in the folder at the start is served: a name is looked up, never joined to a path.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        if not (folder / _INDEX).is_file():
            raise ConfigError(f"dicomweb.ohif_dir: {folder} holds no {_INDEX}; get one with scripts/get-ohif")
        self._files: Mapping[str, _File] = {
            path.relative_to(folder).as_posix(): _File.look_at(path)
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith(".") and path.suffix != _COMPRESSED
        }
        self._config = viewer_config(config)
        self._headers = page_headers(config)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer with a file, or with the viewer's page: its router reads the path."""
        name = request.match_info["path"]
        if name == _CONFIG:
            return web.Response(
                text=self._config, content_type="text/javascript", headers=self._headers | _cached(name)
            )
        file = self._files.get(name)
        if file is None:
            if not _is_page(request, name):
                raise NotFound("There is no such page.")
            name, file = _INDEX, self._files[_INDEX]
        return await _send(request, file, self._headers | _cached(name))


async def _send(request: web.Request, file: _File, headers: dict[str, str]) -> web.Response:
    """Answer with a file, whole: it is at most some megabytes, and a part of a script is of no use."""
    path, tag = file.path, f'"{file.tag}"'
    if file.compressed is not None:
        headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
        if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower():
            path, tag = file.compressed, f'"{file.tag}-gzip"'
            headers[hdrs.CONTENT_ENCODING] = "gzip"
    headers[hdrs.ETAG] = tag
    conditions = {name: request.headers[name] for name in _CONDITIONS if name in request.headers}
    status = choose_part(conditions, tag, 0).status
    if status == web.HTTPPreconditionFailed.status_code:
        raise web.HTTPPreconditionFailed(reason="The viewer's file is another one by now.")
    if status == web.HTTPNotModified.status_code:
        return web.Response(status=status, headers=headers)
    kind = _TYPES.get(file.path.suffix) or mimetypes.guess_type(file.path.name)[0]
    headers[hdrs.CONTENT_TYPE] = kind or "application/octet-stream"
    try:
        return web.Response(body=await asyncio.to_thread(path.read_bytes), headers=headers)
    except OSError as error:
        log.warning("a file of the viewer can't be read: restart after changing it", reason=error.strerror)
        raise NotFound("There is no such page.") from None


def _cached(name: str) -> dict[str, str]:
    return {hdrs.CACHE_CONTROL: _FOR_EVER if _HASHED.search(name.rpartition("/")[2]) else _ASK_AGAIN}


def _is_page(request: web.Request, name: str) -> bool:
    """Tell whether a browser wants to show something, rather than load a part of it."""
    first = name.partition("/")[0].lower()
    wants_page = "text/html" in request.headers.get(hdrs.ACCEPT, "")
    return not name or (wants_page and first not in _NOT_PAGES)


def page_headers(config: Config) -> dict[str, str]:
    """Keep the viewer's pages apart from other sites, and let them load nothing from elsewhere.

    Cross-origin isolation (COOP, COEP) gives OHIF's workers shared memory.
    """
    origins = " ".join(config.server.allowed_origins)
    return {
        "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; "
        "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'self' blob:; frame-src 'self' blob:; "
        f"base-uri 'self'; form-action 'self'; frame-ancestors 'self' {origins}".rstrip(),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def viewer_config(config: Config) -> str:
    """Write OHIF's ``app-config.js``: our proxy as its only source, our sign-in page where it meets a 401."""
    google = config.dicomweb.upstream == "google"
    source = {
        "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
        "sourceName": "pacsbridge",
        "configuration": {
            "friendlyName": config.media.institution or "Images",
            "name": "pacsbridge",
            "qidoRoot": PUBLIC_PREFIX,
            "wadoRoot": PUBLIC_PREFIX,
            "wadoUriRoot": f"{PUBLIC_PREFIX}/wado",
            "qidoSupportsIncludeField": True,
            "supportsReject": False,
            "supportsStow": False,
            "dicomUploadEnabled": False,
            "supportsFuzzyMatching": google,
            "supportsWildcard": not google,
            "imageRendering": "wadors",
            "thumbnailRendering": "rendered",
            "enableStudyLazyLoad": True,
            "singlepart": "bulkdata,video",
            "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
            "omitQuotationForMultipartRequest": True,
        },
    }
    settings = {
        "name": "pacsbridge",
        "routerBasename": "/",
        "extensions": [],
        "modes": [],
        "customizationService": {},
        "showStudyList": True,
        "maxNumberOfWebWorkers": 3,
        "showWarningMessageForCrossOrigin": False,
        "showCPUFallbackMessage": True,
        "showLoadingIndicator": True,
        "strictZSpacingForVolumeViewport": True,
        "groupEnabledModesFirst": True,
        "showErrorDetails": "dev",
        "maxNumRequests": {"interaction": 100, "thumbnail": 75, "prefetch": 25},
        "defaultDataSourceName": "pacsbridge",
        "dataSources": [source],
    }
    # The text stands in a script of its own, never in a page.
    return f"window.config = {json.dumps(settings, indent=2)};\n{_ON_401}{_NAMELESS_SCRIPT}"


_ON_401 = """\
window.config.httpErrorHandler = function (error) {
  if (error && error.status === 401) {
    window.location.assign('/login?next=' + encodeURIComponent(window.location.pathname + window.location.search));
  }
};
"""
#: A library in OHIF 3.12 asks for the script that it runs in, and where the last part of the page to arrive was a
#: style sheet there is none: then it takes Node's name for it, which no browser has, and the page stays empty. So
#: it was at every other reload, when scripts come from the cache and style sheets are asked for again.
_NAMELESS_SCRIPT = "window.__filename = window.location.origin + '/';\n"

"""The description of this interface in OpenAPI 3.1: ``/api/openapi.json``, made from ``openapi.yaml``."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml
from aiohttp import hdrs, web

from pacsbridge import __version__
from pacsbridge.http.pages import PAGES
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

JSON = "application/json"
METHODS = ("get", "post", "put", "patch", "delete")
#: The schemes by which somebody may call what everybody may call without ``auth.enabled``.
_KEY = "ApiKey"
#: Statuses that come with Retry-After where waiting helps.
_WAITING = frozenset({"429", "503"})
#: What helps to write the file and says nothing to who reads the description.
_OWN_KEYS = frozenset({"x-access", "x-error-groups"})
_ERROR_CONTENT = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
_PAGE_CONTENT = {"text/html": {"schema": {"type": "string"}}}
_REQUEST_ID = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
_RETRY_AFTER = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the description has to know of a running service: `paths` are those that it answers at."""

    url: str
    locked: bool
    paths: frozenset[str]


def add_routes(app: web.Application) -> None:
    """Add the route of this module."""
    app.router.add_get("/api/openapi.json", _send)


async def describe(request: web.Request) -> Mapping[str, Any]:
    """Return the description of the service that answers `request`; it is made once, off the event loop."""
    config = request.app[SERVICES].config
    paths = frozenset(resource.canonical for resource in request.app.router.resources())
    deployment = Deployment(config.server.public_url, config.auth.enabled, paths)
    return await asyncio.to_thread(complete, deployment)


@lru_cache(maxsize=4)
def complete(deployment: Deployment) -> Mapping[str, Any]:
    """Make the OpenAPI document: responses for the error codes, and what the deployment decides.

    Nobody may change what is returned: it is kept.
    """
    source = read()
    codes = source["x-error-codes"]
    components = source["components"]
    schemas = components["schemas"]
    return {
        **{key: value for key, value in source.items() if key not in _OWN_KEYS},
        "info": source["info"] | {"version": __version__},
        "servers": [{"url": deployment.url}],
        "paths": {
            path: {
                key: _operation(path, value, codes, locked=deployment.locked) if key in METHODS else value
                for key, value in item.items()
            }
            for path, item in source["paths"].items()
            if path in deployment.paths
        },
        "components": components
        | {
            "responses": {name: _identified(each) for name, each in components["responses"].items()},
            "schemas": schemas | {"ErrorCode": schemas["ErrorCode"] | {"enum": list(codes)}},
        },
    }


@lru_cache(maxsize=1)
def read() -> Mapping[str, Any]:
    """Read the file as it is written."""
    text = files("pacsbridge.http").joinpath("openapi.yaml").read_text(encoding="utf-8")
    source: Mapping[str, Any] = yaml.safe_load(text)
    return source


def resolve(document: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a ``$ref`` points to; anything else is returned as it is."""
    while "$ref" in value:
        target: Any = document
        for key in value["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        value = target
    return value


def _operation(
    path: str, operation: Mapping[str, Any], codes: Mapping[str, Mapping[str, Any]], *, locked: bool
) -> dict[str, Any]:
    content = _ERROR_CONTENT | (_PAGE_CONTENT if path.startswith(PAGES) else {})
    errors = list(dict.fromkeys(_flat(operation.get("x-errors", ()))))
    responses = {status: _identified(each) for status, each in operation["responses"].items()}
    for code in errors:
        status = str(codes[code]["status"])
        known = responses.get(status, {})
        told = f"{known['description']} `{code}`" if known else f"`{code}`"
        responses[status] = _error(status, told, content, known)
    responses.setdefault("default", _error("default", "Whatever else goes wrong.", content, {}))
    security = operation["security"]
    if not locked and any(_KEY in each for each in security):
        security = [{}, *security]
    return {**operation, "security": security, "responses": responses, "x-errors": errors}


def _error(
    status: str, description: str, content: Mapping[str, Any], beside: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "description": description,
        "headers": _REQUEST_ID | beside.get("headers", {}) | (_RETRY_AFTER if status in _WAITING else {}),
        "content": {**content} | beside.get("content", {}),
    }


def _identified(response: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the header that every answer has."""
    if "$ref" in response:
        return response
    return {**response, "headers": _REQUEST_ID | response.get("headers", {})}


def _flat(codes: Iterable[Any]) -> Iterator[str]:
    for code in codes:
        if isinstance(code, str):
            yield code
        else:
            yield from _flat(code)


async def _send(request: web.Request) -> web.Response:
    text = json.dumps(await describe(request), ensure_ascii=False)
    return web.json_response(text=text, headers={hdrs.CACHE_CONTROL: "no-cache"})

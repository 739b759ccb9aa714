"""The API for people who build on it: ``/api/docs``, a page made of the description that programs read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from pacsbridge.http.api_words import curl, kind_of, marked, parameters_of
from pacsbridge.http.openapi import JSON, METHODS, describe, resolve
from pacsbridge.http.pages import page
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aiohttp import web

    Values = Mapping[str, Any]

_SCHEMAS = "#/components/schemas/"
#: Pages for people need no example for programs.
_PAGES = "Pages"
_ACCESS = {
    "ApiKey": "the API key",
    "LinkSignature": "a signed link",
}


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter, or a field of a JSON object; `place` is path, query, header or nothing."""

    name: str
    place: str
    required: bool
    kind: Markup
    told: Markup


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer: its status, what it says, the type of its body and the object that it holds."""

    status: str
    told: Markup
    content_type: str
    value: str


@dataclass(frozen=True, slots=True)
class Operation:
    """An endpoint as the page shows it."""

    id: str
    method: str
    path: str
    summary: Markup
    told: Markup
    access: str
    parameters: tuple[Field, ...]
    body: tuple[Field, ...]
    answers: tuple[Answer, ...]
    errors: tuple[str, ...]
    curl: str


@dataclass(frozen=True, slots=True)
class Chapter:
    """The endpoints of one subject."""

    name: str
    told: Markup
    operations: tuple[Operation, ...]

    @property
    def id(self) -> str:
        """Its name as an anchor."""
        return self.name.lower().replace(" ", "-")


def add_routes(app: web.Application) -> None:
    """Add the route of this module."""
    app.router.add_get("/api/docs", _show)


async def _show(request: web.Request) -> web.Response:
    document = await describe(request)
    chapters = tuple(chapters_of(document))
    operations = [operation for chapter in chapters for operation in chapter.operations]
    used = {answer.value for operation in operations for answer in operation.answers}
    return page(
        request,
        "api.html",
        url=document["servers"][0]["url"],
        version=document["info"]["version"],
        intro=marked(document["info"]["description"]),
        locked=request.app[SERVICES].config.auth.enabled,
        chapters=chapters,
        values=_values(document, used - {""}),
        errors=[
            (code, error["status"], marked(error["when"]), marked(error["do"]))
            for code, error in document["x-error-codes"].items()
        ],
    )


def chapters_of(document: Values) -> Iterator[Chapter]:
    """Sort the endpoints by subject, in the order of the description."""
    operations: dict[str, list[Operation]] = {tag["name"]: [] for tag in document["tags"]}
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                operations[item[method]["tags"][0]].append(_operation(document, path, method))
    for tag in document["tags"]:
        yield Chapter(tag["name"], marked(tag["description"]), tuple(operations[tag["name"]]))


def _operation(document: Values, path: str, method: str) -> Operation:
    operation = document["paths"][path][method]
    body = operation.get("requestBody", {}).get("content", {}).get(JSON, {})
    return Operation(
        id=operation["operationId"],
        method=method.upper(),
        path=path,
        summary=marked(operation["summary"]),
        told=marked(operation.get("description", "")),
        access=_access(operation["security"]),
        parameters=tuple(_parameter(document, each) for each in parameters_of(document, path, method)),
        body=tuple(_fields(document, body.get("schema", {}))),
        answers=tuple(_answers(document, operation)),
        errors=tuple(operation["x-errors"]),
        curl="" if _PAGES in operation["tags"] else curl(document, path, method),
    )


def _access(security: list[Values]) -> str:
    if not security or {} in security:
        return "anyone"
    schemes = {name for each in security for name in each}
    known = [words for name, words in _ACCESS.items() if name in schemes]
    # What the key opens is for those who make discs and links.
    someone = "staff or an admin signed in" if "ApiKey" in schemes else "somebody signed in"
    return ", ".join([*known, someone])


def _parameter(document: Values, parameter: Values) -> Field:
    return Field(
        parameter["name"],
        parameter["in"],
        parameter.get("required", False),
        escape(kind_of(document, parameter["schema"])),
        marked(parameter["description"]),
    )


def _fields(document: Values, schema: Values) -> Iterator[Field]:
    schema = resolve(document, schema)
    required = schema.get("required", ())
    for name, value in schema.get("properties", {}).items():
        told = value.get("description") or resolve(document, value).get("description", "")
        yield Field(name, "", name in required, _linked_kind(document, value), marked(told))
        inner = resolve(document, value)
        for field in _fields(document, inner) if "properties" in inner else ():
            yield Field(f"{name}.{field.name}", "", field.required, field.kind, field.told)


def _linked_kind(document: Values, schema: Values) -> Markup:
    """Say what a value has to be; an object that is described elsewhere on the page is a link to it."""
    if schema.get("$ref") == f"{_SCHEMAS}ErrorCode":
        return Markup('one of <a href="#errors">the codes</a>')
    items = schema.get("items", {})
    for holder, before in ((schema, ""), (items, "list of ")):
        name = holder.get("$ref", "").removeprefix(_SCHEMAS)
        if name and resolve(document, holder).get("type") == "object":
            return Markup('{}<a href="#value-{}">{}</a>').format(before, name, name)
    return escape(kind_of(document, schema))


def _answers(document: Values, operation: Values) -> Iterator[Answer]:
    for status, response in operation["responses"].items():
        if not status.isdigit() or int(status) >= 400:
            continue
        answer = resolve(document, response)
        content = answer.get("content", {})
        schema = content.get(JSON, {}).get("schema", {})
        value = schema.get("$ref", "").removeprefix(_SCHEMAS)
        yield Answer(status, marked(answer["description"]), next(iter(content), ""), value)


def _values(document: Values, used: set[str]) -> list[tuple[str, tuple[Field, ...]]]:
    """Describe the objects that answers hold, and those that stand in them."""
    schemas = document["components"]["schemas"]
    waiting, shown = sorted(used), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in shown:
            shown.add(name)
            found = re.findall(f'"{_SCHEMAS}(\\w+)"', json.dumps(schemas[name]))
            waiting += [each for each in found if schemas[each].get("type") == "object"]
    return [(name, tuple(_fields(document, schema))) for name, schema in schemas.items() if name in shown]

"""The API's description as the tests use it: which endpoints there are, and whether an answer is as described."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator, FormatChecker

from pacsbridge.http.openapi import METHODS, Deployment, complete, read, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMATS = FormatChecker(formats=())


def _is_moment(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


FORMATS.checks("date-time", raises=ValueError)(_is_moment)


@dataclass(frozen=True)
class Endpoint:
    """A method of a path, and what the description says of it."""

    method: str
    path: str
    operation: Mapping[str, Any]
    parameters: tuple[Mapping[str, Any], ...]

    @property
    def body(self) -> Mapping[str, Any]:
        """Its JSON body: schema and example; empty where it takes none."""
        content: Mapping[str, Any] = self.operation.get("requestBody", {}).get("content", {})
        body: Mapping[str, Any] = content.get("application/json", {})
        return body


def whole(
    url: str = "http://localhost:8080", *, locked: bool = True, viewer: bool = True
) -> Mapping[str, Any]:
    """Give the description with nothing left out, but the viewer where it isn't served."""
    paths = frozenset(read()["paths"]) - (frozenset() if viewer else {"/{path}"})
    return complete(Deployment(url, locked, paths))


def endpoints(document: Mapping[str, Any]) -> Iterator[Endpoint]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                both = (*item.get("parameters", ()), *item[method].get("parameters", ()))
                parameters = tuple(resolve(document, each) for each in both)
                yield Endpoint(method.upper(), path, item[method], parameters)


def problems(document: Mapping[str, Any], schema: Mapping[str, Any], value: Any) -> list[str]:
    """Tell how a value is not as its schema says."""
    standing_alone = {**schema, "components": document["components"]}
    validator = Draft202012Validator(standing_alone, format_checker=FORMATS)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]

"""Values of the API's description said in words, and its endpoints as lines for a shell."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from markupsafe import Markup, escape

from pacsbridge.http.openapi import JSON, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    Values = Mapping[str, Any]

_VARIABLE = re.compile(r"\$[A-Z_]+")


def marked(text: str) -> Markup:
    """Set what stands between backticks as code."""
    parts = text.split("`")
    return Markup().join(  # escaped, each of them
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )


def kind_of(document: Values, schema: Values) -> str:
    """Say in words what a value has to be: its type and its limits."""
    schema = resolve(document, schema)
    default = f"; {schema['default']} by default" if "default" in schema else ""
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"]) + default
    if "const" in schema:
        return str(schema["const"])
    types = schema.get("type", "text")
    named = [types] if isinstance(types, str) else types
    words = [_words(document, schema, each) for each in named]
    return " or ".join(words) + default.lower()


def _words(document: Values, schema: Values, named: str) -> str:
    match named:
        case "string" if schema.get("format") == "date-time":
            return "time (ISO 8601)"
        case "string":
            return "text" + _range(schema, "minLength", "maxLength", " characters")
        case "array":
            items = kind_of(document, schema.get("items", {}))
            return "list" + _range(schema, "minItems", "maxItems", "") + f" of: {items}"
        case "integer" | "number":
            return ("whole number" if named == "integer" else "number") + _range(
                schema, "minimum", "maximum", ""
            )
        case "boolean":
            return "true or false"
        case "null":
            return "null"
        case _:
            return "object"


def _range(schema: Values, least: str, most: str, unit: str) -> str:
    low, high = schema.get(least), schema.get(most)
    if "exclusiveMinimum" in schema:
        start = f"over {schema['exclusiveMinimum']}"
        return f", {start}" if high is None else f", {start} up to {high}{unit}"
    if high is None:
        return ""
    return f", at most {high}{unit}" if low is None else f", {low} to {high}{unit}"


def parameters_of(document: Values, path: str, method: str) -> list[Values]:
    """Return the parameters of a path and of one of its methods."""
    item = document["paths"][path]
    both = (*item.get("parameters", ()), *item[method].get("parameters", ()))
    return [resolve(document, each) for each in both]


def curl(document: Values, path: str, method: str) -> str:
    """Write the line for a shell that calls an endpoint; what it can't know are variables: ``$JOB``."""
    operation = document["paths"][path][method]
    options = operation.get("x-curl", "")
    if options is None:
        return ""
    words = ["curl", options] if options else ["curl"]
    if method != "get":
        words.append(f"-X {method.upper()}")
    schemes = {name for each in operation["security"] for name in each}
    if {} not in operation["security"] and "ApiKey" in schemes:
        words.append('-H "X-API-Key: $API_KEY"')
    elif {} not in operation["security"] and "BearerToken" in schemes:
        words.append('-H "Authorization: Bearer $TOKEN"')
    example = operation.get("requestBody", {}).get("content", {}).get(JSON, {}).get("example")
    if example is not None:
        words.append("-H 'Content-Type: application/json'")
        text = _VARIABLE.sub(lambda found: f"'\"{found[0]}\"'", json.dumps(example))
        words.append(f"\\\n  -d '{text}'")
    return f'{" ".join(words)} \\\n  "{_address(document, path, method)}"'


def _address(document: Values, path: str, method: str) -> str:
    address, query = path, {}
    for parameter in parameters_of(document, path, method):
        if parameter["in"] == "path":
            filled = (
                f"${parameter['x-variable']}" if "x-variable" in parameter else quote(parameter["example"])
            )
            address = address.replace(f"{{{parameter['name']}}}", filled)
        elif parameter["in"] == "query" and parameter.get("required"):
            query[parameter["name"]] = parameter["example"]
    return f"{document['servers'][0]['url']}{address}" + (f"?{urlencode(query, safe=',')}" if query else "")

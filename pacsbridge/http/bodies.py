"""What callers send as JSON, checked field by field, and what forms send."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from pacsbridge.errors import InvalidParameter, MissingParameter
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from aiohttp import web

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"


async def json_object(request: web.Request, *, optional: bool = False) -> dict[str, Any]:
    """Read a JSON object.

    The content type has to say JSON: a form on another site can't send that without the browser asking first.

    Raises
    ------
    InvalidParameter
        The body is no JSON object.
    """
    if optional and not request.can_read_body:
        return {}
    if request.content_type != _JSON:
        raise InvalidParameter(f"Send JSON, with Content-Type: {_JSON}.")
    try:
        async with asyncio.timeout(request.app[SERVICES].config.server.read_timeout_seconds):
            body = json.loads(await request.read())
    except TimeoutError:
        raise InvalidParameter("The body did not arrive in time.") from None
    except (ValueError, RecursionError):
        raise InvalidParameter("The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise InvalidParameter("The body must be a JSON object.")
    return body


async def form_fields(request: web.Request) -> dict[str, str]:
    """Read a form as browsers send it; multipart is for files, and there are none here.

    Raises
    ------
    InvalidParameter
        It can't be read as a form.
    """
    if not request.can_read_body:
        return {}
    if request.content_type != _FORM:
        raise InvalidParameter(f"Send a form, with Content-Type: {_FORM}.")
    try:
        async with asyncio.timeout(request.app[SERVICES].config.server.read_timeout_seconds):
            form = await request.post()
    except TimeoutError:
        raise InvalidParameter("The form did not arrive in time.") from None
    except (ValueError, LookupError):
        raise InvalidParameter("The body can't be read as a form.") from None
    return {name: str(value) for name, value in form.items()}


def text(body: dict[str, Any], name: str, *, optional: bool = False) -> str:
    """Take a text; empty where an optional one is absent or null.

    Raises
    ------
    MissingParameter, InvalidParameter
        It is absent or empty; it is no text.
    """
    value = body.get(name)
    if value is None or value == "":
        if optional:
            return ""
        raise MissingParameter(f"{name} is needed.")
    if not isinstance(value, str):
        raise InvalidParameter(f"{name} must be text.")
    return value


def texts(body: dict[str, Any], name: str) -> tuple[str, ...]:
    """Take a list of texts; empty where it is absent or null."""
    value = body.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidParameter(f"{name} must be a list of texts.")
    return tuple(value)


def number(body: dict[str, Any], name: str, default: float) -> float:
    """Take a number; the default where it is absent or null."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidParameter(f"{name} must be a number.")
    try:
        return float(value)
    except OverflowError:
        raise InvalidParameter(f"{name} is too large.") from None

"""Pages for people: templates, the style sheet, the headers that keep them apart from other sites."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from aiohttp import hdrs, web
from jinja2 import Environment, PackageLoader, StrictUndefined

from pacsbridge.errors import PacsbridgeError, Unauthorized
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STYLE_PATH = "/static/pacsbridge.css"
#: Below these, an error is a page for a browser that asks for one.
PAGES = ("/login", "/admin", "/s/")
_DAY_SECONDS = 86_400


def add_routes(app: web.Application) -> None:
    """Add the routes of this module."""
    app.router.add_get(_STYLE_PATH, _style)


def page(request: web.Request, template: str, *, status: int = 200, **values: Any) -> web.Response:
    """Write a page, with headers that let it load nothing from elsewhere and be framed by nobody."""
    config = request.app[SERVICES].config
    text = (
        _environment()
        .get_template(template)
        .render(institution=config.media.institution, style=_STYLE_PATH, **values)
    )
    # A browser applies form-action to where a form's answer redirects as well: to the viewer.
    viewer = urlsplit(config.dicomweb.viewer_url)
    elsewhere = f" {viewer.scheme}://{viewer.netloc}" if viewer.netloc else ""
    return web.Response(
        text=text,
        status=status,
        content_type="text/html",
        headers={
            "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; "
            f"form-action 'self'{elsewhere}; frame-ancestors 'none'; base-uri 'none'",
            # Not no-referrer: with that, a browser sends "Origin: null" with a form, and check_origin refuses it.
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            hdrs.CACHE_CONTROL: "no-store",
        },
    )


def redirect(location: str) -> web.Response:
    """Lead a browser on to a page (RFC 9110, 15.4.4)."""
    return web.Response(status=303, headers={hdrs.LOCATION: location, hdrs.CACHE_CONTROL: "no-store"})


@web.middleware
async def errors_as_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Show a person who opens a page what went wrong; who isn't signed in is led to the sign-in page."""
    if not request.path.startswith(PAGES) or "text/html" not in request.headers.get(hdrs.ACCEPT, ""):
        return await handler(request)
    try:
        return await handler(request)
    except Unauthorized:
        onward = request.path if request.method == hdrs.METH_GET else "/admin"
        return redirect(f"/login?next={quote(onward)}")
    except PacsbridgeError as error:
        response = page(request, "problem.html", status=error.status, message=error.message)
        if error.retry_after is not None:
            response.headers[hdrs.RETRY_AFTER] = str(error.retry_after)
        return response


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pacsbridge.http"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@lru_cache(maxsize=1)
def _style_sheet() -> str:
    return files("pacsbridge.http").joinpath("static", "pacsbridge.css").read_text(encoding="utf-8")


async def _style(_request: web.Request) -> web.Response:
    return web.Response(
        text=_style_sheet(),
        content_type="text/css",
        headers={hdrs.CACHE_CONTROL: f"max-age={_DAY_SECONDS}", "X-Content-Type-Options": "nosniff"},
    )

"""The desk page ``/discs``: make, watch, download, print and cancel discs.

The page is a frame, its texts and a small script; the state is on the server. The script asks ``GET /api/jobs``
for everything at once, every second while something is being made: one short request for any number of jobs.
A stream of events for each job would not do: a browser opens six connections to a host (HTTP/1.1), so that the
seventh job would stand still.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import hdrs, web
from jinja2 import Environment, PackageLoader, StrictUndefined

from pacsbridge.errors import Forbidden, InvalidParameter, MissingParameter, Unauthorized
from pacsbridge.http import assets
from pacsbridge.http.access import CALLER, guarded
from pacsbridge.http.identity import principal_of
from pacsbridge.http.language import LANGUAGES, PARAMETER, load_texts, remember_language, texts_for
from pacsbridge.http.links import Purpose
from pacsbridge.http.parameters import accession_numbers
from pacsbridge.http.services import SERVICES

if TYPE_CHECKING:
    from pacsbridge.errors import RequestError
    from pacsbridge.http.language import Texts

PATH = "/discs"
#: Where one signs in and out, relative.
_LOGIN = "login"

_NUMBERS = ("accession_number", "accession_numbers")
#: What stays in the address of a page that was opened by a signed link: without it the page may do nothing.
_SIGNED = (*_NUMBERS, "expires", "signature")
#: In the address once the disc that the link asks for has been started: a reload starts no other.
_STARTED = "started"
#: Nothing from elsewhere, no script in the page, and no text of a job is ever taken for HTML.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'"
)


def add_routes(app: web.Application) -> None:
    """Add the routes of this module."""
    app.router.add_get(PATH, _desk)
    assets.add_routes(app)


async def _desk(request: web.Request) -> web.StreamResponse:
    """Show the page, or how to get in."""
    try:
        return await _open(request)
    except (Unauthorized, Forbidden) as error:
        return _closed(request, error)


async def _show(request: web.Request) -> web.StreamResponse:
    """Show the page to somebody who may use it."""
    services = request.app[SERVICES]
    limited = request[CALLER].numbers is not None
    # Where everybody may, nobody is asked for: the database may be away, and discs are made all the same.
    signed_in = services.config.auth.enabled and not limited and await principal_of(request)
    numbers, problem = _asked(request)
    signed = {name: request.query[name] for name in _SIGNED if limited and name in request.query}
    kept = {**signed, _STARTED: "1"} if limited else {}
    texts = texts_for(request)
    script = {
        "language": texts.language,
        "numbers": numbers,
        "limited": limited,
        "start": bool(numbers) and _STARTED not in request.query,
        "here": _address(kept),
        "link": urlencode(signed),
        "texts": texts.group("script"),
        "errors": texts.group("errors"),
    }
    return _page(
        request,
        "desk.html",
        texts,
        kept,
        status=problem.status if problem else 200,
        script=script,
        limited=limited,
        problem=problem,
        prints=bool(services.config.publisher.host),
        account=_LOGIN if signed_in else "",
    )


_open = guarded(_show, Purpose.DESK)


def _asked(request: web.Request) -> tuple[tuple[str, ...], RequestError | None]:
    """Take the accession numbers of the page's address: none, or what is wrong with them."""
    name = next((name for name in _NUMBERS if name in request.query), None)
    if name is None:
        return (), None
    try:
        return accession_numbers(request.query, name), None
    except (MissingParameter, InvalidParameter) as error:
        return (), error


def _closed(request: web.Request, error: RequestError) -> web.Response:
    """Say how to get in: a clerk has no API key to type."""
    login = f"{_LOGIN}?{urlencode({'next': PATH})}" if request.app[SERVICES].accounts else ""
    values = {"error": error, "account": "", "login": login}
    return _page(request, "desk_closed.html", texts_for(request), {}, status=error.status, **values)


def _page(
    request: web.Request, template: str, texts: Texts, kept: dict[str, str], *, status: int, **values: Any
) -> web.Response:
    """Write a page that loads nothing from elsewhere; `kept` is what its address has to keep."""
    html = _environment().get_template(template).render(
        t=texts,
        asset=assets.asset_url,
        institution=request.app[SERVICES].config.media.institution,
        languages=[(code, load_texts(code)("name"), _address(kept | {PARAMETER: code})) for code in LANGUAGES],
        **values,
    )  # fmt: skip
    response = web.Response(
        text=html,
        status=status,
        content_type="text/html",
        headers={
            "Content-Security-Policy": _POLICY,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            hdrs.CACHE_CONTROL: "no-store",
            hdrs.CONTENT_LANGUAGE: texts.language,
            hdrs.VARY: "Accept-Language, Cookie",
        },
    )
    remember_language(request, response)
    return response


def _address(query: dict[str, str]) -> str:
    """Give the page's address, relative: the service may stand below a path of a proxy."""
    page = PATH.lstrip("/")
    return f"{page}?{urlencode(query)}" if query else page


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pacsbridge.http"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

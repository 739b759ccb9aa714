"""The API page: well-formed, every link on it leads somewhere, no endpoint and no error is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pacsbridge.http.api_words import curl, kind_of, marked
from tests.http.description import endpoints, whole
from tests.http.html_page import parse
from tests.http.test_pages import browser_page, picture

if TYPE_CHECKING:
    from tests.http.desk import Desk
    from tests.http.html_page import Page


async def page_of(desk: Desk) -> Page:
    answer = await desk.ask("GET", "/api/docs", headers={"Accept": "text/html"})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    return parse(answer.body.decode())


async def test_it_is_whole(locked_desk: Desk) -> None:
    page = await page_of(locked_desk)
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert {endpoint.operation["operationId"] for endpoint in endpoints(whole(viewer=False))} <= set(page.ids)
    assert {f"error-{code}" for code in whole()["x-error-codes"]} <= set(page.ids)


async def test_it_follows_the_configuration(desk: Desk, locked_desk: Desk) -> None:
    closed, opened = await page_of(locked_desk), await page_of(desk)
    assert ("signed-links" in closed.ids, "signed-links" in opened.ids) == (True, False)
    assert any("$API_KEY" in line for line in closed.code["curl"])
    assert not any("$API_KEY" in line for line in opened.code["curl"])


@pytest.mark.parametrize(("dark", "phone"), [(False, False), (True, False), (False, True)])
async def test_it_fits_any_window(locked_desk: Desk, dark: bool, phone: bool) -> None:
    async with browser_page(dark=dark, phone=phone) as page:
        await page.goto(f"{locked_desk.url}/api/docs")
        await page.get_by_role("link", name="Errors", exact=True).click()
        assert page.url.endswith("#errors")
        width = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        assert await page.evaluate(width)
        await picture(page, f"api-{'dark' if dark else 'light'}-{'phone' if phone else 'desk'}")


def test_code_is_marked_and_everything_escaped() -> None:
    assert marked("a `<b>` & c") == "a <code>&lt;b&gt;</code> &amp; c"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "minLength": 1, "maxLength": 16}, "text, 1 to 16 characters"),
        ({"type": ["string", "null"], "maxLength": 16}, "text, at most 16 characters or null"),
        (
            {"type": "number", "exclusiveMinimum": 0, "maximum": 9, "default": 5},
            "number, over 0 up to 9; 5 by default",
        ),
        ({"type": "integer", "minimum": 1}, "whole number"),
        ({"type": "boolean", "default": False}, "true or false; false by default"),
        ({"type": "array", "maxItems": 9, "items": {"type": "string"}}, "list, at most 9 of: text"),
        ({"type": "string", "enum": ["iso", "print"], "default": "iso"}, "one of iso, print; iso by default"),
        ({"const": "Bearer"}, "Bearer"),
        ({"$ref": "#/components/schemas/Job"}, "object"),
    ],
)
def test_values_in_words(schema: dict[str, Any], words: str) -> None:
    assert kind_of(whole(), schema) == words


def test_an_example_is_safe_in_a_shell() -> None:
    line = curl(whole("https://pacs.example"), "/auth/refresh", "post")
    assert line == (
        "curl -X POST -H 'Content-Type: application/json' \\\n"
        '  -d \'{"refresh_token": "\'"$REFRESH_TOKEN"\'"}\' \\\n'
        '  "https://pacs.example/auth/refresh"'
    )

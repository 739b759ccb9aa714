"""A real Chromium for the tests of pages, driven through Playwright."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from playwright.async_api import async_playwright, expect

from tests.peers import require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from playwright.async_api import Browser, ConsoleMessage, Page

#: It stays on this machine, and needs neither a graphics card nor a sandbox of its own.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: The same, drawing in software: a viewer needs WebGL.
WITH_WEBGL = (
    *(argument for argument in _ARGUMENTS if argument != "--disable-gpu"),
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)
_PATIENCE_MILLISECONDS = 20_000


class Chromium:
    """A running browser.

    Attributes
    ----------
    complaints
        What pages wrote to the console as an error or a warning, and errors that their scripts did not catch.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.complaints: list[str] = []

    async def page(self, **options: Any) -> Page:
        """Open a page in a profile of its own; `options` as Playwright's ``new_context`` takes them."""
        context = await self._browser.new_context(**{"locale": "en-GB", **options})
        context.set_default_timeout(_PATIENCE_MILLISECONDS)
        page = await context.new_page()
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    async def close_pages(self) -> None:
        """Close every page and its profile."""
        for context in self._browser.contexts:
            await context.close()

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)


@asynccontextmanager
async def chromium(arguments: Sequence[str] = _ARGUMENTS) -> AsyncIterator[Chromium]:
    """Run a browser; the test fails at the end when a page complained."""
    path = require("chromium")
    expect.set_options(timeout=_PATIENCE_MILLISECONDS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(arguments))
        driven = Chromium(browser)
        try:
            yield driven
        finally:
            await browser.close()
    assert driven.complaints == []

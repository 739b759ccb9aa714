"""OHIF for the tests: where it comes from, and what there is to see."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from tests.browser import WITH_WEBGL, chromium
from tests.peers import leave_out, require, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Page

    from tests.browser import Chromium

ROOT = Path(__file__).parents[2]
PATIENCE = 60_000
#: Black, white, and grays between: more than a page without an image has.
_GRAYS = """canvas => {
  const {width, height} = canvas;
  const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  const grays = new Set();
  for (let index = 0; index < data.length; index += 4) grays.add(data[index]);
  return grays.size;
}"""
#: The test's own looking at the canvas; OHIF's guided tour, which comes before the viewport on a busy machine.
_HARMLESS = ("willReadFrequently", "Shepherd step", ".cornerstone-viewport-element")


@pytest.fixture(scope="session")
def ohif(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a built OHIF: the one that is there, else one from npm, for all workers."""
    present = Path(os.environ.get("PACSBRIDGE_TEST_OHIF", ROOT / "ohif"))
    if (present / "index.html").is_file():
        return present
    require("npm")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ohif"
    with (folder.parent / "ohif.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(ROOT / "scripts/get-ohif", folder, timeout=100)
    if done.returncode:
        leave_out(f"OHIF can't be had from npm: {done.stdout[-300:]}")
    return folder


@pytest.fixture
async def browser() -> AsyncIterator[Chromium]:
    """Give a browser that draws; a complaint that matters fails the test."""
    async with chromium(WITH_WEBGL) as browser:
        yield browser
        browser.complaints[:] = matter(browser)


def matter(browser: Chromium) -> list[str]:
    """Give the complaints that matter."""
    return [text for text in browser.complaints if not any(part in text for part in _HARMLESS)]


async def see_the_image(page: Page) -> None:
    """Wait until pixels of the image are on the screen."""
    canvas = page.locator("canvas.cornerstone-canvas").first
    await expect(canvas).to_be_visible(timeout=PATIENCE)
    for _ in range(200):
        if await canvas.evaluate(_GRAYS) > 50:
            return
        await page.wait_for_timeout(200)
    pytest.fail("nothing but one colour on the canvas")


async def sign_in(page: Page, url: str, email: str, password: str) -> None:
    """Sign in on the page at `url`, and wait for where that leads."""
    await page.goto(url)
    await page.fill("[name=email]", email)
    await page.fill("[name=password]", password)
    await page.keyboard.press("Enter")
    await page.wait_for_url(re.compile(r"^(?!.*/login)"), timeout=PATIENCE)

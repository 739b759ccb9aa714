"""Real OHIF in a real browser, through pacsbridge, to Orthanc behind a front that behaves as Google does."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from pacsbridge.accounts.values import Grants, Role
from tests.accounts.examples import PASSWORD
from tests.dicomweb.conftest import archive, fast_hashes, google, key
from tests.dicomweb.viewing import running_viewing
from tests.e2e.viewer import PATIENCE, browser, matter, ohif, see_the_image, sign_in
from tests.peers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Route

    from tests.browser import Chromium
    from tests.dicomweb.conftest import Archive
    from tests.dicomweb.viewing import Viewing
    from tests.google import GoogleFront

__all__ = ["archive", "browser", "fast_hashes", "google", "key", "ohif"]


@pytest.fixture
async def viewing(
    google: GoogleFront, ohif: Path, tmp_path: Path, fast_hashes: None
) -> AsyncIterator[Viewing]:
    """Give pacsbridge with OHIF, whose access tokens live for three seconds."""
    port = free_port()
    async with running_viewing(
        tmp_path,
        server={"port": port, "public_url": f"http://127.0.0.1:{port}", "allowed_origins": []},
        accounts={"access_token_minutes": 0.05},
        dicomweb={"upstream": "google", "ohif_dir": str(ohif)},
        google=google.config(google.write_credentials(tmp_path / "account.json")),
    ) as viewing:
        yield viewing


async def test_a_doctor_signs_in_opens_a_study_and_reads_on(
    viewing: Viewing, browser: Chromium, archive: Archive
) -> None:
    await viewing.user("doctor@example.org", Role.DOCTOR)
    page = await browser.page(viewport={"width": 1400, "height": 900})
    await sign_in(page, f"{viewing.url}/login", "doctor@example.org", PASSWORD)
    await expect(page.get_by_text("Bobson, Bob")).to_be_visible(timeout=PATIENCE)
    await page.get_by_text("ANN1").click()
    await page.get_by_text(re.compile("Basic")).first.click()
    await see_the_image(page)
    assert archive.ann.StudyInstanceUID in page.url
    await page.reload()
    await see_the_image(page)
    # The access token of the sign-in is worn out by now; what is opened next still comes.
    await page.wait_for_timeout(4000)
    await page.goto(f"{viewing.url}/viewer?StudyInstanceUIDs={archive.bob.StudyInstanceUID}")
    await see_the_image(page)
    await browser.close_pages()
    read = [row for row in await viewing.audited() if row["event"] == "read a study"]
    assert {row["study_iuid"] for row in read} == {archive.ann.StudyInstanceUID, archive.bob.StudyInstanceUID}
    assert len(read) == 2


async def test_a_patient_opens_a_link_and_reaches_own_studies_only(
    viewing: Viewing, browser: Chromium, archive: Archive
) -> None:
    studies = [archive.ann.StudyInstanceUID, archive.ann_too.StudyInstanceUID]
    body = {"reference": "r1", "patient_name": "Annson^Ann", "study_iuids": studies}
    async with viewing.session.post(f"{viewing.url}/api/shortlinks", json=body) as answer:
        link = (await answer.json())["url"]
    page = await browser.page(viewport={"width": 1400, "height": 900})
    shown: list[str] = []
    page.on("response", lambda response: shown.append(response.url))
    await page.goto(link)
    await see_the_image(page)
    assert studies[0] in page.url
    # The second one is offered as another study of the patient, and nobody else's.
    panel = page.locator("[data-cy='studyBrowser-panel']")
    await expect(panel.get_by_text("02-Jan-2025")).to_have_count(2, timeout=PATIENCE)
    await page.goto(f"{viewing.url}/viewer?StudyInstanceUIDs={studies[1]}")
    await see_the_image(page)
    assert not [url for url in shown if archive.bob.StudyInstanceUID in url]
    assert matter(browser) == []
    await page.goto(f"{viewing.url}/viewer?StudyInstanceUIDs={archive.bob.StudyInstanceUID}")
    await expect(page.locator("canvas.cornerstone-canvas")).to_have_count(0)
    await expect(
        page.get_by_text(re.compile("not (available|found)|unavailable", re.IGNORECASE)).first
    ).to_be_visible(timeout=PATIENCE)
    await browser.close_pages()
    browser.complaints.clear()  # it was refused, and says so


async def test_style_sheets_may_come_last(viewing: Viewing, browser: Chromium, archive: Archive) -> None:
    """On a reload they do: scripts are in the cache by then. OHIF alone stays empty when it happens."""
    page = await browser.page(viewport={"width": 1400, "height": 900})

    async def late(route: Route) -> None:
        await asyncio.sleep(1.5)
        await route.continue_()

    await viewing.user("doctor@example.org", Role.DOCTOR)
    await sign_in(page, f"{viewing.url}/login", "doctor@example.org", PASSWORD)
    await page.route("**/*.css", late)
    await page.goto(f"{viewing.url}/viewer?StudyInstanceUIDs={archive.ann.StudyInstanceUID}")
    await see_the_image(page)
    await browser.close_pages()


async def test_a_stranger_is_led_to_the_sign_in_page(
    viewing: Viewing, browser: Chromium, archive: Archive
) -> None:
    page = await browser.page()
    await page.goto(f"{viewing.url}/viewer?StudyInstanceUIDs={archive.ann.StudyInstanceUID}")
    await page.wait_for_url(re.compile(r"/login\?next="), timeout=PATIENCE)
    await viewing.user("ann@example.org", Role.PATIENT, Grants((archive.ann.StudyInstanceUID,)))
    await sign_in(page, page.url, "ann@example.org", PASSWORD)
    await see_the_image(page)
    await browser.close_pages()
    browser.complaints.clear()  # the first request was refused, and the viewer says so

"""The desk page in a real browser, in front of the whole service and a PACS."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import expect
from sqlalchemy import update

from pacsbridge.db import Database
from pacsbridge.db.schema import jobs
from pacsbridge.http.links import Purpose, make_link
from pacsbridge.jobs.job import Kind, State
from tests.accounts.examples import HASHER, PASSWORD, SECRET
from tests.browser import Chromium, chromium
from tests.e2e.service import Service, make_config, running
from tests.misbehaving import Misbehaviour
from tests.peers import HOST, free_port
from tests.studies import Patient, make_study

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Locator, Page

    from pacsbridge.config import Config
    from tests.conftest import MakePacs, MakeStoreScp
    from tests.misbehaving import MisbehavingPacs

IMAGES = 12
NARROW = {"width": 360, "height": 740}
#: A job takes as long as its images: the page sees it on its way.
SLOW = Misbehaviour(delay=0.15)


@pytest.fixture
def pacs(make_pacs: MakePacs, tmp_path: Path) -> MisbehavingPacs:
    for number in range(1, 10):
        make_study(tmp_path / "pacs", f"A{number}", instances=IMAGES)
    make_study(tmp_path / "pacs", "B1", patient=Patient("OTHER", "Other^Person"))
    return make_pacs(folder=tmp_path / "pacs")


@pytest.fixture
async def browser() -> AsyncIterator[Chromium]:
    async with chromium() as browser:
        yield browser


@asynccontextmanager
async def serving(browser: Chromium, config: Config) -> AsyncIterator[Service]:
    """Run the service, and close the pages before it ends: they would complain that it is away."""
    async with running(config) as service:
        yield service
        await browser.close_pages()


async def open_desk(browser: Chromium, service: Service, query: str = "", **options: Any) -> Page:
    page = await browser.page(**options)
    await page.goto(f"{service.url}/discs{query}")
    return page


def item(page: Page, numbers: str) -> Locator:
    """Find a job in the list; the newest one."""
    heading = page.locator(".numbers", has_text=re.compile(f"^{re.escape(numbers)}$"))
    return page.locator(".job").filter(has=heading).first


async def make(page: Page, numbers: str) -> None:
    await page.locator("#field").fill(numbers)
    await page.get_by_role("button", name="Make disc").click()


async def watch_bars(page: Page) -> None:
    """Have the page note every value that each bar shows, from now on."""
    await page.evaluate(
        """() => {
            window.seen = {};
            const note = () => {
                for (const job of document.querySelectorAll(".job")) {
                    const bar = job.querySelector("[role=progressbar]");
                    const values = window.seen[job.querySelector(".numbers").textContent] ??= [];
                    const now = Number(bar.getAttribute("aria-valuenow"));
                    if (values.at(-1) !== now) values.push(now);
                }
            };
            new MutationObserver(note).observe(document.getElementById("jobs"),
                {attributes: true, childList: true, subtree: true});
        }"""
    )


async def test_a_disc_is_made_by_the_keyboard_alone(
    browser: Chromium, pacs: MisbehavingPacs, tmp_path: Path
) -> None:
    pacs.misbehaviour = SLOW
    async with serving(browser, make_config(tmp_path, pacs)) as service:
        page = await open_desk(browser, service)
        await expect(page.locator("#none")).to_be_visible()
        keyboard = page.keyboard
        for number in ("A9", "A1", "A2"):
            await keyboard.type(number)
            await keyboard.press("Enter")
        await expect(page.locator(".chip")).to_have_text(["A9×", "A1×", "A2×"])
        assert list(service.services.engine.jobs) == []
        for _ in range(3):
            await keyboard.press("Shift+Tab")
        await expect(page.get_by_role("button", name="Remove A9")).to_be_focused()
        await keyboard.press("Delete")
        await expect(page.get_by_role("button", name="Remove A1")).to_be_focused()
        for _ in range(3):
            await keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Make disc")).to_be_focused()
        await keyboard.press("Enter")

        job = item(page, "A1, A2")
        bar = page.get_by_role("progressbar", name="Progress of A1, A2")
        await expect(bar).to_have_attribute("aria-valuetext", re.compile(r"\d+ of 24 images"))
        await expect(job.locator(".word")).to_have_text("Ready to download")
        await expect(job.locator(".counts")).to_contain_text("24 images")
        await expect(page.locator("#said")).to_have_text("A1, A2: Ready to download")
        await expect(page.locator("#field")).to_be_focused()

        download = job.get_by_role("link", name="Download")
        for _ in range(2):
            await keyboard.press("Tab")
        await expect(download).to_be_focused()
        async with page.expect_download() as coming:
            await keyboard.press("Enter")
        file = await coming.value
        assert file.suggested_filename == "Test_Patient.iso"
        await file.save_as(tmp_path / "downloaded.iso")
        async with service.disc("A1", "A2") as kept:
            assert (tmp_path / "downloaded.iso").stat().st_size == kept.disc.size


async def test_ten_jobs_over_two_ports_move_and_three_are_cancelled(
    browser: Chromium, pacs: MisbehavingPacs, tmp_path: Path
) -> None:
    for path in make_study(tmp_path / "pacs", "LONG", instances=300).paths:
        pacs.index.add(path)
    pacs.misbehaviour = SLOW
    async with serving(browser, make_config(tmp_path, pacs, ports=2)) as service:
        page = await open_desk(browser, service)
        watcher = await open_desk(browser, service)
        await watch_bars(page)
        made = [f"A{number}" for number in range(1, 8)]
        cancelled = ["LONG", "A8", "A9"]
        for number in ("LONG", *made, "A8", "A9"):
            await make(page, number)
        await expect(watcher.locator(".job")).to_have_count(10)
        await expect(item(page, "A9").locator(".word")).to_have_text(re.compile("Waiting, number"))
        await expect(item(page, "LONG").locator(".counts")).to_contain_text("of 300 images")
        # One that is being received is cancelled at the PACS, two that wait leave the queue.
        for number in cancelled:
            await page.get_by_role("button", name=f"Cancel: {number}", exact=True).click()
        for number in cancelled:
            await expect(item(watcher, number).locator(".word")).to_have_text("Cancelled")
        for number in made:
            for one in (page, watcher):
                await expect(item(one, number).locator(".word")).to_have_text("Ready to download")
        assert pacs.cancels == 1
        assert len(pacs.moves) == len(made) + 1
        seen = await page.evaluate("() => window.seen")
        for number in made:
            assert seen[number] == sorted(seen[number])
            assert seen[number][-1] == 100
            assert len(seen[number]) > 2, number


@pytest.mark.parametrize(
    ("locale", "state", "what", "what_to_do", "mixed"),
    [
        ("en-GB", "Not made", "no images", "ask the radiographer", "different patients"),
        ("id-ID", "Gagal dibuat", "Tidak ada gambar", "tanyakan ke radiografer", "pasien yang berbeda"),
    ],
)
async def test_an_error_is_told_in_words(
    browser: Chromium,
    pacs: MisbehavingPacs,
    tmp_path: Path,
    locale: str,
    state: str,
    what: str,
    what_to_do: str,
    mixed: str,
) -> None:
    async with serving(browser, make_config(tmp_path, pacs)) as service:
        page = await open_desk(browser, service, locale=locale)
        for numbers in ("NOSUCH", "A1,B1"):
            await page.locator("#field").fill(numbers)
            await page.locator("[data-start=iso]").click()
        job = item(page, "NOSUCH")
        await expect(job.locator(".word")).to_have_text(state)
        await expect(job.locator(".what")).to_contain_text(what)
        await expect(job.locator(".do")).to_contain_text(what_to_do)
        await expect(item(page, "A1, B1").locator(".what")).to_contain_text(mixed)
        # The code and the server's own words are for whoever opens the details.
        assert "no_dicom_data" not in await job.inner_text()
        await job.locator("summary").click()
        await expect(job.locator(".message")).to_contain_text("no_dicom_data")
        await expect(job.locator(".message")).to_contain_text("The PACS has no study")

        again = job.locator("[data-do=again]")
        for path in make_study(tmp_path / "late", "NOSUCH", instances=2).paths:
            pacs.index.add(path)
        await again.click()
        await expect(page.locator(".job")).to_have_count(3)
        await expect(item(page, "NOSUCH").locator("[data-do=download]")).to_be_visible()


async def test_what_is_asked_wrongly_is_told_beside_the_field(
    browser: Chromium, pacs: MisbehavingPacs, tmp_path: Path
) -> None:
    async with serving(browser, make_config(tmp_path, pacs)) as service:
        page = await open_desk(browser, service)
        button = page.get_by_role("button", name="Make disc")
        await button.click()
        await expect(page.get_by_role("alert")).to_contain_text("There is no accession number")
        await page.get_by_role("button", name="Close").click()
        await expect(page.get_by_role("alert")).to_be_hidden()
        await page.locator("#field").fill("A1, A*, <b>x</b>")
        await page.keyboard.press("Enter")
        await expect(page.locator(".chip")).to_have_text(["A1×", "<b>x</b>×"])
        await expect(page.locator("#notice")).to_contain_text("“A*” can't be an accession number")
        await expect(page.locator("#field")).to_have_value("A*")
        await button.click()
        await expect(page.locator("#field")).to_be_focused()
        assert list(service.services.engine.jobs) == []


async def test_a_pasted_list_is_parted_and_a_scanned_number_is_not(
    browser: Chromium, pacs: MisbehavingPacs, tmp_path: Path
) -> None:
    async with serving(browser, make_config(tmp_path, pacs)) as service:
        page = await open_desk(browser, service)
        await page.locator("#field").evaluate(
            """(field, text) => {
                const clipboardData = new DataTransfer();
                clipboardData.setData("text", text);
                field.dispatchEvent(new ClipboardEvent("paste", {clipboardData, cancelable: true}));
            }""",
            "A1, A2\nA3 A4;A1",
        )
        await page.locator("#field").press_sequentially("AB 12")
        await page.keyboard.press("Enter")
        await expect(page.locator(".chip")).to_have_text(["A1×", "A2×", "A3×", "A4×", "AB 12×"])
        await page.keyboard.press("Backspace")
        await expect(page.locator(".chip")).to_have_count(4)
        await page.reload()
        await expect(page.locator(".chip")).to_have_text(["A1×", "A2×", "A3×", "A4×"])


async def test_a_page_loaded_again_goes_on_where_it_was(
    browser: Chromium, pacs: MisbehavingPacs, tmp_path: Path
) -> None:
    pacs.misbehaviour = SLOW
    async with serving(browser, make_config(tmp_path, pacs)) as service:
        page = await open_desk(browser, service)
        await make(page, "A1")
        await expect(item(page, "A1").locator(".counts")).to_contain_text("of 12 images")
        await page.reload()
        await expect(item(page, "A1").locator(".counts")).to_contain_text("of 12 images")
        await page.goto("about:blank")
        await page.go_back()
        await expect(item(page, "A1").locator(".word")).to_have_text("Ready to download")
        await expect(page.locator(".job")).to_have_count(1)
        await make(page, "A1")
        await expect(page.locator("#notice")).to_contain_text("in the list already")
        assert len(pacs.moves) == 1


async def test_a_link_of_the_his_starts_a_disc_once(
    browser: Chromium, pacs: MisbehavingPacs, tmp_path: Path
) -> None:
    pacs.misbehaviour = SLOW
    async with serving(browser, make_config(tmp_path, pacs)) as service:
        page = await open_desk(browser, service, "?accession_number=A1,A2&lang=id")
        await expect(item(page, "A1, A2").locator(".counts")).to_contain_text("dari 24 gambar")
        await expect(page).to_have_url(f"{service.url}/discs")
        await item(page, "A1, A2").locator("[data-do=cancel]").press("Enter")
        await expect(item(page, "A1, A2").locator(".word")).to_have_text("Dibatalkan")
        await expect(item(page, "A1, A2")).to_be_focused()  # its button is gone, the place is not
        await page.reload()
        await expect(item(page, "A1, A2").locator(".word")).to_have_text("Dibatalkan")
        await page.get_by_role("link", name="English").click()
        await expect(item(page, "A1, A2").locator(".word")).to_have_text("Cancelled")
        await expect(page.locator(".job")).to_have_count(1)
        assert len(list(service.services.engine.jobs)) == 1


async def test_a_signed_link_opens_the_page_for_its_numbers_only(
    browser: Chromium, pacs: MisbehavingPacs, tmp_path: Path
) -> None:
    config = make_config(tmp_path, pacs, auth={"enabled": True, "api_key": "a key for tests"})
    async with serving(browser, config) as service:
        expires = int(time.time()) + 3600
        link = make_link(config.auth, "", Purpose.DESK, ["A1"], expires=expires)
        service.services.engine.submit(Kind.ISO, ["A2"], keep=True)
        page = await open_desk(browser, service, f"?{urlsplit(link).query}")
        job = item(page, "A1")
        await expect(job.locator(".word")).to_have_text("Ready to download")
        await expect(page.locator(".job")).to_have_count(1)
        async with page.expect_download() as coming:
            await job.get_by_role("link", name="Download").click()
        assert (await coming.value).suggested_filename == "A1.iso"
        await page.reload()
        await expect(job.locator(".word")).to_have_text("Ready to download")
        await page.get_by_role("button", name="Make disc").click()
        await expect(page.locator("#notice")).to_contain_text("in the list already")
        assert len(list(service.services.engine.jobs)) == 2


async def test_a_link_that_expires_under_the_open_page_is_told(
    browser: Chromium, pacs: MisbehavingPacs, tmp_path: Path
) -> None:
    config = make_config(tmp_path, pacs, auth={"enabled": True, "api_key": "a key for tests"})
    async with serving(browser, config) as service:
        link = make_link(config.auth, "", Purpose.DESK, ["A1"], expires=int(time.time()) + 3)
        page = await open_desk(browser, service, f"?{urlsplit(link).query}")
        await expect(page.get_by_role("alert")).to_contain_text("Its link is too old")
    browser.complaints.clear()  # Chromium notes the refused request


async def test_a_double_click_on_print_is_one_order(
    browser: Chromium, pacs: MisbehavingPacs, storescp: MakeStoreScp, tmp_path: Path
) -> None:
    robot = storescp()
    publisher = {"host": HOST, "port": robot.port, "connect_timeout_seconds": 2}
    async with serving(browser, make_config(tmp_path, pacs, publisher=publisher)) as service:
        page = await open_desk(browser, service)
        await page.locator("#field").fill("A1")
        await page.get_by_role("button", name="Print disc").dblclick()
        await expect(item(page, "A1").locator(".word")).to_have_text("Sent to the disc publisher")
        await expect(page.get_by_role("alert")).to_be_hidden()
        assert robot.associations() == 1
        await item(page, "A1").get_by_role("button", name="Print again").dblclick()
        await expect(page.locator(".job")).to_have_count(2)
        await expect(item(page, "A1").locator(".word")).to_have_text("Sent to the disc publisher")
        assert robot.associations() == 2
        robot.stop()
        await item(page, "A1").get_by_role("button", name="Print again").click()
        await expect(item(page, "A1").locator(".word")).to_have_text("Not printed")
        await expect(item(page, "A1").locator(".do")).to_contain_text("If a disc comes out, throw it away")
        assert len(list(service.services.engine.jobs)) == 3


async def test_staff_sign_in_and_make_a_disc(
    browser: Chromium, pacs: MisbehavingPacs, tmp_path: Path
) -> None:
    user = {"email": "clerk@example.org", "password_hash": HASHER.hash(PASSWORD), "role": "staff"}
    config = make_config(
        tmp_path,
        pacs,
        server={"host": HOST, "port": 0, "shutdown_timeout_seconds": 2},
        auth={"enabled": True, "api_key": "a key for tests"},
        accounts={"jwt_secret": SECRET, "static_users": [user]},
    )
    async with serving(browser, config) as service:
        page = await open_desk(browser, service)
        await expect(page.get_by_role("heading", level=2)).to_have_text(
            "This page has to be opened from the HIS"
        )
        await page.get_by_role("link", name="Sign in").click()
        await page.get_by_label("Email").fill("clerk@example.org")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page).to_have_url(f"{service.url}/discs")
        await make(page, "A1")
        await expect(item(page, "A1").locator(".word")).to_have_text("Ready to download")
        await page.get_by_role("link", name="Account").click()
        await page.get_by_role("button", name="Sign out").click()
        await page.goto(f"{service.url}/discs")
        await expect(page.get_by_role("link", name="Sign in")).to_be_visible()
    browser.complaints.clear()  # Chromium notes the two refused pages


async def test_a_restart_shows_what_was_interrupted_and_makes_it_again(
    browser: Chromium, pacs: MisbehavingPacs, tmp_path: Path
) -> None:
    config = make_config(
        tmp_path, pacs, server={"host": HOST, "port": free_port(), "shutdown_timeout_seconds": 2}
    )
    async with running(config) as service:
        page = await open_desk(browser, service)
        await make(page, "A1")
        await expect(item(page, "A1").locator(".word")).to_have_text("Ready to download")
    await expect(page.locator("#offline")).to_be_visible()
    await leave_unfinished(config)
    async with running(config):
        await expect(page.locator("#offline")).to_be_hidden()
        await expect(item(page, "A1").locator(".word")).to_have_text("Interrupted")
        await expect(item(page, "A1").locator(".what")).to_contain_text("was restarted")
        await item(page, "A1").get_by_role("button", name="Try again").click()
        await expect(item(page, "A1").locator(".word")).to_have_text("Ready to download")
        await expect(page.locator(".job")).to_have_count(2)
    browser.complaints.clear()  # Chromium notes every request that found nobody


async def leave_unfinished(config: Config) -> None:
    """Leave the database as a killed process does."""
    database = Database(config.database.url.get_secret_value())
    try:
        async with database.transaction() as connection:
            await connection.execute(update(jobs).values(state=State.RUNNING.value, finished_at=None))
    finally:
        await database.close()


@pytest.mark.parametrize("locale", ["en-GB", "id-ID"])
async def test_a_narrow_window_needs_no_scrolling_sideways(
    browser: Chromium, pacs: MisbehavingPacs, tmp_path: Path, locale: str
) -> None:
    pacs.misbehaviour = SLOW
    async with serving(browser, make_config(tmp_path, pacs, publisher={"host": HOST})) as service:
        page = await open_desk(browser, service, locale=locale, viewport=NARROW)
        long = ",".join(f"W{number:015}" for number in range(4))
        for numbers in (long, "A1", "NOSUCH"):
            await page.locator("#field").fill(numbers)
            await page.locator("[data-start=iso]").click()
        await expect(page.locator(".job")).to_have_count(3)
        await page.locator("summary").last.click()
        await page.locator("#field").fill(f"{long},***************************************")
        await page.keyboard.press("Enter")
        await expect(item(page, "A1").locator(".counts")).to_contain_text("12")
        assert await page.evaluate("() => document.documentElement.scrollWidth") == NARROW["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_can_be_read(
    browser: Chromium, pacs: MisbehavingPacs, tmp_path: Path, scheme: str
) -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3), light and dark."""
    async with serving(browser, make_config(tmp_path, pacs, publisher={"host": HOST})) as service:
        page = await open_desk(browser, service, color_scheme=scheme)
        await make(page, "A1")
        await make(page, "NOSUCH")
        await expect(item(page, "A1").locator(".word")).to_have_text("Ready to download")
        await page.get_by_role("button", name="Make disc").click()
        await page.locator("#field").fill("A2,A*")
        await page.keyboard.press("Enter")
        await asyncio.sleep(2.6)  # the new ones are marked until then
        paints = await page.evaluate(PAINTS)
        assert len(paints) > 20
        background = next(paint["background"] for paint in paints)
        assert (brightness(background) > 0.5) == (scheme == "light")
        for paint in paints:
            assert contrast(paint["color"], paint["background"]) >= 4.5, paint["text"]


#: Every text that is seen, with its color and the one behind it.
PAINTS = """() => {
    const paints = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        const text = walker.currentNode.textContent.trim();
        if (!text || !element.checkVisibility() || element.closest("noscript, template, script")) continue;
        let behind = element;
        while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
        const colors = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
        const [color, background] = colors.map((one) => one.match(/[0-9.]+/g).slice(0, 3).map(Number));
        paints.push({text, color, background});
    }
    return paints;
}"""


def brightness(color: list[float]) -> float:
    """Give the relative luminance of WCAG 2.2."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (value / 255 for value in color)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: list[float], other: list[float]) -> float:
    dark, light = sorted((brightness(one), brightness(other)))
    return (light + 0.05) / (dark + 0.05)

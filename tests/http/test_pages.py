"""The pages for people, in a real Chromium: with the keyboard alone, in light and dark, on a phone."""

from __future__ import annotations

import os
import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import async_playwright, expect

from pacsbridge.accounts.catalog import FoundStudy
from pacsbridge.accounts.values import Grants, Role
from tests.accounts.examples import ENGINEER, HERE, PASSWORD, add
from tests.peers import require

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Page

    from tests.http.desk import Desk

ADMIN = "admin@example.org"
#: Where to leave pictures of the pages for a person to look at; nowhere unless set.
PICTURES = os.environ.get("PACSBRIDGE_TEST_PICTURES", "")


@asynccontextmanager
async def browser_page(*, dark: bool = False, phone: bool = False) -> AsyncIterator[Page]:
    """Open an empty page; what a page's script or policy complains of fails the test."""
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=require("chromium"), args=["--no-sandbox"])
        context = await browser.new_context(
            color_scheme="dark" if dark else "light",
            viewport={"width": 390, "height": 844} if phone else {"width": 1100, "height": 800},
            java_script_enabled=False,
        )
        page = await context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.set_default_timeout(20_000)
        try:
            yield page
        finally:
            await browser.close()
    unexpected = [
        text for text in complaints if text.startswith(("error", "warning")) and "status of 4" not in text
    ]
    assert unexpected == []


async def picture(page: Page, name: str) -> None:
    if PICTURES:
        await page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


async def write(page: Page, text: str) -> None:
    await page.keyboard.type(text)


async def focused(page: Page) -> str:
    # Nothing has it when Tab has left the page at its end, for the browser's own bars.
    return "".join(await page.locator(":focus").evaluate_all("nodes => nodes.map(node => node.outerHTML)"))


async def tab_to(page: Page, label: str) -> None:
    """Press Tab until something with this name has the focus."""
    for _ in range(80):
        await page.keyboard.press("Tab")
        if label in await focused(page):
            return
    pytest.fail(f"Tab doesn't lead to {label!r}")


async def sign_in_by_keyboard(desk: Desk, page: Page, email: str) -> None:
    await page.goto(f"{desk.url}/login")
    await expect(page.get_by_label("Email")).to_be_focused()
    await write(page, email)
    await page.keyboard.press("Tab")
    await write(page, PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page).not_to_have_url(f"{desk.url}/login")


@pytest.mark.parametrize("dark", [False, True])
async def test_signing_in_with_the_keyboard(desk: Desk, dark: bool) -> None:
    await add(desk.accounts, ADMIN, Role.ADMIN)
    async with browser_page(dark=dark, phone=dark) as page:
        await page.goto(f"{desk.url}/admin")
        await expect(page).to_have_url(f"{desk.url}/login?next=/admin")
        await expect(page.get_by_label("Email")).to_be_focused()
        await picture(page, f"login-{'dark-phone' if dark else 'light'}")
        await write(page, ADMIN)
        await page.keyboard.press("Tab")
        await write(page, "wrong-password")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("Wrong email or password.")
        assert await page.get_by_label("Email").input_value() == ADMIN
        assert await page.get_by_label("Password").input_value() == ""
        await picture(page, f"login-wrong-{'dark-phone' if dark else 'light'}")
        await expect(page.get_by_label("Password")).to_be_focused()
        await write(page, PASSWORD)
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(f"{desk.url}/admin")
        await tab_to(page, "Sign out")
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(f"{desk.url}/login")
        await page.goto(f"{desk.url}/admin")
        await expect(page).to_have_url(f"{desk.url}/login?next=/admin")


async def test_an_admins_week_with_the_keyboard(desk: Desk) -> None:
    await add(desk.accounts, ADMIN, Role.ADMIN)
    for number in range(5):
        await add(desk.accounts, f"patient{number}@example.org")
    async with browser_page() as page:
        await sign_in_by_keyboard(desk, page, ADMIN)
        await expect(page.get_by_role("heading", name="Users")).to_be_visible()
        await picture(page, "admin-light")
        await tab_to(page, "<summary")
        await page.keyboard.press("Enter")
        await tab_to(page, 'id="new-email"')
        await write(page, "olena@example.org")
        await page.keyboard.press("Tab")
        await write(page, "Олена Іваненко")
        await page.keyboard.press("Tab")
        await write(page, "doctor")
        await page.keyboard.press("Tab")
        await write(page, "Ivanenko^Olena")
        await picture(page, "admin-add-light")
        await page.keyboard.press("Enter")
        password = await page.locator("code").inner_text()
        assert re.fullmatch(r"[A-Za-z0-9_-]{16}", password)
        await picture(page, "user-added-light")
        assert await desk.accounts.sign_in("olena@example.org", password, HERE)

        await page.goto(f"{desk.url}/admin")
        await expect(page.get_by_role("searchbox")).to_be_focused()
        await write(page, "ІВАНЕНКО")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("row")).to_have_count(2)
        await tab_to(page, "olena@example.org")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="May see")).to_be_visible()
        await tab_to(page, 'id="numbers"')
        await write(page, "A1, A2")
        await tab_to(page, 'id="uids"')
        await write(page, "1.2.3")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("status")).to_have_text("The user may see the studies now.")
        await picture(page, "user-light")
        await tab_to(page, "Unassign accession number A1")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("status")).to_have_text("The user may not see that any more.")
        assert await desk.accounts.users.granted("olena@example.org") == Grants(("1.2.3",), ("A2",))
        await tab_to(page, "End the session of")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("cell", name="ended by an admin")).to_be_visible()
        await tab_to(page, 'id="password"')
        await write(page, "short")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("A password needs at least 8 characters.")
        await tab_to(page, ">Disable<")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Enable")).to_be_visible()
        assert (await desk.accounts.users.get("olena@example.org")).disabled_at is not None
        await page.get_by_role("button", name="Enable").press("Enter")
        await expect(page.get_by_role("button", name="Disable")).to_be_visible()


async def test_the_admin_pages_in_the_dark_on_a_phone(desk: Desk) -> None:
    await add(desk.accounts, ADMIN, Role.ADMIN)
    user = await add(desk.accounts, "a-rather-long-address-of-a-patient@department.hospital.example.org")
    await desk.accounts.users.assign(user.id, Grants(("1.2." + "3" * 58,), ("A1",)), ENGINEER)
    await desk.accounts.sign_in(user.email, PASSWORD, HERE)
    async with browser_page(dark=True, phone=True) as page:
        await sign_in_by_keyboard(desk, page, ADMIN)
        for path, name in (("/admin", "admin-dark-phone"), (f"/admin/users/{user.id}", "user-dark-phone")):
            await page.goto(desk.url + path)
            await picture(page, name)
            await expect(page.get_by_role("navigation")).to_be_visible()
            width = await page.locator("html").evaluate("node => node.scrollWidth")
            assert width <= 390, f"{path} is {width} wide: it scrolls sideways on a phone"


async def test_an_admin_does_not_find_a_button_to_disable_themselves(desk: Desk) -> None:
    admin = await add(desk.accounts, ADMIN, Role.ADMIN)
    async with browser_page() as page:
        await sign_in_by_keyboard(desk, page, ADMIN)
        await page.goto(f"{desk.url}/admin/users/{admin.id}")
        await expect(page.get_by_role("button", name="Reset the password")).to_be_visible()
        await expect(page.get_by_role("button", name="Disable")).to_have_count(0)


async def test_a_patients_page(sqlite_desk: Desk) -> None:
    desk = sqlite_desk
    desk.catalog.studies["A1"] = [
        FoundStudy("1.2.3", "A1", "20260102", "CT Thorax", ("CT", "SR")),
        FoundStudy("1.2.4", "A1"),
    ]
    body = {"reference": "r", "accession_numbers": ["A1"], "patient_name": "Doe^Jane"}
    code = (await desk.post("/api/shortlinks", body)).json["code"]
    async with browser_page(phone=True) as page:
        await page.goto(f"{desk.url}/s/{code}/studies")
        await picture(page, "studies-phone")
        await expect(page.get_by_role("link", name=re.compile("CT Thorax"))).to_have_attribute(
            "href", "/viewer?StudyInstanceUIDs=1.2.3"
        )
        await page.goto(f"{desk.url}/s/AAAAAAAAAAAAAAAAAAAAAA")
        await expect(page.get_by_role("heading", name="That did not work")).to_be_visible()
        await picture(page, "problem-phone")


async def test_a_form_of_another_site_is_refused(sqlite_desk: Desk) -> None:
    await add(sqlite_desk.accounts, ADMIN, Role.ADMIN)
    form = {"email": ADMIN, "password": PASSWORD}
    for origin in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        answer = await sqlite_desk.ask("POST", "/login", data=form, headers=origin)
        assert (answer.status, answer.cookie) == (403, None)
        cookie = await sqlite_desk.accounts.sign_in(ADMIN, PASSWORD, HERE)
        headers = origin | {"Cookie": f"pacsbridge_session={cookie.session_token}"}
        for path in ("/logout", "/admin/users", "/admin/users/x/disable"):
            assert (await sqlite_desk.ask("POST", path, data={}, headers=headers)).status == 403


@pytest.mark.parametrize(
    ("onward", "leads_to"),
    [
        ("/discs", "/discs"),
        ("/admin/users/x?done=added", "/admin/users/x?done=added"),
        ("", "/admin"),
        ("https://evil.example", "/admin"),
        ("//evil.example", "/admin"),
        ("/\\evil.example", "/admin"),
        ("/\t/evil.example", "/admin"),
        ("/x\r\nSet-Cookie: a=b", "/admin"),
        ("javascript:alert(1)", "/admin"),
        ("//[", "/admin"),
    ],
)
async def test_nobody_is_led_elsewhere(sqlite_desk: Desk, onward: str, leads_to: str) -> None:
    await add(sqlite_desk.accounts, ADMIN, Role.ADMIN)
    form = {"email": ADMIN, "password": PASSWORD, "next": onward}
    answer = await sqlite_desk.ask("POST", "/login", data=form, headers={"Origin": sqlite_desk.url})
    assert (answer.status, answer.headers["Location"]) == (303, leads_to)


@pytest.mark.parametrize(
    ("role", "granted", "leads_to"),
    [
        (Role.ADMIN, Grants(), "/admin"),
        (Role.STAFF, Grants(), "/discs"),
        (Role.DOCTOR, Grants(("1.2.3",)), "/"),
        (Role.PATIENT, Grants(("1.2.3",)), "/viewer?StudyInstanceUIDs=1.2.3"),
        (Role.PATIENT, Grants((), ("A1",)), "/viewer?StudyInstanceUIDs=1.2.5"),
        (Role.PATIENT, Grants((), ("A2",)), "/"),
        (Role.PATIENT, Grants(), "/"),
    ],
)
async def test_everybody_is_led_to_their_work(
    sqlite_desk: Desk, role: Role, granted: Grants, leads_to: str
) -> None:
    user = await add(sqlite_desk.accounts, "somebody@example.org", role)
    await sqlite_desk.accounts.users.assign(user.id, granted, ENGINEER)
    sqlite_desk.catalog.studies["A1"] = [FoundStudy("1.2.5", "A1")]
    form = {"email": user.email, "password": PASSWORD}
    answer = await sqlite_desk.ask("POST", "/login", data=form, headers={"Origin": sqlite_desk.url})
    assert answer.headers["Location"] == leads_to


async def test_pages_load_nothing_from_elsewhere_and_are_framed_by_nobody(sqlite_desk: Desk) -> None:
    answer = await sqlite_desk.ask("GET", "/login")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert b"http://" not in answer.body
    assert b"https://" not in answer.body
    style = await sqlite_desk.ask("GET", "/static/pacsbridge.css")
    assert style.headers["Content-Type"].startswith("text/css")
    assert b"url(" not in style.body


async def test_too_many_guesses_at_the_page(sqlite_desk: Desk) -> None:
    form = {"email": "x@example.org", "password": "wrong-password"}
    for status in (401, 401, 401, 401, 401, 429):
        answer = await sqlite_desk.ask("POST", "/login", data=form, headers={"Origin": sqlite_desk.url})
        assert answer.status == status
    assert answer.headers["Retry-After"]
    assert "Too many attempts" in answer.body.decode()


async def test_what_a_name_holds_is_text_not_markup(sqlite_desk: Desk) -> None:
    cookie = await sqlite_desk.cookie(ADMIN, Role.ADMIN)
    form = {
        "email": "<b>@x.org",
        "name": "<script>alert(1)</script>",
        "role": "patient",
        "ref_doctor": '"><i>',
    }
    answer = await sqlite_desk.ask("POST", "/admin/users", data=form, headers=cookie)
    assert answer.status == 200
    listed = await sqlite_desk.ask("GET", "/admin?q=%22%3E%3Cb%3E", headers=cookie)
    for body in (answer.body, listed.body):
        assert not re.search(rb"<(b|i|script)>", body)

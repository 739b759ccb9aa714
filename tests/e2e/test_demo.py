"""``pacsbridge demo`` as a process: what it prints works, and OHIF shows its images where it is there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import aiohttp
from playwright.async_api import expect

from tests.e2e.program import COMMAND, ENVIRONMENT, run_program
from tests.e2e.viewer import PATIENCE, browser, ohif, see_the_image, sign_in
from tests.peers import free_port, listens, require, run, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browser import Chromium

__all__ = ["browser", "ohif"]

DOCTOR = "doctor@demo.example"


@dataclass
class Demo:
    """A running demo; it is started in a folder of its own, where there is no OHIF."""

    folder: Path
    arguments: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        self.port = free_port()
        (self.folder / "tmp").mkdir(parents=True)
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "demo", "--port", str(self.port), *self.arguments],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | ENVIRONMENT | {"TMPDIR": str(self.folder / "tmp")},
            )  # fmt: skip
        try:
            wait_until(lambda: "Ctrl-C" in self.printed or self.process.poll() is not None, "the demo", 60)
            assert self.process.poll() is None, self.printed
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def printed(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def links(self) -> list[str]:
        return re.findall(rf"^  ({re.escape(self.url)}\S+)$", self.printed, re.MULTILINE)

    @property
    def commands(self) -> list[str]:
        return re.findall(r"^  ((?:curl|TOKEN=).*)$", self.printed, re.MULTILINE)

    @property
    def password(self) -> str:
        (password,) = re.findall(r"password of .* is (\S+):$", self.printed, re.MULTILINE)
        return str(password)

    def link(self, part: str) -> str:
        return next(link for link in self.links if part in link)


async def test_what_is_printed_works_without_a_viewer_too(tmp_path: Path) -> None:
    with Demo(tmp_path / "demo") as demo:
        assert "scripts/get-ohif" in demo.printed
        assert len(demo.links) == 13
        async with aiohttp.ClientSession() as session:
            for link in demo.links:
                async with session.get(link, headers={"Accept": "text/html"}) as answer:
                    assert answer.status == (401 if "dicomWeb" in link else 200), link
                    await answer.read()
            for who, sees in (("doctor", 8), ("patient", 2), ("staff", 8), ("admin", 8)):
                body = {"email": f"{who}@demo.example", "password": demo.password}
                async with session.post(f"{demo.url}/auth/login", json=body) as answer:
                    signed_in = await answer.json()
                assert signed_in["user"]["role"] == who
                token = {"Authorization": f"Bearer {signed_in['access_token']}"}
                async with session.get(f"{demo.url}/dicomWeb/studies", headers=token) as answer:
                    assert len(await answer.json(content_type=None)) == sees
            async with session.get(f"{demo.url}/api/health") as answer:
                checks = (await answer.json())["checks"]
            assert {checks[name]["status"] for name in ("pacs", "storage_scp", "dicomweb", "database")} == {
                "ok"
            }
        assert demo.stop() == 0
        assert list((demo.folder / "tmp").iterdir()) == []
        assert not listens(demo.port)
        assert demo.printed.rstrip().endswith("Ctrl-C ends it.")  # nothing went wrong behind it


def test_the_commands_that_it_prints_work(tmp_path: Path) -> None:
    require("curl")
    with Demo(tmp_path / "demo") as demo:
        assert len(demo.commands) == 9
        script = demo.folder / "script"
        script.write_text("set -eu\ncd tmp\n" + "\n".join(f"{line}\necho" for line in demo.commands))
        done = run("env", "-C", demo.folder, "bash", script)
        assert done.returncode == 0, done.stdout
        assert "no_dicom_data" in done.stdout
        *_, studies = (line for line in done.stdout.splitlines() if line.startswith("["))
        assert studies.count('"0020000D"') == 8
        assert {path.suffix for path in (demo.folder / "tmp").glob("*.*")} == {".iso"}


async def test_a_viewer_shows_the_images_of_the_demo(tmp_path: Path, ohif: Path, browser: Chromium) -> None:
    with Demo(tmp_path / "demo", ("--ohif", str(ohif))) as demo:
        assert "get-ohif" not in demo.printed
        page = await browser.page(viewport={"width": 1400, "height": 900})
        await page.goto(demo.link("/s/"))
        await see_the_image(page)
        # Both studies of the patient are offered.
        panel = page.locator("[data-cy='studyBrowser-panel']")
        for date in ("03-Jun-2024", "05-Jun-2025"):
            await expect(panel.get_by_text(date)).to_have_count(1, timeout=PATIENCE)
        await browser.close_pages()
        page = await browser.page(viewport={"width": 1400, "height": 900})
        await sign_in(page, demo.link("/login?next="), DOCTOR, demo.password)
        await see_the_image(page)
        await expect(page.get_by_text("CT of the head").first).to_be_visible(timeout=PATIENCE)
        await page.goto(demo.url)
        await expect(page.get_by_text("Lindqvist, Astrid")).to_be_visible(timeout=PATIENCE)
        await browser.close_pages()


def test_a_folder_without_a_viewer_is_told(tmp_path: Path) -> None:
    code, said = run_program("demo", "--port", str(free_port()), "--ohif", tmp_path)
    assert code == 2
    assert f"{tmp_path} holds no index.html; get OHIF with scripts/get-ohif" in said
    assert "Drawing" not in said

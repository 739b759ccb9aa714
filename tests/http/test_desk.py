"""The desk page as the server writes it: who gets it, in what language, with what it may load."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from pacsbridge.http.links import Purpose, make_link
from tests.e2e.service import Service, make_config, running

if TYPE_CHECKING:
    from pathlib import Path

    from pacsbridge.config import Config
    from tests.conftest import MakePacs

KEY = "a key for tests"
AUTH = {"enabled": True, "api_key": KEY}


@pytest.fixture
def make(make_pacs: MakePacs, tmp_path: Path) -> Any:
    """Give a maker of configurations in front of an empty PACS."""
    pacs = make_pacs()
    return lambda **sections: make_config(tmp_path, pacs, **sections)


async def get(service: Service, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    async with service.session.get(service.url + path, headers=headers) as response:
        return response.status, dict(response.headers), await response.text()


def script(html: str) -> dict[str, Any]:
    """Read what the page tells its script."""
    found = re.search(r'<script type="application/json" id="page">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    told: dict[str, Any] = json.loads(found[1])
    return told


def signed(config: Config, *numbers: str, seconds: int = 60, purpose: Purpose = Purpose.DESK) -> str:
    link = make_link(config.auth, "", purpose, numbers, expires=int(time.time()) + seconds)
    return "/discs?" + urlsplit(link).query


async def test_the_page_loads_nothing_from_elsewhere(make: Any) -> None:
    async with running(make()) as service:
        status, headers, html = await get(service, "/discs")
        assert status == 200
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        loaded = re.findall(r'(?:src|<link [^>]*href)="([^"]*)"', html)
        assert len(loaded) == 3
        for address in loaded:
            status, headers, _ = await get(service, f"/{address}")
            assert status == 200
            assert "immutable" in headers["Cache-Control"]
            assert headers["X-Content-Type-Options"] == "nosniff"
        assert not re.search(r"<script>|style=|\son\w+=", html)


async def test_an_unknown_file_is_not_found(make: Any) -> None:
    async with running(make()) as service:
        for name in ("desk.js", "desk.000000000000.js", "..%2fdesk.py"):
            assert (await service.error(f"/static/{name}"))[1] == "not_found"


async def test_print_is_offered_where_there_is_a_publisher(make: Any) -> None:
    async with running(make()) as service:
        assert 'data-start="print"' not in (await get(service, "/discs"))[2]
    async with running(make(publisher={"host": "127.0.0.1", "port": 9})) as service:
        assert 'data-start="print"' in (await get(service, "/discs"))[2]


async def test_the_language_is_chosen_by_the_browser_and_by_the_switch(make: Any) -> None:
    async with running(make()) as service:
        indonesian = {"Accept-Language": "id-ID,id;q=0.9,en;q=0.8"}
        _, headers, html = await get(service, "/discs", **indonesian)
        assert '<html lang="id">' in html
        assert "CD pasien" in html
        assert headers["Content-Language"] == "id"
        assert "Set-Cookie" not in headers
        _, headers, html = await get(service, "/discs?lang=en", **indonesian)
        assert '<html lang="en">' in html
        assert "pacsbridge_lang=en" in headers["Set-Cookie"]
        indonesian["Cookie"] = headers["Set-Cookie"].partition(";")[0]
        assert '<html lang="en">' in (await get(service, "/discs", **indonesian))[2]
        assert '<html lang="en">' in (await get(service, "/discs?lang=xx", **indonesian))[2]


async def test_a_link_starts_a_disc_once(make: Any) -> None:
    async with running(make()) as service:
        told = script((await get(service, "/discs?accession_number=A1,A2"))[2])
        assert told["start"] is True
        assert told["numbers"] == ["A1", "A2"]
        assert told["here"] == "discs"
        assert not told["limited"]
        assert not told["link"]
        assert script((await get(service, "/discs"))[2])["start"] is False
        # Looking at the page starts nothing: its script does.
        assert list(service.services.engine.jobs) == []


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("", "no accession number"),
        ("A*", "can&#39;t be an accession number"),
        ("1" * 17, "1 to 16 characters"),
    ],
)
async def test_a_link_with_a_wrong_number_says_so_in_words(make: Any, number: str, text: str) -> None:
    async with running(make()) as service:
        status, _, html = await get(service, f"/discs?accession_number={number}")
        assert status == 400
        assert text in html
        assert script(html)["start"] is False


async def test_what_the_address_says_is_text_on_the_page(make: Any) -> None:
    async with running(make()) as service:
        _, _, html = await get(service, "/discs?accession_number=</script><b>")
        assert "<b>" not in html
        assert script(html)["numbers"] == ["</script><b>"]


async def test_without_a_key_or_a_link_the_page_says_how_to_get_in(make: Any) -> None:
    config = make(auth=AUTH)
    async with running(config) as service:
        for path in (
            "/discs",
            signed(config, "A1", seconds=-1),
            signed(config, "A1").replace("A1", "A2"),
            signed(config, "A1", purpose=Purpose.DOWNLOAD),
        ):
            status, headers, html = await get(service, path)
            assert status == 401
            assert headers["Content-Type"].startswith("text/html")
            assert "has to be opened from the HIS" in html
            assert KEY not in html
            assert "api/jobs" not in html
        assert "harus dibuka dari SIMRS" in (await get(service, "/discs", **{"Accept-Language": "id"}))[2]
        assert (await get(service, "/discs", **{"X-API-Key": KEY}))[0] == 200


async def test_a_signed_link_limits_the_page_to_its_numbers(make: Any) -> None:
    config = make(auth=AUTH)
    async with running(config) as service:
        address = signed(config, "A1", "A2")
        status, _, html = await get(service, address)
        assert status == 200
        assert 'id="field"' not in html
        told = script(html)
        assert told["limited"] is True
        assert told["start"] is True
        assert told["numbers"] == ["A1", "A2"]
        # The link's parameters open the API, and the page that is loaded again; that one starts nothing.
        assert (await get(service, f"/api/jobs?{told['link']}"))[0] == 200
        status, _, html = await get(service, f"/{told['here']}")
        assert status == 200
        assert script(html)["start"] is False
        assert script(html)["numbers"] == ["A1", "A2"]
        switch = re.findall(r"<nav.*?</nav>", html, re.DOTALL)[0]
        other = re.findall(r'href="([^"]*lang=id[^"]*)"', switch)[0].replace("&amp;", "&")
        status, _, html = await get(service, f"/{other}")
        assert status == 200
        assert '<html lang="id">' in html
        assert script(html)["start"] is False

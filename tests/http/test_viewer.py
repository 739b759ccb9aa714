from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING

import pytest

from pacsbridge.config import Config, ConfigError
from pacsbridge.http.viewer import Viewer, viewer_config
from tests.dicomweb.viewing import running_viewing
from tests.http.desk import cheap_hashes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.dicomweb.viewing import Viewing

BUNDLE = "app.bundle.096daabbdde29bd851ab.js"
PAGE = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def ohif(tmp_path: Path) -> Path:
    folder = tmp_path / "ohif"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<title>OHIF</title>")
    (folder / "app-config.js").write_text("theirs")
    (folder / "app.bundle.css").write_text("css")
    (folder / "17dd54813d5acc10bf8f.wasm").write_bytes(b"\0asm")
    (folder / "assets/logo.svg").write_text("<svg/>")
    (folder / BUNDLE).write_text("js" * 1000)
    (folder / f"{BUNDLE}.gz").write_bytes(gzip.compress(b"js" * 1000))
    (folder / ".version").write_text("3")
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "nowhere")
    return folder


@pytest.fixture
async def viewing(ohif: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Viewing]:
    cheap_hashes(monkeypatch)
    section = {"upstream": "dicomweb", "url": "http://127.0.0.1:1/rs", "ohif_dir": str(ohif)}
    async with running_viewing(tmp_path, dicomweb=section) as viewing:
        yield viewing


async def get(viewing: Viewing, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    async with viewing.session.get(viewing.url + path, headers=headers) as answer:
        return answer.status, dict(answer.headers), await answer.text(errors="replace")


async def test_files_are_kept_for_ever_where_their_names_change(viewing: Viewing) -> None:
    for path, cached in [
        (f"/{BUNDLE}", True),
        ("/17dd54813d5acc10bf8f.wasm", True),
        ("/app.bundle.css", False),
        ("/assets/logo.svg", False),
        ("/", False),
        ("/app-config.js", False),
    ]:
        status, headers, _ = await get(viewing, path)
        assert status == 200
        assert ("immutable" in headers["Cache-Control"]) == cached, path
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert (await get(viewing, f"/{BUNDLE}"))[1]["Content-Encoding"] == "gzip"
    assert (await get(viewing, f"/{BUNDLE}", **{"Accept-Encoding": "identity"}))[2] == "js" * 1000


async def test_another_version_of_a_file_has_another_tag(ohif: Path) -> None:
    """As long as the other, and as old: npm gives every file of every version the same time."""
    before = Viewer(ohif, Config())._files["index.html"]
    times = (ohif / "index.html").stat().st_mtime_ns
    (ohif / "index.html").write_text("<title>FIHO</title>")
    os.utime(ohif / "index.html", ns=(times, times))
    after = Viewer(ohif, Config())._files["index.html"]
    assert before.tag != after.tag


@pytest.mark.parametrize("path", ["/app.bundle.css", f"/{BUNDLE}"])
async def test_conditions_are_answered(viewing: Viewing, path: str) -> None:
    _, headers, whole = await get(viewing, path)
    etag = headers["Etag"]
    status, headers, text = await get(viewing, path, **{"If-None-Match": etag})
    assert (status, text, headers["Etag"]) == (304, "", etag)
    assert (await get(viewing, path, **{"If-Match": etag}))[0] == 200
    status, headers, text = await get(viewing, path, **{"If-Match": '"other"'})
    assert (status, json.loads(text)["error"]["code"]) == (412, "precondition_failed")
    # A part of a script is of no use: whoever asks for one gets the whole (RFC 9110, 14.2).
    for asked in ("bytes=999999-", "bytes=0-0", "x"):
        assert (await get(viewing, path, Range=asked))[::2] == (200, whole)
    async with viewing.session.head(viewing.url + path) as answer:
        assert (answer.status, answer.headers["Etag"]) == (200, etag)


async def test_a_file_that_went_away_is_not_found(viewing: Viewing, ohif: Path) -> None:
    (ohif / "app.bundle.css").unlink()
    status, _, text = await get(viewing, "/app.bundle.css")
    assert (status, json.loads(text)["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "path", ["/", "/viewer?StudyInstanceUIDs=1.2", "/segmentation/x", "/localbasic", "/any/path/at/all"]
)
async def test_any_page_is_the_viewers(viewing: Viewing, path: str) -> None:
    status, headers, text = await get(viewing, path, **PAGE)
    assert (status, text) == (200, "<title>OHIF</title>")
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert "default-src 'self'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/nothing",
        "/auth/x",
        "/s/x/y",
        "/.version",
        "/missing.js",
        "/link",
        "/../secret",
        "/%2e%2e/secret",
        "/assets/../../secret",
        "/assets%2f..%2f..%2fsecret",
        "/dicomweb/studies",
        f"/{BUNDLE}.gz",
        "/assets",
        "//secret",
    ],
)
async def test_what_is_no_page_and_no_file_is_not_found(viewing: Viewing, path: str) -> None:
    status, _, text = await get(viewing, path)
    assert status == 404
    assert "secret" not in text
    assert json.loads(text)["error"]["code"] == "not_found"


async def test_other_endpoints_are_where_they_were(viewing: Viewing) -> None:
    assert "password" in (await get(viewing, "/login", **PAGE))[2]
    assert (await get(viewing, "/dicomWeb/studies", **PAGE))[0] == 401


def test_the_configuration_is_made_from_ours() -> None:
    text = viewer_config(
        Config.model_validate(
            {"dicomweb": {"upstream": "google"}, "media": {"institution": "St. Mary's </script>"}}
        )
    )
    settings = json.loads(text.partition(" = ")[2].partition(";\nwindow")[0])
    source = settings["dataSources"][0]["configuration"]
    assert (source["qidoRoot"], source["wadoRoot"], source["supportsWildcard"]) == (
        "/dicomWeb",
        "/dicomWeb",
        False,
    )
    assert settings["defaultDataSourceName"] == settings["dataSources"][0]["sourceName"]
    assert "/login?next=" in text
    assert "window.__filename" in text  # tests/e2e/test_ohif.py shows why


def test_a_folder_without_a_viewer_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dicomweb\.ohif_dir.*get-ohif"):
        Viewer(tmp_path, Config())

"""An image as an answer: what can't be sent is an error in JSON like the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.service import make_config, running
from tests.studies import make_study

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Range": "bytes=999999999999-"}, 416, "range_not_satisfiable"),
        ({"If-Match": '"another"'}, 412, "precondition_failed"),
    ],
)
async def test_what_cannot_be_sent(
    tmp_path: Path, make_pacs: Any, headers: dict[str, str], status: int, code: str
) -> None:
    make_study(tmp_path / "pacs", "A1")
    async with running(make_config(tmp_path, make_pacs(folder=tmp_path / "pacs"))) as service:
        address = f"{service.url}/api/iso/download?accession_number=A1"
        async with service.session.get(address) as whole:
            size = len(await whole.read())
        async with service.session.get(address, headers=headers) as response:
            assert response.status == status
            error = (await response.json())["error"]
            assert (error["code"], error["request_id"]) == (code, response.headers["X-Request-ID"])
            expected = f"bytes */{size}" if status == 416 else None
            assert response.headers.get("Content-Range") == expected

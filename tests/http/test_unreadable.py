"""Requests that can't be read: an error in JSON with a request id, and never one of ours (500)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.accounts.examples import PASSWORD

if TYPE_CHECKING:
    from tests.http.desk import Desk

LOGIN = {"email": "pat@example.org", "password": PASSWORD}
PARTS = b'--x\r\nContent-Disposition: form-data; name="email"; filename="f"\r\n\r\nx\r\n--x--\r\n'


async def refused(desk: Desk, path: str, **more: object) -> tuple[int, str]:
    answer = await desk.ask("POST", path, **more)
    assert set(answer.json) == {"error"}
    assert answer.json["error"]["request_id"] == answer.headers["X-Request-ID"]
    return answer.status, answer.json["error"]["code"]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_body_that_is_not_coded_as_it_says(desk: Desk, coding: str) -> None:
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    told = await refused(desk, "/auth/login", data=b"no such coding", headers=headers)
    assert told == (400, "invalid_request")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"a"),
        ("multipart/form-data; boundary=x", b'{"a":1}'),
        ("multipart/form-data; boundary=x", PARTS),
        ("multipart/form-data; boundary=x", PARTS[:-9]),
        ("application/x-www-form-urlencoded; charset=klingon", b"email=%ff"),
        ("application/x-www-form-urlencoded", b"email=\xff"),
    ],
)
async def test_a_form_that_is_none(desk: Desk, content_type: str, body: bytes) -> None:
    headers = {"Content-Type": content_type, "Origin": desk.url}
    told = await refused(desk, "/login", data=body, headers=headers)
    assert told == (400, "invalid_parameter")


async def test_an_expectation_that_nobody_can_meet(desk: Desk) -> None:
    told = await refused(desk, "/auth/login", json=LOGIN, headers={"Expect": "a miracle"})
    assert told == (417, "invalid_request")


async def test_the_expectation_that_is_known(desk: Desk) -> None:
    assert await refused(desk, "/auth/login", json=LOGIN, expect100=True) == (401, "unauthorized")

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from pacsbridge.config import ConfigError, GoogleConfig
from pacsbridge.dicomweb.google import DicomStore, GoogleCredentials
from pacsbridge.errors import UpstreamUnreachable

if TYPE_CHECKING:
    from pathlib import Path

    from tests.google import GoogleFront

PARTS = {"project_id": "a-project", "location": "europe-west1", "dataset": "d_1", "dicom_store": "s.1"}
URL = "https://healthcare.googleapis.com/v1/projects/a-project/locations/europe-west1/datasets/d_1/dicomStores/s.1/dicomWeb"


def test_a_store_has_an_address_and_an_address_a_store() -> None:
    store = DicomStore(**PARTS)
    assert store.url == URL
    assert DicomStore.from_url(URL) == store
    assert (
        DicomStore.from_url(URL.replace("https://healthcare.googleapis.com", "http://127.0.0.1:9")).base_url
        == "http://127.0.0.1:9/v1"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("project_id", ""),
        ("project_id", "a/b"),
        ("location", "x y"),
        ("dataset", ".."),
        ("dicom_store", "s?x"),
        ("dataset", "a/../b"),
        ("base_url", "ftp://x"),
        ("base_url", "https://x/"),
        ("base_url", "https://x?y"),
    ],
)
def test_a_store_that_cannot_be_is_not_made(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=key):
        DicomStore(**(PARTS | {key: value}))
    with pytest.raises(ConfigError, match=f"google.{key}"):
        DicomStore.configured(
            GoogleConfig.model_construct(**(GoogleConfig().model_dump() | PARTS | {key: value}))
        )


@pytest.mark.parametrize(
    "url",
    ["", URL[:-1], URL + "/studies", URL.replace("datasets", "data"), "https://healthcare.googleapis.com"],
)
def test_what_is_no_store_is_told(url: str) -> None:
    with pytest.raises(ValueError):
        DicomStore.from_url(url)


@pytest.fixture
def account(google: GoogleFront, tmp_path: Path) -> Path:
    return google.write_credentials(tmp_path / "account.json")


async def test_a_hundred_requests_wait_for_one_token(google: GoogleFront, account: Path) -> None:
    google.faults.token_seconds = 0.1
    credentials = GoogleCredentials(account)
    headers = await asyncio.gather(*(credentials.header() for _ in range(100)))
    assert len(set(headers)) == 1
    assert headers[0].removeprefix("Bearer ") in google.tokens
    assert google.tokens_given == 1


async def test_one_who_leaves_does_not_take_the_token_from_the_others(
    google: GoogleFront, account: Path
) -> None:
    google.faults.token_seconds = 0.2
    credentials = GoogleCredentials(account)
    leaving, staying = (asyncio.create_task(credentials.header()) for _ in range(2))
    await asyncio.sleep(0.05)
    leaving.cancel()
    assert (await staying).startswith("Bearer ")
    assert google.tokens_given == 1


async def test_a_token_is_replaced_ahead_of_its_end_and_nobody_waits(
    google: GoogleFront, account: Path
) -> None:
    google.faults.token_life = 5
    credentials = GoogleCredentials(account)
    first = await credentials.header()
    await asyncio.sleep(4.2)  # four fifths of its life
    google.faults.token_seconds = 0.2
    assert await credentials.header() == first
    await credentials.close()
    assert await credentials.header() != first
    assert google.tokens_given == 2


async def test_a_refused_token_is_replaced_once_for_all(google: GoogleFront, account: Path) -> None:
    credentials = GoogleCredentials(account)
    first = await credentials.header()
    google.faults.token_seconds = 0.1
    assert await asyncio.gather(*(credentials.refused(first) for _ in range(10))) == [True] * 10
    assert await credentials.header() != first
    assert google.tokens_given == 2


async def test_nothing_blocks_the_loop_while_a_token_is_fetched(google: GoogleFront, account: Path) -> None:
    google.faults.token_seconds = 0.3
    credentials = GoogleCredentials(account)
    asking = asyncio.create_task(credentials.header())
    turns = 0
    while not asking.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 5


def _no_key(path: Path) -> None:
    path.write_text(
        json.dumps(
            {"type": "service_account", "client_email": "a@b", "private_key": "x", "token_uri": "http://x"}
        )
    )


def _elsewhere(path: Path) -> None:
    account = json.loads(path.read_text())
    path.write_text(json.dumps(account | {"token_uri": "http://127.0.0.1:1/token"}))


@pytest.mark.parametrize(
    ("breaking", "told"),
    [
        (lambda path: path.unlink(), "there is no file"),
        (lambda path: path.write_text("not json"), "is not the key of a service account"),
        (lambda path: path.write_text("{}"), "is not the key of a service account"),
        (_no_key, "is not the key of a service account"),
        (_elsewhere, "can't be reached for a token"),
    ],
)
async def test_what_is_wrong_is_told_and_can_be_put_right(
    google: GoogleFront, account: Path, breaking: Any, told: str
) -> None:
    good = account.read_bytes()
    breaking(account)
    credentials = GoogleCredentials(account)
    with pytest.raises(UpstreamUnreachable):
        await credentials.header()
    assert told in credentials.problem
    assert "PRIVATE" not in credentials.problem
    account.write_bytes(good)
    await credentials.check()
    assert credentials.problem == ""
    assert (await credentials.header()).startswith("Bearer ")


async def test_a_service_account_that_google_refuses(google: GoogleFront, account: Path) -> None:
    google.faults.token_status = 400
    credentials = GoogleCredentials(account)
    with pytest.raises(UpstreamUnreachable) as told:
        await credentials.header()
    assert "invalid_grant" in credentials.problem
    assert str(account) not in told.value.message
    given = google.tokens_given
    with pytest.raises(UpstreamUnreachable):  # the frames behind it don't ask again at once
        await credentials.header()
    assert google.tokens_given == given

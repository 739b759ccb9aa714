"""Signed links: good for just what they name, until they expire."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING

import pytest
from multidict import MultiDict
from yarl import URL

from pacsbridge.config import AuthConfig
from pacsbridge.errors import Unauthorized
from pacsbridge.http.links import Purpose, check_link, make_link

if TYPE_CHECKING:
    from collections.abc import Callable

AUTH = AuthConfig.model_validate({"enabled": True, "api_key": "the key", "link_secret": "the secret"})
LATER = int(time.time()) + 86400


def link(purpose: Purpose = Purpose.DOWNLOAD, *numbers: str, expires: int = LATER) -> URL:
    return URL(make_link(AUTH, "http://host", purpose, numbers or ("A1",), expires=expires))


@pytest.mark.parametrize(
    ("purpose", "numbers", "path"),
    [
        (Purpose.DOWNLOAD, ("A1",), "/api/iso/download"),
        (Purpose.DOWNLOAD, ("A1", "B 2"), "/api/iso/download-multiple"),
        (Purpose.PRINT, ("A1", "Ü&="), "/api/iso/print"),
        (Purpose.DESK, ("A1",), "/discs"),
    ],
)
def test_a_link_is_good_for_what_it_names(purpose: Purpose, numbers: tuple[str, ...], path: str) -> None:
    made = link(purpose, *numbers)
    assert made.path == path
    assert check_link(AUTH, purpose, made.query) == ",".join(numbers)
    for other in set(Purpose) - {purpose}:
        with pytest.raises(Unauthorized):
            check_link(AUTH, other, made.query)


def test_the_signature_is_what_the_documentation_says() -> None:
    message = f"download\nA1\n{LATER}"
    expected = hmac.new(b"the secret", message.encode(), hashlib.sha256).hexdigest()
    assert link().query["signature"] == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda q: q.update(accession_number="A2"),
        lambda q: q.update(expires=str(LATER + 1)),
        lambda q: q.update(expires="soon"),
        lambda q: q.update(expires="٣"),
        lambda q: q.update(signature=""),
        lambda q: q.update(signature="ü"),
        lambda q: q.update(signature=q["signature"][:-1]),
        lambda q: q.add("accession_numbers", "A2"),
        lambda q: q.add("accession_number", "A2"),
        lambda q: q.pop("accession_number"),
        lambda q: q.pop("expires"),
    ],
)
def test_a_changed_link_is_refused(change: Callable[[MultiDict[str]], object]) -> None:
    query = MultiDict(link().query)
    change(query)
    with pytest.raises(Unauthorized):
        check_link(AUTH, Purpose.DOWNLOAD, query)


def test_an_expired_link_is_refused() -> None:
    with pytest.raises(Unauthorized, match="expired"):
        check_link(AUTH, Purpose.DOWNLOAD, link(expires=int(time.time()) - 1).query)


def test_without_a_secret_of_its_own_the_api_key_signs() -> None:
    auth = AuthConfig.model_validate({"enabled": True, "api_key": "the secret"})
    assert check_link(auth, Purpose.DOWNLOAD, link().query) == "A1"

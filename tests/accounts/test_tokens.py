from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from pacsbridge.accounts.tokens import LISTED_GRANTS, Tokens, TokenType, checked_secret, derived_key
from pacsbridge.accounts.values import Grants, Principal, Role
from pacsbridge.config import ConfigError
from pacsbridge.errors import Unauthorized
from tests.accounts.examples import SECRET, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

ADMIN = Principal("user:1", "s1", Role.ADMIN)
MINUTES = timedelta(minutes=15)
OTHER_SECRET = "n0tTheSame-" + SECRET


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(clock: Clock, **changes: Any) -> dict[str, Any]:
    now = int(clock.now.timestamp())
    good = {
        "iss": "pacsbridge",
        "aud": "pacsbridge",
        "iat": now,
        "exp": now + 900,
        "jti": "x",
        "sub": "user:1",
        "sid": "s1",
        "role": "admin",
        "typ": "access",
    }
    return {name: value for name, value in (good | changes).items() if value is not ...}


def raw(header: object, payload: object, key: str = SECRET, digest: str = "sha256") -> str:
    """Sign anything, as a forger with a library of their own would."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signed = f"{b64(head)}.{b64(body)}"
    return f"{signed}.{b64(hmac.digest(key.encode(), signed.encode(), digest))}"


HS256 = {"alg": "HS256", "typ": "JWT"}

FORGED: dict[str, Callable[[Clock], str]] = {
    # not a token at all
    "nothing": lambda _: "",
    "a word": lambda _: "admin",
    "two dots": lambda _: "..",
    "four parts": lambda c: raw(HS256, claims(c)) + ".x",
    "two parts": lambda c: raw(HS256, claims(c)).rpartition(".")[0],
    "spaces around": lambda c: f" {raw(HS256, claims(c))} ",
    "a NUL behind": lambda c: raw(HS256, claims(c)) + "\0",
    "letters from elsewhere": lambda c: raw(HS256, claims(c)).replace(".", "．"),
    "a megabyte": lambda c: raw(HS256, claims(c, pad="x" * 1_000_000)),
    "deep nesting": lambda _: raw(HS256, b"[" * 4000 + b"]" * 4000),
    "a list": lambda _: raw(HS256, ["user:1"]),
    "a string": lambda _: raw(HS256, "user:1"),
    "broken JSON": lambda _: raw(HS256, b'{"sub":'),
    "not UTF-8": lambda _: raw(HS256, b'{"sub": "\xff"}'),
    # signature
    "no signature": lambda c: raw(HS256, claims(c)).rpartition(".")[0] + ".",
    "another key": lambda c: raw(HS256, claims(c), key=OTHER_SECRET),
    "an empty key": lambda c: raw(HS256, claims(c), key=""),
    "the key of refresh tokens": lambda c: raw(
        HS256, claims(c), key=derived_key(SECRET, "refresh tokens").hex()
    ),
    "a changed payload": lambda c: _swapped(c, role="admin"),
    "a changed signature": lambda c: raw(HS256, claims(c))[:-4] + "AAAA",
    "SHA-1": lambda c: raw(HS256, claims(c), digest="sha1"),
    # header
    "alg none": lambda c: jwt.encode(claims(c), "", algorithm="none"),
    "alg None with a signature": lambda c: raw({"alg": "None", "typ": "JWT"}, claims(c)),
    "alg nOnE": lambda c: raw({"alg": "nOnE"}, claims(c)),
    "alg absent": lambda c: raw({"typ": "JWT"}, claims(c)),
    "alg null": lambda c: raw({"alg": None}, claims(c)),
    "alg a list": lambda c: raw({"alg": ["HS256"]}, claims(c)),
    "alg hs256": lambda c: raw({"alg": "hs256"}, claims(c)),
    "HS384 with our secret": lambda c: jwt.encode(claims(c), SECRET * 2, algorithm="HS384"),
    "HS512 with our secret": lambda c: raw({"alg": "HS512"}, claims(c), digest="sha512"),
    "RS256 named, HMAC made": lambda c: raw({"alg": "RS256"}, claims(c)),
    "an unknown critical header": lambda c: raw({"alg": "HS256", "crit": ["b65"], "b65": True}, claims(c)),
    "a key in the header": lambda c: raw(
        {"alg": "HS256", "jwk": {"kty": "oct", "k": b64(OTHER_SECRET.encode())}}, claims(c), key=OTHER_SECRET
    ),
    "a key id that is a path": lambda c: raw({"alg": "HS256", "kid": "/dev/null"}, claims(c), key=""),
    "a header that is a list": lambda c: raw(["HS256"], claims(c)),
    # claims, signed with our own key
    "another issuer": lambda c: raw(HS256, claims(c, iss="elsewhere")),
    "another audience": lambda c: raw(HS256, claims(c, aud="elsewhere")),
    "no audience": lambda c: raw(HS256, claims(c, aud=...)),
    "an empty audience": lambda c: raw(HS256, claims(c, aud=[])),
    "no issuer": lambda c: raw(HS256, claims(c, iss=...)),
    "no exp": lambda c: raw(HS256, claims(c, exp=...)),
    "no iat": lambda c: raw(HS256, claims(c, iat=...)),
    "no jti": lambda c: raw(HS256, claims(c, jti=...)),
    "no subject": lambda c: raw(HS256, claims(c, sub=...)),
    "no session": lambda c: raw(HS256, claims(c, sid=...)),
    "no role": lambda c: raw(HS256, claims(c, role=...)),
    "no type": lambda c: raw(HS256, claims(c, typ=...)),
    "expired": lambda c: raw(HS256, claims(c, exp=int(c.now.timestamp()) - 1)),
    "expires now": lambda c: raw(HS256, claims(c, exp=int(c.now.timestamp()))),
    "expires at text": lambda c: raw(HS256, claims(c, exp="9999999999")),
    "expires at true": lambda c: raw(HS256, claims(c, exp=True)),
    "expires never": lambda c: raw(HS256, claims(c, exp=10**40)),
    "expires at infinity": lambda c: raw(HS256, claims(c, exp=float("inf"))),
    "expires at nothing": lambda c: raw(HS256, claims(c, exp=None)),
    "from the future": lambda c: raw(HS256, claims(c, iat=int(c.now.timestamp()) + 60)),
    "not yet valid": lambda c: raw(HS256, claims(c, nbf=int(c.now.timestamp()) + 60)),
    "a subject that is a number": lambda c: raw(HS256, claims(c, sub=1)),
    "a session that is a list": lambda c: raw(HS256, claims(c, sid=["s1"])),
    "a role of its own": lambda c: raw(HS256, claims(c, role="root")),
    "a role that is a list": lambda c: raw(HS256, claims(c, role=["admin"])),
    "the cookie's type": lambda c: raw(HS256, claims(c, typ="session")),
    "a refresh token's type": lambda c: raw(HS256, claims(c, typ="refresh")),
    "a refresh token": lambda _: secrets.token_urlsafe(32),
}


def _swapped(clock: Clock, **changes: Any) -> str:
    """Take the signature of a patient's token for another payload."""
    head, _, signature = raw(HS256, claims(clock, role="patient")).split(".")
    return f"{head}.{b64(json.dumps(claims(clock, **changes)).encode())}.{signature}"


def test_there_are_enough_forgeries() -> None:
    assert len(FORGED) >= 40


def test_the_forgers_own_tool_makes_a_token_that_is_believed() -> None:
    """Else the refusals below would prove nothing."""
    clock = Clock()
    believed = Tokens(SECRET, clock=clock).verify(raw(HS256, claims(clock)), TokenType.ACCESS)
    assert (believed.subject, believed.session_id, believed.role) == ("user:1", "s1", Role.ADMIN)


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_a_forged_or_worn_out_token_is_refused(forged: Callable[[Clock], str]) -> None:
    clock = Clock()
    token = forged(clock)
    with pytest.raises(Unauthorized, match=r"^Sign in again\.$"):
        Tokens(SECRET, clock=clock).verify(token, TokenType.ACCESS)


def test_one_kind_is_not_taken_for_another() -> None:
    tokens = Tokens(SECRET)
    for kind, other in ((TokenType.ACCESS, TokenType.SESSION), (TokenType.SESSION, TokenType.ACCESS)):
        token = tokens.issue(ADMIN, kind, MINUTES)
        assert tokens.verify(token, kind).subject == "user:1"
        with pytest.raises(Unauthorized):
            tokens.verify(token, other)


def test_a_token_wears_out() -> None:
    clock = Clock()
    tokens = Tokens(SECRET, clock=clock)
    token = tokens.issue(ADMIN, TokenType.ACCESS, MINUTES)
    clock.forward(minutes=14, seconds=59)
    tokens.verify(token, TokenType.ACCESS)
    clock.forward(seconds=1)
    with pytest.raises(Unauthorized):
        tokens.verify(token, TokenType.ACCESS)


def test_two_tokens_are_never_the_same() -> None:
    tokens = Tokens(SECRET, clock=Clock())
    assert tokens.issue(ADMIN, TokenType.ACCESS, MINUTES) != tokens.issue(ADMIN, TokenType.ACCESS, MINUTES)


def test_a_patients_token_lists_studies_and_fits_in_a_header() -> None:
    grants = Grants(tuple("1" * 60 + f".{n:03}" for n in range(500)), tuple(f"{n:016}" for n in range(500)))
    patient = Principal("link:1", "s1", Role.PATIENT, grants=grants)
    token = Tokens(SECRET).issue(patient, TokenType.ACCESS, MINUTES)
    listed = jwt.decode(token, options={"verify_signature": False})
    assert listed["study_iuids"] == list(grants.study_iuids[:LISTED_GRANTS])
    assert listed["accession_numbers"] == list(grants.accession_numbers[:LISTED_GRANTS])
    assert len(f"Authorization: Bearer {token}") < 4096
    cookie = Tokens(SECRET).issue(patient, TokenType.SESSION, MINUTES)
    assert len(cookie) < 1024


def test_no_token_of_others_lists_studies() -> None:
    doctor = Principal("user:1", "s1", Role.DOCTOR, grants=Grants(("1.2",)))
    token = Tokens(SECRET).issue(doctor, TokenType.ACCESS, MINUTES)
    assert "study_iuids" not in jwt.decode(token, options={"verify_signature": False})


@pytest.mark.parametrize(
    ("secret", "what"),
    [
        ("", "is missing"),
        ("short", "at least 32 bytes"),
        ("x" * 31, "at least 32 bytes"),
        ("x" * 64, "example's or too simple"),
        ("0123456701234567012345670123456701234567", "example's or too simple"),
        ("change-me-change-me-change-me-change-me", "example's or too simple"),
        ("your-256-bit-secret-goes-in-here-please", "example's or too simple"),
        ("ExampleSecretThatIsLongEnough-1234567890", "example's or too simple"),
    ],
)
def test_a_secret_that_protects_nothing_is_refused_with_a_way_to_make_one(secret: str, what: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^accounts\.jwt_secret: .*{what}.*secrets\.token_urlsafe"
    ) as caught:
        checked_secret(secret)
    assert not secret or secret not in str(caught.value)


def test_secrets_made_as_the_message_says_are_taken() -> None:
    for _ in range(200):
        checked_secret(secrets.token_urlsafe(48))
        checked_secret(secrets.token_hex(32))


def test_each_purpose_has_its_own_key() -> None:
    assert derived_key(SECRET, "a") != derived_key(SECRET, "b") != hashlib.sha256(SECRET.encode()).digest()

"""Signed tokens: what they say, and the one way in which they are believed (RFC 7519, RFC 8725)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import jwt

from pacsbridge.accounts.values import Principal, Role, utc_now
from pacsbridge.config import ConfigError
from pacsbridge.errors import Unauthorized

if TYPE_CHECKING:
    from pacsbridge.accounts.values import Clock

ALGORITHM = "HS256"
ISSUER = "pacsbridge"
AUDIENCE = "pacsbridge"
SECRET_BYTES = 32
"""RFC 7518 3.2: a key for HS256 has at least 256 bits."""
SECRET_VARIETY = 10
LISTED_GRANTS = 20
"""How many studies of a patient a token lists: a header over 8,190 bytes is refused by the server."""
TOKEN_LENGTH = 8190
KNOWN_TOKENS = 1000
"""How many tokens are remembered whose signature has been checked."""
_PLACEHOLDERS = ("change", "example", "replace", "your-", "your_", "placeholder", "jwt_secret")
_REQUIRED = ["iss", "aud", "exp", "iat", "jti", "sub", "role", "typ", "sid"]
_HOW = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"


class TokenType(StrEnum):
    """What a token is for; one kind is never taken for another."""

    ACCESS = "access"
    """In ``Authorization: Bearer``, for minutes."""
    SESSION = "session"
    """In the cookie, for as long as the sign-in."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a believed token says."""

    subject: str
    session_id: str
    role: Role
    issued_at: datetime
    expires_at: datetime


def checked_secret(secret: str) -> str:
    """Return ``accounts.jwt_secret`` when it can protect tokens.

    Raises
    ------
    ConfigError
        It is missing, short, simple or an example's; the message says how to make one.
    """
    if not secret:
        raise ConfigError(f"accounts.jwt_secret: is missing; {_HOW}")
    if len(secret.encode()) < SECRET_BYTES:
        raise ConfigError(f"accounts.jwt_secret: must have at least {SECRET_BYTES} bytes; {_HOW}")
    lowered = secret.casefold()
    if len(set(secret)) < SECRET_VARIETY or any(word in lowered for word in _PLACEHOLDERS):
        raise ConfigError(f"accounts.jwt_secret: is an example's or too simple; {_HOW}")
    return secret


def derived_key(secret: str, purpose: str) -> bytes:
    """Make a key of its own for each purpose, so that what is signed for one is worth nothing for another."""
    return hmac.digest(secret.encode(), f"pacsbridge {purpose}".encode(), hashlib.sha256)


class Tokens:
    """Signs tokens and checks them.

    Parameters
    ----------
    secret
        Checked by ``checked_secret``.
    """

    def __init__(self, secret: str, *, clock: Clock = utc_now) -> None:
        self._secret = checked_secret(secret)
        self._clock = clock
        self._known: dict[tuple[str, TokenType], Claims] = {}

    def issue(self, principal: Principal, kind: TokenType, lifetime: timedelta) -> str:
        """Sign a token; an access token of a patient lists the first of their studies, as clients expect."""
        now = self._clock()
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": int(now.timestamp()),
            "exp": int((now + lifetime).timestamp()),
            "jti": secrets.token_urlsafe(12),
            "sub": principal.subject,
            "sid": principal.session_id,
            "role": principal.role.value,
            "typ": kind.value,
        }
        if kind is TokenType.ACCESS and principal.role is Role.PATIENT:
            claims["study_iuids"] = principal.grants.study_iuids[:LISTED_GRANTS]
            claims["accession_numbers"] = principal.grants.accession_numbers[:LISTED_GRANTS]
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def verify(self, token: str, kind: TokenType) -> Claims:
        """Check everything that a token itself can tell.

        Raises
        ------
        Unauthorized
            It is forged, changed, worn out or of another kind. The message doesn't say which.
        """
        if len(token) > TOKEN_LENGTH:
            raise Unauthorized(_AGAIN)
        # A viewer sends one token with a thousand requests: its signature is checked once, its time each time.
        known = self._known.get((token, kind))
        if known is not None and known.issued_at <= self._clock() < known.expires_at:
            return known
        claims = self._checked(token, kind)
        if len(self._known) >= KNOWN_TOKENS:
            self._known.clear()
        self._known[token, kind] = claims
        return claims

    def _checked(self, token: str, kind: TokenType) -> Claims:
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                # The times are compared with this object's clock, below.
                options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
            return self._believed(claims, kind)
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Unauthorized(_AGAIN) from error

    def _believed(self, claims: dict[str, Any], kind: TokenType) -> Claims:
        for name in ("sub", "sid", "role", "typ", "jti"):
            if not isinstance(claims[name], str):
                raise TypeError(name)
        for name in ("iat", "exp"):
            if type(claims[name]) is not int:
                raise TypeError(name)
        if "nbf" in claims or claims["typ"] != kind.value:
            raise ValueError("typ")
        now = self._clock()
        issued_at = datetime.fromtimestamp(claims["iat"], UTC)
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        if not issued_at <= now < expires_at:
            raise ValueError("exp")
        return Claims(claims["sub"], claims["sid"], Role(claims["role"]), issued_at, expires_at)


_AGAIN = "Sign in again."

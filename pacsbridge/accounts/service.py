"""Signing in, staying signed in, signing out: what comes over the network and must not be believed."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from pacsbridge.accounts import audit
from pacsbridge.accounts.attempts import (
    LOGIN_ACCOUNT,
    LOGIN_ADDRESS,
    LOGIN_HERE,
    OPEN_LINK,
    REFRESH,
    REGISTER,
    Attempts,
    Counted,
)
from pacsbridge.accounts.audit import Actor, AuditRecord, AuditTrail, Outcome
from pacsbridge.accounts.passwords import Passwords
from pacsbridge.accounts.principals import USER, Principals, static_accounts
from pacsbridge.accounts.sessions import Sessions
from pacsbridge.accounts.shortlinks import ShortLinks
from pacsbridge.accounts.tokens import Tokens, TokenType, checked_secret
from pacsbridge.accounts.users import NewUser, Users
from pacsbridge.accounts.values import Caller, Principal, Role, utc_now, valid_email
from pacsbridge.db.schema import users
from pacsbridge.errors import (
    Busy,
    Forbidden,
    InvalidParameter,
    NotFound,
    PacsbridgeError,
    RequestError,
    Unauthorized,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from pacsbridge.accounts.shortlinks import ShortLink
    from pacsbridge.accounts.tokens import Claims
    from pacsbridge.accounts.values import Clock
    from pacsbridge.config import AccountsConfig
    from pacsbridge.db import Database

log = structlog.get_logger(__name__)

HOUSEKEEPING_SECONDS = 3600
RENEWED_AT_MOST_EVERY_SECONDS = 60
_WRONG = "Wrong email or password."
_AGAIN = "Sign in again."


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What somebody gets who has proven who they are.

    Parameters
    ----------
    refresh_token
        Empty for a short link: its browser holds the cookie only.
    session_token
        What the cookie holds.
    expires_in
        Seconds that the access token lives.
    """

    principal: Principal
    access_token: str
    refresh_token: str
    session_token: str
    expires_in: int


@dataclass(frozen=True, slots=True)
class _Account:
    """Who an email belongs to, and the hash to check; nobody has neither."""

    principal: Principal | None = None
    password_hash: str | None = None
    credential: str = ""


class Accounts:
    """The accounts of a running service.

    Parameters
    ----------
    config
        The section ``accounts``.
    database
        Migrated and open; it stays its maker's to close.

    Raises
    ------
    ConfigError
        ``jwt_secret`` can't protect anything, or a static user can't be used.
    """

    def __init__(self, config: AccountsConfig, database: Database, *, clock: Clock = utc_now) -> None:
        secret = checked_secret(config.jwt_secret.get_secret_value())
        self._config = config
        self._database = database
        self._clock = clock
        self._access_lifetime = timedelta(minutes=config.access_token_minutes)
        self._static = static_accounts(config.static_users)
        self._attempts = Attempts(clock=clock)
        self._sessions = Sessions(secret, timedelta(days=config.refresh_token_days), clock=clock)
        self._tokens = Tokens(secret, clock=clock)
        self._renewed: dict[str, float] = {}
        self._housekeeping: asyncio.Task[None] | None = None
        self.passwords = Passwords()
        self.principals = Principals(database, self._sessions, self._static, clock=clock)
        self.users = Users(database, self.passwords, self._sessions, self.principals, clock=clock)
        self.links = ShortLinks(database, self._sessions, self.principals, secret, clock=clock)
        self.trail = AuditTrail(database)

    def start(self) -> None:
        """Start the audit trail and the housekeeping."""
        self.trail.start()
        self._housekeeping = asyncio.create_task(self._keep_house(), name="accounts housekeeping")

    async def close(self) -> None:
        """Stop what runs in the background; audit records that wait are written."""
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.gather(self._housekeeping, return_exceptions=True)
        await self.trail.close()
        await asyncio.to_thread(self.passwords.close)

    async def register(self, email: str, password: str, name: str, caller: Caller) -> None:
        """Make an account for a patient, who sees nothing until somebody assigns studies.

        It ends in the same way, and takes as long, when there is an account with that email already: nobody
        learns who has one. That account stays as it is.

        Raises
        ------
        Forbidden
            ``registration`` is closed.
        InvalidParameter, MissingParameter
            The email or the password won't do.
        TooManyRequests
            Too many from this address.
        """
        if self._config.registration != "patients":
            raise Forbidden("Registration is closed: ask the hospital for an account.")
        new = NewUser(email=email, password=password, name=name, role=Role.PATIENT)
        async with self._database.transaction() as connection:
            await self._attempts.count(connection, Counted(REGISTER, (caller.address,)))
        if new.email in self._static:
            await self.passwords.hash(password)
            return
        try:
            await self.users.add(new, Actor("", "", caller))
        except InvalidParameter:
            log.info("registration of a known email")

    async def sign_in(self, email: str, password: str, caller: Caller) -> SignedIn:
        """Check a password and begin a session.

        Raises
        ------
        Unauthorized
            The email or the password is wrong, or the user is disabled: the answer and its time are the same.
        TooManyRequests
            Too many attempts for this account or from this address.
        """
        try:
            email = valid_email(email)
        except RequestError:
            email = ""
        here, in_all = Counted(LOGIN_HERE, (email, caller.address)), Counted(LOGIN_ACCOUNT, (email,))
        account = await self._account(email)
        await self._count_sign_in(email, account, here, caller)
        try:
            good = await self.passwords.verify(password, account.password_hash)
        except Busy:
            # Nothing was guessed: who waits for their turn must not run out of attempts by it.
            async with self._database.transaction() as connection:
                for counted in (here, in_all, Counted(LOGIN_ADDRESS, (caller.address,))):
                    await self._attempts.forgive(connection, counted)
            raise
        if not good or account.principal is None or account.password_hash is None:
            await self._refused("sign-in", account.principal, caller)
            raise Unauthorized(_WRONG)
        new_hash = None
        if account.principal.subject.startswith(USER) and self.passwords.outdated(account.password_hash):
            new_hash = await self.passwords.hash(password)
        async with self._database.transaction() as connection:
            await self._still_good(connection, account, new_hash)
            await self._attempts.clear(connection, here, in_all)
            await self._attempts.forgive(connection, Counted(LOGIN_ADDRESS, (caller.address,)))
            return await self._begin(connection, account.principal, caller, "sign-in", account.credential)

    async def refresh(self, refresh_token: str, caller: Caller) -> SignedIn:
        """Exchange a refresh token for a new one and a new access token.

        Raises
        ------
        Unauthorized
            The token is unknown, used or ended; a used one ends its session.
        TooManyRequests
            Too many unknown tokens from this address.
        """
        counted = Counted(REFRESH, (caller.address,))
        principal = successor = None
        async with self._database.transaction() as connection:
            await self._attempts.check(connection, counted)
            rotation = await self._sessions.rotate(connection, refresh_token)
            if rotation is not None:
                principal = await self.principals.load(connection, rotation.session)
                successor = rotation.successor
            if rotation is None:
                await self._attempts.count(connection, counted)
            elif successor is None:
                actor = Actor(rotation.session.subject, "", caller)
                await audit.write(
                    connection,
                    AuditRecord("refresh", Outcome.REFUSED, actor, detail="refresh token used twice"),
                )
            elif principal is None:
                await self._sessions.end(connection, rotation.session.id, "account is gone")
        if principal is None or successor is None:
            self.principals.forget()
            raise Unauthorized(_AGAIN)
        return self._signed_in(principal, successor)

    async def sign_out(self, principal: Principal, caller: Caller) -> None:
        """End the session."""
        async with self._database.transaction() as connection:
            await self._sessions.end(connection, principal.session_id, "signed out")
            record = AuditRecord("sign-out", Outcome.OK, Actor.of(principal, caller), at=self._clock())
            await audit.write(connection, record)
        self.principals.forget()

    async def principal(self, access_token: str) -> Principal:
        """Return who a bearer token belongs to, with what they may see now.

        Raises
        ------
        Unauthorized
            The token is not to be believed, or its session, user or link is no more.
        """
        return await self._current(self._tokens.verify(access_token, TokenType.ACCESS))

    async def session(self, session_token: str) -> tuple[Principal, str | None]:
        """Return who a cookie belongs to, and a fresh one when it is time for that.

        Raises
        ------
        Unauthorized
            As ``principal``.
        """
        claims = self._tokens.verify(session_token, TokenType.SESSION)
        principal = await self._current(claims)
        if self._clock() - claims.issued_at < self._access_lifetime:
            return principal, None
        return principal, await self._renew(principal)

    def principal_at_hand(self, token: str, kind: TokenType) -> Principal | None:
        """Return whose token it is where that needs no database and no fresh cookie; None is no answer.

        Raises
        ------
        Unauthorized
            The token is not to be believed.
        """
        claims = self._tokens.verify(token, kind)
        if kind is TokenType.SESSION and self._clock() - claims.issued_at >= self._access_lifetime:
            return None
        principal = self.principals.at_hand(claims.session_id)
        return None if principal is None else _matching(claims, principal)

    async def open_link(self, code: str, caller: Caller) -> tuple[ShortLink, SignedIn]:
        """Begin a session as the link's patient.

        Raises
        ------
        NotFound
            It is unknown, expired or revoked: the answer is the same.
        TooManyRequests
            Too many unknown links from this address.
        """
        counted = Counted(OPEN_LINK, (caller.address,))
        async with self._database.session() as connection:
            await self._attempts.check(connection, counted)
        try:
            async with self._database.transaction() as connection:
                link = await self.links.opened(connection, code, Actor("", "", caller))
                principal = Principal(
                    subject=link.subject,
                    session_id="",
                    role=Role.PATIENT,
                    name=link.patient_name,
                    grants=link.grants,
                )
                signed_in = await self._begin(connection, principal, caller, "sign-in by link", "")
        except NotFound:
            async with self._database.transaction() as connection:
                await self._attempts.count(connection, counted)
            raise
        return link, signed_in

    async def refused(self, action: str, principal: Principal, caller: Caller, study_iuid: str = "") -> None:
        """Record that somebody was kept from doing something."""
        await self.trail.put(
            AuditRecord(action, Outcome.REFUSED, Actor.of(principal, caller), study_iuid, at=self._clock())
        )

    async def remove_worn_out(self) -> None:
        """Delete sessions that ended long ago and attempts that count no more."""
        async with self._database.transaction() as connection:
            await self._sessions.remove_worn_out(connection)
            await self._attempts.remove_worn_out(connection)

    async def _keep_house(self) -> None:
        while True:
            try:
                await self.remove_worn_out()
            except (PacsbridgeError, SQLAlchemyError) as error:
                log.warning("housekeeping waits for the database", reason=type(error).__name__)
            await asyncio.sleep(HOUSEKEEPING_SECONDS)

    async def _account(self, email: str) -> _Account:
        static = self._static.get(email)
        # The database is read for everybody, so that the time tells nothing.
        async with self._database.session() as connection:
            row = (await connection.execute(select(users).where(users.c.email == email))).one_or_none()
        if static is not None:
            return _Account(static.principal, static.password_hash, static.credential)
        if row is None or row.disabled_at is not None:
            return _Account()
        principal = Principal(f"{USER}:{row.id}", "", Role(row.role))
        return _Account(principal, row.password_hash)

    async def _count_sign_in(self, email: str, account: _Account, here: Counted, caller: Caller) -> None:
        subject = account.principal.subject if account.principal else ""
        counted = [here, Counted(LOGIN_ADDRESS, (caller.address,))]
        async with self._database.transaction() as connection:
            if not await self._sessions.known_address(connection, subject, caller.address):
                counted.append(Counted(LOGIN_ACCOUNT, (email,)))
            await self._attempts.count(connection, *counted)

    async def _still_good(self, connection: AsyncConnection, account: _Account, new_hash: str | None) -> None:
        """Refuse when the password or the user has changed since the hash was read."""
        principal = account.principal
        if principal is None or not principal.subject.startswith(USER):
            return
        changes: dict[str, object] = {"signed_in_at": self._clock()}
        if new_hash is not None:
            changes["password_hash"] = new_hash
        done = await connection.execute(
            update(users)
            .where(
                users.c.id == principal.id,
                users.c.password_hash == account.password_hash,
                users.c.disabled_at.is_(None),
            )
            .values(**changes)
        )
        if done.rowcount != 1:
            raise Unauthorized(_WRONG)

    async def _begin(
        self, connection: AsyncConnection, principal: Principal, caller: Caller, event: str, credential: str
    ) -> SignedIn:
        session_id, refresh_token = await self._sessions.begin(
            connection, principal.subject, caller, credential=credential
        )
        session = await self._sessions.alive(connection, session_id)
        current = await self.principals.load(connection, session) if session else None
        if current is None:
            raise Unauthorized(_WRONG)
        record = AuditRecord(event, Outcome.OK, Actor.of(current, caller), at=self._clock())
        await audit.write(connection, record)
        return self._signed_in(current, refresh_token)

    def _signed_in(self, principal: Principal, refresh_token: str) -> SignedIn:
        return SignedIn(
            principal=principal,
            access_token=self._tokens.issue(principal, TokenType.ACCESS, self._access_lifetime),
            refresh_token=refresh_token,
            session_token=self._tokens.issue(principal, TokenType.SESSION, self._sessions.lifetime),
            expires_in=int(self._access_lifetime.total_seconds()),
        )

    async def _current(self, claims: Claims) -> Principal:
        return _matching(claims, await self.principals.get(claims.session_id))

    async def _renew(self, principal: Principal) -> str | None:
        """Make a fresh cookie, for one of the hundred requests that a viewer sends at once."""
        now = time.monotonic()
        if now - self._renewed.get(principal.session_id, -math.inf) < RENEWED_AT_MOST_EVERY_SECONDS:
            return None
        self._renewed = {
            session: when
            for session, when in self._renewed.items()
            if now - when < RENEWED_AT_MOST_EVERY_SECONDS
        } | {principal.session_id: now}
        async with self._database.transaction() as connection:
            await self._sessions.extend(connection, principal.session_id)
        return self._tokens.issue(principal, TokenType.SESSION, self._sessions.lifetime)

    async def _refused(self, event: str, principal: Principal | None, caller: Caller) -> None:
        actor = Actor.of(principal, caller) if principal else Actor("", "", caller)
        async with self._database.transaction() as connection:
            await audit.write(connection, AuditRecord(event, Outcome.REFUSED, actor, at=self._clock()))


def _matching(claims: Claims, principal: Principal | None) -> Principal:
    """Return the principal where they are still who the token says."""
    if principal is None or principal.subject != claims.subject or principal.role is not claims.role:
        raise Unauthorized(_AGAIN)
    return principal

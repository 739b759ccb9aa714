"""Short links: a code of 128 bits that opens a patient's studies, and nothing else.

A link is named by the HIS's own ``reference``: asked for again, it stays the same link, with the new studies.
The code is kept as a hash. That it can be told again comes from how it is made: from a nonce in the database
and a key that is not in it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select, update

from pacsbridge.accounts import audit
from pacsbridge.accounts.audit import AuditRecord, Outcome
from pacsbridge.accounts.principals import ACCESSION_KIND, LINK, STUDY_KIND, granted_to_link
from pacsbridge.accounts.tokens import derived_key
from pacsbridge.accounts.values import Grants, new_id, sha256, storable, utc_now, valid_name
from pacsbridge.db.schema import REFERENCE_LENGTH, short_link_items, short_links
from pacsbridge.db.statements import insert_unless_exists
from pacsbridge.errors import InvalidParameter, MissingParameter, NotFound

if TYPE_CHECKING:
    from sqlalchemy.engine import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from pacsbridge.accounts.audit import Actor
    from pacsbridge.accounts.principals import Principals
    from pacsbridge.accounts.sessions import Sessions
    from pacsbridge.accounts.values import Clock
    from pacsbridge.db import Database

CODE_BYTES = 16
DEFAULT_HOURS = 30 * 24
MAXIMUM_HOURS = 366 * 24
MAXIMUM_STUDIES = 500
_CODE = re.compile(r"[A-Za-z0-9_-]{22}")
_NO_LINK = "There is no such link, or it is no longer valid."


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """What a link is asked for with, checked."""

    reference: str
    grants: Grants
    patient_name: str = ""
    expires_in_hours: float = DEFAULT_HOURS

    def __post_init__(self) -> None:
        reference = self.reference.strip()
        if not reference:
            raise MissingParameter("reference is needed: your own key of this link.")
        if len(reference) > REFERENCE_LENGTH or storable(reference) != reference:
            raise InvalidParameter(f"reference has at most {REFERENCE_LENGTH} characters on one line.")
        if not self.grants:
            raise MissingParameter("study_iuids or accession_numbers are needed.")
        if len(self.grants.study_iuids) + len(self.grants.accession_numbers) > MAXIMUM_STUDIES:
            raise InvalidParameter(f"A link opens at most {MAXIMUM_STUDIES} studies.")
        if not 0 < self.expires_in_hours <= MAXIMUM_HOURS:
            raise InvalidParameter(f"expires_in_hours must be over 0 and at most {MAXIMUM_HOURS}.")
        object.__setattr__(self, "reference", reference)
        object.__setattr__(self, "patient_name", valid_name(self.patient_name, "patient_name"))


@dataclass(frozen=True, slots=True)
class ShortLink:
    """A link that opens."""

    id: str
    code: str
    reference: str
    patient_name: str
    grants: Grants
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    opened_at: datetime | None
    opened_count: int

    @property
    def subject(self) -> str:
        """The link's name in tokens and audit records."""
        return f"{LINK}:{self.id}"


class ShortLinks:
    """Makes, finds and revokes links.

    Parameters
    ----------
    secret
        ``accounts.jwt_secret``; the key for codes is derived from it. With another secret, links keep
        opening, but a link that is asked for again gets a new code.
    """

    def __init__(
        self,
        database: Database,
        sessions: Sessions,
        principals: Principals,
        secret: str,
        *,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._principals = principals
        self._key = derived_key(secret, "short links")
        self._clock = clock

    async def put(self, request: LinkRequest, by: Actor) -> tuple[ShortLink, bool]:
        """Create the reference's link, or update the one there is; tell whether it is new.

        A link that was revoked stays dead: its reference gets a new code. One that has expired opens again.
        """
        now, link_id = self._clock(), new_id()
        nonce = new_id()
        async with self._database.transaction() as connection:
            await insert_unless_exists(
                connection,
                short_links,
                id=link_id,
                code_hash=sha256(self._code(nonce)),
                nonce=nonce,
                reference=request.reference,
                patient_name=request.patient_name,
                created_at=now,
                created_by=by.subject,
                updated_at=now,
                expires_at=now,
                opened_count=0,
            )
            query = select(short_links).where(short_links.c.reference == request.reference).with_for_update()
            row = (await connection.execute(query)).one()
            created = row.id == link_id
            if row.revoked_at is not None:
                await self._sessions.end_all(connection, f"{LINK}:{row.id}", "link revoked")
                created = True
            same_code = not created and sha256(self._code(row.nonce)) == row.code_hash
            if same_code or row.id == link_id:
                nonce = row.nonce
            await connection.execute(
                update(short_links)
                .where(short_links.c.id == row.id)
                .values(
                    code_hash=sha256(self._code(nonce)),
                    nonce=nonce,
                    patient_name=request.patient_name,
                    updated_at=now,
                    expires_at=now + timedelta(hours=request.expires_in_hours),
                    revoked_at=None,
                )
            )
            await self._replace_items(connection, row.id, request.grants)
            await self._record(
                connection, "link made" if created else "link updated", row.id, by, request.grants
            )
            link = await self._read(connection, self._code(nonce))
        self._principals.forget()
        return link, created

    async def get(self, code: str) -> ShortLink:
        """Read a link.

        Raises
        ------
        NotFound
            It is unknown, expired or revoked: the answer is the same.
        """
        async with self._database.session() as connection:
            return await self._read(connection, code)

    async def revoke(self, code: str, by: Actor) -> None:
        """Let a link open no more, and end the sessions that it opened.

        Raises
        ------
        NotFound
            It is unknown, expired or revoked.
        """
        async with self._database.transaction() as connection:
            link = await self._read(connection, code)
            await connection.execute(
                update(short_links).where(short_links.c.id == link.id).values(revoked_at=self._clock())
            )
            await self._sessions.end_all(connection, link.subject, "link revoked")
            await self._record(connection, "link revoked", link.id, by, link.grants)
        self._principals.forget()

    async def opened(self, connection: AsyncConnection, code: str, by: Actor) -> ShortLink:
        """Read a link for somebody who opens it, and remember that, in the caller's transaction."""
        link = await self._read(connection, code)
        await connection.execute(
            update(short_links)
            .where(short_links.c.id == link.id)
            .values(opened_at=self._clock(), opened_count=short_links.c.opened_count + 1)
        )
        await self._record(connection, "link opened", link.id, by, link.grants)
        return link

    async def _read(self, connection: AsyncConnection, code: str) -> ShortLink:
        if not _CODE.fullmatch(code):
            raise NotFound(_NO_LINK)
        query = select(short_links).where(short_links.c.code_hash == sha256(code))
        row = (await connection.execute(query)).one_or_none()
        if row is None or row.revoked_at is not None or row.expires_at <= self._clock():
            raise NotFound(_NO_LINK)
        return _link(row, code, await granted_to_link(connection, row.id))

    async def _replace_items(self, connection: AsyncConnection, link_id: str, grants: Grants) -> None:
        await connection.execute(delete(short_link_items).where(short_link_items.c.link_id == link_id))
        items = [(STUDY_KIND, uid) for uid in grants.study_iuids]
        items += [(ACCESSION_KIND, number) for number in grants.accession_numbers]
        await connection.execute(
            insert(short_link_items),
            [
                {"link_id": link_id, "position": position, "kind": kind, "value": value}
                for position, (kind, value) in enumerate(items)
            ],
        )

    async def _record(
        self, connection: AsyncConnection, event: str, link_id: str, by: Actor, grants: Grants
    ) -> None:
        about, at = f"{LINK}:{link_id}", self._clock()
        records = [
            AuditRecord(event, Outcome.OK, by, study_iuid=uid, detail=about, at=at)
            for uid in grants.study_iuids
        ]
        records += [
            AuditRecord(event, Outcome.OK, by, accession_number=number, detail=about, at=at)
            for number in grants.accession_numbers
        ]
        await audit.write(connection, *records)

    def _code(self, nonce: str) -> str:
        code = hmac.digest(self._key, nonce.encode(), hashlib.sha256)[:CODE_BYTES]
        return base64.urlsafe_b64encode(code).rstrip(b"=").decode()


def _link(row: Row[Any], code: str, grants: Grants) -> ShortLink:
    return ShortLink(
        id=row.id,
        code=code,
        reference=row.reference,
        patient_name=row.patient_name,
        grants=grants,
        created_at=row.created_at,
        updated_at=row.updated_at,
        expires_at=row.expires_at,
        opened_at=row.opened_at,
        opened_count=row.opened_count,
    )

"""The tables, as SQLAlchemy knows them; ``migrations`` makes them.

Text columns compare byte by byte on both databases (``utf8mb4_bin``): what may be written in several ways, an
email for one, is normalised before it gets here. Identifiers of rows are random, so that they tell nothing.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from pacsbridge.db.types import UtcDateTime

ID_LENGTH = 32
"""A row's identifier: 128 random bits in hex."""
SHA256_LENGTH = 64
"""A SHA-256 digest in hex."""
EMAIL_LENGTH = 254
"""RFC 5321 4.5.3.1.3, without the angle brackets."""
SUBJECT_LENGTH = 300
"""A principal's name in tokens and audit records: ``user:<id>``, ``static:<email>`` or ``link:<id>``."""
NAME_LENGTH = 200
UID_LENGTH = 64
"""PS3.5 6.2, VR UI."""
ACCESSION_NUMBER_LENGTH = 16
"""PS3.5 6.2, VR SH."""
REFERENCE_LENGTH = 128
ADDRESS_LENGTH = 45
"""An IPv6 address at its longest."""
AUTO_INCREMENT = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only where the column says INTEGER."""

MYSQL_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _cascade(target: str) -> ForeignKey:
    return ForeignKey(target, ondelete="CASCADE")


users = Table(
    "users",
    metadata,
    Column("id", String(ID_LENGTH), primary_key=True),
    Column("email", String(EMAIL_LENGTH), nullable=False, unique=True),
    Column("name", String(NAME_LENGTH), nullable=False),
    Column("password_hash", String(255), nullable=False),
    Column("role", String(16), nullable=False),
    Column("ref_doctor", String(NAME_LENGTH), nullable=False),
    Column("search_text", String(EMAIL_LENGTH + 2 * NAME_LENGTH), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("password_changed_at", UtcDateTime, nullable=False),
    Column("signed_in_at", UtcDateTime),
    Column("disabled_at", UtcDateTime),
    CheckConstraint("role IN ('patient', 'doctor', 'staff', 'admin')", name="role"),
    Index(None, "role"),
    **MYSQL_OPTIONS,
)

grants = Table(
    "grants",
    metadata,
    Column("id", AUTO_INCREMENT, primary_key=True, autoincrement=True),
    Column("user_id", String(ID_LENGTH), _cascade("users.id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("value", String(UID_LENGTH), nullable=False),
    Column("granted_at", UtcDateTime, nullable=False),
    Column("granted_by", String(SUBJECT_LENGTH), nullable=False),
    CheckConstraint("kind IN ('study', 'accession')", name="kind"),
    UniqueConstraint("user_id", "kind", "value"),
    **MYSQL_OPTIONS,
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(ID_LENGTH), primary_key=True),
    Column("subject", String(SUBJECT_LENGTH), nullable=False),
    Column("credential", String(SHA256_LENGTH), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("end_reason", String(32), nullable=False),
    Column("address", String(ADDRESS_LENGTH), nullable=False),
    Column("user_agent", String(255), nullable=False),
    Index(None, "subject", "created_at"),
    Index(None, "expires_at"),
    comment="Refresh-token families: one for each sign-in",
    **MYSQL_OPTIONS,
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("token_hash", String(SHA256_LENGTH), primary_key=True),
    Column("session_id", String(ID_LENGTH), _cascade("sessions.id"), nullable=False, index=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),
    Column("successor_nonce", String(ID_LENGTH), nullable=False),
    **MYSQL_OPTIONS,
)

short_links = Table(
    "short_links",
    metadata,
    Column("id", String(ID_LENGTH), primary_key=True),
    Column("code_hash", String(SHA256_LENGTH), nullable=False, unique=True),
    Column("nonce", String(ID_LENGTH), nullable=False),
    Column("reference", String(REFERENCE_LENGTH), nullable=False, unique=True),
    Column("patient_name", String(NAME_LENGTH), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", String(SUBJECT_LENGTH), nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
    Column("revoked_at", UtcDateTime),
    Column("opened_at", UtcDateTime),
    Column("opened_count", Integer, nullable=False),
    **MYSQL_OPTIONS,
)

short_link_items = Table(
    "short_link_items",
    metadata,
    Column("link_id", String(ID_LENGTH), _cascade("short_links.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("value", String(UID_LENGTH), nullable=False),
    CheckConstraint("kind IN ('study', 'accession')", name="kind"),
    **MYSQL_OPTIONS,
)

attempts = Table(
    "attempts",
    metadata,
    Column("bucket", String(SHA256_LENGTH), primary_key=True),
    Column("counted", Integer, nullable=False),
    Column("window_ends_at", UtcDateTime, nullable=False, index=True),
    comment="Login attempts and their like; a bucket is the hash of what is counted",
    **MYSQL_OPTIONS,
)

audit_records = Table(
    "audit_records",
    metadata,
    Column("id", AUTO_INCREMENT, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False, index=True),
    Column("event", String(40), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("subject", String(SUBJECT_LENGTH), nullable=False),
    Column("role", String(16), nullable=False),
    Column("study_iuid", String(UID_LENGTH), nullable=False),
    Column("accession_number", String(ACCESSION_NUMBER_LENGTH), nullable=False),
    Column("address", String(ADDRESS_LENGTH), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("detail", String(255), nullable=False),
    Index(None, "subject", "at"),
    Index(None, "study_iuid", "at"),
    Index(None, "accession_number", "at"),
    **MYSQL_OPTIONS,
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(ID_LENGTH), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("accession_numbers", Text, nullable=False),
    Column("key", String(SHA256_LENGTH), nullable=False, index=True),
    Column("state", String(16), nullable=False),
    Column("stage", String(32), nullable=False),
    Column("progress", Float, nullable=False),
    Column("instances_expected", Integer),
    Column("instances_received", Integer, nullable=False),
    Column("instances_sent", Integer, nullable=False),
    Column("instances_failed", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("error_code", String(40)),
    Column("error_message", Text),
    Column("notes", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("requested_by", String(SUBJECT_LENGTH), nullable=False),
    Index(None, "state", "created_at"),
    **MYSQL_OPTIONS,
)

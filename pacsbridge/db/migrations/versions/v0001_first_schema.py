"""The first schema: accounts, sessions, grants, short links, attempts, audit records, jobs.

The tables stand here as they were then: ``pacsbridge.db.schema`` moves on, a migration doesn't.
"""

from __future__ import annotations

from typing import Any

from alembic import op
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

revision = "0001"
down_revision = None

AUTO_INCREMENT = BigInteger().with_variant(Integer, "sqlite")
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
    Column("id", String(32), primary_key=True),
    Column("email", String(254), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("password_hash", String(255), nullable=False),
    Column("role", String(16), nullable=False),
    Column("ref_doctor", String(200), nullable=False),
    Column("search_text", String(654), nullable=False),
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
    Column("user_id", String(32), _cascade("users.id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("value", String(64), nullable=False),
    Column("granted_at", UtcDateTime, nullable=False),
    Column("granted_by", String(300), nullable=False),
    CheckConstraint("kind IN ('study', 'accession')", name="kind"),
    UniqueConstraint("user_id", "kind", "value"),
    **MYSQL_OPTIONS,
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("subject", String(300), nullable=False),
    Column("credential", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("end_reason", String(32), nullable=False),
    Column("address", String(45), nullable=False),
    Column("user_agent", String(255), nullable=False),
    Index(None, "subject", "created_at"),
    Index(None, "expires_at"),
    comment="Refresh-token families: one for each sign-in",
    **MYSQL_OPTIONS,
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("session_id", String(32), _cascade("sessions.id"), nullable=False, index=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),
    Column("successor_nonce", String(32), nullable=False),
    **MYSQL_OPTIONS,
)

short_links = Table(
    "short_links",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("code_hash", String(64), nullable=False, unique=True),
    Column("nonce", String(32), nullable=False),
    Column("reference", String(128), nullable=False, unique=True),
    Column("patient_name", String(200), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", String(300), nullable=False),
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
    Column("link_id", String(32), _cascade("short_links.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("value", String(64), nullable=False),
    CheckConstraint("kind IN ('study', 'accession')", name="kind"),
    **MYSQL_OPTIONS,
)

attempts = Table(
    "attempts",
    metadata,
    Column("bucket", String(64), primary_key=True),
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
    Column("subject", String(300), nullable=False),
    Column("role", String(16), nullable=False),
    Column("study_iuid", String(64), nullable=False),
    Column("accession_number", String(16), nullable=False),
    Column("address", String(45), nullable=False),
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
    Column("id", String(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("accession_numbers", Text, nullable=False),
    Column("key", String(64), nullable=False, index=True),
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
    Column("requested_by", String(300), nullable=False),
    Index(None, "state", "created_at"),
    **MYSQL_OPTIONS,
)


def upgrade() -> None:
    """Make what isn't there: MySQL commits each statement, so an earlier try may have got half-way."""
    bind = op.get_bind()
    for table in metadata.sorted_tables:
        table.create(bind, checkfirst=True)
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            index.create(bind, checkfirst=True)

"""Consent to training, and exports of reviewed cases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_CONSENT = ("unasked", "given", "refused")


def upgrade() -> None:
    """Go forward."""
    op.add_column("installation", sa.Column("pseudonym_key", sa.LargeBinary(), nullable=True))
    op.create_table(
        "consent_statement",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("patient_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("said_by", sa.Text(), nullable=False),
        sa.Column("recorded_by", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(sa.column("state").in_(_CONSENT), name=op.f("ck_consent_statement_consent")),
        sa.ForeignKeyConstraint(["patient_id"], ["patient.id"], name=op.f("fk_consent_statement_patient_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consent_statement")),
    )
    op.create_index(op.f("ix_consent_statement_patient_id"), "consent_statement", ["patient_id"])
    op.create_table(
        "review_export",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("export_uid", sa.Uuid(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("exported_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("options", postgresql.JSONB(), nullable=False),
        sa.Column("result_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_export")),
        sa.UniqueConstraint("export_uid", name=op.f("uq_review_export_export_uid")),
    )
    op.create_index("ix_review_export_result_ids", "review_export", ["result_ids"], postgresql_using="gin")

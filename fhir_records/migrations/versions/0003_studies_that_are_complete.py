"""Studies complete by their callers' own rules and numbers, missing files, and one index fewer to feed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column(
        "study",
        sa.Column("open_callers", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    )
    op.execute("UPDATE study SET open_callers = ARRAY[caller] WHERE open_since IS NOT NULL")
    op.add_column("revision", sa.Column("arrived", sa.Integer(), nullable=True))
    op.add_column("revision", sa.Column("expected", sa.Integer(), nullable=True))
    op.add_column("instance", sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True))
    op.drop_index("ix_instance_study_id", table_name="instance")
    op.create_index("ix_instance_received", "instance", ["received_at", "id"], unique=False)
    op.create_index(
        "ix_instance_conflict",
        "instance",
        ["id"],
        unique=False,
        postgresql_where=sa.text("standing = 'conflict'"),
    )
    op.create_index(
        "ix_instance_missing",
        "instance",
        ["id"],
        unique=False,
        postgresql_where=sa.text("missing_since IS NOT NULL"),
    )
    op.create_table(
        "expected_number",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("series_uid", sa.Text(), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=True),
        sa.Column("series", sa.Integer(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["study.id"], name=op.f("fk_expected_number_study_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "series_uid", name=op.f("pk_expected_number")),
    )

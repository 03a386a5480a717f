"""What models were shown and said, and what versions on trial said of the same studies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "read_figures",
        sa.Column("read_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("probability", sa.Double(), nullable=True),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("intensity", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("distances", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.ForeignKeyConstraint(["read_id"], ["read.id"], name=op.f("fk_read_figures_read_id")),
        sa.PrimaryKeyConstraint("read_id", name=op.f("pk_read_figures")),
    )
    op.create_index("ix_read_figures_week", "read_figures", ["model", "read_at"], unique=False)
    op.create_table(
        "model_reference",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("intensity", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.Column("distances", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.PrimaryKeyConstraint("model", "model_version", name=op.f("pk_model_reference")),
    )
    op.create_table(
        "shadow_read",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("read_id", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("probability", sa.Double(), nullable=True),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("agrees", sa.Boolean(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["read_id"], ["read.id"], name=op.f("fk_shadow_read_read_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadow_read")),
        sa.UniqueConstraint("read_id", "model", "version", name=op.f("uq_shadow_read_read_id_model_version")),
    )
    op.create_index(op.f("ix_shadow_read_read_id"), "shadow_read", ["read_id"], unique=False)

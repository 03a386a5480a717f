"""Saliency maps are kept, and what the conformance gate found stands beside a document."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "saliency_map",
        sa.Column("read_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("series_uid", sa.Text(), nullable=False),
        sa.Column("sop_uid", sa.Text(), nullable=False),
        sa.Column("sop_class_uid", sa.Text(), nullable=False),
        sa.Column("frame", sa.Integer(), nullable=True),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("columns", sa.Integer(), nullable=False),
        sa.Column("peak", sa.Double(), nullable=False),
        sa.Column("levels", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["read_id"], ["read.id"], name=op.f("fk_saliency_map_read_id")),
        sa.PrimaryKeyConstraint("read_id", "number", name=op.f("pk_saliency_map")),
    )
    op.add_column(
        "document",
        sa.Column("faults", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    )
    op.add_column("document", sa.Column("released_by", sa.Text(), nullable=True))
    op.add_column("document", sa.Column("release_reason", sa.Text(), nullable=True))
    op.add_column("document", sa.Column("released_at", sa.DateTime(timezone=True), nullable=True))

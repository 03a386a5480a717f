"""What models outline is kept beside their results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "segmentation",
        sa.Column("read_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("columns", sa.Integer(), nullable=False),
        sa.Column("images", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(["read_id"], ["read.id"], name=op.f("fk_segmentation_read_id")),
        sa.PrimaryKeyConstraint("read_id", name=op.f("pk_segmentation")),
    )
    op.create_table(
        "segment_mask",
        sa.Column("read_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("segment", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("bits", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["read_id"], ["segmentation.read_id"], name=op.f("fk_segment_mask_read_id")),
        sa.PrimaryKeyConstraint("read_id", "segment", "place", name=op.f("pk_segment_mask")),
    )

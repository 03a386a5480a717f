"""Reports in the SOP class that each destination takes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "refused_class",
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("sop_class_uid", sa.Text(), nullable=False),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("destination", "sop_class_uid", name=op.f("pk_refused_class")),
    )
    op.add_column("delivery", sa.Column("instead_of", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_delivery_instead_of"), "delivery", "delivery", ["instead_of"], ["id"])
    op.create_index(op.f("ix_delivery_instead_of"), "delivery", ["instead_of"])

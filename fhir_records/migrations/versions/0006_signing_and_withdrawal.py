"""People who sign as documents name them, documents that are withdrawn, and deliveries that take others back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATES = ("waiting", "refused", "filtered", "delivered", "confirmed", "withdrawal open", "withdrawn")


def upgrade() -> None:
    """Go forward."""
    for name in ("person_name", "identification"):
        op.add_column("app_user", sa.Column(name, sa.Text(), server_default="", nullable=False))
    op.add_column("token", sa.Column("user_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_token_user_id"), "token", "app_user", ["user_id"], ["id"])
    op.create_index(op.f("ix_token_user_id"), "token", ["user_id"])
    op.add_column("document", sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("document", sa.Column("withdrawal", sa.Text(), server_default="", nullable=False))
    op.add_column("delivery", sa.Column("maybe_there", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("delivery", sa.Column("withdraws", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_delivery_withdraws"), "delivery", "delivery", ["withdraws"], ["id"])
    op.create_index(op.f("ix_delivery_withdraws"), "delivery", ["withdraws"])
    op.add_column("delivery", sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("delivery", sa.Column("withdrawn_by", sa.Text(), nullable=True))
    op.create_index(
        "ix_delivery_withdrawal_open",
        "delivery",
        ["next_attempt_at"],
        postgresql_where=sa.text("state = 'withdrawal open'"),
    )
    op.drop_constraint("deliverystate", "delivery", type_="check")
    op.create_check_constraint("deliverystate", "delivery", sa.column("state").in_(_STATES))

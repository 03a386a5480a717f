"""People who sign as documents name them, documents that are withdrawn, and deliveries that take others back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
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
    for column in (
        sa.Column("sending_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirm_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirm_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_kept", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("fell_back_at", sa.DateTime(timezone=True), nullable=True),
    ):
        op.add_column("delivery", column)
    op.create_index(
        "ix_delivery_unconfirmed", "delivery", ["confirm_at"], postgresql_where=sa.text("state = 'delivered'")
    )
    op.create_index(
        "ix_delivery_under_way", "delivery", ["destination"], postgresql_where=sa.text("sending_since IS NOT NULL")
    )
    op.create_table(
        "destination_queue",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_by", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_destination_queue")),
    )
    op.create_table(
        "storage_commitment",
        sa.Column("transaction_uid", sa.Text(), nullable=False),
        sa.Column("delivery_id", sa.BigInteger(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure_reason", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["delivery_id"], ["delivery.id"], name=op.f("fk_storage_commitment_delivery_id")),
        sa.PrimaryKeyConstraint("transaction_uid", name=op.f("pk_storage_commitment")),
    )
    op.create_index(op.f("ix_storage_commitment_delivery_id"), "storage_commitment", ["delivery_id"])
    for table in ("delivery", "forward", "forwarded_image"):
        op.drop_constraint("deliverystate", table, type_="check")
        op.create_check_constraint("deliverystate", table, sa.column("state").in_(_STATES))

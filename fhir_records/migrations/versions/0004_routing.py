"""Why a study went where it went, rules tried over past studies, and images sent on to other nodes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATES = sa.Enum(
    "waiting",
    "refused",
    "filtered",
    "delivered",
    "confirmed",
    name="deliverystate",
    native_enum=False,
    create_constraint=True,
    length=24,
)
PRIORITIES = sa.Enum("stat", "urgent", "routine", name="priority", native_enum=False, create_constraint=True, length=24)


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "routing_decision",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("explanation", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_routing_decision_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_routing_decision")),
        sa.UniqueConstraint("study_id", "revision", name=op.f("uq_routing_decision_study_id_revision")),
    )
    op.create_index(op.f("ix_routing_decision_study_id"), "routing_decision", ["study_id"], unique=False)
    op.create_table(
        "rule_trial",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("studies", sa.Integer(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("outcome", postgresql.JSONB(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rule_trial")),
    )
    op.create_table(
        "forward",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("routes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("priority", PRIORITIES, nullable=False),
        sa.Column("state", STATES, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_forward_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forward")),
        sa.UniqueConstraint(
            "study_id", "revision", "destination", name=op.f("uq_forward_study_id_revision_destination")
        ),
    )
    op.create_index(op.f("ix_forward_study_id"), "forward", ["study_id"], unique=False)
    op.create_index(
        "ix_forward_due", "forward", ["next_attempt_at"], unique=False, postgresql_where=sa.text("state = 'waiting'")
    )
    op.create_table(
        "forwarded_image",
        sa.Column("instance_id", sa.BigInteger(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("forward_id", sa.BigInteger(), nullable=False),
        sa.Column("state", STATES, nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["forward_id"], ["forward.id"], name=op.f("fk_forwarded_image_forward_id")),
        sa.ForeignKeyConstraint(["instance_id"], ["instance.id"], name=op.f("fk_forwarded_image_instance_id")),
        sa.PrimaryKeyConstraint("instance_id", "destination", name=op.f("pk_forwarded_image")),
    )
    op.create_index(op.f("ix_forwarded_image_forward_id"), "forwarded_image", ["forward_id"], unique=False)

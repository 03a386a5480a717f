"""What people made of results, to be counted quickly; and which scanner made a series."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_WITHIN = {
    "label": "finding,label",
    "presence": "finding,presence",
    "series_uid": "images_read,0,series_uid",
    "act": "signature,act",
    "withdrawal": "signature,withdrawal",
}


def upgrade() -> None:
    """Go forward. One statement for all columns: each of its own would write the table anew."""
    columns = (
        f"ADD COLUMN {name} text GENERATED ALWAYS AS (content #>> '{{{path}}}') STORED"
        for name, path in _WITHIN.items()
    )
    op.execute(f"ALTER TABLE result {', '.join(columns)}")
    op.create_index(
        "ix_result_answered",
        "result",
        ["created_at"],
        postgresql_where=sa.text("version = 1"),
        postgresql_include=["read_id", "label", "presence", "series_uid"],
    )
    op.create_table(
        "series_equipment",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("series_uid", sa.Text(), nullable=False),
        sa.Column("manufacturer", sa.Text(), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("station_name", sa.Text(), nullable=False),
        sa.Column("device_serial_number", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["study.id"], name=op.f("fk_series_equipment_study_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "series_uid", name=op.f("pk_series_equipment")),
    )

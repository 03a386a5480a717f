"""Files are hashed behind their rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_index("ix_instance_unhashed", "instance", ["id"], postgresql_where=sa.text("sha256 = ''"))

"""Alembic's entry: runs the migrations on the connection that `fhir_records.migrations.migrate` hands over."""

from __future__ import annotations

from alembic import context

from fhir_records.tables import Base


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Leave procrastinate's tables to procrastinate."""
    return not (kind == "table" and name is not None and name.startswith("procrastinate_"))


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    include_name=include_name,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()

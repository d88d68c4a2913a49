"""Run by alembic: applies the versions over the connection that `schema.migrate` hands in."""

from alembic import context

from coordinator.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()

"""What Alembic runs to get its connection: ``pacsbridge.db.migrate`` has opened and locked it."""

from alembic import context

from pacsbridge.db.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()

"""The script that Alembic runs for every upgrade, within the transaction of the given connection."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="mhist_schema_version",
    render_as_batch=True,
)
context.run_migrations()

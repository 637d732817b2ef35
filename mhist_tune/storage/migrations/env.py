"""Alembic runs this file for every upgrade, within the transaction of the connection that it is given."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="mhist_schema_version",
    render_as_batch=True,
)
context.run_migrations()

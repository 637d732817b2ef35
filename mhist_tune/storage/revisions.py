"""The version of our own tables in a database, and the way to the newest one.

The table ``mhist_schema`` holds the version as a number. It is the one thing that every program, old or new, reads
before anything else, so that a program is refused by tables that it does not know. Alembic keeps the same version, as
the name of a revision, in ``mhist_schema_version``; it is imported only where something is to be done.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy import ColumnElement, Connection

from mhist_tune import __version__
from mhist_tune.storage import tables

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
"""The folder of Alembic's scripts."""


def stored(connection: Connection) -> int | None:
    """Return the version of the tables; None if there are none."""
    if not sqlalchemy.inspect(connection).has_table(tables.schema.name):
        return None
    return current(connection)


def current(connection: Connection) -> int | None:
    """Return the version of tables that are known to exist."""
    return connection.execute(sqlalchemy.select(tables.schema.c.version)).scalar()


def create(connection: Connection) -> None:
    """Make the newest tables."""
    from alembic import command

    tables.metadata.create_all(connection)
    row = {"version": tables.SCHEMA_VERSION, "created_by": __version__}
    connection.execute(sqlalchemy.insert(tables.schema).values(row))
    command.stamp(_config(connection), "head")


def n_leases(connection: Connection, clock: ColumnElement[float]) -> int:
    """Return how many slots are held by a worker whose lease has not ended."""
    slots = tables.slots
    query = sqlalchemy.select(sqlalchemy.func.count()).select_from(slots)
    return connection.execute(query.where(slots.c.state == "leased", slots.c.expires_at > clock)).scalar_one()


def upgrade(connection: Connection, version: int) -> None:
    """Change tables of `version` into the newest ones, within the connection's transaction.

    Slots whose lease has ended become free with a new token, so that a worker that held one of them and comes back
    can write nothing more about it.
    """
    from alembic import command
    from alembic.migration import MigrationContext

    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        # every write transaction reads this table first: those that run are waited for, and later ones see the result
        connection.exec_driver_sql(f"LOCK TABLE {tables.schema.name} IN ACCESS EXCLUSIVE MODE")
    slots = tables.slots  # only its columns that every version has
    freed = {"state": "free", "token": slots.c.token + 1, "expires_at": None}
    connection.execute(sqlalchemy.update(slots).where(slots.c.state == "leased").values(freed))
    config = _config(connection)
    context = MigrationContext.configure(connection, opts={"version_table": "mhist_schema_version"})
    if context.get_current_revision() is None:  # the first release did not use Alembic
        command.stamp(config, f"{version:04}")
    command.upgrade(config, "head")
    connection.execute(sqlalchemy.update(tables.schema).values(version=tables.SCHEMA_VERSION))


def _config(connection: Connection) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config

"""Creates our tables and upgrades old ones.

The table ``mhist_schema`` holds their version as a number. Every version of this program reads it before anything else
and refuses tables that it does not know. Alembic stores the same version, as the name of a revision, in
``mhist_schema_version``. Alembic is imported only to create or upgrade tables.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy import ColumnElement, Connection

from mhist_tune import __version__
from mhist_tune.storage import tables
from mhist_tune.storage.stages import SlotState

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
"""The folder with Alembic's scripts."""


def stored(connection: Connection) -> int | None:
    """Return the version of our tables; None if the database has none."""
    if not sqlalchemy.inspect(connection).has_table(tables.schema.name):
        return None
    return current(connection)


def current(connection: Connection) -> int | None:
    """Return the version of our tables, which must exist."""
    return connection.execute(sqlalchemy.select(tables.schema.c.version)).scalar()


def create(connection: Connection) -> None:
    """Create our tables in the newest version."""
    from alembic import command

    tables.metadata.create_all(connection)
    row = {"version": tables.SCHEMA_VERSION, "created_by": __version__}
    connection.execute(sqlalchemy.insert(tables.schema).values(row))
    command.stamp(_config(connection), "head")


def n_leases(connection: Connection, clock: ColumnElement[float]) -> int:
    """Return the number of slots with a lease that has not ended by the database's clock."""
    slots = tables.slots
    query = sqlalchemy.select(sqlalchemy.func.count()).select_from(slots)
    return connection.execute(query.where(slots.c.state == SlotState.LEASED, slots.c.expires_at > clock)).scalar_one()


def upgrade(connection: Connection, version: int) -> None:
    """Upgrade tables of `version` to the newest version, within the connection's transaction.

    Slots whose lease has ended become free with a new token, so their old holders cannot write about them any more.
    """
    from alembic import command
    from alembic.migration import MigrationContext

    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        # Every write transaction reads this table first. The lock waits for those that run; later ones see the result.
        connection.exec_driver_sql(f"LOCK TABLE {tables.schema.name} IN ACCESS EXCLUSIVE MODE")
    slots = tables.slots  # only columns that every version has may be used
    freed = {"state": SlotState.FREE, "token": slots.c.token + 1, "expires_at": None}
    connection.execute(sqlalchemy.update(slots).where(slots.c.state == SlotState.LEASED).values(freed))
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

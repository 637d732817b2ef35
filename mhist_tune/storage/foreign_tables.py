"""Finds what keeps our tables and Optuna's out of a database: the tables of another program, another encoding."""

from collections.abc import Callable

import sqlalchemy
from sqlalchemy import Connection

_OPTUNA = {"studies": {"study_id", "study_name"}, "trials": {"trial_id", "study_id", "number"}}
"""Columns of tables that Optuna needs, and that another program may have under the same name."""


def problem(connection: Connection, url: Callable[[], str]) -> str | None:
    """Return why the tables cannot be made in a database that has none of ours; None if they can. Nothing is written.

    Args:
        connection: to the database.
        url: returns its URL with the password.
    """
    if connection.dialect.name == "postgresql":
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            return f"its encoding is {encoding}, which cannot hold every name; it must be UTF8"
    inspector = sqlalchemy.inspect(connection)
    for table, needed in _OPTUNA.items():
        if inspector.has_table(table):
            missing = needed - {column["name"] for column in inspector.get_columns(table)}
            if missing:
                return f'it has a table "{table}" of another program'
    if not inspector.has_table("alembic_version"):
        return None
    revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if revision is None:  # a process was killed while it made Optuna's tables
        return None
    if not inspector.has_table("version_info"):
        return f"another program, such as MLflow, keeps its tables there (Alembic revision {revision})"
    return _of_optuna(revision, url())


def schema_without_right(connection: Connection) -> str | None:
    """Return the PostgreSQL schema in which tables would be made, if this user may not make any there."""
    if connection.dialect.name != "postgresql":
        return None
    query = "SELECT current_schema() AS name, has_schema_privilege(current_schema(), 'CREATE') AS may_create"
    schema = connection.exec_driver_sql(query).one()
    return None if schema.may_create is not False else str(schema.name)  # NULL: there is no such schema


def _of_optuna(revision: str, url: str) -> str | None:
    import optuna
    from optuna.storages import RDBStorage

    storage = RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
    try:
        if revision == storage.get_head_version():
            return None
        age = "an older" if revision in storage.get_all_versions() else "a newer"
    finally:
        storage.engine.dispose()
    return f"{age} Optuna than {optuna.__version__} has set it up (revision {revision})"

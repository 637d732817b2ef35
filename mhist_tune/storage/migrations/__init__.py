"""The changes of our own tables, one Alembic revision each, from the first release on.

A change of `tables` is a new file in `versions` and `SCHEMA_VERSION` raised by one: the revision's name is that number
with four digits. A revision never imports `tables`, which shows the newest tables only. Optuna's tables have revisions
of their own, in the table ``alembic_version``.
"""

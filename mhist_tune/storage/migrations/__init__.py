"""The Alembic revisions of our tables, one for each change since the first release.

To change `tables`, add a file to `versions` and raise `SCHEMA_VERSION` by one. The name of the revision is that number
with four digits. A revision never imports `tables`, which has only the newest tables. Optuna keeps the revision of its
own tables in ``alembic_version``.
"""

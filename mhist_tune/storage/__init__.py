"""The record: one database holds Optuna's tables and ours.

Every write about a slot is fenced by its lease. SQL is written here, and in `search.rungs`, `search.scores`,
`search.suggestions`, `dashboard.slot_cache` and `actions.doctor`. No torch.

- `database`: The database: one SQLite file or one PostgreSQL database, with Optuna's tables and ours (`tables`) side
  by side.
- `database_url`: The URL of a database: which are accepted, and how SQLAlchemy connects to one.
- `decision`: What was decided for a trial after an epoch, as it is recorded.
- `epochs`: The recorded epochs of slots, with what was decided after each.
- `event_log`: Events of a study, which belong to no claim.
- `faults`: Errors of a database, by what helps: waiting, or the user.
- `heartbeats`: Signs of life of workers, one row for each worker.
- `kept_weights`: The first seed's weights of each retrained trial, in the storage folder of the machine that trained
  it.
- `leases`: What it means to hold a slot: the claim with its token, the lease that a thread renews, and watching
  others' leases.
- `ledger`: The ledger of slots: each is one unit of a study's budget, claimed by one worker at a time and finished
  once.
- `migrations`: The changes of our own tables, one Alembic revision each, from the first release on.
- `openings`: The record of every opening of the test partition.
- `optuna_attrs`: What optuna-dashboard shows beside Optuna's own records: notes, files and Plotly figures, as
  Optuna's attributes.
- `optuna_internals`: Optuna's private parts that this package uses.
- `optuna_mirror`: Optuna's studies beside ours.
- `outcome`: What came of a slot, as it is recorded.
- `payloads`: What the slots of each stage are to do, as it is recorded.
- `predictions`: Stored predictions and the image sets that they are for.
- `retries`: How operations wait for a database that does not answer, and are tried again.
- `revisions`: The version of our own tables in a database, and the way to the newest one.
- `stages`: The stages of a study and the states of a study and of its slots, as they are named everywhere.
- `studies`: Studies: the stored definition, the images of the splits, the first slots, and Optuna's studies beside
  ours.
- `tables`: The tables that stand beside Optuna's in the same database.
- `thumbnails`: Small copies of test images for a report's contact sheet: one zip file for each study, in the storage
  folder.
"""

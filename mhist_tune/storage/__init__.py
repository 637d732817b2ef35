"""The record: Optuna's tables and ours in one database.

Every write about a slot is fenced: it fails unless the writer still holds the slot's lease (`leases.fence`). The
packages above import this one; `training` does not. Nothing here imports torch.

SQL is built here, in `search.budget`, `search.rungs`, `search.values`, `search.suggestions`, `dashboard.slot_cache` and
`actions.doctor`. `worker.slot_run` only passes on statements that `heartbeats` builds.

- `announcements`: Announces new work to idle workers: NOTIFY and LISTEN of PostgreSQL.
- `damage`: Says in one line that a record cannot be read.
- `database`: Opens an SQLite or PostgreSQL database and runs transactions.
- `database_url`: Parses the URL of a database and sets the options of its connections.
- `decision`: What was decided for a trial after an epoch: go on, wait or prune.
- `epochs`: Records the epochs of a slot, each with its decision, and reads them.
- `event_log`: Records the events of a study and reads them.
- `faults`: Sorts database errors: worth another try, disk full, refused.
- `foreign_tables`: Finds tables of other programs, and encodings, that keep ours out of a database.
- `heartbeats`: One row for each worker: what it does and when it was last seen.
- `kept_weights`: The files with the first seed's weights of each retrained trial.
- `leases`: Claims of slots, the fence of their writes, renewal and takeover of leases.
- `ledger`: Claims, finishes, adds and lists slots; a slot holds the state of one trial.
- `migrations`: The Alembic revisions of our tables.
- `opening_chain`: An append-only chain of hashes over the openings.
- `openings`: Records every opening of the test partition.
- `optuna_attrs`: Notes, files and figures that optuna-dashboard shows.
- `optuna_internals`: The private parts of Optuna that are used here.
- `optuna_mirror`: Creates and deletes the Optuna studies that mirror ours.
- `outcome`: How a trial ended: complete, pruned or failed, with its value and its reason.
- `payloads`: What a slot has to train, one class for each stage.
- `predictions`: Stores predicted probabilities and the image sets that they belong to.
- `retries`: Tries again while the database is unreachable, locked, or on a full disk.
- `revisions`: Creates our tables and upgrades old ones.
- `slot_queries`: The queries that select slots, and the order in which they are claimed.
- `slot_rows`: A slot as it is stored, and the slots of a study by stage.
- `spent`: The epochs and the device seconds of each slot, added up in the database.
- `stages`: The stages, the states of a slot and the states of a study.
- `studies`: Creates, loads, changes and deletes studies.
- `surveys`: What a worker could claim of a study now: free and abandoned slots.
- `tables`: The columns of our tables.
- `thumbnails`: Small copies of test images, for a report's contact sheet.
"""

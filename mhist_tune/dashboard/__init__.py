"""The web pages of a storage: ours, and optuna-dashboard's on the same origin.

A request passes `guard`, then `site`, which finds the page of its URL. `pages` has the values for the template of the
page in `templates/`. Only `cli` imports this package.

- `access`: Who may read and write: the password and the sessions.
- `forms`: Reads posted forms and makes the changes to a study that they ask for.
- `guard`: Checks before every page: host name, sizes, origin of a write, login, read-only mode.
- `live`: Snapshots of studies, at most a second old, shared by all readers.
- `pages`: The values for the templates of the overview, of a study and of a trial.
- `responses`: Makes responses: pages, JSON, redirects, style sheets and scripts.
- `server`: Runs gunicorn with one process for one storage.
- `site`: The URLs of our own pages, and a cache of pages for all readers.
- `slot_cache`: The slots of a study in memory; reads changed rows only.
- `stock`: optuna-dashboard, with repairs and without the writes that would bypass the ledger.
- `view`: Parts of pages made from snapshots: facts, table rows, charts.
"""

"""The web pages of a storage: ours, and optuna-dashboard's on the same origin.

A request passes `front` and `guard`, then `site`, which finds the page of its URL. `pages` has the values for the
template of the page in `templates/`. Only `cli` imports this package.

- `access`: Who may read and write: the password and the sessions.
- `attempts`: Delays after wrong passwords.
- `forms`: Reads posted forms and makes the changes to a study that they ask for.
- `front`: Reads the headers of a trusted proxy, and puts all pages under a base path.
- `guard`: Checks before every page: host name, sizes, origin of a write, login, read-only mode.
- `http_server`: waitress, with limits for slow clients, long bodies and many connections.
- `live`: Snapshots of studies, at most a second old, shared by all readers.
- `pages`: The values for the templates of the overview, of a study and of a trial.
- `responses`: Makes responses: pages, JSON, redirects, style sheets and scripts.
- `server`: Serves the dashboard of one storage.
- `site`: The URLs of our own pages, and a cache of pages for all readers.
- `slot_cache`: The slots of a study in memory; reads changed rows only.
- `stock`: optuna-dashboard, with repairs and without the writes that would bypass the ledger.
- `stock_files`: optuna-dashboard's page and script, changed for a base path.
- `view`: Parts of pages made from snapshots: facts, table rows, charts.
"""

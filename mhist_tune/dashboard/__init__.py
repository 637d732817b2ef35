"""The web pages of a storage: ours, and optuna-dashboard's on the same origin.

Requests pass `guard`, then `site`, which maps URLs to `pages`. Nothing imports this package but the command line.

- `access`: Who may read and who may write: one password for all users, sessions in this process's memory.
- `forms`: Posted forms: how they are read, and what those of a study do.
- `guard`: Checks before every page: host name, sizes, origin of a write, login, read-only mode.
- `live`: Snapshots of the studies, shared by all readers: read at most once a second, finished trials only once.
- `pages`: What the templates of the overview, of a study and of a trial are given.
- `responses`: Responses of our own pages: HTML from the templates, errors as JSON, redirects, files of the pages.
- `server`: The server: gunicorn with one process, for one storage.
- `site`: Our own pages beside optuna-dashboard's: the URLs, and a cache that all readers of a page share.
- `slot_cache`: The slots of a study, cached in this process: unchanged rows are not read again.
- `stock`: optuna-dashboard as it is served here: unforked, without the writes that would bypass the ledger, its
  faults mended.
- `view`: Parts of pages, made from snapshots: facts, rows of tables, charts.
"""

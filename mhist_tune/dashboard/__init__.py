"""The web pages of a storage: ours, and optuna-dashboard's on the same origin.

`server` runs gunicorn. `guard` checks every request before all else: host name, sizes, origin of a write, and the login
that `access` holds. `site` maps URLs to `pages`, which take snapshots from `live` (with `slot_cache`) and lay them out
with `view`; `forms` reads posted forms and calls the actions that the command line calls too; `responses` makes the
answers. `stock` is optuna-dashboard, without the writes that would bypass the ledger. Nothing imports this package but
the command line.
"""

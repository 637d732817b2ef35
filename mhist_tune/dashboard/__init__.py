"""The web UI: our own pages and optuna-dashboard's on one origin, behind a guard."""

from mhist_tune.dashboard.server import LOOPBACK_HOSTS, app, serve

__all__ = ["LOOPBACK_HOSTS", "app", "serve"]

"""Imports everything that a worker needs, without garbage collection.

Imports make hardly any garbage, and collections took a sixth of their time. The loaded objects are frozen: later
collections skip them, so that forked workers keep sharing their memory.
"""

import gc

gc.disable()
try:
    from mhist_tune.worker.loop import serve
finally:
    gc.freeze()
    gc.enable()

__all__ = ["serve"]

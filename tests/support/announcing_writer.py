"""Records epochs of a claimed slot, and says after each commit that it is recorded, by one write to standard error."""

import os
import sys

from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.epochs import record_epoch
from mhist_tune.storage.leases import LeaseObserver

if __name__ == "__main__":
    url, n_epochs = sys.argv[1], int(sys.argv[2])
    with open_storage(url) as storage:
        study = studies.load_study(storage, "small")
        claim = ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
        assert claim is not None
        for epoch in range(1, n_epochs + 1):
            record_epoch(storage, claim, epoch=epoch, score=0.5, value=0.5, metrics={"elapsed_s": 1.0})
            os.write(2, f"recorded {epoch}\n".encode())

"""Claims slots and does what their stage asks for: search, confirm, retrain.

Only `actions` and `cli` start workers. `deploy/` has files that start them with Slurm, Kubernetes and Compose.

- `attempt`: One attempt at a claimed slot: what each error does to the slot and to the worker.
- `checkpoint_keys`: The keys of checkpoints in a store: one for each slot of a study.
- `checkpoint_places`: Opens the place of the checkpoints: a folder, or a bucket of an S3-compatible store.
- `checkpoint_room`: Makes room for a trial's first checkpoint where the disk or the budget is full.
- `claimer`: Claims the slots of one worker, and waits while there is none.
- `devices`: Names of devices, and the cores and memory of this machine.
- `idle`: How an idle worker waits: ever less often, and woken by announcements.
- `loop`: One worker process: runs the slots that it claims until none is left, and writes its log.
- `options`: The options of a worker.
- `mixed_versions`: Versions of the code that train one study: the first is recorded, another one is said or refused.
- `optuna_trial`: The Optuna trial of a claimed slot.
- `outbox`: A thread that writes epochs to the database in order while training goes on.
- `plan`: Measures what the budget of a study pays for, once, on the device of its first worker.
- `preload`: Imports everything that a worker needs, without garbage collection.
- `session`: A worker's data, device and records of one study.
- `slot_run`: One claimed slot, from its trial to its final state.
- `stages`: What one slot of each stage does.
- `supervisor`: The worker processes of one machine: start, events, restart after a crash, stop.
- `trial_checkpoints`: A trial's checkpoints: recorded place, waiting for space or the store, takeover, removal.
- `trial_note`: A trial's note, numbers and picture of curves for optuna-dashboard.
- `weight_lookup`: The weight files of a study on this machine, found by their content.
"""

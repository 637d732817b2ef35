"""Claims slots and does what their stage asks for: search, confirm, retrain.

Only actions and the command line start it.

- `attempt`: One attempt at a claimed slot: its run, and what becomes of the slot however the run ends.
- `checkpoint_places`: The place of the checkpoints: a folder, or a bucket of an S3-compatible store.
- `devices`: The names of devices, and the cores and memory of this machine.
- `loop`: One worker process: it claims slots and runs them until none is left in the stages that it serves.
- `options`: The options of a worker.
- `optuna_trial`: The Optuna trial of one claimed slot: created once, given every score, and finished with the slot's
  outcome.
- `outbox`: Epochs on their way to the database: in order, from a thread of its own, so that training need not wait
  for them.
- `preload`: Imports everything that a worker needs, without garbage collection.
- `session`: The session of a worker in one study: the data, the device, and the search records that it has read.
- `slot_run`: One claimed slot from its trial to its final state, the same way for every stage.
- `stages`: What one slot of each stage does.
- `supervisor`: The worker processes of one machine, one for each device: starting, listening, restarting after a
  crash, stopping.
- `trial_checkpoints`: The checkpoints of one claimed slot: their place, the workers that can resume them, and their
  removal at the end.
- `trial_note`: A trial as optuna-dashboard shows it: its note, its numbers and a picture of its curves.
"""

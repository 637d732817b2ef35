"""What a person can do to a study, one module for each verb. `cli` and `dashboard` call these.

- `backup`: Copies an SQLite storage while workers use it.
- `change`: Changes a study under way: pause, stop, extend, widen, enqueue, retry, thaw.
- `create`: Creates a study.
- `delete`: Deletes a study with its files.
- `doctor`: Checks this machine, the storage, the place of the checkpoints and the data set.
- `estimate`: Estimates the time, the space and the power of a study: `create-study --dry-run`.
- `export_model`: Writes a retrained model into a folder, with preprocessing, threshold and model card.
- `open_test`: Records an opening of the test partition, which comes before every result on it.
- `opening_reason`: Why the test partition is opened, and whether a person must say so.
- `receipt`: The receipt of an opening, which is printed before a test image is read.
- `repeat`: Repeats a whole search on other splits and with other seeds.
- `start_from`: Chooses what a new study takes from finished ones, and records where it comes from.
- `verify`: Recomputes a report from the stored predictions and trains one seed once more.
"""

"""MHIST's files as tensors, and the parts that they are cut into. Knows neither Optuna nor SQL.

The packages above it may import it. `holdout` is the one loader of the test partition: only `actions.open_test` and
`worker.stages.retrain` may import that module.

- `annotations`: The table of a data folder: name, label, votes and partition of each image.
- `cache`: The loader of the train partition: images decoded once into a file that all workers share.
- `check`: The check of a data folder, for `data check` and for `create-study`.
- `decoding`: The decoder of one image file: 8-bit RGB, as a viewer shows it.
- `file_checks`: The checks of image files: present, readable, of one size, in one partition only.
- `description`: The user's description of a data set, `dataset.toml`.
- `figures`: Figures of a data folder: train images by votes, and the votes of both partitions.
- `holdout`: The loader of the test partition.
- `images`: Images in memory with their labels and votes, and subsets that copy no pixel.
- `near_identical`: Pairs of near-identical images: candidates by difference hashes, confirmed on pixels.
- `pin`: What identifies a test partition without opening one of its images.
- `problem`: A fault of a data set, as it is reported.
- `row_checks`: The checks of a table's rows: labels against votes, groups across partitions, classes.
- `splits`: The validation split and the folds of cross-validation.
- `synthesize`: A generated data set in MHIST's layout, for demos and tests.
"""

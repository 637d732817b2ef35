"""MHIST's files as tensors, and the parts that they are cut into.

`holdout` is the one loader of the test partition. Only `actions.open_test` and `worker.stages.retrain` may import it.
Knows neither Optuna nor SQL.

- `annotations`: The annotation table of a data folder in MHIST's layout: one row for each image.
- `cache`: A partition's images, decoded once to uint8 in a cache file that all workers share.
- `check`: Check a data folder: counts, files, labels against votes, images that are in both partitions.
- `figures`: Figures of a data folder: train images for each number of votes, and the votes of both partitions.
- `holdout`: The only loader of the test partition.
- `images`: Images in memory with their labels and votes, and subsets of them that copy no pixel.
- `near_identical`: Near-identical images, found by comparing difference hashes.
- `splits`: The validation split and the folds of cross-validation: parts of the train partition, stratified by votes.
- `synthesize`: Synthetic H&E-like images of colorectal crypts in MHIST's layout, for demos and tests.
"""

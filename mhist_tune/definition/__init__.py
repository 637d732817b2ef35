"""What a study file says: tables, search space, hyperparameters. Standard library only. Every package may import it.

- `about`: Facts that only the author of a study or of a data set has.
- `advice`: Advice on settings that have no effect.
- `changes`: Overrides of the command line and absolute paths of weight files, in the tables as read.
- `field_checks`: The checks of weights, dropout placement, frozen layers and model options.
- `files`: The packaged definitions; finding the file of a definition and reading its text.
- `hyperparameters`: All hyperparameters, each with its type, default, legal values and description.
- `rungs`: The rungs of the pruner `promotion` for which a definition gives no epoch.
- `schema`: The tables of a study file, their keys and ranges, and the checks that find every problem.
- `scores`: The scores that a study can search by.
- `space`: The dimensions of a search space, and Optuna's distributions for them.
- `study_file`: `StudyDefinition`: reading, completing, hashing and writing a study file.
- `table_rows`: The `[[row]]` entries: a table of chosen configurations instead of a search.
- `value_checks`: The check of a value's type and bounds.
"""

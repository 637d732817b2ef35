"""What a study file says: tables, search space, hyperparameters. Standard library only. Every package may read it.

- `advice`: Advice on a valid study definition with settings that have no effect.
- `hyperparameters`: The hyperparameters of a training run: type, default, legal values and description of each.
- `schema`: The tables of a study definition, their keys and ranges, and the checks that find every problem in a file.
- `space`: The dimensions of a search space: the `[space]` entries of a study definition, and Optuna's distributions
  for them.
- `study_file`: Study definitions: TOML files such as `studies/*.toml`.
- `table_rows`: The `[[row]]` entries of a study definition: a table of chosen configurations instead of a search.
- `value_checks`: Whether a value of a study definition has the declared type and lies between its bounds.
"""

"""What a person can do to a study, one module for each verb. The command line and the dashboard call these.

- `change`: What a person may change about a study under way.
- `create`: Creating a study.
- `delete`: Deleting a study: every place is opened first, then the files go, and the rows go last.
- `doctor`: Checks of this machine, its data and its database.
- `estimate`: Estimate the time and space that a study needs, and the differences that it can show: `create-study
  --dry-run`.
- `export`: Export a study's retrained model: a folder with its weights, preprocessing, threshold and model card.
- `open_test`: Recording an opening of the test partition, which is the only way to a result on it.
- `verify`: Repeating a report: its numbers are recomputed from the stored predictions, and one seed is trained once
  more.
"""

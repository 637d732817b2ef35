"""Documents made of the records: JSON first, then sentences, figures and pages. No torch, no data set.

- `against`: The results of a table beside the numbers that its definition reports from elsewhere.
- `build`: The report of a study from its records.
- `compare`: Two or more studies compared on the same test images, from stored probabilities alone.
- `compare_text`: A comparison of studies as text, as tables, and as Markdown.
- `confirmation`: The confirmation of the finalists of a search as a document and in sentences, and its cost.
- `document`: The documents of a report and of a comparison.
- `ensemble`: An ensemble of studies: the mean of their retrained models' stored test probabilities.
- `evidence`: The stored test probabilities of one opening of the test partition.
- `figures`: Which figures a report and a comparison have: each is drawn once, for the page and as a file.
- `files`: A report as files: page, Markdown, JSON, CSV and figures.
- `gain`: The gain from tuning: the chosen trial against the study's default, retrained with the same seeds in one
  opening.
- `html`: A report or a comparison as one self-contained HTML file without scripts, fonts or requests.
- `model_card`: The model card of an exported model (after Mitchell et al., 2019): intended use, metrics and limits.
- `optuna_note`: The report of a study as optuna-dashboard shows it: a note, figures and the predictions.
- `records_csv`: The trials, epochs and predictions of every stage of a study as CSV files.
- `references`: Published test results on MHIST's 977 test images, 360 of them SSA, to compare a study with.
- `report_text`: A report as text for a terminal and as Markdown.
- `sentences`: The sentences of a report: its result, its caveats, and a methods paragraph for a paper.
- `status`: Where a study stands: slots, trials, workers, and its best trial.
- `threshold`: Decision threshold and recalibration, fixed on held-out images of the train partition and applied to
  test images.
"""

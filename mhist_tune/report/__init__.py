"""Documents made of the records: JSON first, then sentences, figures and pages. No torch, no data set.

`actions`, `dashboard` and `cli` may import it. Begin at `document`, whose fields are the keys of the JSON.

- `about`: What the author says of a study and of its data, and what is missing.
- `against`: A table's results beside the numbers that its definition reports from elsewhere.
- `build`: The report of a study: every number, recomputed from stored probabilities.
- `ceiling`: The ceiling that the votes set, one annotator beside it, and which part of it has been reached.
- `checklist_files`: A checklist with the answers of a report, as files beside it.
- `checklist`: Reporting checklists, and what of each a report answers.
- `compare_text`: A comparison as text and Markdown: its sentences, caveats and tables.
- `compare`: The comparison of studies on the same test images.
- `comparison`: The document of a comparison: the keys of `compare.json`.
- `confirmation`: The confirmed finalists of a search, as a document and in sentences.
- `cost`: What a study cost: hours, energy, and what follows from the author's rates.
- `data_set`: What a report says of its data set and of the number format.
- `document`: The document of a report: the keys of `report.json`.
- `ensemble`: The mean of several studies' stored test probabilities.
- `evidence`: The stored test probabilities of one opening of the test partition.
- `figures`: The list of the figures of a report and of a comparison, with titles and captions.
- `files`: A report as files: page, Markdown, JSON, CSV and figures.
- `gain`: The gain from tuning: the chosen trial against the study's default.
- `holders`: The workers that hold leases of a study, and the slots that workers abandoned.
- `html`: A report, a comparison or a checklist as one HTML file; the texts around it are in `templates/`.
- `inherited`: Choices that the method report took from MHIST's test images, and that a study begins with.
- `model_card`: The model card of an exported model.
- `more_trials`: Advice on more trials: what twenty more are expected to bring.
- `one_model`: The seeds of a study as one model: the mean of their probabilities, beside single seeds.
- `operating_tables`: The tables of a model in use, and how to read them.
- `operating`: Numbers that a pathologist uses: confusion matrix, operating points, net benefit, deferral.
- `optuna_note`: The report as optuna-dashboard shows it: a note, figures and predictions.
- `parts`: Parts that decorate a report; a text about the failure takes the place of one that fails.
- `provenance`: The warnings of the check of a study's data, and the versions of the code that trained it.
- `records_csv`: The trials, epochs and predictions of a study as CSV files (`mhist-tune export`).
- `references`: Published test results on MHIST.
- `repetitions`: The repetitions of a search: the gain of tuning, and how the choice varies.
- `report_tables`: The tables of a report as rows of text: metrics, calibration, finalists, votes and seeds.
- `report_text`: A report as text and Markdown: its headline, search, openings and facts.
- `sampling`: Groups of the test images, their design effects, and intervals for unknown groups.
- `sentences`: The sentences of a report: result, caveats, methods paragraph.
- `stage_costs`: What a study costs: epochs and device hours of its stages, expected, at most and spent.
- `status_text`: The state of a study and its best trial as text for a terminal.
- `status`: The state of a study: slots, trials, workers, best trial.
- `threshold`: The decision threshold and recalibration, fixed on held-out images, with their test results.
- `transferred`: Where a study took its first configurations from, in sentences.
"""

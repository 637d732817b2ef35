"""Arrays in, numbers out. No torch, no database.

- `binary_metrics`: Metrics and their confidence intervals, from labels and stored probabilities.
- `by_votes`: Misclassified images: error rates by the agreement of the pathologists, and the most confident mistakes.
- `calibration`: Decision threshold and recalibration of probabilities.
- `mean_f1`: F1 averaged over nine thresholds, with its standard error.
- `out_of_fold`: Scores of configurations from out-of-fold predictions, and the stability of the choice among them.
- `paired`: Comparison of models on the same test images: the primary test, and descriptive tests in addition.
- `roc`: ROC curves of several seeds: each one's, and their mean with its band, as plain arrays.
"""

"""Arrays in, numbers out. No torch, no database.

- `auroc`: The standard error of one AUROC.
- `binary_metrics`: Metrics of binary classifiers, from labels and stored probabilities.
- `by_votes`: Misclassified images: error rates by the agreement of the pathologists, and the most confident mistakes.
- `calibration`: Decision threshold and recalibration of probabilities.
- `calibration_on_test`: Calibration slope and intercept on test images, and the floor of the calibration error.
- `descriptive`: Descriptive tests of two models: DeLong's, Wilcoxon's and McNemar's.
- `estimates`: Any statistic of weighted images, with its interval over images or groups, and seeds.
- `groups`: Variances and intervals for images that are alike within a group, such as a patient or a slide.
- `mean_f1`: F1 averaged over nine thresholds, with its standard error.
- `more_trials`: What more trials are expected to bring, and the difference that the images can show.
- `net_benefit`: Net benefit at each threshold probability: the decision curve.
- `operating_points`: Sensitivity at a fixed specificity and the reverse, and predictive values at any prevalence.
- `out_of_fold`: Scores of configurations from out-of-fold predictions, and the stability of the choice among them.
- `paired`: The primary test of a comparison: the difference of models on the same test images.
- `portfolio`: A greedy portfolio: few configurations of which one does well, on whatever task.
- `power`: Power of the primary test before anything is trained.
- `proportions`: Intervals of proportions near 0 or 1, where few errors are counted.
- `racing`: The race of the finalists: which of them are clearly behind before all folds are trained.
- `readers`: What one annotator of a panel reaches, from counts of votes, and how well annotators agree.
- `repeated`: The mean of a difference over repeated cross-validations, with an interval.
- `resampling`: Resamples of images, groups and seeds, and the crossed bootstrap.
- `roc`: ROC curves of several seeds: each one's, and their mean with its band, as plain arrays.
- `selective`: Risk against coverage: which images to defer so that the rest errs below a rate.
- `summaries`: Metrics over the seeds with their 95% intervals, and how these depend on images that are alike.
- `vote_ceiling`: What a model that knew each image's true share of annotators would reach against a panel.
- `vote_mixtures`: Distributions of the true share of annotators, estimated from counts of votes.
"""

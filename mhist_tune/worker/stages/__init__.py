"""What one slot of each stage does.

- `confirm`: The confirm stage: the finalists of a search are trained again out of fold, on the same folds.
- `retrain`: Retraining on the whole train partition with one seed, and its predictions for the test partition.
- `search`: What a search slot does: take its row or ask the sampler, train on the split, prune on each epoch's
  validation F1.
"""

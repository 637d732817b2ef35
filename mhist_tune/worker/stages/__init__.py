"""What one slot of each stage does.

- `confirm`: Trains the finalists of a search again, out of fold, on the same folds.
- `retrain`: Trains one seed on the whole train partition and predicts the test partition.
- `search`: Trains one trial of the search on the split and prunes it on its validation score.
"""

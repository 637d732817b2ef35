"""Every decision of a search, from validation records alone: what is tried, what stops, what is best.

Nothing here has seen the test partition. No torch.

- `audit`: Savings and losses of the pruner, estimated from trials that are finished regardless of their scores.
- `finalists`: The finalists of a search, which are its best trials and its default, and the final choice among them.
- `promotion`: Successive halving with waiting trials: which trials go on from a rung, which wait there, and which are
  pruned.
- `pruning`: Whether a trial goes on: a pure function of recorded values, so that every decision can be repeated and
  explained.
- `replay`: Whether a search can be repeated from its records: every suggestion derived again, compared with what was
  trained.
- `rungs`: The rungs of a search with the pruner `promotion`: arrivals, promotions, and what becomes of those that
  wait.
- `sampler_storage`: Optuna's cached storage as the search's sampler sees it: a trial that waits at a rung is PRUNED
  with its last value.
- `scores`: The values that a trial is judged against: those up to an epoch, of every slot that has recorded it.
- `selection`: Which trial is the best one: decided on validation records alone.
- `suggestions`: What the sampler suggests for a slot: a function of (study seed, slot) and of the trials that could
  be seen then.
- `trials`: The trials of a search, the importance of its hyperparameters, and values at the end of their range.
- `veto`: A person's veto: it ends a running trial as pruned at its next epoch.
"""

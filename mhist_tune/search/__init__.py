"""Every decision of a search: what is tried, what stops, what is best. Validation records are its only input.

No decision uses the test partition. `worker`, `report` and the packages above them import this one, which imports
`storage`. Nothing here imports torch.

- `audit`: Estimates what the pruner saved and lost, from trials that ignore it.
- `budget`: Keeps a search within its budget of device hours.
- `costs`: The epochs and the device hours of each stage, expected and at most.
- `finalists`: The finalists of a search and the final choice among them.
- `promotion`: The rule of the pruner `promotion`: which trials go on from a rung, wait or are pruned.
- `pruning`: The rules of the other pruners (median, percentile, halving, Hyperband), and which one applies.
- `race`: The race of the finalists in the database: looks, dropped finalists and their slots.
- `replay`: Derives every recorded suggestion again and compares it with the trial.
- `rungs`: Applies `promotion` in the database: arrivals, promotions, waiting slots.
- `sampler_storage`: Optuna's cached storage for the sampler, in which waiting trials count as pruned.
- `selection`: Ranks trials and table rows; the best one.
- `standings`: How well each configuration of a search did among the others.
- `suggestions`: Samples the params of a slot and records them.
- `transfer`: Configurations of finished studies that another study tries first.
- `trials`: Ended trials, the importance of hyperparameters, values at the end of their range.
- `values`: A trial's value made of its epochs' scores, and the values of its competitors.
- `veto`: Records a person's veto, which prunes a running trial.
"""

"""A greedy portfolio: few configurations of which one does well, on whatever task.

Of all sets of n configurations it looks for the one with the highest mean, over tasks, of the set's best score. This
mean is submodular, so adding the best next configuration n times gains at least 63% of what the best set gains
(Nemhauser, Wolsey and Fisher, 1978).
"""

import numpy as np

from mhist_tune.arrays import FloatArray

_EQUAL = 1e-12
"""Two gains that are nearer than this are equal."""


def greedy(scores: FloatArray, n: int, *, known: FloatArray | None = None) -> list[int]:
    """Return up to `n` different configurations, in the order in which the portfolio takes them.

    Each one raises the mean of the portfolio's best score the most; of equal ones that with the highest mean score is
    taken, and then the first.

    Args:
        scores: of each configuration on each task, [tasks, configurations]; higher is better.
        n: the size of the portfolio.
        known: the scores of the configurations that are tried in any case, [tasks, known].
    """
    best = known.max(axis=1) if known is not None and known.size else np.full(scores.shape[0], scores.min())
    mean = scores.mean(axis=0)
    chosen: list[int] = []
    for _ in range(min(n, scores.shape[1])):
        gains = np.maximum(scores, best[:, None]).mean(axis=0)
        gains[chosen] = -np.inf
        is_best = gains >= gains.max() - _EQUAL
        chosen.append(int(np.argmax(np.where(is_best, mean, -np.inf))))
        best = np.maximum(best, scores[:, chosen[-1]])
    return chosen

"""The numbers of a model in use, cell by cell: confusion matrix, operating points, net benefit, deferral, one model."""

import re
from collections.abc import Callable

import numpy as np

from tests.recompute.checks import Check, TableRule
from tests.recompute.models import Model, draws, effective, wilson

Rows = list[dict[str, str]]
Statistic = Callable[[np.ndarray], np.ndarray]
"""Takes image weights [B, n] and returns values [B, S]."""
_ROUNDING = 1e-9


def resampled(check: Check, statistic: Statistic, trials: float | None = None) -> tuple[float, float, float] | None:
    """Return the interval of a statistic's mean over seeds, and how far a printed end may be from it.

    Near 0 and 1 a proportion of `trials` images has Wilson's interval on an effective count.
    """
    n, rng = check.test.y.size, np.random.default_rng(5)
    mean = float(statistic(np.ones((1, n)))[0].mean())
    if not np.isfinite(mean):
        return None
    w = draws(rng, n)
    values = statistic(w)
    found = (
        (values * draws(rng, values.shape[1]) / values.shape[1]).sum(axis=1) if values.shape[1] > 1 else values[:, 0]
    )
    found = found[np.isfinite(found)]
    if trials is not None and min(mean, 1 - mean) * trials < 10:
        low, high = wilson(mean, effective(mean, float(found.var(ddof=1)), trials))
    else:
        low, high = (float(end) for end in np.quantile(found, (0.025, 0.975)))
    return low, high, 0.12 * (high - low)


def mean_of(check: Check, statistic: Statistic) -> float | None:
    """Return the mean over seeds of a statistic of the images as they are; None where it is undefined."""
    mean = float(statistic(np.ones((1, check.test.y.size)))[0].mean())
    return mean if np.isfinite(mean) else None


def of_one_model(check: Check, rows: Rows) -> None:
    """Every metric of single seeds and of the mean of their probabilities."""
    one = Model(check.test.y, check.test.p.mean(axis=0, keepdims=True))
    for row in rows:
        name = metric_of(row["metric"])
        values = check.test.per_seed(name)
        where, mean = f"one model, {name}", row[next(head for head in row if head.startswith("mean of "))]
        check.number(where, row["single seeds: mean"], float(values.mean()))
        check.number(where, row["std"], float(values.std(ddof=1)))
        check.ends(where, row["95% interval"], None if name == "ece" else check.test.interval(name))
        check.number(where, mean, float(one.per_seed(name)[0]))
        check.ends(where, row["95% interval 2"], None if name == "ece" else one.interval(name))


def metric_of(title: str) -> str:
    """Return the metric of a row."""
    names = {"Brier score": "brier", "calibration error": "ece"}
    return names.get(title, title.lower().replace(" ", "_"))


def of_confusion(check: Check, rows: Rows) -> None:
    """Numbers of images by class and call, mean over seeds, at .5 and at the threshold of held-out images."""
    for row in rows:
        is_ssa = row["by majority"] == "SSA"
        n = int(check.test.y.sum() if is_ssa else (~check.test.y).sum())
        for head, printed in list(row.items())[1:]:
            called, threshold = re.fullmatch(r"called (SSA|HP) at (\S+)", head).groups()
            check.number("confusion", threshold, 0.5 if threshold == "0.5" else check.threshold)
            cut = 0.5 if threshold == "0.5" else check.threshold
            name, of_class = ("recall", "SSA") if is_ssa else ("specificity", "HP")
            low, high, tolerance = check.test.interval(name, cut)
            mean = float(check.test.per_seed(name, cut).mean())
            if called != of_class:
                mean, low, high = 1 - mean, 1 - high, 1 - low
            count, ends = re.fullmatch(r"(\S+) \((.*)\)", printed).groups()
            check.number("confusion", count, n * mean)
            check.ends("confusion", ends, (n * low, n * high, n * tolerance))


def at_target(check: Check, fixed: str, target: float) -> Statistic:
    """Return the highest other rate of any threshold at which a rate is at least a target."""

    def statistic(w: np.ndarray) -> np.ndarray:
        y, found = check.test.y, []
        for p in check.test.p:
            called = (p[None, :] >= np.append(np.unique(p), 2.0)[:, None]).astype(float)
            with np.errstate(invalid="ignore"):
                sensitivity = w[:, y] @ called[:, y].T / w[:, y].sum(axis=1, keepdims=True)
                specificity = 1 - w[:, ~y] @ called[:, ~y].T / w[:, ~y].sum(axis=1, keepdims=True)
            held, other = (specificity, sensitivity) if fixed == "specificity" else (sensitivity, specificity)
            found.append(np.where(held >= target - _ROUNDING, other, -1.0).max(axis=1))
        return np.stack(found, axis=1)

    return statistic


def of_points(check: Check, rows: Rows) -> None:
    """Sensitivity at a fixed specificity and the reverse: on these images, and at a threshold of held-out images."""
    y, p = check.held_out_labels, check.held_out_probabilities
    values = np.unique(p)
    middles = np.array([values[0] / 2, *((values[1:] + values[:-1]) / 2), (values[-1] + 1) / 2])
    called = p > middles[:, None]
    rates = {"sensitivity": called[:, y].mean(axis=1), "specificity": 1 - called[:, ~y].mean(axis=1)}
    for row in rows:
        fixed, target = row["held"].split(" ")
        aim, other = float(target.rstrip("%")) / 100, "sensitivity" if fixed == "specificity" else "specificity"
        where, statistic = f"at {row['held']}", at_target(check, fixed, aim)
        check.number(where, target, aim)
        check.number(where, row["reached on these images"].split(" ")[1], mean_of(check, statistic))
        trials = float((check.test.y if other == "sensitivity" else ~check.test.y).sum())
        check.ends(where, row["95% interval"], resampled(check, statistic, trials))
        allowed = middles[rates[fixed] >= aim - _ROUNDING]
        threshold = float(allowed.min() if fixed == "specificity" else allowed.max())
        check.number(where, row["threshold"], threshold)
        for head, ends, name in (
            ("sensitivity there", "95% interval 2", "recall"),
            ("specificity there", "95% interval 3", "specificity"),
        ):
            check.number(where, row[head], float(check.test.per_seed(name, threshold).mean()))
            check.ends(where, row[ends], check.test.interval(name, threshold))


def of_predictive_values(check: Check, rows: Rows) -> None:
    """Predictive values by Bayes' rule, at the threshold of held-out images."""
    y = check.test.y
    for row in rows:
        share, where = float(y.mean()), f"prevalence {row['prevalence of SSA']}"
        check.number(where, row["prevalence of SSA"], share)
        for title, ends, own, other, of_class, n_other in (
            ("PPV", "95% interval", "recall", "specificity", share, float((~y).sum())),
            ("NPV", "95% interval 2", "specificity", "recall", 1 - share, float(y.sum())),
        ):

            def value(own_rate: np.ndarray, other_rate: np.ndarray, of_class: float = of_class) -> np.ndarray:
                with np.errstate(invalid="ignore"):
                    return own_rate * of_class / (own_rate * of_class + (1 - other_rate) * (1 - of_class))

            def statistic(w: np.ndarray, own: str = own, other: str = other, value: Callable = value) -> np.ndarray:
                return value(*(check.test.weighted(name, w, check.threshold) for name in (own, other)))

            found = resampled(check, statistic)
            rate = float(check.test.per_seed(other, check.threshold).mean())
            if found is not None and min(rate, 1 - rate) * n_other < 10:
                mean = np.array(float(check.test.per_seed(own, check.threshold).mean()))
                of_rate = resampled(
                    check, lambda w, other=other: check.test.weighted(other, w, check.threshold), n_other
                )
                assert of_rate is not None
                low, high = (float(value(mean, np.array(end))) for end in of_rate[:2])
                found = (low, high, 0.12 * (high - low))
            check.number(where, row[title], mean_of(check, statistic))
            check.ends(where, row[ends], found)


def of_net_benefit(check: Check, rows: Rows) -> None:
    """Net benefit of the model, of calling every image SSA, and what the model has above the better alternative."""
    y = check.test.y
    for row in rows:
        t, where = float(row["threshold probability"].rstrip("%")) / 100, f"net benefit, {row['threshold probability']}"
        worth = np.where(y, 1.0, -t / (1 - t))

        def model(w: np.ndarray, t: float = t, worth: np.ndarray = worth) -> np.ndarray:
            return w @ (worth * (check.test.p > t)).T / w.sum(axis=1, keepdims=True)

        def above(w: np.ndarray, worth: np.ndarray = worth, model: Statistic = model) -> np.ndarray:
            everyone = w @ worth / w.sum(axis=1)
            return model(w) - np.maximum(everyone, 0)[:, None]

        check.number(where, row["threshold probability"], t)
        check.number(where, row["model"], mean_of(check, model))
        check.ends(where, row["95% interval"], resampled(check, model))
        check.number(where, row["call all SSA"], float(worth.mean()))
        check.number(where, row["call none"], 0.0)
        check.number(where, row["above the better"], mean_of(check, above))
        check.ends(where, row["95% interval 2"], resampled(check, above))


def deferred(check: Check, risk: float) -> Statistic:
    """Return the smallest share of the least certain images without which the rest errs in at most `risk`."""

    def statistic(w: np.ndarray) -> np.ndarray:
        found = []
        for p in check.test.p:
            certainty, wrong = np.abs(p - 0.5), (p > 0.5) != check.test.y
            kept_from = (certainty[None, :] >= np.unique(certainty)[:, None]).astype(float)
            kept, errors = w @ kept_from.T, (w * wrong) @ kept_from.T
            most = np.where(errors <= (risk + _ROUNDING) * kept, kept, 0.0).max(axis=1)
            found.append(1 - most / w.sum(axis=1))
        return np.stack(found, axis=1)

    return statistic


def of_deferral(check: Check, rows: Rows) -> None:
    """Which share to defer so that the rest errs in at most a rate: on these images, and fixed on held-out images."""
    y, p = check.held_out_labels, check.held_out_probabilities
    distance, wrong = np.abs(p - 0.5), (p > 0.5) != y
    levels = np.unique(distance)[::-1]
    kept = np.array([(distance >= level).sum() for level in levels])
    errors = np.array([(wrong & (distance >= level)).sum() for level in levels])
    for row in rows:
        risk = float(row["the rest errs in at most"].rstrip("%")) / 100
        where, statistic = f"deferral at {risk:.0%}", deferred(check, risk)
        check.number(where, row["the rest errs in at most"], risk)
        check.number(where, row["defer on these images"], mean_of(check, statistic))
        check.ends(where, row["95% interval"], resampled(check, statistic, float(check.test.y.size)))
        allowed = np.flatnonzero(errors <= (risk + _ROUNDING) * kept)
        if not allowed.size:
            check.number(where, row["certainty"], None)
            continue
        last = int(allowed[-1])
        certainty = 0.0 if last == levels.size - 1 else float((levels[last] + levels[last + 1]) / 2)
        is_kept = (np.abs(check.test.p - 0.5) > certainty).astype(float)
        is_wrong = is_kept * ((check.test.p > 0.5) != check.test.y)

        def left(w: np.ndarray, is_kept: np.ndarray = is_kept) -> np.ndarray:
            return 1 - w @ is_kept.T / w.sum(axis=1, keepdims=True)

        def rate(w: np.ndarray, is_kept: np.ndarray = is_kept, is_wrong: np.ndarray = is_wrong) -> np.ndarray:
            with np.errstate(invalid="ignore", divide="ignore"):
                return (w @ is_wrong.T) / (w @ is_kept.T)

        check.number(where, row["certainty"], certainty)
        check.number(where, row["deferred there"], mean_of(check, left))
        check.ends(where, row["95% interval 2"], resampled(check, left, float(check.test.y.size)))
        check.number(where, row["error rate there"], mean_of(check, rate))
        check.ends(where, row["95% interval 3"], resampled(check, rate, float(is_kept.sum(axis=1).mean())))


OPERATING: dict[str, TableRule] = {
    "The seeds as one model": of_one_model,
    "Confusion matrix": of_confusion,
    "Sensitivity at a fixed specificity, and the reverse": of_points,
    "Predictive values": of_predictive_values,
    "Net benefit": of_net_benefit,
    "Which share to defer": of_deferral,
}

"""The tables of a report, cell by cell."""

import numpy as np
from scipy import optimize, special, stats
from sklearn.linear_model import LogisticRegression

from tests.recompute.checks import Check, TableRule
from tests.recompute.models import Model, crossed, difference, ece, effective, logit, wilson

Rows = list[dict[str, str]]
OF_THRESHOLD = ("f1", "precision", "recall", "specificity", "accuracy", "balanced_accuracy")
EFFECTS = (1.5, 2.0, 3.0)


def name_of(title: str) -> str:
    """Return the metric that a row or column is called after."""
    names = {"Brier score": "brier", "calibration error": "ece", "Loss": "log_loss"}
    return names.get(title, title.lower().replace(" ", "_"))


def of_metrics(check: Check, rows: Rows) -> None:
    """Mean, standard deviation and interval of each metric, at .5 and at the threshold of held-out images."""
    for row in rows:
        where, name = f"metrics, {row['metric']}", name_of(row["metric"])
        values = check.test.per_seed(name)
        check.number(where, row["mean"], float(values.mean()))
        check.number(where, row["std"], float(values.std(ddof=1)))
        check.ends(where, row["95% interval"], None if name == "ece" else check.test.interval(name))
        [at] = [head for head in row if head.startswith("at ")]
        check.number(where, at.removeprefix("at "), check.threshold)
        if name in OF_THRESHOLD:
            check.number(where, row[at], float(check.test.per_seed(name, check.threshold).mean()))
            check.ends(where, row["95% interval 2"], check.test.interval(name, check.threshold))


def of_sensitivity(check: Check, rows: Rows) -> None:
    """Intervals at supposed design effects: the part of the variance that comes from images grows by the effect."""
    for row in rows:
        name = name_of(row["95% interval"])
        where, mean, found = (
            f"design effects, {name}",
            float(check.test.per_seed(name).mean()),
            check.test.interval(name),
        )
        of_images, total = check.test.variances(name)
        check.ends(where, row["independent images"], found)
        to, back = (np.log, np.exp) if name == "log_loss" else (special.logit, special.expit)
        for effect in EFFECTS:
            if found[2] == 0.0:  # few errors or few correct calls
                low, high = check.test.near_end(name, effect)
            else:
                wider = np.sqrt((total + (effect - 1) * of_images) / total)
                low, high = (float(back(to(mean) + wider * (to(end) - to(mean)))) for end in found[:2])
            check.ends(where, row[f"design effect {effect:g}"], (low, high, found[2] and 0.1 * (high - low)))


def of_slopes(check: Check, rows: Rows) -> None:
    """Slope and intercept of logistic regressions on the test images, their t intervals, and the floor of the error."""
    y, logits = check.test.y, [logit(row) for row in check.test.p]
    by_title = {row[""]: row for row in rows}
    fits = {"slope": [], "intercept with slope 1 (in the large)": []}
    for x in logits:
        model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10000).fit(x[:, None], y)
        slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
        design = np.stack([np.ones_like(x), x])
        p = special.expit(intercept + slope * x)
        information = (design * (p * (1 - p))) @ design.T
        fits["slope"].append((slope, np.linalg.solve(information, design * (y - p))[1]))
        large = optimize.brentq(lambda level, x=x: float((y - special.expit(level + x)).sum()), -60, 60)
        p = special.expit(large + x)
        fits["intercept with slope 1 (in the large)"].append((large, (y - p) / (p * (1 - p)).sum()))
    for title, found in fits.items():
        values = np.array([value for value, _ in found])
        influences = np.stack([influence for _, influence in found], axis=1) * y.size / (y.size - 1)
        _, variance, df = crossed(influences, values, y)
        half = float(stats.t.ppf(0.975, df) * np.sqrt(variance))
        row, mean = by_title[title], float(values.mean())
        check.number(title, row["perfect"], 1.0 if title == "slope" else 0.0)
        check.number(title, row["mean"], mean)
        check.number(title, row["std"], float(values.std(ddof=1)))
        check.ends(title, row["95% interval"], (mean - half, mean + half, 1e-3 * half))
    row, errors = by_title["calibration error"], check.test.per_seed("ece")
    check.number("floor of the calibration error", row["perfect"], floor(check.test), 0.004)
    check.number("calibration error", row["mean"], float(errors.mean()))
    check.number("calibration error", row["std"], float(errors.std(ddof=1)))


def floor(test: Model) -> float:
    """Return the mean calibration error of labels that are drawn from the probabilities."""
    rng = np.random.default_rng(3)
    return float(np.mean([[ece(rng.random(row.size) < row, row) for _ in range(400)] for row in test.p]))


def of_recalibration(check: Check, rows: Rows) -> None:
    """Log loss, Brier score and calibration error of raw and of corrected probabilities."""
    for row in rows:
        name = row["probabilities"].split(" ")[0]
        model = Model(check.test.y, check.mapped[name])
        for metric, head in (("log_loss", "95% interval"), ("brier", "95% interval 2")):
            title = "log loss" if metric == "log_loss" else "Brier score"
            check.number(f"{name}, {title}", row[title], float(model.per_seed(metric).mean()))
            check.ends(f"{name}, {title}", row[head], model.interval(metric))
        check.number(f"{name}, ece", row["calibration error"], float(model.per_seed("ece").mean()))


def of_finalists(check: Check, rows: Rows) -> None:
    """Scores of the finalists out of fold, and how often each is chosen in resamples."""
    for row in rows:
        trial = int(row["trial"].split(",")[0])
        where, searched = f"finalist {trial}", check.search_row(trial)
        is_complete = searched["state"] == "COMPLETE"
        check.number(where, row["mean F1 in the search"], float(searched["value"]) if is_complete else None)
        scores, inside = check.scores(trial), check.resampled_finalists()[trial]["inside"]
        for printed, score in (("mean F1 out of fold", "mean F1"), ("F1", "F1"), ("AUROC", "AUROC")):
            check.number(where, row[printed], scores[score])
        low, high = np.quantile(inside, (0.025, 0.975))
        check.ends(where, row["95% interval"], (float(low), float(high), 0.1 * float(high - low)))
        check.number(where, row["epochs"], check.study["fixed"]["epochs"])
        check.number(where, row["chosen in resamples"], float(check.choice()[trial].mean()), 0.04)


def of_votes(check: Check, rows: Rows) -> None:
    """Error rates by votes with Wilson's intervals, and those of one annotator against the other six."""
    wrong = ((check.test.p > 0.5) != check.test.y).astype(float)
    human_of = [human(votes) for votes in range(8)]
    *by_votes, whole = rows
    for votes, row in enumerate(by_votes):
        chosen, where = check.votes == votes, f"votes {votes}"
        check.number(where, row["votes for SSA"].split(" ")[0], votes)
        of_votes = wrong[:, chosen]
        rate, n = float(of_votes.mean()), int(chosen.sum())
        check.number(where, row["images"], n)
        check.number(where, row["error rate"], rate)
        count = float(n)
        if n > 1:
            left_out = (of_votes.sum(axis=1)[None, :] - of_votes.T) / (n - 1)
            influences = left_out.mean(axis=0) - left_out
            variance = of_one_class(influences, of_votes.mean(axis=1), check.test.y[chosen])
            count = effective(rate, variance, n)
        check.ends(where, row["95% interval"], (*wilson(rate, count), 1e-4))
        check.number(where, row[next(head for head in row if head.startswith("each "))], human_of[votes])
    check.number("all votes", whole["images"], check.votes.size)
    check.number("all votes", whole["error rate"], float(wrong.mean()))
    low, high, tolerance = check.test.interval("accuracy")
    check.ends("all votes", whole["95% interval"], (1 - high, 1 - low, tolerance))
    printed = whole[next(head for head in whole if head.startswith("each "))]
    check.number("all votes", printed, float(np.mean([human_of[votes] for votes in check.votes])))


def of_one_class(influences: np.ndarray, values: np.ndarray, y: np.ndarray) -> float:
    """Return the variance of a mean over seeds by images of one class, which are one stratum, and seeds."""
    assert y.all() or not y.any()
    n, n_seeds = influences.shape
    weight = 1 - 1 / n
    of_images = weight * float((influences.mean(axis=1) ** 2).sum())
    of_seeds = float(values.var(ddof=1)) / n_seeds
    around = weight * float(((influences - influences.mean(axis=1, keepdims=True)) ** 2).sum())
    return of_images + of_seeds - min(around / (n_seeds * (n_seeds - 1)), of_images, of_seeds)


def human(votes: int) -> float:
    """Return the share of seven annotators who disagree with the majority of the other six; a tie counts half."""
    total = 0.0
    for own, count in ((1, votes), (0, 7 - votes)):
        others = votes - own
        total += count * (0.5 if others == 3 else float((others > 3) != bool(own)))
    return total / 7


def of_seeds(check: Check, rows: Rows) -> None:
    """Each seed's metrics at .5, their mean and standard deviation."""
    names = {head: name_of(head) for head in rows[0] if head}
    for head, name in names.items():
        values = check.test.per_seed(name)
        for row in rows:
            if row[""].startswith("seed "):
                expected = float(values[check.seeds.index(row[""].removeprefix("seed "))])
            else:
                expected = float(values.mean() if row[""] == "mean" else values.std(ddof=1))
            check.number(f"{row['']}, {head}", row[head], expected)


def of_gain(check: Check, rows: Rows) -> None:
    """The chosen trial beside the default: means, standard deviations and the differences of AUROC and F1."""
    chosen, default, change = rows
    assert check.default is not None
    for row, model in ((chosen, check.test), (default, check.default)):
        check.number("gain", row["seeds"], len(model.p))
        check.number("gain", row[""].split(" ")[-1], check.chosen if model is check.test else check.default_trial)
        for title in ("AUROC", "AUPRC", "F1", "balanced accuracy"):
            values = model.per_seed(name_of(title))
            mean, std = row[title].split(" ± ")
            check.number(f"gain, {title}", mean, float(values.mean()))
            check.number(f"gain, {title}", std, float(values.std(ddof=1)))
    for title in ("AUROC", "F1"):
        estimate, se = difference(check.test, check.default, name_of(title))
        printed, low, high = change[title].replace("(", "").replace(")", "").replace(" to ", " ").split(" ")
        check.number(f"gain, {title}", printed, estimate)
        check.number(f"gain, {title}", low, estimate - 1.96 * se, 0.15 * se)
        check.number(f"gain, {title}", high, estimate + 1.96 * se, 0.15 * se)


def of_cost(check: Check, rows: Rows) -> None:
    """Trainings, epochs and hours of each stage and of all."""
    for row in rows:
        stage = None if row["stage"] == "all" else row["stage"]
        n_trainings, n_epochs, hours = check.spent(stage)
        check.number(f"cost, {stage}", row["trainings"], n_trainings)
        check.number(f"cost, {stage}", row["epochs"], n_epochs)
        check.number(f"cost, {stage}", row["hours"], hours)
        check.number(f"cost, {stage}", row["of trainings pruned or failed"], check.spent(stage, ("PRUNED", "FAIL"))[2])
        check.number(f"cost, {stage}", row["kWh"], None)


def of_author(check: Check, rows: Rows) -> None:
    """The facts of the author are texts: as recorded."""
    given = {fact["name"]: fact["value"] for fact in check.report["about"]["facts"]}
    for row in rows[:-1]:
        check.number("about", row["as the author gives it"], str(given[row["fact"].replace(" ", "_")]))


TABLES: dict[str, TableRule] = {
    "Metrics on the test partition": of_metrics,
    "If images of a slide are alike": of_sensitivity,
    "Calibration slope and intercept on the test partition": of_slopes,
    "Calibration": of_recalibration,
    "Finalists of the search, out of fold": of_finalists,
    "Error rates by votes": of_votes,
    "Each seed, at 0.5": of_seeds,
    "Against the study's default": of_gain,
    "About the study and its data": of_author,
    "Cost": of_cost,
}

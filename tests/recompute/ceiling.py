"""The ceiling from the votes and one annotator of the panel, from counts of votes alone.

The range of all distributions that fit comes from an optimization and is compared with report.json, not made again.
"""

import functools
import re
from collections.abc import Iterable

import numpy as np
from scipy import optimize, stats

from tests.recompute.checks import Check, Expected, Rule, TableRule
from tests.recompute.models import draws

Rows = list[dict[str, str]]
K = 7
_QUANTILES = (np.arange(20000) + 0.5) / 20000
_N_FITS = 300


def fitted(counts: np.ndarray) -> tuple[float, float]:
    """Return the beta distribution of maximum likelihood, by a general minimizer."""

    def loss(logs: np.ndarray) -> float:
        a, b = np.exp(np.clip(logs, -7, 9))
        return -float(counts @ stats.betabinom.logpmf(np.arange(K + 1), K, a, b))

    found = optimize.minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9})
    a, b = np.exp(found.x)
    return float(a), float(b)


def of_beta(a: float, b: float) -> dict[str, float]:
    """Return the ceiling and a further annotator by a beta distribution, summed over its quantiles."""
    share = stats.beta.ppf(_QUANTILES, a, b)
    panel = stats.binom.sf(K // 2, K, share)
    below = np.cumsum(1 - panel) - (1 - panel) / 2
    called = share > 0.5
    return {
        "auroc": float((panel * below).sum() / (panel.sum() * (1 - panel).sum())),
        "accuracy": float(np.where(called, panel, 1 - panel).mean()),
        "f1": float(2 * panel[called].sum() / (called.sum() + panel.sum())),
        "new_sensitivity": further(share, panel),
        "new_specificity": further(1 - share, 1 - panel),
    }


def further(share: np.ndarray, panel: np.ndarray) -> float:
    """Return how often an annotator outside the panel says what the panel says, of images that it calls so."""
    # Given the share, an outsider votes independently of the panel.
    return float((share * panel).sum() / panel.sum())


def of_readers(counts: np.ndarray) -> dict[str, float]:
    """Return what one of seven annotators reaches, image by image and vote by vote."""
    totals: dict[str, list[float]] = {name: [0.0, 0.0] for name in ("sens", "spec", "acc_out", "sens_out", "spec_out")}
    agree = votes_for = 0.0
    for votes, n in enumerate(counts):
        for own, how_many in ((1, votes), (0, K - votes)):
            weight = n * how_many
            majority = float(votes > K / 2)
            totals["sens"][0] += weight * own * majority
            totals["sens"][1] += weight * majority
            totals["spec"][0] += weight * (1 - own) * (1 - majority)
            totals["spec"][1] += weight * (1 - majority)
            others = votes - own
            seen = 0.5 if others == 3 else float(others > 3)
            totals["acc_out"][0] += weight * (seen if own else 1 - seen)
            totals["acc_out"][1] += weight
            totals["sens_out"][0] += weight * own * seen
            totals["sens_out"][1] += weight * seen
            totals["spec_out"][0] += weight * (1 - own) * (1 - seen)
            totals["spec_out"][1] += weight * (1 - seen)
        agree += n * (votes * (votes - 1) + (K - votes) * (K - votes - 1)) / (K * (K - 1))
        votes_for += n * votes
    n_images, share = counts.sum(), votes_for / (K * counts.sum())
    by_chance = share**2 + (1 - share) ** 2
    found = {name: right / of if of else np.nan for name, (right, of) in totals.items()}
    return found | {"kappa": (agree / n_images - by_chance) / (1 - by_chance)}


class Ceiling:
    """The ceiling of a report: numbers by name, and their intervals by resampling images."""

    def __init__(self, check: Check) -> None:
        one_of = np.eye(K + 1)[check.votes]
        self.counts = one_of.sum(axis=0)
        self.beta = fitted(self.counts)
        self.found = of_beta(*self.beta) | of_readers(self.counts)
        auroc = float(check.test.per_seed("auroc").mean())
        self.found["reached"] = (auroc - 0.5) / (self.found["auroc"] - 0.5)
        rng = np.random.default_rng(9)
        w, n_seeds = draws(rng, check.votes.size)[:_N_FITS], len(check.seeds)
        seeds = draws(rng, n_seeds)[:_N_FITS] / n_seeds
        aurocs = (check.test.weighted("auroc", w) * seeds).sum(axis=1)
        rows = []
        for counts, one in zip(w @ one_of, aurocs, strict=True):
            drawn = of_beta(*fitted(counts)) | of_readers(counts)
            rows.append(drawn | {"reached": (one - 0.5) / (drawn["auroc"] - 0.5)})
        self.drawn = {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def ends(self, name: str) -> tuple[float, float, float]:
        """Return an interval with a tolerance of a fifth of it: few fits are made."""
        low, high = (float(end) for end in np.nanquantile(self.drawn[name], (0.025, 0.975)))
        return low, high, 0.2 * (high - low)


@functools.cache
def ceiling_of(check: Check) -> Ceiling:
    """Return the ceiling of a report, made once."""
    return Ceiling(check)


def of_ceiling(check: Check, rows: Rows) -> None:
    """The ceiling by the beta distribution, beside what report.json has of other distributions."""
    found, recorded = ceiling_of(check), check.report["ceiling"]
    for row in rows:
        name = {"AUROC": "auroc", "accuracy": "accuracy", "F1": "f1"}.get(row["ceiling"], "reached")
        where = f"ceiling, {name}"
        check.number(where, row["beta-binomial"], found.found[name], 5e-4)
        check.ends(where, row["95% interval"], found.ends(name))
        if name == "reached":
            check.ends(where, row["range that fits"], (*recorded["reached_range"], 0.0))
            continue
        known = recorded["ranges"][name]
        check.number(where, row["any distribution: best fit"], known["best_fit"])
        check.ends(where, row["range that fits"], (known["low"], known["high"], 0.0))


def of_annotator(check: Check, rows: Rows) -> None:
    """One annotator against the panel, against the other six, and a further one."""
    found = ceiling_of(check)
    for row, names in zip(
        rows, (("sens", "spec"), ("sens_out", "spec_out"), ("new_sensitivity", "new_specificity")), strict=True
    ):
        for head, ends, name in zip(
            ("sensitivity", "specificity"), ("95% interval", "95% interval 2"), names, strict=True
        ):
            check.number(row["one annotator"], row[head], found.found[name], 5e-4 if name.startswith("new") else 0.0)
            check.ends(row["one annotator"], row[ends], found.ends(name))


def reached(check: Check) -> Iterable[Expected]:
    """The sentence on the part of the ceiling that was reached."""
    found, recorded = ceiling_of(check), check.report["ceiling"]
    known, (low, high, tolerance) = recorded["ranges"]["auroc"], found.ends("reached")
    yield from (K, (found.found["auroc"], 5e-4), known["low"], known["high"], (found.found["reached"], 2e-3))
    yield from ((low, tolerance), (high, tolerance), *recorded["reached_range"])


def agreement(name: str) -> Rule:
    """Return the rule of a number of all seven annotators: accuracy against the others, or Fleiss' kappa."""

    def rule(check: Check, match: re.Match[str]) -> Iterable[Expected]:
        found = ceiling_of(check)
        low, high, tolerance = found.ends(name)
        yield from (found.found[name], (low, tolerance), (high, tolerance))

    return rule


def fit(check: Check, match: re.Match[str]) -> Iterable[Expected]:
    """The likelihood-ratio test of the beta-binomial distribution."""
    found = ceiling_of(check)
    expected = found.counts.sum() * stats.betabinom.pmf(np.arange(K + 1), K, *found.beta)
    seen = found.counts > 0
    statistic = 2 * float((found.counts[seen] * np.log(found.counts[seen] / expected[seen])).sum())
    return [(statistic, 0.02), K - 2, (float(stats.chi2.sf(statistic, K - 2)), 2e-3)]


CEILING: dict[str, TableRule] = {"Ceiling from the votes": of_ceiling, "One annotator of the panel": of_annotator}

"""Replay searches on recorded learning curves: what each spends, and what its choice is worth on other images.

A search decides by the validation images of one seed of a recording. What its choice is worth is the mean AUROC and F1
of that configuration with the *other* seeds, on their held-back images. With `at = "best"` it is scored at the epoch at
which the other seeds stop. `regret` is the AUROC of the oracle minus that of the choice. The oracle knows the truth: of
the same configurations it takes that with the best AUROC in the truth of two seeds, and is scored on that of the third.

Searches are replayed on bootstraps of the recorded configurations, each in several orders, with each seed deciding. The
90% intervals are over configurations and seeds, both drawn again. Samplers suggest configurations that were not
recorded. They are replayed on a forest from hyperparameters to curves, to which the residuals of a random configuration
are added, and the forest's truth scores their choice.

    make bench-search
"""

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from scipy.stats import spearmanr

from bench.output import machine
from bench.search.curves import SCORES, Curves, read
from bench.search.simulation import PROMOTION, Curve, Rules, Search, Simulation, Trial, confirm, stopping
from bench.search.surrogate import Surrogate, suggest
from mhist_tune.plots.canvas import BLUE, GREEN, GREY, INK, ORANGE, new_figure, write_png

PATIENCE = 4
"""Ten epochs of 30, the earlier default, of 12."""

N_TRIALS = (5, 10, 20, 40, 64)
SHIPPED_TRIALS = 40
N_ORDERS = 2


def _promotion(factor: int, first: int, last: int = 12) -> dict[str, Any]:
    return {"name": PROMOTION, "reduction_factor": factor, "min_resource": first, "max_resource": last}


NONE = {"name": "none"}
SHIPPED_PRUNER = _promotion(3, 1, 4)

REFERENCE, EARLIER, SHIPPED = "F1, best epoch, unpruned", "earlier default", "shipped"
SEARCHES: dict[str, Rules] = {
    REFERENCE: Rules("f1", "best", NONE),
    EARLIER: Rules("f1", "best", _promotion(3, 1), PATIENCE),
    "F1, best epoch, patience, unpruned": Rules("f1", "best", NONE, PATIENCE),
    "F1, last epoch, unpruned": Rules("f1", "last", NONE),
    "F1, last epoch, rungs 1 and 3": Rules("f1", "last", SHIPPED_PRUNER),
    "AUROC, last epoch, unpruned": Rules("auroc", "last", NONE),
    "AUROC, last epoch, rungs 1 and 3": Rules("auroc", "last", SHIPPED_PRUNER),
    "mean F1, best epoch, unpruned": Rules("mean_f1", "best", NONE),
    "mean F1, last epoch, unpruned": Rules("mean_f1", "last", NONE),
    SHIPPED: Rules("mean_f1", "last", SHIPPED_PRUNER),
    "rung 1": Rules("mean_f1", "last", _promotion(3, 1, 1)),
    "rungs 1, 3, 9": Rules("mean_f1", "last", _promotion(3, 1)),
    "rung 2": Rules("mean_f1", "last", _promotion(3, 2, 4)),
    "rungs 2 and 6": Rules("mean_f1", "last", _promotion(3, 2)),
    "rung 3": Rules("mean_f1", "last", _promotion(3, 3, 4)),
    "one in four, rungs 1 and 4": Rules("mean_f1", "last", _promotion(4, 1, 4)),
    "one in two, rungs 1, 2, 4": Rules("mean_f1", "last", _promotion(2, 1, 4)),
    "value over two epochs": Rules("mean_f1", "last", SHIPPED_PRUNER, smoothing=2),
    "median, from epoch 1": Rules("mean_f1", "last", {"name": "median", "n_startup_trials": 5, "n_warmup_epochs": 0}),
    "hyperband": Rules("mean_f1", "last", {"name": "hyperband", "min_resource": 1, "reduction_factor": 3}),
}
"""Searches of `SHIPPED_TRIALS` random configurations. From SHIPPED on, all go by mean F1 at the last epoch."""

CURVES = (REFERENCE, EARLIER, "F1, last epoch, unpruned", "mean F1, last epoch, unpruned", SHIPPED)
"""The searches that are replayed with each of `N_TRIALS`."""

CONFIRMS: dict[str, tuple[str, int, bool]] = {
    "earlier default, top 3, inner splits": (EARLIER, 3, False),
    "shipped, top 3, all folds": (SHIPPED, 3, False),
    "shipped, top 3, race": (SHIPPED, 3, True),
    "shipped, top 2, race": (SHIPPED, 2, True),
    "shipped, top 1, race": (SHIPPED, 1, True),
    "one in four, top 3, race": ("one in four, rungs 1 and 4", 3, True),
}
"""Searches with a confirm stage: the search, its finalists beside the default, and whether they race."""

_TPE = {"name": "tpe", "n_startup_trials": 10, "n_ei_candidates": 24}
_MEAN = Rules("mean_f1", "last", SHIPPED_PRUNER)
_CAPPED = Rules("mean_f1", "last", SHIPPED_PRUNER, is_capped=True)
SAMPLERS: dict[str, tuple[Mapping[str, Any], Rules]] = {
    "random, unpruned": ({"name": "random"}, Rules("mean_f1", "last", NONE)),
    "TPE, unpruned": (_TPE, Rules("mean_f1", "last", NONE)),
    "earlier default: TPE, F1": (_TPE, SEARCHES[EARLIER]),
    "random": ({"name": "random"}, _MEAN),
    "quasi-random": ({"name": "qmc", "scramble": True}, _MEAN),
    "TPE": (_TPE, _MEAN),
    "TPE, capped": (_TPE, _CAPPED),
    "TPE at matched rungs": ({**_TPE, "matched": True}, _MEAN),
    "TPE at matched rungs, capped": ({**_TPE, "matched": True}, _CAPPED),
}


Key = tuple[int, int]  # a bootstrap and a seed


@dataclass(frozen=True)
class Found:
    """The result of one replayed search."""

    table: str
    label: str
    n_trials: int
    bootstrap: int
    seed: int
    n_epochs: int
    auroc: float
    f1: float
    regret: float


Keys = Sequence[Key]
Cells = Mapping[Key, list[Found]]


def worth(curves: Curves, which: int, seed: int, rules: Rules) -> dict[str, float]:
    """Return what a configuration is worth with the seeds that did not choose it."""
    others = curves.others(seed)
    epochs = [stopping(curves.val[rules.score][other, which], rules)[0] - 1 for other in others]
    return {
        name: float(
            np.mean([curves.truth[name][other, which, epoch] for other, epoch in zip(others, epochs, strict=True)])
        )
        for name in ("auroc", "f1")
    }


def oracle(curves: Curves, drawn: np.ndarray, seed: int) -> float:
    """Return the AUROC of the configuration that two truths call the best, in the third, for each other seed."""
    last = curves.truth["auroc"][:, :, -1]
    found = []
    for scored in curves.others(seed):
        guides = [other for other in range(curves.n_seeds) if other != scored]
        found.append(last[scored, drawn[int(last[guides][:, drawn].mean(axis=0).argmax())]])
    return float(np.mean(found))


def replay_searches(curves: Curves, bootstrap: int) -> list[Found]:
    """Replay every search on one bootstrap of the recorded configurations, in `N_ORDERS` orders, by each seed."""
    rng = np.random.default_rng(bootstrap)
    n = len(curves.params)
    pool = rng.integers(n, size=n)
    found = []
    for _, seed in itertools.product(range(N_ORDERS), range(curves.n_seeds)):
        order = rng.permutation(pool)
        best = oracle(curves, order, seed)

        def begin(trials: Sequence[Trial], order: np.ndarray = order, seed: int = seed) -> Curve:
            which = int(order[len(trials)])
            scores = {name: curves.val[name][seed, which] for name in SCORES}
            return Curve(
                curves.params[which], scores, curves.is_trivial[seed, which], curves.seconds[seed, which], which
            )

        def add(
            table: str,
            label: str,
            n_trials: int,
            n_epochs: int,
            scores: Mapping[str, float],
            best: float = best,
            seed: int = seed,
        ) -> None:
            regret = best - scores["auroc"]
            found.append(
                Found(table, label, n_trials, bootstrap, seed, n_epochs, scores["auroc"], scores["f1"], regret)
            )

        searched: dict[str, Search] = {}
        for label, rules in SEARCHES.items():
            for n_trials in N_TRIALS if label in CURVES else (SHIPPED_TRIALS,):
                search = Simulation(begin, n_trials, rules).run()
                which = search.ranked()[0].curve.which
                add("searches", label, n_trials, search.n_epochs, worth(curves, which, seed, rules))
                if n_trials == SHIPPED_TRIALS:
                    searched[label] = search
        for label, (name, top, is_race) in CONFIRMS.items():
            search = searched[name]
            chosen = confirm(curves, search, seed, top=top, is_race=is_race)
            scores = worth(curves, chosen.which, seed, search.rules)
            add("confirm", label, SHIPPED_TRIALS, search.n_epochs + chosen.n_epochs, scores)
    return found


def replay_samplers(curves: Curves, bootstrap: int) -> list[Found]:
    """Replay every sampler on the surrogate of one bootstrap of the configurations, by each seed."""
    rng = np.random.default_rng(10_000 + bootstrap)
    n = len(curves.params)
    drawn = rng.integers(n, size=n)
    found = []
    for seed in range(curves.n_seeds):
        surrogate = Surrogate(curves, seed, drawn)
        luck = rng.integers(n, size=SHIPPED_TRIALS)
        best = max(float(surrogate.truth(params)["auroc"][-1]) for params in curves.params)
        for label, (sampler, rules) in SAMPLERS.items():

            def begin(
                trials: Sequence[Trial],
                sampler: Mapping[str, Any] = sampler,
                surrogate: Surrogate = surrogate,
                luck: np.ndarray = luck,
                seed: int = seed,
            ) -> Curve:
                slot = len(trials)
                params = suggest(sampler, 100 * bootstrap + seed, slot, curves.space, trials)
                return surrogate.curve(params, int(luck[slot]))

            search = Simulation(begin, SHIPPED_TRIALS, rules).run()
            chosen = search.ranked()[0]
            epoch = stopping(chosen.curve.scores[rules.score], rules)[0] - 1
            truth = {name: float(one[epoch]) for name, one in surrogate.truth(chosen.curve.params).items()}
            regret = best - truth["auroc"]
            found.append(
                Found(
                    "samplers",
                    label,
                    SHIPPED_TRIALS,
                    bootstrap,
                    seed,
                    search.n_epochs,
                    truth["auroc"],
                    truth["f1"],
                    regret,
                )
            )
    return found


def correlations(curves: Curves) -> list[dict[str, Any]]:
    """Return how each score ranks configurations after some epochs as the truth of the other seeds does (Spearman)."""
    rows = []
    for name, target in itertools.product(SCORES, ("auroc", "f1")):
        truths = [curves.truth[target][curves.others(seed), :, -1].mean(axis=0) for seed in range(curves.n_seeds)]
        by_epoch = {
            epoch: float(
                np.mean(
                    [spearmanr(curves.val[name][seed, :, epoch - 1], one).statistic for seed, one in enumerate(truths)]
                )
            )
            for epoch in (1, 3, 6, 9, 12)
            if epoch <= curves.n_epochs
        }
        rows.append({"recording": curves.name, "score": name, "target": target, "by_epoch": by_epoch})
    return rows


def summarize(found: Sequence[Found], *, reference: str) -> list[dict[str, Any]]:
    """Return a row for each search and number of trials: its mean results, with intervals over both kinds of chance.

    Args:
        found: of one table of one recording.
        reference: the label that differences are from.
    """
    cells: dict[tuple[str, int], dict[tuple[int, int], list[Found]]] = defaultdict(lambda: defaultdict(list))
    for one in found:
        cells[one.label, one.n_trials][one.bootstrap, one.seed].append(one)
    rows = []
    for (label, n_trials), by_cell in cells.items():
        other = cells[reference, n_trials if (reference, n_trials) in cells else SHIPPED_TRIALS]
        keys = sorted(by_cell)

        def minus(name: str, keys: Keys = keys, by_cell: Cells = by_cell, other: Cells = other) -> dict[Key, float]:
            mine, theirs = _per_cell(name, by_cell, keys), _per_cell(name, other, keys)
            return {key: mine[key] - theirs[key] for key in keys}

        spent, base = _per_cell("n_epochs", by_cell, keys), _per_cell("n_epochs", other, keys)
        row = {
            "label": label,
            "n_trials": n_trials,
            "n_epochs": float(np.mean(list(spent.values()))),
            "share": sum(spent.values()) / sum(base.values()),
        }
        for name, by_key in {
            "auroc": _per_cell("auroc", by_cell, keys),
            "f1": _per_cell("f1", by_cell, keys),
            "regret": _per_cell("regret", by_cell, keys),
            "auroc_difference": minus("auroc"),
            "f1_difference": minus("f1"),
        }.items():
            row[name] = float(np.mean(list(by_key.values())))
            row[f"{name}_interval"] = interval(by_key)
        rows.append(row)
    return rows


def _per_cell(name: str, of: Cells, keys: Keys) -> dict[Key, float]:
    return {key: float(np.mean([getattr(one, name) for one in of[key]])) for key in keys}


def interval(by_key: Mapping[tuple[int, int], float]) -> tuple[float, float]:
    """Return a 90% interval of a mean over bootstraps and seeds: the seeds of each bootstrap are drawn again."""
    rng = np.random.default_rng(0)
    seeds = sorted({seed for _, seed in by_key})
    means = [
        np.mean([by_key[bootstrap, seeds[place]] for place in rng.integers(len(seeds), size=len(seeds))])
        for bootstrap in sorted({bootstrap for bootstrap, _ in by_key})
        for _ in range(4)
    ]
    low, high = np.quantile(means, (0.05, 0.95))
    return float(low), float(high)


def to_markdown(rows: Sequence[Mapping[str, Any]], first: str) -> str:
    """Return the rows as a table of Markdown."""
    lines = [f"| {first} | epochs | AUROC | F1 | regret in AUROC | F1, less reference |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['label']} | {row['n_epochs']:.0f} ({row['share']:.0%}) | {row['auroc']:.3f} | {row['f1']:.3f} | "
        f"{_signed(row, 'regret')} | {_signed(row, 'f1_difference')} |"
        for row in rows
    ]
    return "\n".join(lines)


def _signed(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_interval"]
    return f"{row[name]:+.3f} ({low:+.3f} to {high:+.3f})"


def draw(name: str, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw what the choice of each search is worth against its number of trials: AUROC above, F1 below."""
    figure, panels = new_figure(width=6.4, height=7.0, n_panels=2)
    styles = {
        REFERENCE: (INK, "-"),
        EARLIER: (GREY, "--"),
        "F1, last epoch, unpruned": (BLUE, ":"),
        "mean F1, last epoch, unpruned": (GREEN, "-"),
        SHIPPED: (ORANGE, "-"),
    }
    for axes, score in zip(panels, ("auroc", "f1"), strict=True):
        for label, (colour, line) in styles.items():
            mine = [row for row in rows if row["label"] == label]
            axes.plot(
                [row["n_trials"] for row in mine],
                [row[score] for row in mine],
                color=colour,
                linestyle=line,
                marker="o",
                markersize=4,
                label="shipped: mean F1, last epoch, rungs 1 and 3" if label == SHIPPED else label,
            )
        axes.set_xscale("log")
        axes.set_xticks(N_TRIALS, [str(n) for n in N_TRIALS])
        axes.minorticks_off()
        axes.set_ylabel(f"{'AUROC' if score == 'auroc' else 'F1'} of the choice on other images")
    panels[0].set_title(name)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    panels[1].set_xlabel("trials of the search")
    write_png(figure, path)


def _work(job: tuple[str, Path, int]) -> list[Found]:
    kind, path, bootstrap = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    return (replay_searches if kind == "searches" else replay_samplers)(read(path), bootstrap)


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(__file__).parent / "curves"
    parser.add_argument("curves", nargs="*", type=Path, help="recordings (default: all of bench/search/curves)")
    parser.add_argument("--n-bootstraps", type=int, default=24, help="for searches (default: 24)")
    parser.add_argument("--n-sampler-bootstraps", type=int, default=6, help="for samplers (default: 6)")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw a figure of each recording there")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    started, here, results = time.perf_counter(), machine(), list[dict[str, Any]]()
    paths = arguments.curves or sorted(folder.glob("*.npz"))
    os.environ["OMP_NUM_THREADS"] = "1"  # threads of each process; there is one process a core
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        for path in paths:
            curves = read(path)
            jobs = [("searches", path, number) for number in range(arguments.n_bootstraps)]
            jobs += [("samplers", path, number) for number in range(arguments.n_sampler_bootstraps)]
            found = list(itertools.chain.from_iterable(pool.imap(_work, jobs)))
            tables = {
                "searches": (REFERENCE, f"{SHIPPED_TRIALS} random trials"),
                "confirm": ("earlier default, top 3, inner splits", "search and confirm stage"),
                "samplers": ("random", "sampler"),
            }
            sections = []
            for table, (reference, first) in tables.items():
                rows = summarize([one for one in found if one.table == table], reference=reference)
                results += [{"recording": curves.name, "table": table, **row} for row in rows]
                shown = [row for row in rows if row["n_trials"] == SHIPPED_TRIALS]
                sections.append(to_markdown(shown, first))
                if table == "searches":
                    by_n = [row for row in rows if row["label"] in CURVES]
                    sections.append(_by_n(by_n))
                    if arguments.plots:
                        draw(curves.name, by_n, arguments.plots / f"search-{curves.name}.png")
            of_scores = correlations(curves)
            results += [{"table": "correlations", **row} for row in of_scores]
            if not arguments.json:
                lines = [
                    f"| {row['score']} | {row['target']} | "
                    + " | ".join(f"{value:.2f}" for value in row["by_epoch"].values())
                    + " |"
                    for row in of_scores
                ]
                sys.stdout.write(f"## {curves.name}\n\n" + "\n".join(lines) + "\n\n" + "\n\n".join(sections) + "\n\n")
                sys.stdout.flush()
    if arguments.json:
        sys.stdout.write(json.dumps({"machine": here, "results": results}, indent=2) + "\n")
    else:
        sys.stdout.write(f"{here['cpu']}, {here['n_cores']} cores, load {here['load_before']:.1f}, ")
        sys.stdout.write(f"{time.perf_counter() - started:.0f} s\n")


def _by_n(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| trials | " + " | ".join(map(str, N_TRIALS)) + " |", "|---|" + "---|" * len(N_TRIALS)]
    for label in CURVES:
        mine = [row for row in rows if row["label"] == label]
        lines.append(f"| {label} | " + " | ".join(f"{row['auroc']:.3f} / {row['f1']:.3f}" for row in mine) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

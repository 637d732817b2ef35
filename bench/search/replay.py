"""Replay samplers and pruners on recorded learning curves: what each spends, and the score of its choice on the other
seed.

A replay is a whole search by simulated workers. They take the time of the recorded epochs and call
`mhist_tune.search.pruning` and `mhist_tune.search.promotion` as real workers do.
The search decides on one seed of a recording. The
other seed's curve, trained and validated on other images, scores the chosen epoch. Both seeds take both parts.
`difference` is that score less the score of the configuration that the same search picks without pruning. It has a 90%
interval over bootstrapped configurations: each replicate draws them anew, in another order.

Pruners are replayed on the recorded configurations. Samplers suggest other ones, and are replayed on a surrogate: a
forest from hyperparameters to curves, with the residual of a random configuration added. Its error on left-out
configurations is printed too.

    make bench-search
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from bench.search.simulation import PROMOTION, Curves, Search, Simulation, Trial, rank_correlations, read
from bench.search.surrogate import Surrogate, quality, suggest
from mhist_tune.plots.canvas import BLUE, GREY, INK, ORANGE, new_figure, write_png

OPTUNAS, HYPERBAND, PROMOTED = (
    "median, 5 rivals, from epoch 1",
    "hyperband, 1/3 from epoch 1",
    "promotion, 1/3 from epoch 1",
)
PRUNERS: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    OPTUNAS: {"name": "median", "n_startup_trials": 5, "n_warmup_epochs": 0},
    "median, 5 rivals, after 3 epochs": {"name": "median", "n_startup_trials": 5, "n_warmup_epochs": 3},
    "percentile 25, 5 rivals, after 3": {
        "name": "percentile",
        "percentile": 25.0,
        "n_startup_trials": 5,
        "n_warmup_epochs": 3,
    },
    "halving, 1/4 from epoch 1": {"name": "successive_halving", "min_resource": 1, "reduction_factor": 4},
    "halving, 1/3 from epoch 2": {"name": "successive_halving", "min_resource": 2, "reduction_factor": 3},
    HYPERBAND: {"name": "hyperband", "min_resource": 1, "reduction_factor": 3},
    PROMOTED: {"name": PROMOTION, "min_resource": 1, "reduction_factor": 3},
    "promotion, 1/4 from epoch 1": {"name": PROMOTION, "min_resource": 1, "reduction_factor": 4},
    "promotion, 1/4 from epoch 2": {"name": PROMOTION, "min_resource": 2, "reduction_factor": 4},
    "promotion, 1/2 from epoch 1": {"name": PROMOTION, "min_resource": 1, "reduction_factor": 2},
}
CHANGED = ("none", HYPERBAND, PROMOTED)
CHANGES: dict[str, dict[str, int]] = {"": {}, "; patience 3": {"patience": 3}, "; mean of 2": {"smoothing": 2}}
"""Pruners that are replayed with changes too: trials that end by patience, values that are means over epochs."""

N_WORKERS = (1, 4, 16)

# Optuna starts TPE at random; `start` uses a Sobol sequence instead
SAMPLERS: dict[str, dict[str, Any]] = {
    "random": {"name": "random"},
    "TPE": {"name": "tpe", "n_startup_trials": 10, "n_ei_candidates": 24},
    "TPE, 20 at random": {"name": "tpe", "n_startup_trials": 20, "n_ei_candidates": 24},
    "TPE, 20 by Sobol": {"name": "tpe", "n_startup_trials": 20, "n_ei_candidates": 24, "start": "qmc"},
    "TPE, batch size in order": {
        "name": "tpe",
        "n_startup_trials": 10,
        "n_ei_candidates": 24,
        "ordered": ("effective_batch_size",),
    },
    "GP": {"name": "gp", "n_startup_trials": 10},
}
SAMPLED_PRUNERS = dict.fromkeys(SAMPLERS, (PROMOTED,)) | {
    "random": ("none", OPTUNAS, HYPERBAND, PROMOTED),
    "TPE": ("none", OPTUNAS, HYPERBAND, PROMOTED),
    "GP": ("none",),  # learns from complete trials alone
}
"""The pruners that each sampler is replayed with. Not all of them: suggestions cost minutes."""

SAMPLED_WORKERS = 4

GOAL = 0.25
"""The share of an unpruned search's epochs that a good one may spend."""

_SHARES = np.linspace(0.02, 1.0, 50)


@dataclass(frozen=True)
class Outcome:
    """The result of one replayed search, compared with the unpruned one of the same replicate."""

    label: str
    n_workers: int
    share: float
    wall: float
    difference: float
    curve: np.ndarray


def replay_pruners(curves: Curves, replicate: int) -> list[Outcome]:
    """Replay every pruner on one bootstrap of the recorded configurations. Each seed decides once."""
    rng = np.random.default_rng(replicate)
    n = len(curves.params)
    drawn = rng.integers(n, size=n)
    found = []
    for decides in (0, 1):

        def begin(trials: Sequence[Trial], decides: int = decides) -> Trial:
            which = drawn[len(trials)]
            return Trial(
                len(trials),
                curves.params[which],
                curves.f1[decides, which],
                curves.seconds[decides, which],
                curves.f1[1 - decides, which],
            )

        for n_workers in N_WORKERS:
            whole = Simulation(begin, n, PRUNERS["none"], n_workers=n_workers).run()
            for label, pruner in PRUNERS.items():
                for suffix, change in CHANGES.items() if label in CHANGED else [("", {})]:
                    search = Simulation(begin, n, pruner, n_workers=n_workers, **change).run()
                    found.append(_outcome(label + suffix, search, whole, n_workers))
    return found


def replay_samplers(curves: Curves, replicate: int) -> list[Outcome]:
    """Replay every sampler with some pruners on surrogates of one bootstrap of the configurations."""
    rng = np.random.default_rng(10_000 + replicate)
    n = len(curves.params)
    drawn = rng.integers(n, size=n)
    decides = replicate % 2
    guide, judge = (Surrogate(curves, seed, drawn) for seed in (decides, 1 - decides))
    luck = rng.integers(n, size=n)
    found: list[Outcome] = []
    whole: Search | None = None
    for name, sampler in SAMPLERS.items():

        def begin(trials: Sequence[Trial], sampler: Mapping[str, Any] = sampler) -> Trial:
            slot = len(trials)
            params = suggest(sampler, replicate, slot, curves.space, trials)
            curve, seconds = guide.noisy(params, int(luck[slot]))
            return Trial(slot, params, curve, seconds, judge.mean(params))

        for label in SAMPLED_PRUNERS[name]:
            search = Simulation(begin, n, PRUNERS[label], n_workers=SAMPLED_WORKERS).run()
            whole = whole or search  # the first is random search without pruning
            found.append(_outcome(f"{name}; {label}", search, whole, SAMPLED_WORKERS))
    return found


def _outcome(label: str, search: Search, whole: Search, n_workers: int) -> Outcome:
    reference = whole.best().worth
    spent = np.array([step[0] for step in search.steps]) / whole.n_epochs
    place = np.searchsorted(spent, _SHARES, side="right") - 1
    worth = np.array([step[1] for step in search.steps])[np.maximum(place, 0)] - reference
    return Outcome(
        label,
        n_workers,
        search.n_epochs / whole.n_epochs,
        search.wall_s / whole.wall_s,
        search.best().worth - reference,
        np.where(place < 0, np.nan, worth),
    )


def _work(job: tuple[str, Curves, int]) -> list[Outcome]:
    kind, curves, replicate = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    return replay_pruners(curves, replicate) if kind == "pruners" else replay_samplers(curves, replicate)


def summarize(outcomes: Sequence[Sequence[Outcome]]) -> list[dict[str, Any]]:
    """Return one row for each variant, over the replicates: means, and a 90% interval of the difference.

    Both deciding seeds of a replicate count as one: they share its configurations.
    """
    rows = []
    for label, n_workers in dict.fromkeys((one.label, one.n_workers) for one in outcomes[0]):
        of_it = [[one for one in found if (one.label, one.n_workers) == (label, n_workers)] for found in outcomes]
        differences = [float(np.mean([one.difference for one in found])) for found in of_it]
        low, high = np.quantile(differences, (0.05, 0.95))
        flat = [one for found in of_it for one in found]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # no trial has ended yet in any replicate
            curve = np.nanmean([one.curve for one in flat], axis=0)
        rows.append(
            {
                "model": label,
                "n_workers": n_workers,
                "ratio": float(np.mean([one.share for one in flat])),
                "goal": GOAL,
                "wall": float(np.mean([one.wall for one in flat])),
                "difference": float(np.mean(differences)),
                "low": float(low),
                "high": float(high),
                "curve": curve,
            }
        )
    return rows


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table."""
    lines = ["| | workers | epochs | wall time | difference in F1 (90% interval) |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['model']} | {row['n_workers']} | {row['ratio']:.0%} | {row['wall']:.0%} | "
        f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}) |"
        for row in rows
    ]
    return "\n".join(lines)


def draw(curves: Curves, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the score of the best configuration so far against the epochs spent, with four workers."""
    figure, (axes,) = new_figure(width=6.4, height=4.2)
    styles = {
        "none": (INK, "-"),
        "median, 5 rivals, after 3 epochs": (GREY, "-"),
        HYPERBAND: (BLUE, "--"),
        PROMOTED: (ORANGE, "-"),
        "promotion, 1/4 from epoch 1": (ORANGE, ":"),
    }
    for row in rows:
        if row["n_workers"] == 4 and row["model"] in styles:
            colour, line = styles[row["model"]]
            is_spent = row["ratio"] + 0.01 >= _SHARES
            axes.plot(_SHARES[is_spent] * 100, row["curve"][is_spent], color=colour, linestyle=line, label=row["model"])
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    axes.set(
        xlabel="epochs spent, % of the unpruned search",
        ylabel="F1 on the other seed, less that of\nthe unpruned search's choice",
        title=f"{curves.name}: {len(curves.params)} configurations, 4 workers",
    )
    axes.legend(loc="lower right", fontsize=9)
    write_png(figure, path)


def _replay(curves: Curves, kind: str, n_replicates: int) -> list[dict[str, Any]]:
    jobs = [(kind, curves, replicate) for replicate in range(n_replicates)]
    os.environ["OMP_NUM_THREADS"] = "1"  # threads of each process; there is one process a core
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        return summarize(list(pool.imap(_work, jobs)))


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(__file__).parent / "curves"
    parser.add_argument("curves", nargs="*", type=Path, help="recordings (default: all of bench/search/curves)")
    parser.add_argument("--n-replicates", type=int, default=100, help="bootstraps for pruners (default: 100)")
    parser.add_argument("--n-sampler-replicates", type=int, default=12, help="bootstraps for samplers (default: 12)")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw a figure of each recording there")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    results = []
    for path in arguments.curves or sorted(folder.glob("*.jsonl")):
        curves = read(path)
        about = {
            "n_configurations": len(curves.params),
            "surrogate": quality(curves),
            "rungs": rank_correlations(curves),
        }
        rows = _replay(curves, "pruners", arguments.n_replicates)
        sampled = _replay(curves, "samplers", arguments.n_sampler_replicates)
        if arguments.plots:
            draw(curves, rows, arguments.plots / f"search-{curves.name}.png")
        results += [{"recording": curves.name, **row, "curve": None} for row in [*rows, *sampled]]
        if not arguments.json:
            ranks = ", ".join(f"{one:.2f}" for one in about["rungs"])
            fit = about["surrogate"]
            sys.stdout.write(
                f"## {curves.name}: {len(curves.params)} configurations\n\n"
                f"Rank correlation of the best value at each epoch with that at the end: {ranks}.\n"
                f"Between the seeds: {fit['seeds']:.2f}. Surrogate on left-out configurations: R2 {fit['r2']:.2f}, "
                f"rank correlation {fit['rank_correlation']:.2f}.\n\n{to_markdown(rows)}\n\n"
                f"On the surrogate, beside random search without pruning:\n\n{to_markdown(sampled)}\n\n"
            )
            sys.stdout.flush()
    if arguments.json:
        machine = {"platform": platform.platform(), "n_cores": len(os.sched_getaffinity(0))}
        sys.stdout.write(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Compare the search of a shipped definition with random search, live, for the same device seconds.

Each repeat has its own validation split, folds and seeds, which both searches share. The shipped search goes first.
Random search gets as many trials of full length as the same seconds pay for; both include the definition's `[[start]]`
entries. The best trial of each is confirmed out of fold on the whole train partition (`[confirm]`, one finalist).
`ours` and `random` are those F1, and `ratio` is their difference, which should not be below zero. The last row has the
means; its `spread` is the standard deviation of the difference over the repeats.

After a stop or a kill, the same command resumes.

    python -m bench.search.live_search --data DIR --weights tf_efficientnet_lite0.safetensors
"""

import argparse
import os
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.output import machine, show
from mhist_tune.actions.create import create
from mhist_tune.cli.progress import progress
from mhist_tune.definition import study_file
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.errors import MhistTuneError
from mhist_tune.events import Interrupted
from mhist_tune.search import finalists
from mhist_tune.storage import ledger
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.studies import Study
from mhist_tune.worker.devices import parse_devices
from mhist_tune.worker.options import WorkerOptions
from mhist_tune.worker.supervisor import run_workers, stop_on_signals

SETTINGS = {"model": "tf_efficientnet_lite0", "image_size": "48"}
"""What of the definition is changed: the network and size of the recorded curves, which two CPU cores can train."""


def shortened(shipped: StudyDefinition, n_epochs: int) -> dict[str, Any]:
    """Return a definition's pruner for trials of fewer epochs, with its rungs at the same shares of the epochs."""
    pruner = dict(shipped.pruner)
    for name in pruner.keys() & {"min_resource", "max_resource"}:
        pruner[name] = max(1, round(pruner[name] * n_epochs / shipped.fixed["epochs"]))
    return pruner


def arms(base: StudyDefinition, repeat: int, n_trials: int, n_folds: int) -> tuple[StudyDefinition, StudyDefinition]:
    """Return one repeat of the shipped search and of random search, whose number of trials is set later."""
    ours = replace(
        base,
        name=f"live-{repeat}-ours",
        n_trials=n_trials,
        sampler={**base.sampler, "seed": repeat},
        split_seed=repeat,
        confirm={"top": 1, "n_folds": n_folds},
    )
    random = replace(
        ours, name=f"live-{repeat}-random", sampler={"name": "random", "seed": repeat}, pruner={"name": "none"}
    )
    return ours, random


def spent(storage: Storage, study: Study) -> tuple[float, float]:
    """Return the device seconds of a search, and those of one trial of full length."""
    seconds = [
        epoch.metrics["elapsed_s"] or 0.0
        for slot in ledger.slots(storage, study, "search")
        for epoch in epochs_of(storage, study, "search", slot.slot)
    ]
    hp = study.definition.hyperparameters(study.definition.default_params())
    return sum(seconds), statistics.mean(seconds) * hp.epochs


def confirmed(storage: Storage, study: Study) -> dict[str, Any]:
    """Return `search_value` and `f1`: the score of a search's best trial, and its F1 out of fold."""
    found = finalists.load(storage, study)
    assert found is not None
    best = found.of_trial(found.search_best.trial)
    if best is None:
        raise SystemExit(f"error: the best trial of {study.name} is not confirmed")
    return {"search_value": found.search_best.search_value, "f1": best.scores.f1}


def main() -> None:
    """Search, confirm, and print."""
    arguments = _arguments()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    here, rows = machine(), list[dict[str, Any]]()
    url = f"sqlite:///{arguments.storage}/studies.db"
    overrides = {**SETTINGS, "epochs": str(arguments.n_epochs), **dict(one.split("=", 1) for one in arguments.set)}
    base = study_file.load(arguments.study, overrides=overrides, weights=arguments.weights)
    base = replace(base, pruner=shortened(study_file.load(arguments.study), arguments.n_epochs))
    with open_storage(url) as storage, stop_on_signals() as stop, progress() as emit:

        def search(one: StudyDefinition) -> Study:
            study = create(storage, study_file.parse(study_file.render(one), __file__), arguments.data)
            options = WorkerOptions(url, arguments.data, study.name)
            run_workers(options, parse_devices(arguments.devices, arguments.per_device), emit, stop)
            return study

        for repeat in range(arguments.n_repeats):
            ours, random = arms(base, repeat, arguments.n_trials, arguments.n_folds)
            studies = [search(ours)]
            seconds, full_s = spent(storage, studies[0])
            studies.append(search(replace(random, n_trials=max(len(base.start), round(seconds / full_s)))))
            mine, theirs = (confirmed(storage, study) for study in studies)
            rows.append(
                {
                    "model": f"repeat {repeat}",
                    "ours": mine["f1"],
                    "random": theirs["f1"],
                    "unit": "F1",
                    "ratio": mine["f1"] - theirs["f1"],
                    "goal": 0.0,
                    "searched_ours": mine["search_value"],
                    "searched_random": theirs["search_value"],
                    "seconds_ours": seconds,
                    "seconds_random": spent(storage, studies[1])[0],
                    "n_trials_ours": studies[0].definition.n_trials,
                    "n_trials_random": studies[1].definition.n_trials,
                }
            )
    means = {
        name: statistics.mean(row[name] for row in rows)
        for name, value in rows[0].items()
        if not isinstance(value, str)
    }
    differences = [row["ratio"] for row in rows]
    spread = statistics.stdev(differences) if len(rows) > 1 else None
    show(here, [*rows, {"model": "mean", "unit": "F1", **means, "spread": spread}], as_json=arguments.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="resnet18", help="a shipped definition (default: resnet18)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change the definition; repeatable"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a data set in MHIST's layout")
    parser.add_argument("--weights", metavar="FILE", help=".safetensors file to start from")
    parser.add_argument("--n-trials", type=int, default=24, help="trials of the shipped search (default: 24)")
    parser.add_argument("--n-epochs", type=int, default=6, help="most epochs of a trial (default: 6)")
    parser.add_argument("--n-repeats", type=int, default=3, help="(default: 3)")
    parser.add_argument("--n-folds", type=int, default=2, help="folds to confirm a search's best trial on (default: 2)")
    parser.add_argument("--devices", default="all")
    parser.add_argument("--per-device", type=int, metavar="N")
    parser.add_argument(
        "--storage", type=Path, default=Path("storage/live"), metavar="DIR", help="folder of the studies"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except Interrupted as interrupted:
        sys.exit(128 + interrupted.signum)
    except MhistTuneError as error:
        sys.exit(f"error: {error}" + (f"\n  hint: {error.hint}" if error.hint else ""))

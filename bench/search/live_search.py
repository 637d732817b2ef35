"""Compare the shipped search with the earlier default, live, for the same number of epochs.

The earlier default searched by F1 at 0.5 and took the best epoch, stopped trials by patience, let TPE suggest, and had
rungs up to the last epoch. Each repeat has its own validation split, folds and seeds, which both searches share. The
earlier default goes first. The shipped search gets as many trials as its epochs pay for. Both include the definition's
`[[start]]` entries. The best trial of each is confirmed out of fold on the whole train partition.
`ratio` is the difference of the confirmed AUROC, ours less theirs. The last row has the means and, as `spread`, the
standard deviation of the difference.

After a stop or a kill, the same command resumes.

    python -m bench.search.live_search --data DIR --weights tf_efficientnet_lite0.safetensors
"""

import argparse
import itertools
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
from mhist_tune.search.pruning import rungs
from mhist_tune.storage import ledger
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.studies import Study
from mhist_tune.worker.devices import parse_devices
from mhist_tune.worker.options import WorkerOptions
from mhist_tune.worker.supervisor import run_workers, stop_on_signals

SETTINGS = {
    "model": "tf_efficientnet_lite0",
    "image_size": "40",
    "freeze": "first5",
    "precision": "fp32",
    "memory_format": "channels_last",
}
"""What of the definition is changed: the network, size and frozen weights of the recorded curves."""


def arms(base: StudyDefinition, repeat: int, n_trials: int, n_folds: int) -> tuple[StudyDefinition, StudyDefinition]:
    """Return one repeat of the shipped search, whose number of trials is set later, and of the earlier default."""
    n_epochs = int(base.fixed["epochs"])
    ours = replace(
        base,
        name=f"live-{repeat}-ours",
        n_trials=n_trials,
        sampler={**base.sampler, "seed": repeat},
        split_seed=repeat,
        confirm={"top": 1, "n_folds": n_folds},
    )
    earlier = replace(
        ours,
        name=f"live-{repeat}-earlier",
        score="f1",
        at="best",
        fixed={**base.fixed, "patience": max(1, round(n_epochs / 3))},
        sampler={"name": "tpe", "seed": repeat},
        pruner={"name": "promotion", "min_resource": max(1, round(n_epochs / 10)), "max_resource": n_epochs},
    )
    return ours, earlier


def expected_epochs(definition: StudyDefinition, n_trials: int) -> int:
    """Return the epochs of a search whose rungs promote their share and none stops early."""
    n_epochs, factor = int(definition.fixed["epochs"]), int(definition.pruner["reduction_factor"])
    stages = [0, *rungs(definition.pruner, n_epochs), n_epochs]
    return sum(
        n_trials // factor**place * (end - begin) for place, (begin, end) in enumerate(itertools.pairwise(stages))
    )


def spent(storage: Storage, study: Study) -> tuple[int, float]:
    """Return the epochs and the device seconds of a search."""
    seconds = [
        epoch.metrics["elapsed_s"] or 0.0
        for slot in ledger.slots(storage, study, "search")
        for epoch in epochs_of(storage, study, "search", slot.slot)
    ]
    return len(seconds), sum(seconds)


def confirmed(storage: Storage, study: Study) -> dict[str, Any]:
    """Return the AUROC and F1 out of fold of a search's best trial."""
    found = finalists.load(storage, study)
    assert found is not None
    best = found.of_trial(found.search_best.trial)
    if best is None:
        raise SystemExit(f"error: the best trial of {study.name} is not confirmed")
    return {"auroc": best.scores.auroc, "f1": best.scores.f1, "mean_f1": best.scores.mean_f1}


def main() -> None:
    """Search, confirm, and print."""
    arguments = _arguments()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    here, rows = machine(), list[dict[str, Any]]()
    url = f"sqlite:///{arguments.storage}/studies.db"
    overrides = {**SETTINGS, "epochs": str(arguments.n_epochs), **dict(one.split("=", 1) for one in arguments.set)}
    base = study_file.load(arguments.study, overrides=overrides, weights=arguments.weights)
    with open_storage(url) as storage, stop_on_signals() as stop, progress() as emit:

        def search(one: StudyDefinition) -> Study:
            study = create(storage, study_file.parse(study_file.render(one), __file__), arguments.data)
            options = WorkerOptions(url, arguments.data, study.name)
            run_workers(options, parse_devices(arguments.devices, arguments.per_device), emit, stop)
            return study

        for repeat in range(arguments.n_repeats):
            ours, earlier = (
                study_file.parse(study_file.render(one), __file__)
                for one in arms(base, repeat, arguments.n_trials, arguments.n_folds)
            )
            studies = [search(earlier)]
            n_epochs, _ = spent(storage, studies[0])
            n_trials = len(base.start)
            while expected_epochs(ours, n_trials + 1) <= n_epochs:
                n_trials += 1
            studies.insert(0, search(replace(ours, n_trials=n_trials)))
            row: dict[str, Any] = {"model": f"repeat {repeat}", "unit": "AUROC", "goal": 0.0}
            for name, study in zip(("ours", "earlier"), studies, strict=True):
                epochs, seconds = spent(storage, study)
                scores = confirmed(storage, study)
                row |= {f"{score}_{name}": value for score, value in scores.items()}
                row |= {
                    f"n_trials_{name}": study.definition.n_trials,
                    f"n_epochs_{name}": epochs,
                    f"seconds_{name}": seconds,
                }
            row["ratio"] = row["auroc_ours"] - row["auroc_earlier"]
            rows.append(row)
    means = {
        name: statistics.mean(row[name] for row in rows)
        for name, value in rows[0].items()
        if not isinstance(value, str)
    }
    differences = [row["ratio"] for row in rows]
    spread = statistics.stdev(differences) if len(rows) > 1 else None
    show(here, [*rows, {"model": "mean", "unit": "AUROC", **means, "spread": spread}], as_json=arguments.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="resnet18", help="a shipped definition (default: resnet18)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change the definition; repeatable"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a data set in MHIST's layout")
    parser.add_argument("--weights", metavar="FILE", help=".safetensors file to start from")
    parser.add_argument("--n-trials", type=int, default=10, help="trials of the earlier default (default: 10)")
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

"""Record learning curves of this project's own trainer for `bench.search.replay`: whole searches without pruning.

A recording is two studies of the same configurations, spread evenly over the space of a shipped definition by a
scrambled Sobol sequence. They differ in the seed of the training and in the validation split. So the second study
scores the decisions of the first on other images. After a stop or a kill, the same command resumes. Whenever it ends,
it writes the complete curves. `mhist-tune status` and `worker` work on the studies as on any.

    python -m bench.search.record_curves generated
    python -m bench.search.record_curves oscc --data DIR --weights tf_efficientnet_lite0.safetensors

The first line of the file is a header. Each other line is one training: its configuration, its seed, and one value for
each epoch.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mhist_tune.actions.create import create
from mhist_tune.cli.progress import progress
from mhist_tune.data.synthesize import synthesize
from mhist_tune.definition import study_file
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.errors import MhistTuneError
from mhist_tune.events import Interrupted
from mhist_tune.search.suggestions import suggest
from mhist_tune.storage import ledger
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.predictions import image_rows
from mhist_tune.storage.studies import Study, load_study
from mhist_tune.worker.devices import parse_devices
from mhist_tune.worker.options import WorkerOptions
from mhist_tune.worker.supervisor import run_workers, stop_on_signals

SEEDS = (1, 2)
METRICS = {"val_f1": 5, "val_auroc": 5, "val_loss": 5, "train_loss": 5, "elapsed_s": 2}
"""What is kept of each epoch, with the decimals that are."""

_N_GENERATED, _GENERATED_PX = 600, 64
_VAL_FRACTION = 0.35  # more than in a search, for less noise in a curve


@dataclass(frozen=True)
class Recording:
    """A recording: a shipped definition, and the changes to it."""

    base: str
    overrides: Mapping[str, str]


RECORDINGS = {
    # the space of resnet18, with a network and an image size for 1,200 epochs on two CPU cores
    "oscc": Recording("resnet18", {"model": "tf_efficientnet_lite0", "image_size": "48"}),
    "generated": Recording("demo", {"image_size": "32"}),
}


def main() -> None:
    """Record or resume recording, and write the file."""
    arguments = _arguments()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    url = f"sqlite:///{arguments.storage / arguments.recording}.db"
    recording = RECORDINGS[arguments.recording]
    overrides = {**recording.overrides, "epochs": str(arguments.epochs), "patience": str(arguments.epochs)}
    base = study_file.load(recording.base, overrides=overrides, weights=arguments.weights)
    with open_storage(url) as storage:
        data = arguments.data or storage.root / "generated-images"
        if not arguments.data and not (data / "annotations.csv").exists():
            synthesize(data, n_images=_N_GENERATED, image_size=_GENERATED_PX, seed=0)
        found = [
            create(storage, one, data) for one in definitions(base, arguments.recording, arguments.n_configurations)
        ]
        exit_code = 0
        try:
            with stop_on_signals() as stop, progress() as emit:
                for study in found:
                    options = WorkerOptions(url, data, study.name, ("search",))
                    run_workers(options, parse_devices(arguments.devices, arguments.per_device), emit, stop)
        except Interrupted as interrupted:
            exit_code = 128 + interrupted.signum
        n_lines = write(storage, found, arguments.output / f"{arguments.recording}.jsonl")
    sys.stderr.write(f"{n_lines} of {len(SEEDS) * arguments.n_configurations} trainings written\n")
    sys.exit(exit_code)


def definitions(base: StudyDefinition, name: str, n_configurations: int) -> list[StudyDefinition]:
    """Return one unpruned study for each seed, with the same configurations as start entries."""
    sampler = {"name": "qmc", "seed": 0, "scramble": True}
    start = tuple(suggest(sampler, number, base.space, ()) for number in range(n_configurations))
    made = [
        replace(
            base,
            name=f"curves-{name}-seed{seed}",
            n_trials=n_configurations,
            sampler={"name": "random", "seed": seed},
            pruner={"name": "none"},
            split_seed=seed,
            val_fraction=_VAL_FRACTION,
            start=start,
        )
        for seed in SEEDS
    ]
    return [study_file.parse(study_file.render(one), __file__) for one in made]


def write(storage: Storage, found: Sequence[Study], path: Path) -> int:
    """Write the complete trainings, and return their number."""
    tables = found[0].definition.resolved()
    head = {
        "recording": path.stem,
        "space": tables["space"],
        "fixed": {**tables["fixed"], "weights": Path(tables["fixed"]["weights"]).name},
        "dataset_fingerprint": found[0].dataset["fingerprint"],
        "n_images": {name: len(image_rows(storage, found[0], name).names) for name in ("train", "val")},
        "n_val_positive": [int(image_rows(storage, study, "val").labels.sum()) for study in found],
        "settings": load_study(storage, found[0].name).settings,
    }
    lines = [head]
    for seed, study in zip(SEEDS, found, strict=True):
        for slot in ledger.slots(storage, study, "search"):
            outcome = slot.outcome
            if outcome and outcome.state is not EndState.FAIL:  # pruned means diverged: nothing else prunes here
                lines.append(_line(storage, study, slot.slot, seed, outcome))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return len(lines) - 1


def _line(storage: Storage, study: Study, slot: int, seed: int, outcome: Outcome) -> dict[str, Any]:
    epochs = epochs_of(storage, study, "search", slot)
    curves = {
        name: [None if (value := epoch.metrics.get(name)) is None else round(value, decimals) for epoch in epochs]
        for name, decimals in METRICS.items()
    }
    return {"configuration": slot, "seed": seed, "params": outcome.params, **curves}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", choices=RECORDINGS)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="a data set in MHIST's layout; `generated` makes its own"
    )
    parser.add_argument("--weights", metavar="FILE", help=".safetensors file to start from")
    parser.add_argument(
        "--n-configurations", type=int, default=64, metavar="N", help="a power of 2 is spread most evenly"
    )
    parser.add_argument("--epochs", type=int, default=10, metavar="N")
    parser.add_argument("--devices", default="all")
    parser.add_argument("--per-device", type=int, metavar="N")
    parser.add_argument(
        "--storage", type=Path, default=Path("storage/curves"), metavar="DIR", help="folder of the studies"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "curves", metavar="DIR")
    arguments = parser.parse_args()
    if arguments.recording != "generated" and not arguments.data:
        parser.error(f"{arguments.recording} needs --data")
    return arguments


if __name__ == "__main__":
    try:
        main()
    except MhistTuneError as error:
        sys.exit(f"error: {error}" + (f"\n  hint: {error.hint}" if error.hint else ""))

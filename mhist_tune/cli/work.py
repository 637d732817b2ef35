"""Commands that train: `worker`, `run`, `retrain`, `verify`, `demo`."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from mhist_tune.cli.next_step import follow_up_study
from mhist_tune.cli.options import (
    Finite,
    WorkOptions,
    data_option,
    devices_options,
    follow_up,
    json_option,
    required_data,
    show_advice,
    storage_option,
    weights_option,
    work_options,
)
from mhist_tune.errors import MhistTuneError, UsageError
from mhist_tune.events import Emit, Interrupted
from mhist_tune.storage.stages import Stage
from mhist_tune.words import counted, rough_duration

if TYPE_CHECKING:
    from mhist_tune.storage.database import Storage
    from mhist_tune.storage.openings import OpeningRow
    from mhist_tune.storage.studies import Study
    from mhist_tune.worker.options import Limits


_again_option = click.option(
    "--again",
    metavar="REASON",
    help="Open the test partition for another trial or other seeds, or after another study has opened it.",
)


@click.command("worker")
@click.argument("name", required=False)
@click.option("--wait", is_flag=True, help="Wait for further slots when none is left.")
@click.option(
    "--max-idle",
    type=Finite(),
    envvar="MHIST_TUNE_MAX_IDLE",
    metavar="MINUTES",
    help="Leave after so long without a slot (or MHIST_TUNE_MAX_IDLE).  [default: no limit]",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    metavar="N",
    help="Leave after N slots. A trial that goes on after a rung is another slot.",
)
@click.option(
    "--max-outage",
    type=Finite(),
    envvar="MHIST_TUNE_MAX_OUTAGE",
    default=10.0,
    show_default=True,
    metavar="MINUTES",
    help="Wait so long for an unreachable database, then exit with 4 (or MHIST_TUNE_MAX_OUTAGE).",
)
@work_options
@storage_option
@data_option
def worker_command(
    name: str | None,
    wait: bool,
    max_idle: float | None,
    count: int | None,
    max_outage: float,
    storage_url: str,
    data_root: Path | None,
    **work: Unpack[WorkOptions],
) -> None:
    """Work on one study, or on every study that has slots, until no slot is left.

    \b
    Example:
      mhist-tune worker vit --data MHIST --devices 0,1
      mhist-tune worker vit --data MHIST --wait --max-idle 30
    """
    from mhist_tune.worker.options import Limits

    limits = Limits(
        max_idle_s=None if max_idle is None else 60 * max_idle, count=count, max_outage_s=60 * min(max_outage, 1e6)
    )
    work_on(storage_url, required_data(data_root), name, wait=wait, limits=limits, **work)
    if name:
        follow_up_study(name, storage_url)


@click.command("run")
@click.argument("name_or_file", metavar="NAME|FILE.toml")
@_again_option
@work_options
@storage_option
@data_option
def run_command(
    name_or_file: str, again: str | None, storage_url: str, data_root: Path | None, **work: Unpack[WorkOptions]
) -> None:
    """Create the study if it is missing, search, confirm, retrain with ten seeds and report. Run it again to resume.

    \b
    Example:
      mhist-tune run vit --data MHIST
    """
    from mhist_tune.actions.create import checked
    from mhist_tune.actions.opening_reason import require_allowed
    from mhist_tune.definition import study_file
    from mhist_tune.errors import NoStorageError, StudyNotFoundError
    from mhist_tune.storage.database import open_storage
    from mhist_tune.storage.studies import load_study
    from mhist_tune.worker.devices import parse_devices

    root = required_data(data_root)
    try:
        with open_storage(storage_url, create=False) as storage:
            study = load_study(storage, name_or_file)
    except (NoStorageError, StudyNotFoundError):
        parse_devices(work["devices"], work["per_device"])
        weights = work["weights"][0] if len(work["weights"]) == 1 else None
        # An error ends the command before a storage is made.
        store = checked(study_file.load(name_or_file, weights=weights), root)
        with open_storage(storage_url) as storage:
            study = store(storage)
    with open_storage(storage_url, create=False) as storage:
        require_allowed(storage, study, again)  # before the search
    show_advice(study.definition, study.dataset.get("warnings", ()))
    _run_all(storage_url, study.name, root, again=again, **work)


@click.command("retrain")
@click.argument("name")
@click.option(
    "--trial",
    "trials",
    type=click.IntRange(min=0),
    multiple=True,
    metavar="N",
    help="Retrain this trial instead of the final choice. Repeatable with --with-validation: one trial of each row.",
)
@click.option(
    "--n-seeds",
    type=click.IntRange(2, 1000),
    help="Number of trainings.  [default: 10; for rows of a table, the number in its definition]",
)
@_again_option
@click.option(
    "--with-validation",
    is_flag=True,
    help="Describe a table's rows on the test partition, with models stopped early on validation images.",
)
@click.option("--enqueue", is_flag=True, help="Open the test partition and leave the trainings to other workers.")
@work_options
@storage_option
@data_option
def retrain_command(
    name: str,
    trials: tuple[int, ...],
    n_seeds: int | None,
    again: str | None,
    with_validation: bool,
    enqueue: bool,
    storage_url: str,
    data_root: Path | None,
    **work: Unpack[WorkOptions],
) -> None:
    """Retrain the final choice and the confirmed default on the whole train partition. Record an opening of the test
    partition and predict it.

    \b
    Example:
      mhist-tune retrain vit --data MHIST
      mhist-tune retrain vit --data MHIST --enqueue
      mhist-tune retrain report-augmentation --with-validation --data MHIST
    """
    from mhist_tune.actions.open_test import open_rows, open_test
    from mhist_tune.search.costs import N_SEEDS
    from mhist_tune.worker import mixed_versions

    root = required_data(data_root)
    if with_validation:
        with _opened(storage_url, name) as (storage, study):
            mixed_versions.require_one(study, may_mix=work["mix_versions"])
            open_rows(
                storage, study, data_root=root, trials=trials, n_seeds=n_seeds, again=again, announce=_print_receipt
            )
        if enqueue:
            follow_up("worker", name)
            return
        work_on(storage_url, root, name, stages=(Stage.DESCRIPTIVE,), **work)
        follow_up("report", name, "--against", "method-report")
        return
    if len(trials) > 1:
        raise UsageError("one trial is retrained at a time", hint="--with-validation describes several rows of a table")
    with _opened(storage_url, name) as (storage, study):
        mixed_versions.require_one(study, may_mix=work["mix_versions"])
        trial = trials[0] if trials else None
        open_test(
            storage,
            study,
            data_root=root,
            trial=trial,
            n_seeds=n_seeds or N_SEEDS,
            again=again,
            announce=_print_receipt,
        )
    if enqueue:
        follow_up("worker", name)
        return
    work_on(storage_url, root, name, stages=(Stage.RETRAIN,), **work)
    follow_up("report", name)


@click.command("verify")
@click.argument("name")
@devices_options
@weights_option
@json_option
@storage_option
@data_option
def verify_command(
    name: str,
    devices: str,
    per_device: int | None,
    weights: tuple[Path, ...],
    as_json: bool,
    storage_url: str,
    data_root: Path | None,
) -> None:
    """Recompute the report, train one seed again and print what agreed. Exit with 1 if something differs.

    Name the devices of the retraining: they set the number of threads, and the threads change the last bits.

    \b
    Example:
      mhist-tune verify vit --data MHIST
    """
    import json

    from mhist_tune.actions import verify
    from mhist_tune.cli.progress import progress
    from mhist_tune.storage.database import open_storage
    from mhist_tune.worker.supervisor import stop_on_signals

    root = required_data(data_root)
    try:
        with open_storage(storage_url, create=False) as storage, stop_on_signals() as stop, progress() as emit:
            comparisons = verify.of_records(storage, name, storage.root / "reports" / name)
            comparisons += verify.of_training(storage, name, root, devices, per_device, emit, stop, weights)
    except Interrupted as interrupted:
        raise SystemExit(128 + interrupted.signum) from None
    document = verify.to_document(name, comparisons)
    click.echo(json.dumps(asdict(document), indent=2) if as_json else verify.to_text(comparisons))
    if not document.repeated:
        raise MhistTuneError(
            f"{name} was not repeated exactly",
            hint="another processor, number of threads or version changes the last bits, and training magnifies them",
        )
    follow_up("best-trial", name, "--export", f"{name}-model")


@click.command("demo")
@click.option("--devices", default="all", show_default=True, metavar="all|cpu|0,1", help="Devices to train on.")
@storage_option
def demo_command(devices: str, storage_url: str) -> None:
    """Search, confirm, retrain and report on generated images. Takes minutes on a laptop.

    \b
    Example:
      mhist-tune demo
    """
    from mhist_tune.actions.create import create
    from mhist_tune.data.synthesize import synthesize
    from mhist_tune.definition import study_file
    from mhist_tune.storage.database import open_storage
    from mhist_tune.worker.devices import parse_devices

    parse_devices(devices, None)  # an error ends the command before a storage is made
    with open_storage(storage_url) as storage:
        root = storage.root / "demo-images"
        if not (root / "annotations.csv").exists():
            synthesize(root, n_images=160, image_size=64, seed=0)
        study = create(storage, study_file.load("demo"), root)
    work = WorkOptions(
        devices=devices, per_device=None, checkpoints=None, checkpoints_gb=None, weights=(), mix_versions=False
    )
    _run_all(storage_url, study.name, root, again="a demonstration on generated images", **work)


def _run_all(storage_url: str, name: str, root: Path, *, again: str | None, **work: Unpack[WorkOptions]) -> None:
    """Search, confirm, retrain the final choice with ten seeds, and print the report."""
    from mhist_tune.actions.open_test import open_test
    from mhist_tune.cli.results import print_report

    work_on(storage_url, root, name, stages=(Stage.SEARCH, Stage.CONFIRM), **work)
    with _opened(storage_url, name) as (storage, study):
        open_test(storage, study, data_root=root, again=again, announce=_print_receipt)
    work_on(storage_url, root, name, stages=(Stage.RETRAIN,), **work)
    print_report(storage_url, name, output=None, as_json=False)


def _print_receipt(opening: "OpeningRow", of_images: list["OpeningRow"]) -> None:
    from mhist_tune.actions import receipt

    click.echo(receipt.to_text(opening, of_images))
    sys.stdout.flush()


@contextlib.contextmanager
def _opened(storage_url: str, name: str) -> Iterator[tuple["Storage", "Study"]]:
    """Yield an existing storage and a study in it."""
    from mhist_tune.storage.database import open_storage
    from mhist_tune.storage.studies import load_study

    with open_storage(storage_url, create=False) as storage:
        yield storage, load_study(storage, name)


def work_on(
    storage_url: str,
    root: Path,
    name: str | None,
    *,
    stages: tuple[Stage, ...] | None = None,
    wait: bool = False,
    limits: "Limits | None" = None,
    **work: Unpack[WorkOptions],
) -> None:
    """Run workers until no slot is left. A signal that stops them ends the command with 128 + its number."""
    from mhist_tune.cli.progress import progress
    from mhist_tune.storage.database import open_storage
    from mhist_tune.storage.retries import Waiting
    from mhist_tune.storage.studies import load_study
    from mhist_tune.worker.checkpoint_places import open_files, require_answer
    from mhist_tune.worker.devices import parse_devices
    from mhist_tune.worker.options import Limits, WorkerOptions
    from mhist_tune.worker.supervisor import run_workers, stop_on_signals

    checkpoints, checkpoints_gb = work["checkpoints"], work["checkpoints_gb"]
    devices = parse_devices(work["devices"], work["per_device"])
    # A wrong name or place ends the command before workers start. A worker that waits makes a storage to wait for.
    limits = limits or Limits()
    at_most = f"for {rough_duration(limits.max_outage_s)} at most"
    waiting = Waiting(
        on_blocked=lambda error: click.echo(f"waiting {at_most}: {error}; {error.hint}", err=True),
        retry_s=limits.max_outage_s,
    )
    with open_storage(storage_url, create=name is None and wait, waiting=waiting) as storage:
        if name:
            load_study(storage, name)
        require_answer(open_files(checkpoints, storage.root))
    options = WorkerOptions(
        storage_url=storage_url,
        data_root=root,
        study=name,
        stages=stages,
        wait=wait,
        checkpoints=checkpoints,
        checkpoints_gb=checkpoints_gb,
        weights=work["weights"],
        mix_versions=work["mix_versions"],
        limits=limits,
        job=_job(),
    )
    ended: list[Mapping[str, Any]] = []
    try:
        with stop_on_signals() as stop, progress() as emit:
            run_workers(options, devices, _recording(emit, ended), stop)
    except Interrupted as interrupted:
        click.echo(
            f"stopped by {signal.Signals(interrupted.signum).name}; run the same command again to resume", err=True
        )
        raise SystemExit(128 + interrupted.signum) from None
    if ended and all(fields["state"] == "FAIL" for fields in ended):
        raise MhistTuneError(
            f"all {counted(len(ended), 'training')} of this worker failed, the last: {ended[-1].get('reason')}",
            hint=f"mhist-tune status {ended[-1]['study']} shows what is left",
        )


def _job() -> str | None:
    """Return the Slurm job that this process belongs to, as in the name of a worker; None outside Slurm."""
    environment = os.environ
    if task := environment.get("SLURM_ARRAY_TASK_ID"):
        return f"slurm{environment.get('SLURM_ARRAY_JOB_ID')}_{task}"
    return f"slurm{environment['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in environment else None


def _recording(emit: Emit, ended: list[Mapping[str, Any]]) -> Emit:
    """Return a function that passes events on, and keeps the fields of the ends of trainings in `ended`."""

    def record(event: str, /, **fields: Any) -> None:
        if event == "done":
            ended.append(fields)
        emit(event, **fields)

    return record

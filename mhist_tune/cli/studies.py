"""Commands that create, change and delete studies."""

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mhist_tune.cli.next_step import follow_up_study
from mhist_tune.cli.options import (
    checkpoints_option,
    data_option,
    follow_up,
    required_data,
    show_advice,
    storage_option,
)
from mhist_tune.errors import UsageError
from mhist_tune.storage.stages import StudyState

if TYPE_CHECKING:
    from mhist_tune.definition.study_file import StudyDefinition
    from mhist_tune.storage.database import Storage

_BY = "the command line"


@click.command("create-study")
@click.argument("name_or_file", metavar="NAME|FILE.toml")
@click.option("--n-trials", type=click.IntRange(min=1), help="Budget of the search instead of the definition's.")
@click.option(
    "--max-hours",
    type=click.FloatRange(min=0, min_open=True),
    metavar="H",
    help="Budget in device hours of search, confirmation and retraining; the search ends in time for these.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Hold a hyperparameter fixed; repeatable."
)
@click.option("--weights", metavar="FILE", help="Local safetensors file instead of the definition's weights.")
@click.option(
    "--from",
    "others",
    multiple=True,
    metavar="STUDY|all",
    help="Try first what did best in this finished study of the same space; repeatable. all: in every such study.",
)
@click.option("--dry-run", is_flag=True, help="Print the estimated cost and power; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print the estimate as one JSON document.")
@storage_option
@data_option
def create_study_command(
    name_or_file: str,
    n_trials: int | None,
    max_hours: float | None,
    settings: tuple[str, ...],
    weights: str | None,
    others: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    storage_url: str,
    data_root: Path | None,
) -> None:
    """Create a study from a packaged definition or a TOML file.

    \b
    Example:
      mhist-tune create-study vit --data MHIST --n-trials 40
      mhist-tune create-study vit --data MHIST --max-hours 12
      mhist-tune create-study vit --data MHIST --set epochs=20 --set image_size=112 --dry-run
      mhist-tune create-study second.toml --data MHIST --from resnet18 --from efficientnet
    """
    from mhist_tune.actions import create, estimate
    from mhist_tune.definition import study_file
    from mhist_tune.report import confirmation
    from mhist_tune.storage.database import open_storage

    root = required_data(data_root)
    changes: dict[str, Any] = {
        "n_trials": n_trials,
        "max_hours": max_hours,
        "overrides": parse_settings(settings),
        "weights": weights,
    }
    if dry_run:
        _dry_run(name_or_file, changes, others, storage_url, root, as_json=as_json)
        return
    if as_json:
        raise UsageError("--json is for --dry-run", hint="mhist-tune show-definition NAME prints the definition")
    definition = study_file.load(name_or_file, **changes)
    origin: dict[str, Any] = {}
    if others:
        with open_storage(storage_url, create=False) as storage:
            definition, origin = _started(storage, others, definition, name_or_file, changes, root)
    prepared = create.prepare(definition, root)  # an error ends the command before a storage is made
    store = create.store(definition, root, prepared, origin)
    with open_storage(storage_url) as storage:
        study = store(storage)
        click.echo(study_file.render(study.definition))
        show_advice(study.definition, study.dataset.get("warnings", ()))
        if study.definition.confirm:
            click.echo(f"Cost: {confirmation.cost(study)}", err=True)
        if study.definition.max_hours is not None:
            counts = estimate.counts_of(prepared.image_sets, prepared.n_test)
            click.echo(
                f"Budget: {estimate.budget_text(study.definition, counts, storage, estimate.default_device())}",
                err=True,
            )
        follow_up("worker", study.name)


def _started(
    storage: "Storage",
    others: tuple[str, ...],
    definition: "StudyDefinition",
    name_or_file: str,
    changes: dict[str, Any],
    root: Path,
) -> tuple["StudyDefinition", dict[str, Any]]:
    """Return the definition with configurations of other studies, and the setting with their origin; say it."""
    from mhist_tune.actions.start_from import start_from
    from mhist_tune.definition import study_file
    from mhist_tune.report import transferred

    start, record = start_from(storage, others, definition, root)
    for line in transferred.announced(record):
        click.echo(line, err=True)
    return study_file.load(name_or_file, **changes, start=start), transferred.to_setting(record)


def _dry_run(
    name_or_file: str,
    changes: dict[str, Any],
    others: tuple[str, ...],
    storage_url: str,
    root: Path,
    *,
    as_json: bool,
) -> None:
    """Print the complete definition, and its estimated cost on stderr; with `as_json` the cost alone, as JSON."""
    from mhist_tune.actions import create, estimate
    from mhist_tune.definition import study_file
    from mhist_tune.errors import NoStorageError
    from mhist_tune.storage.database import open_storage

    with contextlib.ExitStack() as stack:
        try:
            storage = stack.enter_context(open_storage(storage_url, create=False))
        except NoStorageError:
            if others:
                raise
            storage = None
        definition = study_file.load(name_or_file, **changes)
        if storage and others:
            definition, _ = _started(storage, others, definition, name_or_file, changes, root)
        prepared = create.prepare(definition, root)
        counts = estimate.counts_of(prepared.image_sets, prepared.n_test)
        document = estimate.estimate(definition, counts, storage, estimate.default_device())
    click.echo(json.dumps(document, indent=2) if as_json else study_file.render(definition))
    if not as_json:
        click.echo(estimate.to_text(document), err=True)
    show_advice(definition, prepared.warnings)
    follow_up("create-study", name_or_file)


def parse_settings(settings: tuple[str, ...]) -> dict[str, str]:
    """Return FIELD=VALUE pairs as a mapping.

    Raises:
        UsageError: a pair has no equals sign.
    """
    for setting in settings:
        if "=" not in setting:
            raise UsageError(f"--set {setting}: expected FIELD=VALUE", hint="for example --set epochs=20")
    return dict(setting.split("=", 1) for setting in settings)


@click.command("extend")
@click.argument("name")
@click.option("--n-trials", type=click.IntRange(min=1), metavar="N", help="Number of trials to add.")
@click.option(
    "--max-hours",
    type=click.FloatRange(min=0, min_open=True),
    metavar="H",
    help="The new budget in device hours, of all that the study has done and will do. Trials that did not fit begin.",
)
@click.option("--widen", metavar="FIELD=LOW..HIGH", help="Search a wider range from now on. Earlier trials stay valid.")
@storage_option
def extend_command(
    name: str, n_trials: int | None, max_hours: float | None, widen: str | None, storage_url: str
) -> None:
    """Add search slots to a study, or raise its budget of device hours.

    \b
    Example:
      mhist-tune extend vit --n-trials 20
      mhist-tune extend vit --n-trials 20 --widen learning_rate=1e-7..1e-2
      mhist-tune extend vit --max-hours 24
    """
    from mhist_tune.actions import change
    from mhist_tune.search import budget
    from mhist_tune.storage import studies
    from mhist_tune.storage.database import open_storage

    with open_storage(storage_url, create=False) as storage:
        study = studies.load_study(storage, name)
        if n_trials is None and max_hours is None:
            raise UsageError("nothing is added", hint="name a number with --n-trials or --max-hours")
        if widen:
            study = change.widen(storage, study, widen)
        if max_hours is not None:
            study = budget.raise_to(storage, study, max_hours, by=_BY)
        n_slots = change.extend(storage, study, n_trials or 0, by=_BY)
    click.echo(f"{name} has {n_slots} search slots")
    follow_up("worker", name)


def _set_state(name: str, storage_url: str, state: StudyState) -> None:
    from mhist_tune.actions import change
    from mhist_tune.storage import studies
    from mhist_tune.storage.database import open_storage

    with open_storage(storage_url, create=False) as storage:
        change.set_state(storage, studies.load_study(storage, name), state, by=_BY)


@click.command("pause")
@click.argument("name")
@storage_option
def pause_command(name: str, storage_url: str) -> None:
    """Pause a study: workers claim no further slots. Running trials continue to their end.

    \b
    Example:
      mhist-tune pause vit
    """
    _set_state(name, storage_url, StudyState.PAUSED)
    follow_up("continue", name)


@click.command("continue")
@click.argument("name")
@storage_option
def continue_command(name: str, storage_url: str) -> None:
    """Continue a paused study: workers claim its slots again.

    \b
    Example:
      mhist-tune continue vit
    """
    _set_state(name, storage_url, StudyState.ACTIVE)
    follow_up("worker", name)


@click.command("stop")
@click.argument("name")
@storage_option
def stop_command(name: str, storage_url: str) -> None:
    """End a search early: cancel its free slots. Running trials continue to their end.

    \b
    Example:
      mhist-tune stop vit
    """
    _set_state(name, storage_url, StudyState.STOPPED)
    follow_up_study(name, storage_url)


@click.command("thaw")
@click.argument("name")
@click.argument("trial", type=click.IntRange(min=0))
@storage_option
def thaw_command(name: str, trial: int, storage_url: str) -> None:
    """Continue a trial that waits at a rung, from its checkpoint.

    \b
    Example:
      mhist-tune thaw vit 17
    """
    from mhist_tune.actions import change
    from mhist_tune.storage import studies
    from mhist_tune.storage.database import open_storage

    with open_storage(storage_url, create=False) as storage:
        decision = change.thaw(storage, studies.load_study(storage, name), trial, by=_BY)
    click.echo(f"trial {trial} goes on after epoch {decision.epoch}, where its value was {decision.value:.3f}")
    follow_up("worker", name)


@click.command("delete-study")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@storage_option
@checkpoints_option
def delete_study_command(name: str, yes: bool, storage_url: str, checkpoints: str | None) -> None:
    """Delete a study with all its records, checkpoints, kept weights and small test images; reports stay.

    \b
    Example:
      mhist-tune delete-study demo --yes
    """
    from mhist_tune.actions.delete import delete
    from mhist_tune.storage.database import open_storage
    from mhist_tune.storage.studies import load_study

    with open_storage(storage_url, create=False) as storage:
        study = load_study(storage, name)
        if not yes:
            click.confirm(f"Delete {name} with all its trials and predictions?", abort=True, err=True)
        unreachable = delete(storage, study, checkpoints=checkpoints)
    click.echo(f"deleted {name}")
    for place in unreachable:
        click.echo(f"Warning: {place} may hold checkpoints of {name}, but cannot be reached from here", err=True)

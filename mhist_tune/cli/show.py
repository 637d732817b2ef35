"""Commands that show what a storage holds."""

import json
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mhist_tune.cli.options import PATH, follow_up, json_option, storage_option
from mhist_tune.errors import NoStorageError

if TYPE_CHECKING:
    from mhist_tune.storage.database import Storage

_WATCH_S = 2.0


@click.command("status")
@click.argument("name", required=False)
@click.option("--watch", is_flag=True, help="Refresh every two seconds until interrupted.")
@json_option
@storage_option
def status_command(name: str | None, watch: bool, as_json: bool, storage_url: str) -> None:
    """Show slots, workers and the best trial of one study, or of all.

    \b
    Example:
      mhist-tune status vit --watch
    """
    from mhist_tune.report import status, status_text
    from mhist_tune.storage import studies
    from mhist_tune.storage.database import open_storage

    with open_storage(storage_url, create=False) as storage:
        while True:
            chosen = [studies.load_study(storage, name)] if name else studies.list_studies(storage)
            statuses = [status.of_study(storage, study) for study in chosen]
            if as_json:
                documents = [asdict(summary) for summary in statuses]
                click.echo(json.dumps(documents[0] if name else documents, indent=2))
            else:
                if watch and sys.stdout.isatty():
                    click.clear()
                click.echo("\n\n".join(status_text.to_text(summary) for summary in statuses) or "no studies")
            if not watch:
                return
            time.sleep(_WATCH_S)


@click.command("studies")
@json_option
@storage_option
def studies_command(as_json: bool, storage_url: str) -> None:
    """List the studies of a storage and the definitions that can be created.

    \b
    Example:
      mhist-tune studies
    """
    from mhist_tune.definition import files
    from mhist_tune.definition.scores import SCORE_NAMES
    from mhist_tune.storage.database import open_storage

    try:
        with open_storage(storage_url, create=False) as storage:
            rows, nothing = _study_rows(storage), f"no studies in {storage.url_safe}"
    except NoStorageError as error:
        rows, nothing = [], str(error)
    packaged = sorted(files.packaged())
    if as_json:
        click.echo(json.dumps({"studies": rows, "definitions": packaged}, indent=2))
        return
    for row in rows:
        score = SCORE_NAMES[row["score"]]
        best = "" if row["best_value"] is None else f"  best val {score} {row['best_value']:.3f}"
        click.echo(f"{row['name']}  {row['state']}  {row['done']}/{row['slots']} trials{best}")
    if not rows:
        click.echo(nothing)
    click.echo(f"definitions: {', '.join(packaged)}", err=True)
    follow_up("create-study", "vit")


def _study_rows(storage: "Storage") -> list[dict[str, Any]]:
    from mhist_tune.report import status
    from mhist_tune.storage import studies
    from mhist_tune.storage.stages import SlotState, Stage

    rows = []
    for study in studies.list_studies(storage):
        summary = status.of_study(storage, study)
        search = summary.stages[Stage.SEARCH]
        rows.append(
            {
                "name": study.name,
                "state": study.state,
                "slots": sum(search.values()),
                "done": search.get(SlotState.DONE, 0),
                "score": study.definition.score,
                "best_value": summary.best.value if summary.best else None,
            }
        )
    return rows


@click.command("best-trial")
@click.argument("name")
@click.option(
    "--export",
    "folder",
    type=PATH,
    metavar="DIR",
    help="Write its retrained model into this folder.",
)
@json_option
@storage_option
def best_trial_command(name: str, folder: Path | None, as_json: bool, storage_url: str) -> None:
    """Show the trial with the best validation score and its hyperparameters.

    With --export, write the retrained model that the report is about: weights, preprocessing, threshold, model card.

    \b
    Example:
      mhist-tune best-trial vit --json
      mhist-tune best-trial vit --export vit-model
    """
    if folder is not None:
        _export(storage_url, name, folder, as_json=as_json)
        return
    from mhist_tune.report import status, status_text
    from mhist_tune.search import selection
    from mhist_tune.storage import ledger, studies
    from mhist_tune.storage.database import open_storage
    from mhist_tune.storage.stages import Stage

    with open_storage(storage_url, create=False) as storage:
        study = studies.load_study(storage, name)
        slots = ledger.slots(storage, study, Stage.SEARCH)
        best = status.best(storage, study)
    if best is None:
        raise selection.without_result(study, slots)
    if as_json:
        click.echo(json.dumps(asdict(best), indent=2))
    else:
        click.echo(status_text.best_text(best))
        for field, value in best.params.items():
            click.echo(f"  {field} = {value}")
    follow_up("retrain", name)


def _export(storage_url: str, name: str, folder: Path, *, as_json: bool) -> None:
    from mhist_tune.actions import export_model
    from mhist_tune.storage.database import open_storage

    with open_storage(storage_url, create=False) as storage:
        description = export_model.write(storage, name, folder)
    if as_json:
        click.echo(json.dumps(description, indent=2))
    else:
        click.echo(f"wrote trial {description['trial']}, seed {description['seed']}, to {folder}")
    click.echo(f"next: mhist-tune predict {shlex.quote(str(folder))} images/*.png", err=True)


@click.command("openings")
@click.option("--verify", "is_verified", is_flag=True, help="Check the chain. Exit with 1 if it is broken.")
@json_option
@storage_option
def openings_command(is_verified: bool, as_json: bool, storage_url: str) -> None:
    """List every opening of a test partition by the studies of a storage, deleted ones too, with its hash.

    \b
    Example:
      mhist-tune openings --verify
    """
    from mhist_tune.actions import receipt
    from mhist_tune.errors import MhistTuneError
    from mhist_tune.storage import opening_chain, openings
    from mhist_tune.storage.database import open_storage

    with open_storage(storage_url, create=False) as storage:
        rows = openings.load_all_openings(storage)
        chain = opening_chain.load_chain(storage)
        problems = opening_chain.problems(storage) if is_verified else None
    if as_json:
        document = {
            "openings": [asdict(row) for row in rows],
            "chain": [asdict(entry) for entry in chain],
            "problems": problems,
        }
        click.echo(json.dumps(document, indent=2))
    else:
        for row in rows:
            click.echo(receipt.one_line(row))
        if not rows:
            click.echo("the test partition was never opened")
        if problems == [] and chain:
            click.echo(f"the chain of {len(chain)} entries is whole; its last hash is {chain[-1].hash}")
    if problems:
        raise MhistTuneError(
            "; ".join(problems), hint="the records of the openings were changed outside of mhist-tune, or damaged"
        )
    follow_up(*(("openings", "--verify") if rows and not is_verified else ("studies",)))


@click.command("replay")
@click.argument("name")
@json_option
@storage_option
def replay_command(name: str, as_json: bool, storage_url: str) -> None:
    """Derive every suggestion of a search, and every look of the finalists' race, again from the records. Exit with 1
    if one differs.

    \b
    Example:
      mhist-tune replay vit
    """
    from mhist_tune.search import replay
    from mhist_tune.storage import studies
    from mhist_tune.storage.database import open_storage

    with open_storage(storage_url, create=False) as storage:
        document = replay.replay(storage, studies.load_study(storage, name))
    click.echo(json.dumps(asdict(document), indent=2) if as_json else replay.to_text(document))
    follow_up("status", name)
    if document.has_differences:
        sys.exit(1)

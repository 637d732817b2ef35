"""The command `repeat`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Unpack

import click

from mhist_tune.cli.options import (
    WorkOptions,
    data_option,
    follow_up,
    json_option,
    required_data,
    storage_option,
    work_options,
)


@click.command("repeat")
@click.argument("name")
@click.option("--n", "n", type=click.IntRange(2, 100), default=3, show_default=True, help="Number of repetitions.")
@click.option("--enqueue", is_flag=True, help="Only create the studies; workers elsewhere train them.")
@work_options
@json_option
@storage_option
@data_option
def repeat_command(
    name: str,
    n: int,
    enqueue: bool,
    as_json: bool,
    storage_url: str,
    data_root: Path | None,
    **work: Unpack[WorkOptions],
) -> None:
    """Repeat a whole search and its confirmation on other splits and seeds, and print the gain of tuning.

    No repetition opens the test partition. Run the command again to resume, or to print finished repetitions.

    \b
    Example:
      mhist-tune repeat vit --n 3 --data MHIST
      mhist-tune repeat vit --json
    """
    from mhist_tune.actions import repeat
    from mhist_tune.cli.work import work_on
    from mhist_tune.report import repetitions
    from mhist_tune.search import finalists
    from mhist_tune.storage.database import open_storage
    from mhist_tune.storage.stages import Stage
    from mhist_tune.storage.studies import load_study

    with open_storage(storage_url, create=False) as storage:
        study = load_study(storage, name)
        repeat.require_repeatable(study)
        members = repetitions.of_study(storage, study)
        if len(members) < n:
            members = repeat.create_all(storage, study, n, required_data(data_root))
        confirmed = {member.name: finalists.load(storage, member) for member in members}
    if enqueue:
        for member in members:
            click.echo(member.name)
        follow_up("worker", members[0].name)
        return
    for member in members:
        found = confirmed[member.name]
        if found is None or found.chosen is None:
            work_on(storage_url, required_data(data_root), member.name, stages=(Stage.SEARCH, Stage.CONFIRM), **work)
    with open_storage(storage_url, create=False) as storage:
        document = repetitions.load(storage, study)
    assert document is not None  # they were created above
    click.echo(json.dumps(asdict(document), indent=2) if as_json else repetitions.to_text(document))
    follow_up("report", name)

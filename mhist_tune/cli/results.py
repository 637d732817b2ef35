"""Commands that report on what was retrained: `report`, `compare` and `ensemble`."""

from collections.abc import Sequence
from pathlib import Path

import click

from mhist_tune.cli.options import PATH, follow_up, follow_up_file, json_option, storage_option

CHECKLISTS = ("tripod-ai", "claim", "stard-ai", "reforms")
"""The keys of the reporting checklists, see `report.checklist`. Help must not load that module."""


@click.command("report")
@click.argument("name")
@click.option(
    "--output",
    type=PATH,
    metavar="DIR",
    help="Folder for the files.  [default: below the storage folder]",
)
@click.option(
    "--against",
    type=click.Choice(["method-report"]),
    help="Print a table's validation results beside the numbers that the method report gives for its rows.",
)
@click.option(
    "--about",
    "facts",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Facts that only the author has: a TOML file with [about], or a dataset.toml. Repeatable.",
)
@click.option(
    "--checklist",
    type=click.Choice(CHECKLISTS),
    help="Also write this reporting checklist with the answers of the report, and print it.",
)
@click.option(
    "--prevalence",
    "prevalences",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Share of SSA that predictive values are given for. Repeatable.  [default: the test partition's]",
)
@json_option
@storage_option
def report_command(
    name: str,
    output: Path | None,
    against: str | None,
    facts: tuple[Path, ...],
    checklist: str | None,
    prevalences: tuple[float, ...],
    as_json: bool,
    storage_url: str,
) -> None:
    """Recompute every number from the stored predictions, print the table and write the files.

    \b
    Example:
      mhist-tune report vit --output vit-report --prevalence 0.1 --prevalence 0.3
      mhist-tune report vit --about study.toml --checklist tripod-ai
      mhist-tune report report-augmentation --against method-report
    """
    if against:
        _print_against(storage_url, name, output=output, as_json=as_json)
    else:
        print_report(
            storage_url,
            name,
            output=output,
            facts=facts,
            prevalences=prevalences,
            checklist=checklist,
            as_json=as_json,
        )


def print_report(
    storage_url: str,
    name: str,
    *,
    output: Path | None,
    facts: Sequence[Path] = (),
    prevalences: Sequence[float] = (),
    checklist: str | None = None,
    as_json: bool,
) -> None:
    """Write a study's report and print it or, with `checklist`, that checklist, as a table or as JSON."""
    from mhist_tune.report import about, checklist_files, files, report_text
    from mhist_tune.report.document import to_json
    from mhist_tune.storage.database import open_storage

    of_author = about.read(facts)
    with open_storage(storage_url, create=False) as storage:
        folder = output or storage.root / "reports" / name
        result = files.write(storage, name, folder, of_author, list(dict.fromkeys(prevalences)))
    if checklist is None:
        click.echo(to_json(result) if as_json else report_text.to_table(result))
        follow_up_file(folder / "report.html")
        return
    document = checklist_files.write(checklist, result, folder)
    click.echo(to_json(document) if as_json else checklist_files.to_markdown(document).rstrip())
    follow_up_file(folder / f"checklist-{checklist}.html")


def _print_against(storage_url: str, name: str, *, output: Path | None, as_json: bool) -> None:
    from mhist_tune.report import against
    from mhist_tune.report.document import to_json
    from mhist_tune.storage.database import open_storage

    with open_storage(storage_url, create=False) as storage:
        folder = output or storage.root / "reports" / name
        document = against.write(storage, name, folder)
    click.echo(to_json(document) if as_json else against.to_text(document))
    follow_up_file(folder / "reported.md")


@click.command("ensemble")
@click.argument("names", nargs=-1, required=True, metavar="NAME NAME...")
@json_option
@storage_option
def ensemble_command(names: tuple[str, ...], as_json: bool, storage_url: str) -> None:
    """Average the retrained models of two or more studies and report the result.

    \b
    Example:
      mhist-tune ensemble vit resnet18
    """
    from mhist_tune.report import ensemble
    from mhist_tune.report.document import to_json
    from mhist_tune.storage.database import open_storage

    with open_storage(storage_url, create=False) as storage:
        document = ensemble.build(storage, names)
    click.echo(to_json(document) if as_json else ensemble.to_text(document))
    follow_up("compare", *names)


@click.command("compare")
@click.argument("names", nargs=-1, required=True, metavar="NAME NAME...")
@click.option(
    "--output",
    type=PATH,
    metavar="DIR",
    help="Also write HTML with figures, Markdown and JSON.",
)
@json_option
@storage_option
def compare_command(names: tuple[str, ...], output: Path | None, as_json: bool, storage_url: str) -> None:
    """Compare the retrained models of two or more studies on the same test images.

    \b
    Example:
      mhist-tune compare vit resnet18
      mhist-tune compare vit resnet18 --output vit-resnet18
    """
    from mhist_tune.report import compare, compare_text
    from mhist_tune.report.document import to_json
    from mhist_tune.storage.database import open_storage

    with open_storage(storage_url, create=False) as storage:
        document = compare.write(storage, names, output) if output else compare.build(storage, names)
    click.echo(to_json(document) if as_json else compare_text.to_text(document))
    if output:
        follow_up_file(output / "compare.html")
    else:
        follow_up("compare", *names, "--output", "-".join(names))

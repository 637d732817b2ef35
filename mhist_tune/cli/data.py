"""The commands `data check`, `data synthesize` and `data show`."""

from pathlib import Path

import click

from mhist_tune.cli.options import PATH, SEED, follow_up, json_option


@click.group("data")
def data_command() -> None:
    """Check, make and show data sets in MHIST's layout."""


@data_command.command("check")
@click.argument("root", type=PATH, metavar="DIR")
@json_option
def check_command(root: Path, as_json: bool) -> None:
    """Check the files of both partitions and print counts.

    \b
    Example:
      mhist-tune data check MHIST
    """
    import json
    from dataclasses import asdict

    from mhist_tune.data.check import check, to_text
    from mhist_tune.errors import DataError

    report = check(root)
    click.echo(json.dumps(asdict(report), indent=2) if as_json else to_text(report))
    if report.problems:
        n = len(report.problems)
        raise DataError(f"{n} problem{'s' if n != 1 else ''} found under {root}", hint="see the list above")
    follow_up("create-study", "vit", "--data", str(root))


@data_command.command("synthesize")
@click.argument("root", type=PATH, metavar="DIR")
@click.option("--n-images", default=400, show_default=True, type=click.IntRange(24, 3152), help="Number of images.")
@click.option(
    "--image-size",
    default=224,
    show_default=True,
    type=click.IntRange(32, 1024),
    metavar="PX",
    help="Width and height.",
)
@click.option("--seed", default=0, show_default=True, type=SEED, help="Seed of the generator.")
def synthesize_command(root: Path, n_images: int, image_size: int, seed: int) -> None:
    """Write a generated H&E-like data set in MHIST's layout.

    \b
    Example:
      mhist-tune data synthesize generated --n-images 400 --image-size 64
    """
    from mhist_tune.data.synthesize import synthesize
    from mhist_tune.errors import DataError

    if (root / "annotations.csv").exists():
        raise DataError(f"{root} already holds a data set", hint="choose another folder")
    synthesize(root, n_images=n_images, image_size=image_size, seed=seed)
    click.echo(f"wrote {n_images} generated images to {root}")
    follow_up("data", "check", str(root))


@data_command.command("show")
@click.argument("root", type=PATH, metavar="DIR")
@click.option("--output", default=Path(), type=PATH, metavar="DIR", help="Folder for the figures.")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Chooses the images that are shown.")
@click.option("--sampling", metavar="STRATEGY", help="Also draw the votes of an epoch under this strategy.")
def show_command(root: Path, output: Path, seed: int, sampling: str | None) -> None:
    """Write a contact sheet of train images and the histogram of votes.

    \b
    Example:
      mhist-tune data show MHIST --output figures
      mhist-tune data show MHIST --sampling adasyn
    """
    from mhist_tune.data.figures import contact_sheet, vote_histogram
    from mhist_tune.definition import hyperparameters
    from mhist_tune.errors import UsageError
    from mhist_tune.writing import output_folder

    if sampling is not None and (problem := hyperparameters.check("sampling", sampling)):
        raise UsageError(f"--sampling {problem}")
    names = ["contact-sheet.png", "votes.png"]
    with output_folder(output, "the figures", hint="choose another folder: --output DIR"):
        contact_sheet(root, output / "contact-sheet.png", seed=seed)
        vote_histogram(root, output / "votes.png")
        if sampling is not None:
            from mhist_tune.training.sampling_figure import sampled_votes

            names.append(f"votes-{sampling}.png")
            sampled_votes(root, output / names[-1], sampling, seed=seed)
    for name in names:
        click.echo(output / name)

"""The commands `export` and `predict`."""

import json
from pathlib import Path

import click

from mhist_tune.cli.options import PATH, follow_up, json_option, storage_option


@click.command("export")
@click.argument("name")
@click.argument("folder", type=PATH, metavar="DIR")
@storage_option
def export_command(name: str, folder: Path, storage_url: str) -> None:
    """Write a study's trials, epochs and predictions as CSV files.

    \b
    Example:
      mhist-tune export vit vit-records
    """
    from mhist_tune.report import records_csv
    from mhist_tune.storage import studies
    from mhist_tune.storage.database import open_storage

    with open_storage(storage_url, create=False) as storage:
        written = records_csv.write(storage, studies.load_study(storage, name), folder)
    for table, n_rows in written.items():
        click.echo(f"{folder / table}.csv  {n_rows} rows")
    follow_up("report", name)


@click.command("predict")
@click.argument("folder", type=PATH, metavar="DIR")
@click.argument("images", nargs=-1, required=True, type=PATH, metavar="IMAGES...")
@json_option
def predict_command(folder: Path, images: tuple[Path, ...], as_json: bool) -> None:
    """Classify image files with an exported model. Print CSV: name, probability of SSA, class.

    \b
    Example:
      mhist-tune best-trial vit --export vit-model
      mhist-tune predict vit-model images/*.png > predictions.csv
    """
    import csv
    import sys
    from dataclasses import asdict, fields

    import torch

    from mhist_tune.training import saved_model

    model = saved_model.load(folder)
    predictions = saved_model.predict(model, images, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if as_json:
        rows = [asdict(prediction) for prediction in predictions]
        click.echo(json.dumps({"threshold": model.threshold, "predictions": rows}, indent=2))
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([field.name for field in fields(saved_model.Prediction)])
    for prediction in predictions:
        writer.writerow(asdict(prediction).values())

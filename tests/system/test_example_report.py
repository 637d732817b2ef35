"""The script that makes the committed example reports anew."""

import json
import runpy
from pathlib import Path

import numpy as np

from mhist_tune.storage import thumbnails
from mhist_tune.storage.database import open_storage
from tests.support import made_up


def test_examples_hold_no_image_of_a_data_set(tmp_path: Path) -> None:
    """Reports and comparison are written anew with their figures in the pages alone, and without any thumbnail."""
    url = f"sqlite:///{tmp_path}/storage/studies.db"
    with open_storage(url) as storage:
        for name, noise in (("one", 0.3), ("other", 0.6)):
            study = made_up.create(storage, name)
            made_up.open_test(storage, study, seeds=(0, 1))
            made_up.retrain(storage, study, n_slots=2, noise=noise)
            images = [f"{index:02}.png" for index in range(len(made_up.LABELS))]
            pictures = np.zeros((len(images), 3, 8, 8), dtype=np.uint8)
            thumbnails.write(thumbnails.path_of(storage, study), images, pictures)
    folder = tmp_path / "examples"
    folder.mkdir()
    runpy.run_path(str(Path(__file__).parents[2] / "tools" / "example_report.py"))["write_studies"](
        url, ["one", "other"], folder
    )

    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    tables = {
        f"{name}/{file}" for name in ("one", "other") for file in ("metrics.csv", "predictions.csv", "study.toml")
    }
    pages = {f"{name}.{kind}" for name in ("one/report", "other/report", "compare/compare") for kind in ("html", "md")}
    assert written == tables | pages | {"one/report.json", "other/report.json", "compare/compare.json"}
    assert not any(
        "data:image/" in (folder / page).read_text() or ".png)" in (folder / page).read_text() for page in pages
    )
    assert json.loads((folder / "one" / "report.json").read_text())["predictions"] == "one/predictions.csv"

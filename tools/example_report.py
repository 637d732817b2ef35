"""Write `docs/results/example-report/`: `python tools/example_report.py [sqlite:///PATH STUDY STUDY [STUDY...]]`.

Without arguments it writes `generated/` alone.
The studies are retrained ones of one SQLite storage. The script first copies the database to a folder without
thumbnails, since images of a data set must not get into a repository. `generated/` is the report of `mhist-tune demo`,
whose images are generated, with the records that `python -m tests.recompute` derives its numbers from. Figures are in
the pages alone, so no figure is stored twice.
"""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from sqlalchemy import make_url

from mhist_tune.report import build, compare, files, report_text
from mhist_tune.storage.database import open_storage

FOLDER = Path(__file__).parents[1] / "docs" / "results" / "example-report"


def write_studies(storage_url: str, names: list[str], folder: Path) -> None:
    """Write the report of each study, and their comparison, without any image of the data set."""
    with tempfile.TemporaryDirectory() as alone, contextlib.chdir(folder):
        database = make_url(storage_url).database or ""
        with (
            contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(Path(alone) / "studies.db")) as copy,
        ):
            source.backup(copy)
        with open_storage(f"sqlite:///{alone}/studies.db", create=False) as storage:
            for name in names:
                shutil.rmtree(name, ignore_errors=True)
                report = files.write(storage, name, Path(name))  # relative: the path of a file is in the report
                for figure in Path(name).glob("*.png"):
                    figure.unlink()
                definition = Path(name) / "study.toml"  # without the folder of the weights
                definition.write_text(
                    re.sub(r'(?m)^weights = ".*/', 'weights = "', definition.read_text("utf-8")), "utf-8"
                )
                (Path(name) / "report.md").write_text(report_text.to_markdown(report, figures=()), encoding="utf-8")
            compare.write(storage, names, Path("compare"))


def write_generated(folder: Path) -> None:
    """Run `mhist-tune demo`, and keep its report with the records of the study."""
    with tempfile.TemporaryDirectory() as alone:
        environment = {**os.environ, "MHIST_TUNE_STORAGE": f"sqlite:///{alone}/storage/studies.db"}
        generated = folder / "generated"
        shutil.rmtree(generated, ignore_errors=True)
        for command in (["demo", "--devices", "cpu"], ["export", "demo", str(generated / "records")]):
            subprocess.run([sys.executable, "-m", "mhist_tune", *command], env=environment, cwd=alone, check=True)
        written = Path(alone) / "storage" / "reports" / "demo"
        for path in written.iterdir():
            if path.suffix != ".png":
                shutil.copy(path, generated)
        with open_storage(environment["MHIST_TUNE_STORAGE"], create=False) as storage:
            text = report_text.to_markdown(build.build(storage, "demo"), figures=())
        (generated / "report.md").write_text(text, encoding="utf-8")
        document = (generated / "report.json").read_text("utf-8")
        (generated / "report.json").write_text(document.replace(f"{written}/", "generated/"), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1 and (len(sys.argv) < 4 or not sys.argv[1].startswith("sqlite:///")):
        sys.exit(__doc__)
    if len(sys.argv) > 1:
        url = make_url(sys.argv[1])
        write_studies(f"sqlite:///{Path(url.database or '').resolve()}", sys.argv[2:], FOLDER)
    write_generated(FOLDER)
